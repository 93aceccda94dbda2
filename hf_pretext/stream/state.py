"""State of the stream in a checkpoint, and the checks before a run resumes from it.

data + order + settings -> stream.json -> the same order again, or an error that names the change
"""

import json
import os
from pathlib import Path

from ..utils.paths import with_names
from .mixture import Mixture
from .order import MixedOrder
from .settings import StreamSettings

STREAM_STATE = "stream.json"


def state_of(data: Mixture, order: MixedOrder, settings: StreamSettings) -> dict:
    """Returns everything that the order of the samples depends on, for JSON. settings: with a number of parts."""
    return {
        "seed": order.seed,
        "parts": settings.parts,
        "windows": [of_source.window for of_source in order.orders],
        "mixture_weights": data.weights,
        "together": order.together,
        "source": data.fingerprint(),
    }


def load_state(
    checkpoint: str | os.PathLike, data: Mixture, settings: StreamSettings, seed: int, together: int = 1
) -> dict:
    """Loads the state of the stream from a checkpoint, for a run on `data` that resumes. `windows` and `watched` are
    None if the data has changed and `allow_changed_source` is set. together: consecutive samples that are of one source
    (see `reader.make_order`).

    Raises `ValueError` for an incomplete checkpoint, and if the order of the samples would change."""
    check_is_checkpoint(checkpoint)
    state = json.loads((Path(checkpoint) / STREAM_STATE).read_text())
    for name, value in {"seed": seed, "parts": settings.parts, "mixture_weights": data.weights}.items():
        if state[name] != value and not (name == "parts" and value is None):
            raise ValueError(
                f"{checkpoint} was trained with {name} {state[name]}, not {value}: the order of samples would change. "
                f"Give --{name} {state[name]}, or start a new run."
            )
    before = state.get("together", 1)
    if before != together:
        raise ValueError(
            f"{checkpoint} was trained with {before} samples per step, but this run has {together}. The order of "
            "samples would change, because each step uses one dataset. Set --per_device_train_batch_size and "
            f"--gradient_accumulation_steps so that a step of all processes has {before} samples, or start a new run."
        )
    state["source"] = with_names(state["source"], data.fingerprint())  # a pushed state has hashes of file names
    contents = with_names(state.get("contents") or [], [source.rows.contents.files for source in data.sources])
    changed = difference(state["source"], data.fingerprint()) or changed_contents(contents, data)
    if changed and not settings.allow_changed_source:
        raise ValueError(
            f"{checkpoint} was trained on other data: {changed}. The samples or their order would change. Resume on "
            "the same data, or give --allow_changed_source to train on this data in a new order."
        )
    return {**state, "windows": None, "watched": None} if changed else state


def check_is_checkpoint(folder: str | os.PathLike) -> None:
    """Raises `ValueError` if a folder has no state of the stream."""
    if not (Path(folder) / STREAM_STATE).exists():
        raise ValueError(
            f"{folder} has no {STREAM_STATE}: it is not a complete checkpoint of a hf_pretext run. Give a "
            "checkpoint-* folder, or --resume_from_checkpoint last."
        )


def difference(before: list[dict], now: list[dict]) -> str:
    """Describes the changes between two fingerprints, at most 5 in detail. Empty if they agree. Ignores names of
    sources."""
    if len(before) != len(now):
        return f"{len(before)} datasets before, {len(now)} now"
    changes = []
    for old, new in zip(before, now, strict=True):
        files, others = old["files"], new["files"]
        if isinstance(files, dict) and isinstance(others, dict):
            changes += [f"{name} is missing" for name in files if name not in others]
            changes += [f"{name} is new" for name in others if name not in files]
            changes += [
                f"{name} had {files[name]:,} bytes and has {others[name]:,}"
                for name in files
                if name in others and files[name] != others[name]
            ]
        elif files != others:
            changes.append(f"the names or sizes of the files of {new['name']} have changed")
        if old["rows"] != new["rows"]:
            changes.append(f"{new['name']} had {old['rows']} rows and has {new['rows']}")
        elif old["pieces"] != new["pieces"]:
            changes.append(f"the rows of {new['name']} are divided into other pieces")
    return listed(changes)


def changed_contents(recorded: list[dict], data: Mixture) -> str:
    """Describes the changes of files that kept their sizes, like `difference`. recorded: `Mixture.contents` in the
    checkpoint; empty in checkpoints of earlier versions."""
    changes = []
    for source, before in zip(data.sources, recorded, strict=False):
        names = source.rows.contents.changed(before)
        changes += [f"{source.prefix}{name} has the same size and other content" for name in names]
    return listed(changes)


def listed(changes: list[str]) -> str:
    return "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")


def check_length(data: Mixture, max_steps: int, keyed_by: str | None = None) -> None:
    """Raises `ValueError` for 0 steps, and if the length of the data is unknown but needed: `max_steps` is not set, or
    rows must have numbers. keyed_by: name of an objective that needs the numbers of the rows; None for others."""
    if max_steps == 0:
        raise ValueError("--max_steps 0 trains nothing. Give at least 1, or -1 to train for --num_train_epochs.")
    if data.endless and max_steps <= 0:
        raise ValueError(f"{data.name} has no known length, so --num_train_epochs can't be used. Give --max_steps.")
    if data.endless and keyed_by is not None:
        raise ValueError(
            f"{data.name} has no known length, but {keyed_by} keeps a value for each row, by its number. Give data "
            "with a length: a folder, Parquet or tar files, a list, or a `datasets.Dataset`."
        )
