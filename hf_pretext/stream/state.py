"""What a checkpoint holds of the data, and whether a run can go on from it.

data + order + settings -> stream.json -> the same order again, or an error that says what has changed
"""

import json
import os
from pathlib import Path

from .mixture import Mixture
from .order import MixedOrder
from .settings import StreamSettings

STREAM_STATE = "stream.json"


def state_of(data: Mixture, order: MixedOrder, settings: StreamSettings) -> dict:
    """What the order of samples depends on; for JSON."""
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
    """The state in a checkpoint, for a run on `data` to go on from; `windows` and `watched` are None where the data has
    changed and that is allowed. together: samples in a row that are of one source (see `reader.make_order`).

    Raises `ValueError` for what is no whole checkpoint, and where the order of samples would be another."""
    file = Path(checkpoint) / STREAM_STATE
    if not file.exists():
        raise ValueError(
            f"{checkpoint} has no {STREAM_STATE}: it is no whole checkpoint of a hf_pretext run. Give a checkpoint-* "
            "folder, or --resume_from_checkpoint last."
        )
    state = json.loads(file.read_text())
    for name, value in {"seed": seed, "parts": settings.parts, "mixture_weights": data.weights}.items():
        if state[name] != value:
            raise ValueError(
                f"{checkpoint} was trained with {name} {state[name]}, not {value}: the order of samples would be "
                f"another. Give --{name} {state[name]}, or start afresh."
            )
    before = state.get("together", 1)
    if before != together:
        raise ValueError(
            f"{checkpoint} was trained in steps of one source, each of {before} samples, not {together}: the order of "
            f"samples would be another. Give a --per_device_train_batch_size that makes {before} with all processes "
            "and --gradient_accumulation_steps, or start afresh."
        )
    changed = difference(state["source"], data.fingerprint())
    if changed and not settings.allow_changed_source:
        raise ValueError(
            f"{checkpoint} was trained on other data: {changed}. The order of samples would be another. Resume on the "
            "same data, or go on with this in an order of its own with --allow_changed_source."
        )
    return {**state, "windows": None, "watched": None} if changed else state


def difference(before: list[dict], now: list[dict]) -> str:
    """What has changed between two fingerprints, in words; nothing where they agree. Names of sources do not count."""
    if len(before) != len(now):
        return f"{len(before)} datasets then, {len(now)} now"
    changes = []
    for old, new in zip(before, now, strict=True):
        files, others = old["files"], new["files"]
        if isinstance(files, dict) and isinstance(others, dict):
            changes += [f"{name} is gone" for name in files if name not in others]
            changes += [f"{name} is new" for name in others if name not in files]
            changes += [
                f"{name} had {files[name]:,} bytes and has {others[name]:,}"
                for name in files
                if name in others and files[name] != others[name]
            ]
        elif files != others:
            changes.append(f"the names or sizes of the files of {new['name']}")
        if old["rows"] != new["rows"]:
            changes.append(f"{new['name']} had {old['rows']} rows and has {new['rows']}")
        elif old["pieces"] != new["pieces"]:
            changes.append(f"the rows of {new['name']} are cut into other pieces")
    return "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")


def check_length(data: Mixture, max_steps: int) -> None:
    """Raises `ValueError` where training is to be counted in epochs of data whose length nobody knows."""
    if data.endless and max_steps <= 0:
        raise ValueError(
            f"{data.name} has no known length, so --num_train_epochs means nothing. Say how long with --max_steps."
        )
