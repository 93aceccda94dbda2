"""Files for `SentenceTransformer(folder)`, which then pools a text's tokens as `features.pool` does.

width, max_length, pooling -> modules.json, sentence_bert_config.json, 1_Pooling/config.json
folder -> pooling
"""

import json
import os
from pathlib import Path

from ..features import Pooling
from ..utils.files import write_json

POOLING = "1_Pooling"
MODES: dict[Pooling, str] = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def write_modules(folder: str | os.PathLike, width: int, max_length: int, pooling: Pooling = "mean") -> None:
    """Writes the files of sentence-transformers to the folder of a checkpoint with a tokenizer.

    width: size of the encoder's hidden states. max_length: tokens that a text is truncated to, with special tokens.
    pooling: mean over the tokens, or the first token.
    """
    folder = Path(folder)
    kinds = {"": "Transformer", POOLING: "Pooling"}
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds.items())
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    write_json(
        folder / POOLING / "config.json",
        {
            "word_embedding_dimension": width,
            **{name: mode == pooling for mode, name in MODES.items()},
            "include_prompt": True,
        },
    )


def read_pooling(folder: str | os.PathLike) -> Pooling:
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
