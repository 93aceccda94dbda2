"""How the folder of a text encoder pools its tokens, as sentence-transformers stores it.

1_Pooling/config.json -> "mean", "cls"
"""

import json
import os
from pathlib import Path

from ..features import Pooling

POOLING = "1_Pooling"  # folder
MODES: dict[Pooling, str] = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def saved_pooling(folder: str | os.PathLike) -> Pooling:
    """Returns the pooling of a folder of sentence-transformers; "mean" for any other folder.

    Raises `ValueError` for another pooling than the mean over the tokens or the first token, and for a damaged file."""
    path = Path(folder) / POOLING / "config.json"
    if not path.exists():
        return "mean"
    try:
        content = json.loads(path.read_text())
        modes = {name for name, value in content.items() if name.startswith("pooling_mode_") and value is True}
        modes |= {MODES.get(name, name) for name in str(content.get("pooling_mode") or "").split("+") if name}
    except (ValueError, AttributeError, OSError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}). Get the folder again.") from error
    for pooling, mode in MODES.items():
        if modes == {mode}:
            return pooling
    raise ValueError(
        f"{path} pools by {', '.join(sorted(modes)) or 'nothing'}, but only the mean over the tokens and the first "
        "token can be evaluated. Remove the file to measure the mean."
    )
