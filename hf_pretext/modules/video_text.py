"""Sequences of words and visual words.

text [CLS] t1 .. tn [SEP], words v1 .. vm -> [CLS] t1 .. tn [>] v1 .. vm [SEP], padding at the end (B, L + W + 1)
tokenizer -> + [>], [v0], [v1], ...
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .draws import drawn_by
from .masking import IGNORED, draw_units, replaced, without_special
from .wrong_pairs import wrong_ones

VIDEO, WORD = "[>]", "[v{}]"  # the token before the visual words, and each visual word
TEXT_TYPE, VIDEO_TYPE = 0, 1  # token types
BY_MASK, BY_RANDOM = 0.8, 0.1  # shares of the masked tokens that are replaced, as in BERT; the others stay


@dataclass
class Tokens:
    """Tokens of a batch, `(B, T)` each.

    ids. present: bool, False for padding. labels: the ids to predict, `IGNORED` for all other tokens. types:
    `TEXT_TYPE` or `VIDEO_TYPE`."""

    ids: Tensor
    present: Tensor
    labels: Tensor
    types: Tensor

    def labels_of(self, kind: int) -> Tensor:
        """Returns the labels of one type of tokens, `IGNORED` for those of the other: `(B, T)`."""
        return self.labels.masked_fill(self.types != kind, IGNORED)


def tokens_of(ids: Tensor, kind: int, present: Tensor | None = None, labels: Tensor | None = None) -> Tokens:
    """Returns tokens of one type. present: default: all. labels: default: none."""
    present = torch.ones_like(ids, dtype=torch.bool) if present is None else present
    labels = torch.full_like(ids, IGNORED) if labels is None else labels
    return Tokens(ids, present, labels, torch.full_like(ids, kind))


def sequence_of(
    text: Tokens | None, film: Tokens | None, cls_token_id: int, sep_token_id: int, video_token_id: int
) -> Tokens:
    """Joins a text, with its first and its last token, and the visual words of a film; one of them may be None.

    A text with a film has [>] in place of its last token. A film alone begins with [CLS] [>]."""
    if film is None:
        return text
    start = film.ids.new_full((len(film.ids), 1), video_token_id)
    if text is None:
        opening = tokens_of(torch.cat([torch.full_like(start, cls_token_id), start], 1), TEXT_TYPE)
    else:
        last = text.present.long().cumsum(1).argmax(1, keepdim=True)  # the first with the highest count
        opening = Tokens(text.ids.scatter(1, last, start), text.present, text.labels, text.types)
    end = tokens_of(torch.full_like(start, sep_token_id), VIDEO_TYPE)
    return without_gaps([opening, film, end])


def without_gaps(parts: Sequence[Tokens]) -> Tokens:
    """Joins parts of sequences in their order, and moves padding to the end."""
    columns = {field.name: torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(Tokens)}
    order = (~columns["present"]).int().argsort(dim=1, stable=True)
    return Tokens(**{name: values.gather(1, order) for name, values in columns.items()})


def every_nth(words: Tensor, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws a step for each film, 1 to `most`. Returns which of its words `(B, W)` are kept, bool `(B, W)`: the first
    and every step-th after it."""
    step = torch.randint(1, most + 1, (len(words), 1), device=words.device, **drawn_by(generator))
    return torch.arange(words.shape[1], device=words.device) % step == 0


def masked_text(task, input_ids: Tensor, present: Tensor, generator: torch.Generator | None = None) -> Tokens:
    """Masks words of texts `(B, L)`. task: `VideobertTask`. present: bool, False for padding."""
    allowed = without_special(input_ids, present, task.special)
    hidden = draw_units(allowed, torch.ones_like(allowed), task.text_mask_ratio, generator)
    shares = (BY_MASK, BY_RANDOM)
    ids = replaced(input_ids, hidden, task.mask_token_id, task.first_word_id, shares, generator, task.special)
    return tokens_of(ids, TEXT_TYPE, present, input_ids.masked_fill(~hidden, IGNORED))


