"""Packs documents into sequences of one length with little padding and without loss of text.

lengths of documents -> pieces that fit -> best-fit plan: the pieces of each sequence

The plan depends only on the lengths, so a packed corpus has a known number of sequences. They are shuffled and resumed
like any other rows.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

CRUMB = 8  # the last piece of a long document has at least 1/8 of a sequence


def pieces(offsets: np.ndarray, room: int, starts: np.ndarray | None = None) -> np.ndarray:
    """Cuts documents into pieces of `room` tokens and a last piece of at least `room // CRUMB` tokens.

    A cut is moved back to the last word start in the second half of the piece, if any. Pieces of equal length would
    pack badly: two pieces of 60 % of a sequence do not fit into one.

    offsets (`(documents + 1,)`): first token of each document. starts (`(tokens,)`, bool): True at the first token of a
    word. Returns `(pieces, 2)`: first token and end of each piece, in order. Empty documents have no piece.
    """
    cuts, half = [], max(room // 2, 1)
    lengths = np.diff(offsets)
    short = (lengths > 0) & (lengths <= room)
    for document in np.flatnonzero(lengths > room):
        begin, end = int(offsets[document]), int(offsets[document + 1])
        while end - begin > room:
            cut = begin + min(room, end - begin - room // CRUMB)
            if starts is not None:
                words = np.flatnonzero(starts[begin + half : cut + 1])
                cut = begin + half + int(words[-1]) if len(words) else cut
            cuts.append((begin, cut))
            begin = cut
        cuts.append((begin, end))
    uncut = np.stack([offsets[:-1][short], offsets[1:][short]], axis=1)
    result = np.concatenate([uncut, np.array(cuts, np.int64).reshape(-1, 2)])
    return result[np.argsort(result[:, 0], kind="stable")]


def best_fit(lengths: Sequence[int], room: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs pieces into sequences: the longest piece first, each into the fullest sequence that it fits into.

    Best-fit decreasing (Johnson, "Near-optimal bin packing algorithms", 1973) needs at most about 11/9 of the minimum
    number of sequences.

    Returns members (`(pieces,)`: indices of the pieces, sequence after sequence) and ends (`(sequences,)`: end of the
    members of each sequence). Raises `ValueError` for a piece of more than `room` tokens.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.max() > room:
        raise ValueError(f"A piece of {lengths.max():,} tokens does not fit into sequences of {room:,}. Cut it first.")
    with_room: list[list[int]] = [[] for _ in range(room + 1)]  # sequences, by their free tokens
    rooms: list[int] = []  # free tokens for which `with_room` has sequences, ascending
    sequences: list[list[int]] = []
    order = np.argsort(-lengths, kind="stable")
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            number, left = len(sequences), room
            sequences.append([])
        else:
            left = rooms[at]
            number = with_room[left].pop()
            if not with_room[left]:
                rooms.pop(at)
        sequences[number].append(piece)
        left -= length
        if left:
            if not with_room[left]:
                insort(rooms, left)
            with_room[left].append(number)
    members = np.array([piece for sequence in sequences for piece in sequence], np.int64)
    return members, np.cumsum([len(sequence) for sequence in sequences], dtype=np.int64)
