"""Held-out sets: by what their rows are new, compared with the train split of the labelled set.

held-out set, labelled set -> "classes", or "captions" where the classes are the same
"""

from ..data.captions import normalised
from .labelled_rows import SPLITS
from .labelled_set import LabelledSet

CLASSES, CAPTIONS = "classes", "captions"
BY = "held_out_by"  # entry of results.json; older results lack it, and their sets have other classes


def held_out_by(heldout: LabelledSet, labelled: LabelledSet) -> str:
    """Returns `CLASSES` if no class of `heldout` is in the train split of `labelled`, else `CAPTIONS` if no caption is.

    Captions are compared as `normalised`, in all splits of `heldout`. Raises `ValueError` if they share classes and, if
    they have any, captions."""
    known = {labelled.labels.names[i] for i in set(labelled.labels.splits["train"].tolist())}
    shared = sorted(known & set(heldout.labels.names))
    if not shared:
        return CLASSES
    fix, also = "Give rows of other classes", ""
    if heldout.keeps_captions:
        captions = captions_of(heldout, *SPLITS)
        common = sorted(captions & captions_of(labelled, "train"))
        if not common:
            return CAPTIONS
        also = f", and {len(common):,} of its {len(captions):,} different captions, for example {common[0]!r}"
        fix += ", or rows without any of these captions"
    raise ValueError(
        f"--heldout_dataset {heldout.name} has classes that the train split of {labelled.name} has, too: "
        f"{', '.join(shared[:3])}{', ...' * (len(shared) > 3)}{also}. {fix}, or leave it out."
    )


def captions_of(labelled: LabelledSet, *splits: str) -> set[str]:
    """Returns the different captions of some splits, `normalised`."""
    return {normalised(caption) for split in splits for caption in labelled.captions(split)}


def described_as_held_out(heldout: LabelledSet, labelled: LabelledSet) -> dict:
    """Returns entries of results.json: by what `heldout` is held out, and if that is captions, the numbers of different
    captions in its test split and in the train split of `labelled`."""
    by = held_out_by(heldout, labelled)
    if by == CLASSES:
        return {BY: by}
    counts = {"test": len(captions_of(heldout, "test")), "train_of_labelled": len(captions_of(labelled, "train"))}
    return {BY: by, "captions": counts}


def protocol(heldout: dict) -> str:
    """Describes a held-out set, for a model card. heldout: the entry of results.json."""
    text = f"Held out: the same metrics on the test split ({heldout['rows']['test']:,} rows) of `{heldout['dataset']}`"
    if heldout.get(BY, CLASSES) == CLASSES:
        return f"{text}, whose {len(heldout['classes'])} classes are not in the train split of the other set."
    counts = heldout["captions"]
    return (
        f"{text}, whose {counts['test']:,} different captions are not among the {counts['train_of_labelled']:,} of the "
        "train split of the other set. Its classes are not new."
    )
