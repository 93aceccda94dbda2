"""Finds rows that are copies of others, exactly or nearly, within a split and across splits.

rows with facts -> groups of equal rows -> copies, their share, rows of a split that are also in another, examples
"""

from collections.abc import Hashable, Sequence

import numpy as np

from .survey import Row, Survey

MOST_SIGNS = 10  # of the 64 signs of dHash that may differ in near-duplicates
MOST_LEVELS = 3.0  # root mean square difference of their colours; white is 255
BLOCK = 512  # images that are compared with all earlier ones at once
EXAMPLES = 12  # pairs of a report
SPLITS = ("train", "validation", "test")  # a row of a later split that is in an earlier one was seen in training
MAIN = ("image", "video", "audio", "text")  # the first kind of the data decides which rows are copies


def copies_of(survey: Survey) -> dict | None:
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
    """Returns the number of the group of each image, `(n,)`: equal ones, and those that look like an earlier one.

    equal: groups of equal images, `(n,)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    kept = np.array([i for i, row in enumerate(rows) if row.facts["image"].tile])
    signs, colors = (np.array([getattr(rows[i].facts["image"], name) for i in kept]) for name in ("signs", "colors"))
    _, firsts = np.unique(equal, return_index=True)
    one = np.concatenate([kept, np.arange(len(rows))])
    other = np.concatenate([kept[first_alike(signs, colors)], firsts[equal]])
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(rows), len(rows)))
    return connected_components(graph, directed=False)[1]


def first_alike(signs: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Returns for each image the index of the first one that looks like it, `(n,)`: its own if no earlier one does.

    signs: bool `(n, 64)`. colors: uint8 `(n, 192)`. See `images.perceptual`. Takes a few seconds for 20,000 images."""
    ones, levels = np.where(signs, np.float32(1), np.float32(-1)), colors.astype(np.float32)
    norms, first = np.square(levels).sum(1), np.arange(len(signs))
    for start in range(0, len(signs), BLOCK):
        stop = min(start + BLOCK, len(signs))
        different = (signs.shape[1] - ones[start:stop] @ ones[:stop].T) / 2
        squared = norms[start:stop, None] + norms[:stop] - 2 * levels[start:stop] @ levels[:stop].T
        alike = (different <= MOST_SIGNS) & (squared <= MOST_LEVELS**2 * colors.shape[1])
        alike[np.arange(stop - start), np.arange(start, stop)] = True
        first[start:stop] = alike.argmax(1)
    return first


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
