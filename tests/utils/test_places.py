"""Places in a sequence."""

import pytest

from hf_pretext.utils.places import evenly


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(10, 4, [0, 2, 5, 7]), (8, 4, [0, 2, 4, 6]), (3, 8, [0, 1, 2]), (0, 2, [])]
)
def test_indices_are_evenly_spaced_and_none_comes_twice(count, most, expected):
    assert evenly(count, most) == expected
