import pytest
import torch

from hf_pretext.stream.collate import collate


def test_stacks_each_column():
    batch = collate([{"pixel_values": torch.full((3, 2, 2), i), "number": i, "draw": i / 2} for i in range(4)])
    assert batch["pixel_values"].shape == (4, 3, 2, 2)
    assert batch["number"].tolist() == [0, 1, 2, 3]
    assert batch["draw"].tolist() == [0, 0.5, 1, 1.5]


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"pixel_values differs in shape.*\(3, 2, 2\), \(3, 2, 3\)"):
        collate([{"pixel_values": torch.zeros(3, 2, 2)}, {"pixel_values": torch.zeros(3, 2, 3)}])


def test_time_is_padded_to_the_longest():
    fills = {"input_ids": 7, "attention_mask": 0, "input_values": 0.0}
    examples = [{"input_ids": torch.arange(n), "attention_mask": torch.ones(n)} for n in (2, 4)]
    batch = collate(examples, fills=fills)
    assert batch["input_ids"].tolist() == [[0, 1, 7, 7], [0, 1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    frames = collate([{"input_values": torch.ones(n, 5)} for n in (3, 1)], fills=fills)["input_values"]
    assert frames.shape == (2, 3, 5) and frames[1].sum() == 5


def test_time_of_views_is_padded_too():
    views = collate([{"input_ids": torch.ones(3, n, dtype=torch.long)} for n in (2, 4)], fills={"input_ids": 7})
    assert views["input_ids"].shape == (2, 3, 4) and views["input_ids"][0].tolist() == [[1, 1, 7, 7]] * 3
    clips = collate([{"pixel_values": torch.ones(2, n, 3, 4, 4)} for n in (1, 5)], fills={"pixel_values": 0})
    assert clips["pixel_values"].shape == (2, 2, 5, 3, 4, 4) and clips["pixel_values"][0, :, 1:].sum() == 0
    starts = collate([{"word_starts": torch.zeros(n, dtype=torch.bool)} for n in (1, 2)], fills={"word_starts": True})
    assert starts["word_starts"].tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("shapes", "fills"),
    [([(2, 3), (3, 4)], {"x": 0}), ([(2,), (2, 2)], {"x": 0}), ([(3, 4, 4), (3, 4, 5)], {"x": 0}), ([(2,), (3,)], {})],
)
def test_what_differs_in_more_than_time_is_named(shapes, fills):
    with pytest.raises(ValueError, match="x differs in shape within a batch"):
        collate([{"x": torch.zeros(shape)} for shape in shapes], fills=fills)
