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
