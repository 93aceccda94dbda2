"""Finds rows that are copies of others, exactly or nearly, within a split and across splits.

rows with facts -> groups of equal rows -> copies, their share, rows of a split that are also in another, examples
"""

from collections.abc import Hashable, Sequence

import numpy as np

from .survey import Row, Survey

MOST_SIGNS = 10  # of the 64 signs of dHash that may differ in near-duplicates
MOST_LEVELS = 3.0  # root mean square difference of their colours; white is 255
BLOCK = 1024  # images that are compared with all others at once
EXAMPLES = 12  # pairs of a report
SPLITS = ("train", "validation", "test")  # a row of a later split that is in an earlier one was seen in training
MAIN = ("image", "video", "audio", "text")  # the first kind of the data decides which rows are copies


def duplicates(survey: Survey) -> dict | None:
    """Returns exact and near copies among the rows of the first kind of data in `MAIN`; None without rows.

    Near copies are looked for among images and texts: re-encoded or resized images, texts that differ in case,
    punctuation and spaces."""
    kind = next((kind for kind in MAIN if survey.of(kind)), None)
    if kind is None:
        return None
    rows = survey.of(kind)
    equal = numbered([row.facts[kind].digest for row in rows])
    result = {"kind": kind, "rows": len(rows), "exact": described(rows, equal)}
    if kind == "text":
        similar = numbered([row.facts[kind].normal for row in rows])
    elif kind == "image":
        similar = similar_images(rows, equal)
        result["compared"] = int(sum(bool(row.facts[kind].tile) for row in rows))
    else:
        return result
    return {**result, "near": described(rows, similar, equal)}


def numbered(values: Sequence[Hashable]) -> np.ndarray:
    """Returns the number of the group of each value, `(n,)`. Equal values are of one group."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def similar_images(rows: Sequence[Row], equal: np.ndarray) -> np.ndarray:
    """Returns the number of the group of each image, `(n,)`: equal ones, and those that look alike, by way of others.

    equal: groups of equal images, `(n,)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    kept = np.array([i for i, row in enumerate(rows) if row.facts["image"].tile])
    signs = np.array([rows[i].facts["image"].signs for i in kept])
    colors = np.array([rows[i].facts["image"].colors for i in kept])
    first, second = near_pairs(signs, colors)
    representative = {group: i for i, group in reversed(list(enumerate(equal)))}
    pairs = [
        np.concatenate([kept[first], np.arange(len(rows))]),
        np.concatenate([kept[second], [representative[group] for group in equal]]),
    ]
    graph = coo_array((np.ones(len(pairs[0])), pairs), shape=(len(rows),) * 2)
    return connected_components(graph, directed=False)[1]


def near_pairs(signs: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of images that look alike, as two arrays of indices, the first ones smaller.

    signs: bool `(n, 64)`. colors: uint8 `(n, 192)`. See `images.perceptual`. Takes about a second for 20,000 images."""
    values = np.where(signs, np.float32(1), np.float32(-1))
    firsts, seconds = [np.zeros(0, int)], [np.zeros(0, int)]
    for start in range(0, len(values), BLOCK):
        different = (signs.shape[1] - values[start : start + BLOCK] @ values[start:].T) / 2
        one, other = np.nonzero(different <= MOST_SIGNS)
        one, other = one[other > one] + start, other[other > one] + start
        differences = colors[one].astype(np.float32) - colors[other]
        alike = np.sqrt(np.square(differences).mean(1)) <= MOST_LEVELS
        firsts.append(one[alike])
        seconds.append(other[alike])
    return np.concatenate(firsts), np.concatenate(seconds)


def described(rows: Sequence[Row], groups: np.ndarray, equal: np.ndarray | None = None) -> dict:
    """Returns the copies among rows, those across splits, and examples.

    groups: number of the group of each row, `(n,)`. equal: groups of equal rows, `(n,)`: copies by it are not counted.
    """
    copies = len(rows) - len(np.unique(groups))
    more = 0 if equal is None else len(rows) - len(np.unique(equal))
    return {
        "copies": copies - more,
        "share": (copies - more) / len(rows),
        "largest_group": int(np.bincount(groups).max()),
        "across_splits": across(rows, groups, equal),
        "examples": examples(rows, groups, equal),
    }


def across(rows: Sequence[Row], groups: np.ndarray, equal: np.ndarray | None) -> list[dict]:
    """Returns the number of rows of each split that are also in an earlier split. Arguments as in `described`."""
    splits = np.array([row.split for row in rows])
    names = sorted(set(splits), key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))
    result = []
    for at, later in enumerate(names):
        for earlier in names[:at]:
            of_later = splits == later
            in_earlier = np.isin(groups, groups[splits == earlier])
            if equal is not None:
                in_earlier &= ~np.isin(equal, equal[splits == earlier])
            count = int((of_later & in_earlier).sum())
            if count:
                share = count / int(of_later.sum())
                result.append({"split": later, "also_in": earlier, "rows": count, "share": share})
    return result


def examples(rows: Sequence[Row], groups: np.ndarray, equal: np.ndarray | None) -> list[dict]:
    """Returns pairs of copies, those across splits first, of each group one. Arguments as in `described`."""
    order = np.argsort(groups, kind="stable")
    pairs = []
    for group in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        others = [i for i in group[1:] if equal is None or equal[i] != equal[group[0]]]
        other = next((i for i in others if rows[i].split != rows[group[0]].split), next(iter(others), None))
        if other is not None:
            pairs.append((int(group[0]), int(other)))
    pairs.sort(key=lambda pair: (rows[pair[0]].split == rows[pair[1]].split, pair))
    return [{"rows": [place_of(rows[i]) for i in pair]} for pair in pairs[:EXAMPLES]]


def place_of(row: Row) -> dict:
    """Returns the split, key and path of a row."""
    return {"split": row.split, "key": row.key, **({"path": row.path} if row.path else {})}
