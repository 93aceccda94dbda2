"""Which rows a labelled set is made of, and what can't be one."""

import datasets
import pytest
import torch

from hf_pretext.evaluation.labelled_rows import LabelledRows, cut
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor


def labelled(data, label) -> LabelledSet:
    return LabelledSet(data, Inputs(Image(default_processor(16))), label)


def test_missing_splits_are_cut_always_in_the_same_way():
    rows = list(range(100))
    splits = cut({"train": rows})
    assert {split: len(part) for split, part in splits.items()} == {"train": 72, "validation": 8, "test": 20}
    assert sorted(sum(splits.values(), [])) == rows
    assert splits == cut({"train": rows})
    assert cut({"train": rows, "validation": [1]})["test"] == [1]
    with pytest.raises(ValueError, match="no rows for validation.*--eval_dataset none"):
        cut({"train": rows[:3], "test": [1]})


def test_one_class_is_refused(emoji):
    data = emoji(count=40).map(lambda row: {"group": "same"})
    with pytest.raises(ValueError, match="'group' has 1 classes.*--eval_label"):
        labelled(data, "group")


def test_hidden_labels_and_columns_that_hold_none(emoji):
    rows = emoji(count=40)
    labels = datasets.ClassLabel(names=["a", "b"])
    numbers = [i % 2 for i in range(40)]
    train, hidden = (rows.add_column("kind", values).cast_column("kind", labels) for values in (numbers, [-1] * 40))
    some = labelled(datasets.DatasetDict(train=train, test=hidden), "kind")
    assert some.labels.names == ["a", "b"] and some.left_out == {"rows without a label": 40}
    assert some.cut_from_train == {"test", "validation"} and len(some) == 40
    spoilt = rows.add_column("kind", [float("nan"), 1.0] * 20).add_column("many", [[1]] * 40)
    with pytest.raises(ValueError, match="'kind' has 1 classes"):
        labelled(spoilt, "kind")
    with pytest.raises(ValueError, match="column 'many' contains List values instead of one label per row"):
        labelled(spoilt, "many")


def test_files_of_rows_are_read_in_the_order_of_batches(emoji):
    some = labelled(emoji(count=40), "group")
    image = some.inputs.by_name["image"]
    for split in ("train", "validation", "test"):
        decoded = [image({"image": content}, None)["pixel_values"] for content in some.contents(split, "image")]
        assert torch.equal(torch.stack(decoded), some.pixels[split])


def test_an_encoder_is_measured_by_the_label_of_its_kind(emoji):
    rows = emoji(count=60)
    styles = [None if i == 3 else ["flat", "round", "wide"][i % 3] for i in range(60)]
    data = rows.remove_columns("style").add_column("style", styles)
    some = LabelledSet(data, Inputs(Image(default_processor(16))), "group", kind_labels={"image": "style"})
    own = some.of_kind("image")
    assert some.of_kind("video") is some and some.labels.names != own.labels.names == ["flat", "round", "wide"]
    assert own.label == "style" and some.left_out["rows without a label"] == 1
    numbers = {tuple(row.place): row for split in some.splits for row in some.rows(split)}
    assert all(row.by_kind["image"] == styles[row.place[1]] for row in numbers.values())
    shown = [own.labels.names[i] for i in own.labels.splits["test"]]
    assert shown == [styles[row.place[1]] for row in some.rows("test")]
    assert torch.equal(some.pixels["test"], own.pixels["test"])
    with pytest.raises(ValueError, match="'one' has 1 classes.*--eval_image_label"):
        LabelledSet(
            rows.add_column("one", ["a"] * 60),
            Inputs(Image(default_processor(16))),
            "group",
            kind_labels={"image": "one"},
        )


def test_splits_of_rows_without_a_label_are_named_last():
    columns = {"image": [None] * 20, "text": ["a red box"] * 20}
    train, test = (
        datasets.Dataset.from_dict({**columns, "label": labels}) for labels in (["a", "b"] * 10, ["a", ""] * 10)
    )
    some = LabelledRows({"train": train, "test": test}, ("image", "text"), "label", captions=True)
    assert some.splits == ("train", "validation", "test", "test without labels")
    assert [len(some.rows(split)) for split in some.splits] == [18, 2, 10, 10] and len(some) == 40


def test_splits_with_labels_in_different_columns_are_refused():
    values = {"image": [None] * 4, "label": ["a", "b"] * 2}
    train = datasets.Dataset.from_dict(values)
    test = train.rename_column("label", "labels")
    with pytest.raises(ValueError, match=r"different columns: 'label' \(train\), 'labels' \(test\).*--eval_label"):
        LabelledRows({"train": train, "test": test}, ("image",), columns={"image": "image"})
