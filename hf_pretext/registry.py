"""Objectives, modalities and measures: found by the name of their file, and imported normally.

"objectives", "rotation" -> hf_pretext/objectives/rotation.py -> RotationForPreTraining
"""

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

OBJECTIVES = "objectives"


def names(package: str) -> list[str]:
    """The names of a package's files, in order. A folder that somebody appends to the package's `__path__` counts."""
    folders = import_module(f"{__package__}.{package}").__path__
    return sorted({file.stem for folder in folders for file in Path(folder).glob("[!_]*.py")})


def find(package: str, name: str) -> ModuleType:
    """The module of this name in a package. Raises `ValueError` for an unknown name, with those there are."""
    known = names(package)
    if name not in known:  # a config.json from anywhere must not choose what is imported
        kind = package.removesuffix("s").replace("modalitie", "modality")
        raise ValueError(f"No {kind} {name!r} in this version of hf_pretext. Known: {', '.join(known)}.")
    return import_module(f"{__package__}.{package}.{name}")


@cache
def objective_class(objective: str) -> type:
    """The class of an objective, a `PretextModel`. Raises `ValueError` for an unknown one."""
    members = vars(find(OBJECTIVES, objective)).values()
    return next(c for c in members if isinstance(c, type) and getattr(c, "objective", None) == objective)


def described(objective: str) -> dict[str, str]:
    """The task in words (`summary`) and where it is from (`sources`), from the docstring of an objective's file."""
    summary, sources, *_ = inspect.getdoc(find(OBJECTIVES, objective)).split("\n\n")
    return {"summary": " ".join(summary.split()), "sources": " ".join(sources.split())}


@cache
def modality_class(modality: str) -> type:
    """The class of a kind of data. Raises `ValueError` for an unknown one."""
    module = find("modalities", modality)
    members = [value for value in vars(module).values() if isinstance(value, type)]
    return next(c for c in members if c.__module__ == module.__name__ and getattr(c, "name", None) == modality)
