"""Sequences of words and visual words.

text [CLS] t1 .. tn [SEP], words v1 .. vm -> [CLS] t1 .. tn [>] v1 .. vm [SEP], padding at the end (B, L + W + 1)
tokenizer -> + [>], [v0], [v1], ...
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .draws import drawn_by
from .masking import IGNORED
from .wrong_pairs import wrong_ones

VIDEO, WORD = "[>]", "[v{}]"  # the token before the visual words, and each visual word
TEXT_TYPE, VIDEO_TYPE = 0, 1  # token types


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
