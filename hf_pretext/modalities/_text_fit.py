"""Checks that a tokenizer and a text encoder fit each other: vocabulary, length, padding, end-of-text token."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from datasets import List, Value
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.captions import language_token
from ..data.columns import TIMES, holds_captions, type_name
from ..data.sources import Source
from ..data.tokenizer import check_masks
from ..encoders import TRIED
from ..features import pool, positions

# Vectors of length 1 that differ by less are equal up to rounding (UNMOVED) or the same (SAME).
UNMOVED, SAME = 1e-3, 1e-6
TRIED_TOKENS = 4  # of a text of noise


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str | None, max_length: int) -> tuple[list[int], bool]:
    """Returns the tokens of a text, at most `max_length`, and whether it was truncated. None is the empty text, without
    tokens. Raises `ValueError` for None if the tokenizer gives no attention_mask."""
    if text is None:
        check_masks(tokenizer)
        return [], False
    ids = tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
    if len(ids) <= max_length:
        return ids, False
    return tokenizer(text, truncation=True, max_length=max_length)["input_ids"], True


def random_tokens(encoder: PreTrainedModel) -> Tensor:
    """Returns a few random tokens of the vocabulary of an encoder, the same each time, `(TRIED, TRIED_TOKENS)`."""
    vocabulary = getattr(encoder.config.get_text_config(), "vocab_size", None) or 2
    ids = torch.randint(vocabulary, (TRIED, TRIED_TOKENS), generator=torch.Generator().manual_seed(0))
    return ids.to(encoder.device)


def check_captions(source: Source, columns: Sequence[str], languages: Sequence[str] = ()) -> None:
    """Raises `ValueError` for columns of further captions that do not contain captions, or next to texts with times,
    and for languages that no column has.

    columns: canonical names. languages: keys of texts by language."""
    if columns and {"subtitles", *TIMES} & source.columns.keys():
        raise ValueError(f"{source.name}: --other_captions has no effect on texts with times. Leave it out.")
    for canonical in columns:
        feature = source.features[canonical]
        if not holds_captions(feature):
            raise ValueError(
                f"{source.name}: the column {source.columns[canonical]!r} (--other_captions) has "
                f"{type_name(feature)} values. Give columns of texts, of lists of texts or of texts by language."
            )
    known = [source.features[canonical] for canonical in columns]
    if languages and all(isinstance(feature, (dict, Value, List)) for feature in known):  # not JSON
        has = dict.fromkeys(name for feature in known if isinstance(feature, dict) for name in feature)
        missing = [name for name in languages if name not in has]
        if missing:
            raise ValueError(
                f"{source.name}: the columns of --other_captions have no texts of the language {', '.join(missing)} "
                f"(--caption_languages). They have {', '.join(has) or 'no texts by language'}."
            )


def check_languages(tokenizer: PreTrainedTokenizerBase, languages: Sequence[str], brought_by: str | None) -> None:
    """Raises `ValueError` for a tokenizer without the tokens of languages. brought_by: its folder or Hub id."""
    vocabulary = tokenizer.get_vocab() if languages else {}
    missing = [language_token(name) for name in languages if language_token(name) not in vocabulary]
    if missing:
        raise ValueError(
            f"--caption_languages: the tokenizer of {brought_by} has no token {', '.join(missing)}. Leave --tokenizer "
            "out to train one, or give a tokenizer and a model with these tokens."
        )


def check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, brought_by: str | None, vocabulary: int, encoder: str | None
) -> None:
    """Raises `ValueError` if the number of tokens shows that an encoder was trained with another tokenizer.

    brought_by: folder or Hub id of the tokenizer; None for a trained one. vocabulary: tokens of the encoder. encoder:
    folder or Hub id of the encoder; None for a fresh one."""
    tokens = len(tokenizer)
    matching = encoder is not None and brought_by == encoder
    if tokens > vocabulary or (tokens < vocabulary and not matching):  # many models have unused embeddings
        fresh = encoder is None or brought_by is None
        trained = f" or set vocab_size to {tokens} in its config" if fresh else ""
        raise ValueError(
            f"The tokenizer has {tokens:,} tokens, but {encoder or 'the encoder'} has a vocabulary of {vocabulary:,}. "
            f"Give the encoder's tokenizer with --tokenizer{trained}."
        )


def check_length(max_length: int, most: int | None, encoder: str, flexible: bool = False) -> None:
    """Raises `ValueError` if texts are longer than the positions of an encoder and their length is not flexible.

    most: positions of the encoder; None for any number."""
    if most is not None and max_length > most and not flexible:
        raise ValueError(
            f"--max_length {max_length} is more than the {most} positions of {encoder}. Give --max_length {most} or "
            "less."
        )


def check_fits(texts: Any, encoder: PreTrainedModel, named: str, flexible: bool = False) -> int | None:
    """Returns the maximum number of positions of an encoder; None for no limit. texts: a `Text`. named: the encoder in
    errors, if it is a fresh one. Raises `ValueError` like `check_vocabulary` and `check_length`."""
    most = positions(encoder)[1]
    check_vocabulary(texts.tokenizer, texts.brought_by, encoder.config.get_text_config().vocab_size, texts.start)
    check_length(texts.max_length, most, texts.start or named, flexible)
    return most


@torch.no_grad()
def vectors(encoder: PreTrainedModel, **inputs: Tensor) -> Tensor:
    """Returns embeddings of texts, `(B, D)`, of length 1: the encoder's pooled output, or else the mean of tokens."""
    training = encoder.training
    outputs = encoder.eval()(**{name: value.to(encoder.device) for name, value in inputs.items()})
    encoder.train(training)
    pooled = getattr(outputs, "pooler_output", None)
    if pooled is None:
        mask = inputs.get("attention_mask")
        pooled = pool(outputs.last_hidden_state, None if mask is None else mask.to(encoder.device))
    return F.normalize(pooled.float().cpu(), dim=1)


def pads_freely(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fills: Mapping[str, float], length: int
) -> bool:
    """Returns True if padding does not change the embedding of a text.

    Padding changes the embedding if the encoder pools the last position, as SigLIP's does. This encoder needs all
    texts padded to the length of its training. fills: padding value of each encoder input. length: tokens to pad to."""
    ids = torch.tensor([tokenizer("a b", truncation=True, max_length=length)["input_ids"]])
    if ids.shape[1] >= length:
        return True
    columns = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    padded = [
        {name: F.pad(columns[name], (0, more), value=fill) for name, fill in fills.items()}
        for more in (0, length - ids.shape[1])
    ]
    plain, longer = (vectors(encoder, **inputs) for inputs in padded)
    return bool((plain - longer).abs().max() < UNMOVED)


def check_distinguishes(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, Tensor]
) -> None:
    """Raises `ValueError` if an encoder gives two different texts the same embedding.

    That happens if it pools at an end-of-text token that the tokenizer does not use. batch: two texts."""
    first, second = vectors(encoder, **batch)
    if (first - second).abs().max() < SAME:
        ends = getattr(encoder.config.get_text_config(), "eos_token_id", None)
        raise ValueError(
            "The text encoder gives different captions the same embedding. It takes the embedding at the "
            f"token with id {ends} (eos_token_id in the text_config of its config.json), but the tokenizer ends texts "
            f"with id {tokenizer('a')['input_ids'][-1]}. Use the encoder's tokenizer, or correct eos_token_id."
        )
