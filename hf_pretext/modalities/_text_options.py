"""Options of texts and captions, and the tokenizer that they name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from accelerate import PartialState
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedTokenizerBase

from ..data.captions import Captions, language_token
from ..data.corpus import document_tokens
from ..data.tokenizer import brought_tokenizer, train_tokenizer
from ..features import positions
from ..utils.settings import accepts_ints
from ._modality import Context
from ._text_fit import check_languages

OTHERS = "other_captions/"  # begin of the canonical names of columns of further captions


@strict
@dataclass
class TextArguments:
    """Options of texts.

    text_column: Column of the texts or captions; in tars also a field of a JSON member, as json.caption. If not set:
        detected from the column names and types.
    eval_text_column: Column of the texts in --eval_dataset. If not set: detected from the column names and types.
    sample_by: Unit of a document in plain text files: line, paragraph (separated by blank lines) or document (the full
        file). If not set: paragraph if a file has a blank line, else line.
    tokenizer: Folder or Hub id of a tokenizer, or open_clip:ViT-B-32 for the tokenizer of an open_clip model. If not
        set: the tokenizer of --encoder; without --encoder a tokenizer is trained on the texts.
    tokenizer_kind: If a tokenizer is trained on the texts: its algorithm, wordpiece, bpe (on bytes) or unigram.
    vocab_size: If a tokenizer is trained: its maximum vocabulary size.
    lowercase: If a tokenizer is trained: it lowercases texts and removes accents.
    add_eos_token: If a tokenizer is trained: it adds an end token to each text. False for causal language models, whose
        prompts have no end: then only the end of a document has an end token, in training.
    max_length: Maximum number of tokens of a sequence, including special tokens. Short documents are packed into one
        sequence. Long documents are split into several sequences. Captions are truncated.
    """

    _argument_group_name: ClassVar[str] = "texts"

    text_column: str | None = None
    eval_text_column: str | None = None
    sample_by: Literal["line", "paragraph", "document"] | None = None
    tokenizer: str | None = None
    tokenizer_kind: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    vocab_size: int = 8000
    lowercase: bool = True
    add_eos_token: bool = True
    max_length: int = 128


@accepts_ints
@strict
@dataclass
class CaptionArguments:
    """Options of captions. --text_column is the main caption. --max_length truncates captions.

    other_captions: Further columns of captions for training. A column can contain texts, lists of keywords (a random
        part of them is used, in random order) or texts by language (a random one is used). Evaluation uses the main
        caption only.
    caption_weights: Sampling weights of the main caption and of each column of --other_captions. If not set, equal.
    caption_languages: Languages of the texts by language in --other_captions, for example es fr. Only texts in these
        languages are used, and each begins with the token of its language, [es] or [fr]. A model that generates
        captions then takes this token as a prompt. If not set, all languages are used, without tokens.
    """

    _argument_group_name: ClassVar[str] = "captions"

    other_captions: list[str] | None = None
    caption_weights: list[float] | None = None
    caption_languages: list[str] | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Columns of further captions: `{canonical name: name in the data}`."""
        return {f"{OTHERS}{name}": name for name in self.other_captions or []}

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the texts by language that are used; `()` for all, without tokens."""
        return tuple(self.caption_languages or ())

    def validate_languages(self):
        names = self.caption_languages
        if names is not None and not self.other_captions:
            raise ValueError(
                f"caption_languages={names} needs a column with texts by language. Name it in other_captions."
            )
        if names is not None and (len({*names}) < len(names) or not all(map(str.isalnum, names))):
            raise ValueError(
                f"caption_languages must be different names of letters and digits, for example es fr, but is {names}."
            )

    def validate_weights(self):
        weights, columns = self.caption_weights, 1 + len(self.other_captions or [])
        if weights is not None and (len(weights) != columns or min(weights) < 0 or not sum(weights)):
            raise ValueError(
                f"caption_weights needs {columns} numbers, one for the main caption and one for each column of "
                f"other_captions, but is {weights}. No number may be below 0, and not all may be 0."
            )


def drawn_captions(options: Mapping[type, Any]) -> Captions:
    """Returns how the caption of a row is drawn, by options."""
    drawn: CaptionArguments = options.get(CaptionArguments, CaptionArguments())
    return Captions(tuple(drawn.columns), drawn.caption_weights, drawn.languages)


def tokenizer_of(options: Mapping[type, Any], context: Context) -> tuple[PreTrainedTokenizerBase, str | None]:
    """Returns the tokenizer of a run, and the folder or Hub id that it is from; None for one that is trained here, with
    a token for each language of captions. Raises `ValueError` for another one without these tokens."""
    settings: TextArguments = options[TextArguments]
    languages = drawn_captions(options).languages
    if context.processor is not None:
        check_languages(context.processor, languages, name_of(context.processor))
        return context.processor, name_of(context.processor)
    with PartialState().main_process_first():  # the other processes load its cached tokenizer
        tokenizer = brought_tokenizer(settings.tokenizer, context.start, context.option)
        if tokenizer is not None:
            brought_by = settings.tokenizer or context.start
            check_languages(tokenizer, languages, brought_by)
            return tokenizer, brought_by
        kind = (settings.tokenizer_kind, settings.vocab_size, settings.lowercase)
        tokens = tuple(map(language_token, languages))
        options = {"max_length": settings.max_length, "further": tokens, "add_eos_token": settings.add_eos_token}
        return train_tokenizer(context.texts(), *kind, **options), None


def name_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns the folder or Hub id that a tokenizer was loaded from; None for one that was made here."""
    return tokenizer.name_or_path or None


def length_for(settings: TextArguments, context: Context) -> int:
    """Returns the maximum number of tokens of a text: --max_length, and for a model that is built already at most the
    positions of the model and of its tokenizer."""
    if context.encoder is None:
        return settings.max_length
    most = positions(context.encoder)[1]
    return min(settings.max_length, most or settings.max_length, context.processor.model_max_length)


def token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """Returns the ids of a tokenizer for the config of an encoder, by their names in it: of the padding token, and of
    the first and last token of a document, which some tokenizers call cls and sep token; None for none."""
    before, after = document_tokens(tokenizer)
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": int(before[0]) if len(before) else None,
        "eos_token_id": int(after[-1]) if len(after) else None,
    }
