"""Random crops: where they lie, their size and shape, and the pixels they come to."""

import pytest
import torch
from torchvision.transforms import v2

from hf_pretext.modules.crops import CROP_DRAWS, RATIO, crop_and_resize, random_box, resize, scaled_box

LAST = 1 - 1e-9  # the largest draw


@pytest.mark.parametrize(
    ("size", "smallest", "draws", "box"),
    [
        ((100, 100), 0.25, (0, 0.5, 0, 0), (0, 0, 50, 50)),
        ((100, 100), 0.25, (0, 0.5, LAST, LAST), (50, 50, 50, 50)),
        ((100, 100), 0.25, (0, 0.5, 0.5, 0), (25, 0, 50, 50)),  # 51 places from top to bottom: 0.5 is the 26th
        ((100, 100), 0.25, (0, 0, 0, 0), (0, 0, 58, 43)),  # of 2500 pixels, width 3/4 of the height
        ((100, 100), 0.25, (0, LAST, 0, 0), (0, 0, 43, 58)),
        ((100, 100), 0.5, (0.5, 0.5, 0, 0), (0, 0, 87, 87)),  # of 7500 pixels
        ((30, 90), 1.0, (0.3, 0.9, 0.9, 0.9), (0, 0, 30, 90)),  # all of it, whatever is drawn
        ((1, 1), 0.1, (0, 0, LAST, LAST), (0, 0, 1, 1)),
    ],
)
def test_boxes_worked_out_by_hand(size, smallest, draws, box):
    assert random_box(size, smallest, draws) == box


@pytest.mark.parametrize("size", [(100, 100), (37, 53), (20, 200), (3, 500)])
def test_boxes_lie_inside_and_have_sides_of_the_ratio(size):
    whole = 0
    for draws in torch.rand(500, CROP_DRAWS, dtype=torch.float64).tolist():
        top, left, height, width = random_box(size, 0.2, draws)
        assert top >= 0 and left >= 0 and height >= 1 and width >= 1
        assert top + height <= size[0] and left + width <= size[1]
        if height < size[0] and width < size[1]:
            whole += 1
            assert (width - 0.5) / (height + 0.5) <= RATIO[1] and (width + 0.5) / (height - 0.5) >= RATIO[0]
            assert (height + 0.5) * (width + 0.5) >= 0.2 * size[0] * size[1]
    assert whole > 100 or min(size) <= 20


def test_every_place_is_as_likely():
    draws = torch.rand(6000, CROP_DRAWS, dtype=torch.float64)
    draws[:, 0], draws[:, 1] = 0, 0.5
    boxes = torch.tensor([random_box((4, 4), 0.25, draw) for draw in draws.tolist()])
    assert (boxes[:, 2:] == 2).all()
    for places in (boxes[:, 0], boxes[:, 1]):
        assert torch.allclose(torch.bincount(places, minlength=3) / 6000, torch.tensor(1 / 3), atol=0.03)


def test_boxes_of_a_smaller_copy_are_the_same_part():
    assert scaled_box((10, 20, 30, 40), (100, 200), (50, 100)) == (5, 10, 15, 20)
    assert scaled_box((10, 20, 30, 40), (100, 200), (200, 100)) == (20, 10, 60, 20)  # each side alone
    assert scaled_box((0, 0, 37, 53), (37, 53), (8, 9)) == (0, 0, 8, 9)
    assert scaled_box((4, 4, 1, 1), (100, 100), (10, 10)) == (0, 0, 1, 1)  # a pixel at least


def test_boxes_of_a_smaller_copy_stay_inside():
    for draws in torch.rand(300, CROP_DRAWS, dtype=torch.float64).tolist():
        top, left, height, width = scaled_box(random_box((97, 61), 0.05, draws), (97, 61), (12, 8))
        assert top >= 0 and left >= 0 and top + height <= 12 and left + width <= 8


def test_a_crop_is_the_box_and_nothing_else():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    assert torch.equal(crop_and_resize(image, (3, 5, 8, 9), (8, 9)), image[:, 3:11, 5:14])
    image[:, 3:11, 5:14] = 77
    assert (crop_and_resize(image, (3, 5, 8, 9), (16, 16)) == 77).all()


@pytest.mark.parametrize("size", [(6, 7), (40, 12), (50, 60)])
def test_crops_come_to_their_size_as_torchvisions(size):
    image = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
    found = crop_and_resize(image, (4, 6, 20, 30), size)
    assert found.shape == (3, *size) and found.dtype == torch.uint8
    expected = v2.functional.resized_crop(image, 4, 6, 20, 30, list(size), antialias=True)
    assert (found.int() - expected.int()).abs().max() <= 1


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    assert resize(image, (8, 9)) is image
    assert resize(image, (9, 8)).shape == (3, 9, 8)
