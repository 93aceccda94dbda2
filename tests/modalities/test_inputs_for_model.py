"""Modalities of sound and film, made of plain processors for a model that is built already."""

from types import SimpleNamespace

import pytest
from conftest import CONFIGS, IMAGE
from transformers import ASTFeatureExtractor

from hf_pretext.data.limits import LIMITS
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities import modality_classes
from hf_pretext.modalities._for_model import modalities_for
from hf_pretext.modalities.image import default_processor
from hf_pretext.modalities.video import default_video_processor

CLASSES = modality_classes(["audio", "video"])


def made(processing_class, fixed=None):
    encoders = {"audio": build_encoder(CONFIGS["ast"]()), "video": build_encoder(CONFIGS["videomae"]())}
    return modalities_for(CLASSES, processing_class, encoders, fixed or {}, LIMITS, "AudioVisualForPreTraining")


def test_each_kind_takes_its_part_of_a_processor():
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    audio, video = made(
        SimpleNamespace(feature_extractor=extractor, video_processor=default_video_processor(IMAGE)),
        {"seconds": 0.5, "num_frames": 4, "color_jitter": 0.0},
    )
    assert type(audio.processor) is ASTFeatureExtractor and audio.processor.num_mel_bins == 32
    assert (audio.seconds, video.seconds, video.frames, video.augmentation.color_jitter) == (0.5, 0.5, 4, 0.0)
    assert video.size == (IMAGE, IMAGE)
    _, frames = made(SimpleNamespace(feature_extractor=extractor, image_processor=default_processor(IMAGE)))
    assert frames.size == (IMAGE, IMAGE)  # of an encoder of single frames


def test_a_kind_without_a_part_is_named_with_the_fix():
    with pytest.raises(ValueError, match=r"is a \w+, but AudioVisual\w+ takes audio clips\. Give processing_cl"):
        made(default_video_processor(IMAGE))
    with pytest.raises(ValueError, match=r"is missing, but \w+ takes audio clips and videos\. .*give Inputs\("):
        made(None)