def masked_film(
    task, words: Tensor, kept: Tensor, drawn: Callable[..., Tensor], generator: torch.Generator | None = None
) -> Tokens:
    """Masks visual words of films `(B, W)` that are kept (bool). task: `VideobertTask`. drawn: (shape, generator) ->
    random visual words, of those that occur in the data."""
    hidden = draw_units(kept, torch.ones_like(kept), task.video_mask_ratio, generator)
    draw = torch.rand(words.shape, device=words.device, **drawn_by(generator))
    random = hidden & (draw < BY_MASK + BY_RANDOM)
    seen = torch.where(random, drawn(words.shape, generator), words) + task.first_word_id
    seen = seen.masked_fill(hidden & (draw < BY_MASK), task.mask_token_id)
    return tokens_of(seen, VIDEO_TYPE, kept, (words + task.first_word_id).masked_fill(~hidden, IGNORED))


def half_wrong(labels: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draws half of the pairs, rounded down, to be wrong, and their partners among pairs with another label.

    labels: `(B,)`. Returns which are wrong, bool `(B,)`, and the index of the film that each text gets, `(B,)`: its
    own for right pairs. Fewer pairs are wrong if fewer have a pair with another label."""
    same = labels[:, None] == labels
    partner = wrong_ones(torch.zeros_like(same, dtype=torch.float32), same, False, generator)
    draw = torch.rand(len(labels), device=labels.device, **drawn_by(generator))
    rank = (draw + (partner < 0)).argsort().argsort()  # pairs without partner come last
    wrong = (rank < len(labels) // 2) & (partner >= 0)
    return wrong, torch.where(wrong, partner, torch.arange(len(labels), device=labels.device))


def check_ends(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ValueError` for a tokenizer whose texts are not [CLS] text [SEP]."""
    ids, ends = tokenizer("a")["input_ids"], (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if None in ends or (ids[0], ids[-1]) != ends:
        raise ValueError(
            "The objective needs a tokenizer whose texts are [CLS] text [SEP], like BERT's, but this one gives "
            f"{tokenizer.convert_ids_to_tokens(ids)} for the text 'a'. Give another --tokenizer."
        )


def video_tokens(tokenizer: PreTrainedTokenizerBase, words: int) -> dict[str, int]:
    """Adds [>] and the visual words to a tokenizer, in place. Returns the ids of its tokens, as settings of VideoBERT.
    Raises `ValueError` as `check_ends` and `add_video_tokens` do."""
    check_ends(tokenizer)
    video, first = add_video_tokens(tokenizer, words)
    ends = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    return {**ends, "video_token_id": video, "first_word_id": first}


def add_video_tokens(tokenizer: PreTrainedTokenizerBase, words: int) -> tuple[int, int]:
    """Adds [>] and visual words [v0], [v1], ... to a tokenizer, in place. Tokens that it has are not added.

    Returns the ids of [>] and of the first visual word. Raises `ValueError` if the ids of the visual words do not
    follow each other."""
    names = [WORD.format(i) for i in range(words)]
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=True) for name in (VIDEO, *names)])
    video, first, *others = tokenizer.convert_tokens_to_ids([VIDEO, *names])
    if others != list(range(first + 1, first + words)):
        raise ValueError(
            f"The tokenizer has some of the tokens {names[0]} to {names[-1]} already, and their ids do not follow each "
            "other. Give another --tokenizer."
        )
    return video, first


def check_batch(input_ids: Tensor | None, pixels: Tensor | None, keys: Tensor | None) -> None:
    """Raises `ValueError` for a batch without texts and films, for texts that are not `(B, L)`, for frames that are not
    `(B, F, 3, S, S)`, and for different numbers of the two. keys: of rows whose frames may not be needed."""
    if input_ids is None and pixels is None and keys is None:
        raise ValueError("A batch needs input_ids, pixel_values_videos, or the two of them, but has neither.")
    shapes = [None if values is None else tuple(values.shape) for values in (input_ids, pixels)]
    if (shapes[0] and len(shapes[0]) != 2) or (shapes[1] and len(shapes[1]) != 5):
        raise ValueError(f"input_ids must be (B, L) and frames (B, F, 3, S, S), but their shapes are {shapes}.")
    if None not in shapes and shapes[0][0] != shapes[1][0]:
        raise ValueError(f"{shapes[0][0]} texts came with {shapes[1][0]} films. Give one text per film.")


def check_length(tokens: Tokens, most: int) -> None:
    """Raises `ValueError` for more tokens than the model has positions."""
    length = tokens.ids.shape[1]
    if length > most:
        raise ValueError(
            f"Text and film have {length} tokens, but the model has {most} positions (max_position_embeddings). "
            "Give a smaller --max_length or --num_words, or a model with more positions."
        )
