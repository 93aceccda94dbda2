"""Files for `SentenceTransformer(folder)`, which then returns the mean over a text's tokens, as `features.pool` does.

width, max_length -> modules.json, sentence_bert_config.json, 1_Pooling/config.json
"""

import os
from pathlib import Path

from ..utils.files import write_json

POOLING = "1_Pooling"


def write_modules(folder: str | os.PathLike, width: int, max_length: int) -> None:
    """Writes the files of sentence-transformers to the folder of a checkpoint with a tokenizer.

    width: size of the encoder's hidden states. max_length: tokens that a text is truncated to, with special tokens.
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
        {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "include_prompt": True},
    )
