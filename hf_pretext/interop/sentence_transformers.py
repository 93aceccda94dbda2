"""Files for `SentenceTransformer(folder)`, which then pools a text's tokens as `features.pool` does.

width, max_length, pooling -> modules.json, sentence_bert_config.json, 1_Pooling/config.json
"""

import os
from pathlib import Path

from ..features import Pooling
from ..modalities._saved_pooling import MODES, POOLING
from ..utils.files import write_json


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
