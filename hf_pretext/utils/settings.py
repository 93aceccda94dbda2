"""Dataclasses of settings: made from keywords, and described by their docstrings."""

import dataclasses
import re

from huggingface_hub.errors import StrictDataclassError


def make_settings(settings_class: type, **settings):
    """A dataclass of settings from keywords, with errors that say which settings there are.

    Raises `ValueError` for an unknown name or a value of the wrong type.
    """
    known = {field.name: field for field in dataclasses.fields(settings_class)}
    told = ", ".join(f"{name}: {getattr(f.type, '__name__', f.type)} = {f.default!r}" for name, f in known.items())
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{settings_class.__name__} has no setting {', '.join(unknown)}. Its settings: {told}.")
    for name, value in settings.items():
        if known[name].type is float and type(value) is int:
            settings[name] = float(value)
    try:
        return settings_class(**settings)
    except StrictDataclassError as error:
        reason = str(error).partition("\n")[2].strip().removeprefix("ValueError: ").removeprefix("TypeError: ")
        raise ValueError(f"{settings_class.__name__}: {reason} Its settings: {told}.") from error


def accepts_ints(settings: type) -> type:
    """A strict dataclass whose fields of type float also take an int: 1 for 1.0."""
    floats = {field.name for field in dataclasses.fields(settings) if field.type is float}
    own = settings.__setattr__

    def set_field(self, name: str, value) -> None:
        own(self, name, float(value) if name in floats and type(value) is int else value)

    settings.__setattr__ = set_field
    return settings


def field_docs(type_: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of those that it inherits from say of its fields: paragraphs that begin
    with `name: `, or `name, other: `."""
    name = "(?:" + "|".join(field.name for field in dataclasses.fields(type_)) + ")"
    words = {}
    for base in reversed(type_.__mro__):
        text = re.sub(rf"\n\s*({name}(?:, {name})*): ", r"\0\1\0", base.__doc__ or "")
        parts = re.sub(r"\s*\n\s*", " ", text).split("\0")
        for names, sentence in zip(parts[1::2], parts[2::2], strict=True):
            words |= dict.fromkeys(names.split(", "), sentence.strip())
    return words
