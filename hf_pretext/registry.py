"""Finds objectives, modalities and measures by the name of their file.

"objectives", "rotation" -> hf_pretext/objectives/rotation.py -> RotationForPreTraining
"""

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

OBJECTIVES = "objectives"


def names(package: str) -> list[str]:
    """Returns the names of a package's files, sorted. Folders that are appended to its `__path__` are included."""
    folders = import_module(f"{__package__}.{package}").__path__
    return sorted({file.stem for folder in folders for file in Path(folder).glob("[!_]*.py")})


def find(package: str, name: str) -> ModuleType:
    """Imports the module of this name from a package. Raises `ValueError` with the known names for an unknown name."""
    known = names(package)
    if name not in known:  # a downloaded config.json must not import arbitrary modules
        kind = package.removesuffix("s").replace("modalitie", "modality")
        raise ValueError(f"No {kind} {name!r} in this version of hf_pretext. Known: {', '.join(known)}.")
    return import_module(f"{__package__}.{package}.{name}")


@cache
def objective_class(objective: str) -> type:
    """Returns the class of an objective, a `PretextModel`. Raises `ValueError` for an unknown objective."""
    members = vars(find(OBJECTIVES, objective)).values()
    return next(c for c in members if isinstance(c, type) and getattr(c, "objective", None) == objective)


def preset(objective: str) -> Any:
    """Returns the defaults of an objective, a `presets.Preset`: `PRESET` of its file. Raises `ValueError` for an
    unknown objective, and for one without defaults."""
    defaults = getattr(find(OBJECTIVES, objective), "PRESET", None)
    if defaults is None:
        raise ValueError(f"The file of the objective {objective} has no PRESET, its defaults. Run a recipe of it.")
    return defaults


def described(objective: str) -> dict[str, str]:
    """Returns the `summary` and the `sources` (papers) of an objective, from the docstring of its file."""
    summary, sources, *_ = inspect.getdoc(find(OBJECTIVES, objective)).split("\n\n")
    return {"summary": " ".join(summary.split()), "sources": " ".join(sources.split())}


@cache
def modality_class(modality: str) -> type:
    """Returns the class of a kind of data. Raises `ValueError` for an unknown kind."""
    module = find("modalities", modality)
    members = [value for value in vars(module).values() if isinstance(value, type)]
    return next(c for c in members if c.__module__ == module.__name__ and getattr(c, "name", None) == modality)
