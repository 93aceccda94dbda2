"""Texts of a clip: of a film with narrations, those nearest in time to the seconds of the clip.

row {"video": Clip, "text", "start", "end"} or {"video": Clip, "subtitles"} -> texts, the nearest first
"""

from collections.abc import Mapping

import numpy as np

from ..data.clips import Clip
from ..data.corpus import texts_in
from ..data.narration import narrations_in, nearest


def clip_in(row: Mapping) -> Clip | None:
    """Returns the decoded clip of a row; None without film or sound. Several clips are of the same seconds."""
    return next((value for value in row.values() if isinstance(value, Clip)), None)


def texts_of_clip(row: Mapping, count: int, random: np.random.Generator | None = None) -> list[str] | None:
    """Returns at most `count` narrations of a row: those nearest in time to its clip, the nearest first; None for a row
    whose texts have no times.

    Of a row without film or sound, they are consecutive and begin at a random one; without `random`, at the first.
    Raises `BadSample`, see `narrations_in`."""
    narrations, clip = narrations_in(row), clip_in(row)
    if narrations is None:
        return None
    if clip is not None:
        chosen = nearest(narrations, clip.start, clip.start + clip.seconds, count)
    else:
        first = 0 if random is None else int(random.integers(len(narrations)))
        chosen = narrations[first : first + count]
    return [narration.text for narration in chosen]


def captions_of_clip(value, count: int, random: np.random.Generator | None) -> list[str]:
    """Returns at most `count` texts of a list or dict of texts without times: random ones without repetition; without
    `random`, the first. `[]` for another value."""
    texts = texts_in(value) if isinstance(value, (list, tuple, dict)) else []
    order = range(len(texts)) if random is None else random.permutation(len(texts)).tolist()
    return [texts[i] for i in order[:count]]
