"""Numbers of the stream's settings."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_pretext.modalities.image import Augmentation
from hf_pretext.stream.settings import StreamSettings


def test_numbers_of_settings():
    assert StreamSettings(max_bad_fraction=1).max_bad_fraction == 1.0
    assert isinstance(Augmentation(crop_scale=1).crop_scale, float)
    for wrong in ({"max_bad_fraction": True}, {"max_bad_fraction": 2}, {"parts": 1.0}):
        with pytest.raises(StrictDataclassError):
            StreamSettings(**wrong)
