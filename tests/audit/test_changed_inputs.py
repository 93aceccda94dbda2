"""Changed sounds and films reach the encoder, and what is not changed is what the encoder is measured on."""

import math

import numpy as np
import pytest
import torch
from loud_clips import write_clips
from media import RATE
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from hf_pretext import XdcForPreTraining
from hf_pretext.audit import changed_inputs
from hf_pretext.audit.changed_inputs import clean_batches, encoder_inputs, transformations_of
from hf_pretext.audit.entry import Audit, AuditOptions
from hf_pretext.audit.transformations import ROWS
from hf_pretext.cards.audit import encoder_tables
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.presets.films import resnet

SIDE = 32
OF_SOUNDS, OF_FILMS = ("gain", "noise", "pitch", "shift"), ("rotation", "flip", "hue", "jpeg")
WAVES = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(16, 16),
    conv_stride=(10, 8), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True, mask_time_prob=0.0,
    layerdrop=0.0,
)  # fmt: skip


def built() -> XdcForPreTraining:
    torch.manual_seed(0)
    return XdcForPreTraining.from_encoders(audio=Wav2Vec2Config(**WAVES), video=resnet(3, 8, 2), num_clusters=2)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    tables = tmp_path_factory.mktemp("tables")
    write_clips(tmp_path_factory.mktemp("files"), tables, {"train": 48, "validation": 16, "test": 24}, (2, 5, 8, 11))
    sounds = Audio(Wav2Vec2FeatureExtractor(sampling_rate=RATE), 0.5)  # gives waves of mean 0 and variance 1
    films = Video(default_video_processor(SIDE), 2, seconds=0.5)
    for modality, kind in ((sounds, "audio"), (films, "video")):
        modality.fit(built().encoders[kind])
    return LabelledSet(str(tables), Inputs(sounds, films), "half")


def test_sounds_and_films_are_in_the_entry_and_the_card(labelled):
    """A gain changes nothing for an encoder whose waves are normalised; noise does."""
    options = AuditOptions(only=("transformations",))
    entry = Audit(labelled, options).entry({"trained": [built], "random": [built]})
    assert all("effective rank" in warning for warning in entry["warnings"])  # the encoder is tiny
    sounds, films = (entry["encoders"][kind]["trained"] for kind in ("audio", "video"))
    assert {f"invariance_{name}" for name in OF_SOUNDS} <= sounds.keys() and "invariance_flip" not in sounds
    assert {f"equivariance_{name}" for name in OF_FILMS} <= films.keys()
    assert sounds["invariance_gain"]["mean"] == pytest.approx(1, abs=1e-3)
    assert sounds["parameter_bits_gain"]["mean"] < 0.02
    assert sounds["invariance_noise"]["mean"] < 0.99
    assert films["invariance_flip"]["mean"] == pytest.approx(1, abs=0.01)  # films of one colour
    tables = {table["title"]: table["rows"] for table in encoder_tables(entry)}
    assert [row[0] for row in tables["changed inputs of the audio encoder"]] == list(OF_SOUNDS)


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_batches_that_are_not_changed_are_those_of_the_set(labelled, kind, monkeypatch):
    monkeypatch.setattr(changed_inputs, "ROWS", dict.fromkeys(ROWS, 12 * changed_inputs.COST[kind]))
    (batch,), (clean,) = clean_batches(labelled, kind)["test"], labelled.batches("test", kind)
    (inputs,) = encoder_inputs(labelled, kind, batch)
    assert inputs.keys() == clean.keys()
    for name, values in inputs.items():
        torch.testing.assert_close(values, clean[name][::2])  # 12 of 24 rows


def test_all_frames_of_a_film_change_alike(labelled):
    films = labelled.inputs.by_name["video"]
    hue = next(each for each in transformations_of(films) if each.name == "hue")
    frame = torch.rand(2, 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    changed = hue.change({films.encoder_input: frame.expand(-1, 3, -1, -1, -1)}, 120)[films.encoder_input]
    assert changed.shape == (2, 3, 3, SIDE, SIDE)
    torch.testing.assert_close(changed[:, 0], changed[:, 2])
    torch.testing.assert_close(changed[:, 0], frame[:, 0].roll(1, 1), atol=1e-4, rtol=0)  # channels move on by one


def test_sounds_without_waves_are_named(labelled):
    sounds = Audio(SeamlessM4TFeatureExtractor(feature_size=80), 0.5)
    assert transformations_of(sounds) == ()
    audit = Audit(labelled, AuditOptions(only=("transformations",)))
    audit.labelled.inputs.by_name["audio"], known = sounds, audit.labelled.inputs.by_name["audio"]
    try:
        audit.model(built())
    finally:
        audit.labelled.inputs.by_name["audio"] = known
    assert audit.problems[0].startswith(
        "No audit of the changes and simple cues of sounds: SeamlessM4TFeatureExtractor"
    )


def test_noise_does_not_depend_on_the_padding_of_the_batch():
    noise = next(each for each in changed_inputs.sound_transformations() if each.name == "noise")
    wave = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 500)).astype(np.float32))
    padded = torch.nn.functional.pad(wave, (0, 300))
    torch.testing.assert_close(noise.change(padded, -10.0)[:, :500], noise.change(wave, -10.0))
    assert not noise.change(padded, -10.0)[:, 500:].any() and math.isinf(noise.levels[0])
