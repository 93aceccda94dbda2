"""Options of texts and captions."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict

from ..utils.settings import accepts_ints


@strict
@dataclass
class TextArguments:
    """How texts are read.

    text_column: Their column, where its type and name don't show it.
    eval_text_column: The same in --eval_dataset.
    sample_by: What a document of a plain text file is: a line, a paragraph (up to a blank line) or the full file
        (document). Default: paragraphs where a file has a blank line, else lines.
    tokenizer: A folder or Hub id, or open_clip:ViT-B-32 for that of an open_clip model; an --encoder brings its own,
        and without either one is trained on the texts.
    tokenizer_kind: What is trained: wordpiece, bpe (of bytes) or unigram.
    vocab_size: Tokens of the trained one, at most.
    lowercase: Whether the trained one reads upper and lower case, and accents, as the same.
    max_length: Tokens of a sequence, the special ones included. Short documents lie side by side in it, long ones and
        captions are cut.
    """

    _argument_group_name: ClassVar[str] = "texts"

    text_column: str | None = None
    eval_text_column: str | None = None
    sample_by: Literal["line", "paragraph", "document"] | None = None
    tokenizer: str | None = None
    tokenizer_kind: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    vocab_size: int = 8000
    lowercase: bool = True
    max_length: int = 128


@accepts_ints
@strict
@dataclass
class CaptionArguments:
    """Which captions are shown. --text_column is the caption, and --max_length cuts it.

    other_captions: Further columns of captions: texts; lists of keywords, of which some are drawn, in any order; or
        texts by language, of which one is drawn. Evaluation sees the caption alone.
    caption_weights: How often the caption and each of --other_captions is drawn; default: all alike.
    """

    _argument_group_name: ClassVar[str] = "captions"

    other_captions: list[str] | None = None
    caption_weights: list[float] | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The further columns: `{canonical name: name in the data}`."""
        return {f"other_captions/{name}": name for name in self.other_captions or []}

    def validate_weights(self):
        weights, columns = self.caption_weights, 1 + len(self.other_captions or [])
        if weights is not None and (len(weights) != columns or min(weights) < 0 or not sum(weights)):
            raise ValueError(
                f"caption_weights needs {columns} numbers, one for the caption and one for each of other_captions, "
                f"none below 0 and not all 0, but is {weights}."
            )
