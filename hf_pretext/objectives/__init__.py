"""One file for each objective: its settings, corruption, head and loss. The name of the file is the objective's."""

from pathlib import Path


def find(objective: str) -> Path:
    """The file of an objective. Raises `ValueError` for an unknown one, with those there are."""
    files = {file.stem: file for file in Path(__file__).parent.glob("[!_]*.py")}
    if objective not in files:  # a config.json from anywhere must not choose what is imported
        raise ValueError(
            f"No objective {objective!r} in this version of hf_pretext. Known: {', '.join(sorted(files))}."
        )
    return files[objective]
