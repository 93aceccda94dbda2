"""Documents to sequences of one length: none is padded much, none loses text.

documents' lengths -> pieces that fit -> best-fit plan: which pieces lie in which sequence

The plan depends on lengths alone, so a packed corpus has a known number of sequences, which the global order shuffles
and resumes as it does any rows.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

CRUMB = 8  # the rest of a long document is at least this part of a sequence


def pieces(offsets: np.ndarray, room: int, starts: np.ndarray | None = None) -> np.ndarray:
    """Cuts documents into pieces of `room` tokens and a rest, which is no mere crumb; at the beginning of a word where
    there is one in a piece's second half.

    Even pieces would be nicer to learn from but pack badly: two of 60 % do not fit side by side.

    offsets (`(documents + 1,)`): where each document's tokens begin. starts (`(tokens,)`, bool): where words begin.
    Returns `(pieces, 2)`: first token and end of each, in order; empty documents have none.
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
    """Packs pieces into sequences: the longest first, each where the least room is left after it.

    Johnson, "Near-optimal bin packing algorithms", 1973: at most 11/9 of the fewest sequences possible.

    Returns members (`(pieces,)`: numbers of pieces, sequence after sequence) and ends (`(sequences,)`: where each
    sequence's members end). Raises `ValueError` for a piece longer than the room.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.max() > room:
        raise ValueError(f"A piece of {lengths.max():,} tokens does not fit into sequences of {room:,}.")
    with_room: list[list[int]] = [[] for _ in range(room + 1)]  # sequences by the room left in them
    rooms: list[int] = []  # those for which there are any, ascending
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
