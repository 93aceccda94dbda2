"""Reads results.json in the current format.

folder -> results.json -> results
"""

import math
import os
from pathlib import Path

from ..utils.foreign import read_json

RESULTS, CARD, REPORT = "results.json", "README.md", "report.png"
KEYS = {"recipe", "folder", "objective", "encoder", "data", "inputs", "seeds", "settings", "machine", "versions"}
SHAPES = {"objective": dict, "encoder": dict, "data": dict, "inputs": list, "seeds": list, "settings": dict,
          "machine": dict, "versions": dict, "card": dict, "usage": dict, "transfer": dict, "other_transfers": dict,
          "measures": dict, "health": dict, "audit": dict}  # fmt: skip


def read_results(folder: str | os.PathLike) -> dict:
    """Returns the content of a run's results.json in the current format; metrics that are NaN or infinite as None.

    Raises `ValueError` if the folder has no results.json, or a damaged or incomplete one."""
    path = Path(folder) / RESULTS
    if not path.exists():
        raise ValueError(f"{folder} has no {RESULTS}. Give the --output_dir of a finished run, which has one.")
    try:
        results = read_json(path, parse_constant=lambda name: None, parse_float=finite)
        results = upgraded(results) if isinstance(results, dict) else {}
        if not results.keys() >= KEYS:
            raise ValueError(f"{', '.join(sorted(KEYS - results.keys()))} missing")
        wrong = [name for name, kind in SHAPES.items() if not isinstance(results.get(name, kind()), kind)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} of the wrong type")
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # ValueError includes errors of JSON
        reason = str(error).removeprefix(f"{path} ")
        raise ValueError(f"{path} is not a valid results file: {reason}. Run the recipe again.") from error
    return results


def upgraded(results: dict) -> dict:
    """Converts results of version 1 to version 2. Returns other results unchanged.

    Version 1 has one name for all modalities ("modality"), stores the label of pairs with the options of captions, and
    has "towers". Version 2 has a list of modalities ("inputs"), stores the label as "pair_label", and has the class
    and the initial weights of each encoder ("encoders").
    """
    modality = results.get("modality")
    if "inputs" in results or not isinstance(modality, str):
        return results
    inputs, encoder = modality.split("_"), results["encoder"]
    captions, towers = results.get("captions") or {}, results.get("towers") or {}
    encoders = {inputs[0]: {"class": encoder["class"], "start": towers.get("vision") or encoder.get("start")}}
    if "text_class" in towers:
        encoders["text"] = {"class": towers["text_class"], "start": towers.get("text")}
    kept = {name: value for name, value in results.items() if name not in ("modality", "towers")}
    return {**kept, "inputs": inputs, "encoders": encoders, "pair_label": captions.get("pair_label")}


def transfers(results: dict) -> list[dict]:
    """Returns the transfer results of each evaluated encoder, the one of the first modality first."""
    return [results["transfer"], *results.get("other_transfers", {}).values()] if "transfer" in results else []


def expanded(path: str) -> str:
    """Expands a path that `utils.paths.relative` has shortened."""
    from huggingface_hub import constants

    return os.path.expanduser(path.replace("$HF_HOME", str(constants.HF_HOME), 1))


def finite(text: str) -> float | None:
    """Parses a number as float. Returns None for infinity and NaN."""
    return float(text) if math.isfinite(float(text)) else None


def device(machine: dict) -> str:
    """Returns what trained, in words: the accelerator, or the number of cores if there was none."""
    cores = machine["cores"]
    return machine.get("accelerator") or f"{cores} core{'s' * (cores != 1)}"


def hardware(machine: dict) -> str:
    """Returns the hardware that trained, in words: the accelerator, or the cores and their processor."""
    return device(machine) + ("" if machine.get("accelerator") else f" of {machine['processor']}")
