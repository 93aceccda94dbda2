"""Cues in texts: what stands near a token and may reveal what is asked about it without any understanding.

token ids (B, L) -> ids of the tokens at a place relative to each token (B, L)

An objective on tokens lists its cues, and asks its question (`cues.Question`). The audit reads the answers from each
cue alone, by counts, and gives the model texts in which a cue is that of another token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TokenCue:
    """A cue of a token that is asked about.

    name: in tables. places: of the one or two tokens that it consists of, relative to that token: -1 is the token
    before it. None: the cue is the position of the token in its text, which can't be exchanged."""

    name: str
    places: tuple[int, ...] = ()


LEFT = TokenCue("left neighbour", (-1,))
RIGHT = TokenCue("right neighbour", (1,))
NEIGHBOURS = TokenCue("both neighbours", (-1, 1))
TWO_BEFORE = TokenCue("two tokens before", (-2, -1))
TOKEN = TokenCue("token itself", (0,))  # where it is asked what became of it
LEFT_AND_TOKEN = TokenCue("left neighbour and token", (-1, 0))
TOKEN_AND_RIGHT = TokenCue("token and right neighbour", (0, 1))
IN_PLACE = TokenCue("token in its place", (0,))  # where the task does not replace each hidden token by the mask token
POSITION = TokenCue("position in the text")


def tokens_at(input_ids: Tensor, place: int, edge: int) -> Tensor:
    """Returns for each token the one at a place relative to it, `(B, L)`; `edge` beyond the ends of the row."""
    wide, length = abs(place), input_ids.shape[1]
    return F.pad(input_ids, (wide, wide), value=edge)[:, wide + place : wide + place + length]


def exchanged(
    input_ids: Tensor, present: Tensor, where: tuple[Tensor, Tensor], others: Tensor, places: Sequence[int]
) -> Tensor:
    """Returns token ids `(B, L)` in which some tokens have the neighbours of others.

    present (`(B, L)`, bool): no padding. where: rows and columns of M tokens. others (`(M,)`): which of them each gets
    the tokens of, at `places` relative to them. A token beyond the ends of a text is neither replaced nor given."""
    rows, columns = where
    result = input_ids.clone()
    for place in places:
        given = tokens_at(input_ids, place, 0)[where][others]
        some = tokens_at(present, place, False)[where]
        some = some & some[others]
        result[rows[some], columns[some] + place] = given[some]
    return result
