"""Frame strips of films: pieces, those whose visual words are masked, and frames of the predicted visual words.

pixel_values (B, F, 3, S, S), words (B, W), predicted (B, W) -> (B, W, 3, S, S) each
"""

import torch
from torch import Tensor

from .visual_words import VisualWords


def piece_frames(pixel_values: Tensor, num_words: int) -> Tensor:
    """Returns the middle frame of each piece of films `(B, F, 3, S, S)`: `(B, W, 3, S, S)`."""
    pieces = pixel_values.unflatten(1, (num_words, -1))
    return pieces[:, :, pieces.shape[2] // 2]


def nearest_pieces(visual_words: VisualWords, pixel_values: Tensor, words: Tensor, masked: Tensor) -> Tensor:
    """Returns, for visual words `(n,)`, the middle frames of the pieces of films whose features are nearest to their
    centres: `(n, 3, S, S)`. Masked pieces are left out: a correct word would show the frame that is hidden.

    pixel_values: the films `(B, F, 3, S, S)`. masked: `(B, W)`, bool; not all are."""
    features = visual_words.describe(pixel_values).flatten(0, 1)  # (B W, D)
    centres = visual_words.tree[-1].to(features.dtype)[words]
    nearest = torch.cdist(centres, features).masked_fill(masked.flatten(), torch.inf).argmin(1)
    return piece_frames(pixel_values, visual_words.num_words).flatten(0, 1)[nearest]


def strips(
    visual_words: VisualWords, pixel_values: Tensor, masked: Tensor, predicted: Tensor, count: int
) -> dict[str, Tensor]:
    """Returns frame strips of the first `count` films by title, each of W clips `(W, F, 3, S, S)` that do not move: the
    middle frames of the pieces, the same with the masked ones in grey, and frames of the predicted visual words, from
    pieces that are not masked, in their places.

    pixel_values: films `(B, F, 3, S, S)`, of which the frames of predicted visual words are, too. masked: `(B, W)`,
    bool. predicted: visual words in the masked places, row by row, `(M,)`."""
    films, drawn = piece_frames(pixel_values, visual_words.num_words), {}
    guessed = films.clone()
    guessed[masked] = nearest_pieces(visual_words, pixel_values, predicted, masked)
    hidden = films.masked_fill(masked[:, :, None, None, None], 0.0)
    for row in range(min(count, len(films))):
        each = {"film": films, "masked pieces": hidden, "predicted": guessed}
        drawn |= {f"{row + 1}: {title}": frames[row][:, None] for title, frames in each.items()}
    return {title: frames.expand(-1, pixel_values.shape[1], -1, -1, -1) for title, frames in drawn.items()}
