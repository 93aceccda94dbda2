"""Lengths of time in words."""

import pytest

from hf_pretext.modalities.audio import Audio
from hf_pretext.utils.units import in_seconds


@pytest.mark.parametrize(
    "seconds, words",
    [(1.0, "1 second"), (1, "1 second"), (2.0, "2 seconds"), (0.5, "0.5 seconds"), (1e-9 + 1, "1 second"),
     (3600.0, "3,600 seconds")],
)  # fmt: skip
def test_one_second_is_no_plural(seconds, words):
    assert in_seconds(seconds) == words


def test_a_card_says_clips_of_1_second():
    assert Audio.words({"seconds": 1.0, "sampling_rate": 16_000}) == "audio clips of 1 second at 16,000 Hz"
