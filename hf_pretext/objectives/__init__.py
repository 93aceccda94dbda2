"""One file for each objective: its settings, corruption, head and loss. The name of the file is the objective's."""

from pathlib import Path


def files() -> dict[str, Path]:
    """The file of each objective, by the objective's name."""
    return {file.stem: file for file in sorted(Path(__file__).parent.glob("[!_]*.py"))}


def find(objective: str) -> Path:
    """The file of an objective. Raises `ValueError` for an unknown one, with those there are."""
    found = files()
    if objective not in found:  # a config.json from anywhere must not choose what is imported
        raise ValueError(f"No objective {objective!r} in this version of hf_pretext. Known: {', '.join(found)}.")
    return found[objective]
