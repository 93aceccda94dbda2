"""Dataclasses of settings: builds them from keywords, and reads field descriptions from their docstrings."""

import dataclasses
import re

from huggingface_hub.errors import StrictDataclassError


def make_settings(settings_class: type, **settings):
    """Returns a dataclass of settings from keywords.

    Raises `ValueError` for an unknown name or a value of the wrong type. The message lists all settings.
    """
    known = {field.name: field for field in dataclasses.fields(settings_class)}
    listing = ", ".join(f"{name}: {getattr(f.type, '__name__', f.type)} = {f.default!r}" for name, f in known.items())
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{settings_class.__name__} has no setting {', '.join(unknown)}. Its settings: {listing}.")
    for name, value in settings.items():
        if known[name].type is float and type(value) is int:
            settings[name] = float(value)
    try:
        return settings_class(**settings)
    except StrictDataclassError as error:
        reason = str(error).partition("\n")[2].strip().removeprefix("ValueError: ").removeprefix("TypeError: ")
        raise ValueError(f"{settings_class.__name__}: {reason} Its settings: {listing}.") from error


def refuse_without_effect(settings, name: str, without_effect: bool, use: str) -> None:
    """Raises `ValueError` if the setting `name` was changed, but has no effect. settings: a dataclass. use: what the
    setting is for."""
    default = next(field.default for field in dataclasses.fields(settings) if field.name == name)
    if without_effect and getattr(settings, name) != default:
        raise ValueError(f"{name}={getattr(settings, name)} is for {use}. Leave it at its default, {default}.")


def accepts_ints(settings: type) -> type:
    """Class decorator for strict dataclasses: fields of type float also accept an int, 1 for 1.0."""
    floats = {field.name for field in dataclasses.fields(settings) if field.type in (float, float | None)}
    set_attribute = settings.__setattr__

    def set_field(self, name: str, value) -> None:
        set_attribute(self, name, float(value) if name in floats and type(value) is int else value)

    settings.__setattr__ = set_field
    return settings


def field_docs(type_: type) -> dict[str, str]:
    """Returns the descriptions of fields from the docstrings of a dataclass and its bases.

    A description is a paragraph that begins with `name: ` or `name, other: `."""
    name = "(?:" + "|".join(field.name for field in dataclasses.fields(type_)) + ")"
    documented: dict[str, str] = {}
    for base in reversed([base for base in type_.__mro__ if dataclasses.is_dataclass(base)]):
        text = re.sub(rf"\n\s*({name}(?:, {name})*): ", r"\0\1\0", base.__doc__ or "")
        parts = re.sub(r"\s*\n\s*", " ", text).split("\0")
        for names, words in zip(parts[1::2], parts[2::2], strict=True):
            documented |= dict.fromkeys(names.split(", "), words.strip())
    return documented
