"""results.json, read: what a run measured, in the form of today.

folder -> results.json -> results
"""

import json
import math
import os
from pathlib import Path

RESULTS, CARD, REPORT = "results.json", "README.md", "report.png"
KEYS = {"recipe", "folder", "objective", "encoder", "data", "inputs", "seeds", "settings", "machine", "versions"}
SHAPES = {"objective": dict, "encoder": dict, "data": dict, "inputs": list, "seeds": list, "settings": dict,
          "machine": dict, "versions": dict, "card": dict, "usage": dict, "transfer": dict, "other_transfers": dict,
          "measures": dict}  # fmt: skip


def read_results(folder: str | os.PathLike) -> dict:
    """What a run measured; metrics that are no numbers (NaN, infinity) as None.

    Raises `ValueError` where the folder holds no results, or a file that is none."""
    path = Path(folder) / RESULTS
    if not path.exists():
        raise ValueError(f"{folder} holds no {RESULTS}: a recipe writes it at its end. Give the --output_dir of a run.")
    try:
        results = json.loads(path.read_text(), parse_constant=lambda name: None, parse_float=finite)
        results = upgraded(results) if isinstance(results, dict) else {}
        if not results.keys() >= KEYS:
            raise ValueError("it lacks what a run writes")
        wrong = [name for name, kind in SHAPES.items() if not isinstance(results.get(name, kind()), kind)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} in it are not of the kind that a run writes")
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # of JSON, too
        raise ValueError(
            f"{path} is no record of a run: {error}. Run the recipe, or evaluate it, once more."
        ) from error
    return results


def upgraded(results: dict) -> dict:
    """Results of version 1 in the form of version 2; others as they are.

    Version 1 named a way of training ("modality"), where version 2 lists the kinds of data ("inputs"); kept the label
    of pairs with the captions' options; and had "towers", where version 2 has the class and the start of each encoder.
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
    """Transfer of each encoder that was evaluated, that of the first kind of data first."""
    return [results["transfer"], *results.get("other_transfers", {}).values()] if "transfer" in results else []


def expanded(path: str) -> str:
    """A path of this machine, as `relative` has shortened it."""
    from huggingface_hub import constants

    return os.path.expanduser(path.replace("$HF_HOME", str(constants.HF_HOME), 1))


def finite(text: str) -> float | None:
    """A number; None for one that is too large to be one."""
    return float(text) if math.isfinite(float(text)) else None


def hardware(machine: dict) -> str:
    """What trained, in words: the accelerator where there was one, or the cores."""
    return machine.get("accelerator") or f"{machine['cores']} cores of {machine['processor']}"
