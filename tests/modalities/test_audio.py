"""Audio: parts, feature extractors, and padding for each kind of encoder."""

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from media import RATE, film, sound
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    HubertConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from hf_pretext.data.decoding import BadSample
from hf_pretext.encoders import build_encoder
from hf_pretext.features import encode
from hf_pretext.modalities import Context, Inputs
from hf_pretext.modalities._clips import ClipArguments
from hf_pretext.modalities.audio import Audio, AudioArguments
from hf_pretext.stream.collate import collate

SIZES = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=[8, 8, 8],
    conv_kernel=[10, 3, 3], conv_stride=[5, 2, 2], num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
)  # fmt: skip


def encoder(norm: str, config=Wav2Vec2Config):
    return build_encoder(config(**SIZES, feat_extract_norm=norm))


def row(seconds: float) -> dict:
    return {
        "audio": {"bytes": sound(samples=np.sin(np.arange(int(seconds * RATE)) / 9).astype(np.float32)), "path": None}
    }


def fresh(seconds=0.5, **options) -> Audio:
    given = {ClipArguments: ClipArguments(seconds=seconds), AudioArguments: AudioArguments(**options)}
    return Audio.from_options(given, Context())


def finished(sounds: Audio, examples: list[dict]) -> dict[str, torch.Tensor]:
    """What the encoder gets of a batch."""
    return sounds.finish(collate(examples, fills=sounds.fills))


@pytest.mark.parametrize("config", [Wav2Vec2Config, HubertConfig])
def test_group_norm_wants_one_length(config):
    """The norm includes padding, so the padding must not depend on the batch."""
    sounds = fresh()
    sounds.fit(encoder("group", config))
    short, long = sounds(row(0.2), None, 0.5), sounds(row(2.0), None, 0.5)
    batch = finished(sounds, [short, long])
    assert set(batch) == {"input_values"} and batch["input_values"].shape == (2, RATE // 2)
    assert short["input_values"].dtype == torch.int16 and short["sound_length"] == RATE // 5
    assert "to --seconds" in sounds.preparation(sounds.facts())[0]


@pytest.mark.parametrize("config", [Wav2Vec2Config, HubertConfig])
def test_layer_norm_pads_to_the_longest_with_a_mask(config):
    sounds = fresh()
    sounds.fit(model := encoder("layer", config))
    examples = [sounds(row(seconds), None, 0.5) for seconds in (0.2, 0.4)]
    batch = finished(sounds, examples)
    assert batch["attention_mask"].sum(1).tolist() == [int(0.2 * RATE), int(0.4 * RATE)]
    assert batch["input_values"].shape == (2, int(0.4 * RATE)) and sounds.processor.return_attention_mask
    together = sounds.processor(
        [example["input_values"].numpy() / np.float32(2**15) for example in examples],
        sampling_rate=RATE, padding=True, return_tensors="pt",
    )  # fmt: skip
    torch.testing.assert_close(batch["input_values"], together["input_values"], atol=1e-5, rtol=1e-5)
    assert torch.equal(batch["attention_mask"], together["attention_mask"].long())
    assert torch.isfinite(model(**batch).last_hidden_state).all()


def test_spectrograms_have_the_length_of_their_extractor():
    sounds = fresh(seconds=0.3)
    sounds.fit(model := build_encoder(CONFIGS["ast"]()))
    assert type(sounds.processor) is ASTFeatureExtractor
    examples = [sounds(row(seconds), None, 0.5) for seconds in (0.1, 2.0)]
    batch = finished(sounds, examples)
    assert set(batch) == {"input_values"} and batch["input_values"].shape == (2, 64, 32)
    assert model(**batch).last_hidden_state.shape[0] == 2
    assert sounds.noise(3)["input_values"].shape == (3, 64, 32)


def test_spectrograms_of_several_lengths_keep_the_mask_of_their_extractor():
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = build_encoder(Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=160)).eval()
    sounds = Audio(SeamlessM4TFeatureExtractor(), 1.0, brought_by="saved")
    sounds.fit(model)
    torch.manual_seed(0)
    short, full = (sounds.extracted(torch.randn(length)) for length in (8_000, 16_000))
    batch = collate([short, full], fills=sounds.fills)
    assert batch["attention_mask"].sum(1).tolist() == [len(short["input_features"]), len(full["input_features"])]
    with torch.no_grad():
        alone = encode(model, input_features=short["input_features"][None])[-1]
        torch.testing.assert_close(encode(model, **batch)[-1][:1], alone, atol=1e-5, rtol=1e-5)
    assert sounds.facts()["sounds_padded"] == "to the longest of a batch"
    sounds = fresh()
    sounds.fit(build_encoder(CONFIGS["ast"]()))
    assert sounds.facts()["sounds_padded"] == "to the one length that the extractor gives"


def test_the_part_is_where_it_is_asked_for():
    sounds = Audio(Wav2Vec2FeatureExtractor(do_normalize=False), 0.25)
    ramp = {"audio": {"bytes": sound(samples=np.arange(RATE, dtype=np.float32) / RATE), "path": None}}
    first = [finished(sounds, [sounds(ramp, None, at)])["input_values"][0, 0].item() for at in (0.0, 0.5, 1.0)]
    assert first == pytest.approx([0.0, 0.375, 0.75], abs=1e-3)


def test_the_sound_of_a_film_is_read_where_there_is_no_other():
    sounds = fresh(seconds=0.5)
    late = {"video": {"bytes": film(seconds=2.0, silent=1.0), "path": None}}
    assert sounds.column({"video": 1, "audio": 2}) == "audio" and sounds.column(late) == "video"
    assert sounds.processor(np.zeros(9), sampling_rate=RATE)["input_values"][0].sum() == 0
    values = finished(sounds, [sounds(late, None, 1.0)])["input_values"]
    assert values.std() == pytest.approx(1.0, abs=0.01)  # normalised, not silent
    with pytest.raises(BadSample, match="sound is int"):
        sounds({"audio": 3}, None, 0.0)


def test_an_extractor_that_is_brought_stays(tmp_path):
    Wav2Vec2FeatureExtractor(sampling_rate=8_000, do_normalize=False).save_pretrained(tmp_path)
    sounds = fresh(feature_extractor=str(tmp_path))
    sounds.fit(encoder("layer"))
    assert sounds.shape()["sampling_rate"] == 8_000 and not sounds.processor.do_normalize
    assert sounds(row(0.4), None, 0.0)["input_values"].shape == (int(0.4 * 8_000),)
    Inputs(sounds).processor.save_pretrained(tmp_path / "saved")
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "saved").sampling_rate == 8_000
    with pytest.raises(ValueError, match="outputs input_values, but ViTModel takes pixel_values"):
        fresh(feature_extractor=str(tmp_path)).fit(build_encoder(CONFIGS["vit"]()))
    with pytest.raises(ValueError, match="--feature_extractor nowhere has no feature extractor"):
        fresh(feature_extractor="nowhere")
    with pytest.raises(Exception, match="seconds must be above 0"):
        ClipArguments(seconds=0.0)


def test_a_saved_encoder_says_how_it_takes_sounds(tmp_path):
    Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(tmp_path)
    assert Audio.from_saved(str(tmp_path), encoder("group"), "it").padded
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="it has no feature extractor"):
        Audio.from_saved(str(tmp_path / "empty"), encoder("group"), "it")
