"""Audio: parts, feature extractors, and padding for each kind of encoder."""

import sys

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from made_clips import sound_file
from media import RATE, film, sound
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    HubertConfig,
    ResNetConfig,
    SeamlessM4TFeatureExtractor,
    ViTConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from hf_pretext.cards.template import environment
from hf_pretext.data.clips import to_clip
from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.features import encode
from hf_pretext.modalities import Context, Inputs
from hf_pretext.modalities._clips import ClipArguments
from hf_pretext.modalities.audio import Audio, AudioArguments
from hf_pretext.stream.collate import collate
from hf_pretext.stream.loader import each_row
from hf_pretext.stream.mixture import Mixture

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
    assert short["input_values"].dtype == torch.float32 and short["sound_length"] == RATE // 5
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
        [example["input_values"].numpy() for example in examples],
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


def hard_sounds() -> dict[str, np.ndarray]:
    """Sounds whose quiet bands or seconds are far below the loud ones, and noise: `(T,)`, of a second."""
    random, time = np.random.default_rng(0), np.arange(RATE) / RATE
    noise = random.standard_normal(RATE)
    low = np.fft.irfft(np.fft.rfft(noise) * np.exp(-((np.fft.rfftfreq(RATE, 1 / RATE) / 500) ** 2)))
    harmonics = sum(0.3 / k * np.sin(2 * np.pi * 220 * k * time) for k in range(1, 9)) * np.exp(-8 * time)
    tone = np.sin(2 * np.pi * 440 * time)
    named = {"tone": 0.5 * tone, "quiet tone": 0.01 * tone, "low": 0.5 * low, "quiet low": 0.01 * low}
    return {**named, "decay": harmonics, "noise": 0.1 * noise, "quiet noise": 1e-3 * noise}


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "PCM_16"])
@pytest.mark.parametrize(
    "extractor",
    [ASTFeatureExtractor(max_length=98), WhisperFeatureExtractor(chunk_length=1), Wav2Vec2FeatureExtractor()],
)
def test_what_the_device_gives_of_hard_sounds_is_that_of_the_extractor(extractor, subtype):
    """From file to encoder, through a worker: what is computed of it before must not have a noise of its own."""
    sounds = hard_sounds()
    rows = [
        {"audio": {"bytes": sound_file(samples, RATE, subtype=subtype), "path": None}} for samples in sounds.values()
    ]
    audio = Audio(extractor, 1.0, padded=True)
    inputs, name = Inputs(audio), audio.encoder_input
    source = open_source(rows, needed=("audio",), columns={"audio": "audio"})
    assert audio.front_end is not None
    (batch,) = each_row(Mixture(source), inputs, len(rows), num_workers=1)
    given = inputs.finish(batch)[name]
    for ours, key in zip(given, batch["keys"].tolist(), strict=True):
        heard = to_clip(rows[key]["audio"], 1.0, sampling_rate=RATE).sound.numpy()
        expected = extractor(heard, sampling_rate=RATE, return_tensors="pt")[name][0]
        assert (ours - expected).abs().max() < 2e-4, list(sounds)[key]


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


def resnet(channels: int = 1):
    return build_encoder(ResNetConfig(num_channels=channels, embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1]))


def test_an_image_encoder_of_one_channel_takes_log_mel_and_its_usage_code_gives_the_same(tmp_path):
    sounds, model = fresh(seconds=0.5, num_mel_bins=24), resnet().eval()
    sounds.fit(model)
    assert type(sounds.processor) is ASTFeatureExtractor and sounds.encoder_input == "pixel_values"
    batch = finished(sounds, [sounds(row(0.5), None, 0.5), sounds(row(0.2), None, 0.5)])
    assert set(batch) == {"pixel_values"} and batch["pixel_values"].shape == (2, 1, 24, 48)
    assert sounds.shape()["num_mel_bins"] == 24 and sounds.shape()["spectrogram_frames"] == 48
    assert {name: value.shape for name, value in sounds.noise(3).items()} == {"pixel_values": (3, 1, 24, 48)}
    model.save_pretrained(tmp_path)
    sounds.processor.save_pretrained(tmp_path)
    code = (
        environment()
        .from_string(sounds.usage)
        .render(folder=tmp_path, subfolder="", hidden_of=").last_hidden_state", **sounds.facts())
    )
    wave = row(0.5)["audio"]
    names = {"wave": to_clip(wave, 0.5, sampling_rate=RATE).sound.numpy()}
    exec(code.replace("torch.zeros(extractor.sampling_rate).numpy()", "wave"), names)
    with torch.no_grad():
        ours = encode(model, pixel_values=batch["pixel_values"][:1])[-1]
    torch.testing.assert_close(names["features"], ours, atol=1e-4, rtol=1e-4)
    again = Audio.from_saved(str(tmp_path), model, "it")
    assert again.as_image and again.seconds == pytest.approx(0.5, abs=0.02)


def test_an_image_encoder_of_one_size_sets_the_size_of_log_mel():
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=8)
    model = build_encoder(ViTConfig(**sizes, num_channels=1, image_size=[32, 64]))
    sounds = fresh(seconds=0.5)
    sounds.fit(model)
    assert sounds.noise()["pixel_values"].shape == (2, 1, 32, 64)
    with pytest.raises(
        ValueError, match=r"image_size=\(32, 64\).*Give an encoder of this image_size, or other --num_mel"
    ):
        fresh(seconds=0.5, num_mel_bins=40).fit(model)
    with pytest.raises(ValueError, match=r"longer than what ASTFeatureExtractor keeps.*Give --seconds 0.66 or less"):
        fresh(seconds=2.0).fit(model)
    with pytest.raises(ValueError, match="ResNetModel takes pixel_values.*num_channels=1 in its config"):
        fresh().fit(resnet(channels=3))
    with pytest.raises(ValueError, match="num_mel_bins has no effect: it is for image encoders"):
        fresh(num_mel_bins=32).fit(encoder("group"))


def test_a_spectrogram_encoder_of_fixed_length_refuses_other_lengths(tmp_path):
    model = build_encoder(CONFIGS["ast"]())  # 64 frames, 0.65 s
    with pytest.raises(
        ValueError, match=r"Clips of 2 seconds \(--seconds\) are longer than .* Give --seconds 0.66 or less"
    ):
        fresh(seconds=2.0).fit(model)
    ASTFeatureExtractor(num_mel_bins=32, max_length=80).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="gives log-mel of 80x32, which ASTModel with num_mel_bins=32, max_length=64"):
        fresh(feature_extractor=str(tmp_path)).fit(model)
    saved = Audio.from_saved(str(saved_as(tmp_path / "ok", CONFIGS["ast"]())), model, "it")
    assert saved.length == 400 + 64 * 160 - 1


def saved_as(folder, config):
    ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length).save_pretrained(folder)
    return folder


def test_a_checkpoint_without_extractor_gets_that_of_its_architecture(tmp_path):
    CONFIGS["ast"]().save_pretrained(tmp_path)
    options = {ClipArguments: ClipArguments(seconds=0.5), AudioArguments: AudioArguments()}
    sounds = Audio.from_options(options, Context(start=str(tmp_path)))
    sounds.fit(build_encoder(CONFIGS["ast"]()))
    assert type(sounds.processor) is ASTFeatureExtractor


def test_an_extractor_that_the_device_can_not_match_is_used_in_the_workers():
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = build_encoder(Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=160))
    sounds = Audio(SeamlessM4TFeatureExtractor(), 0.5, brought_by="saved")
    sounds.fit(model)
    assert sounds.front_end is None and sounds.facts()["extracted"] == "in the workers"
    clip = to_clip(row(0.5)["audio"], 0.5, sampling_rate=RATE).sound.numpy()
    theirs = SeamlessM4TFeatureExtractor()(clip, sampling_rate=RATE, return_tensors="pt")["input_features"][0]
    torch.testing.assert_close(sounds(row(0.5), None, 0.5)["input_features"], theirs)
    changing = Audio(SeamlessM4TFeatureExtractor(), 0.5, brought_by="it", settings=AudioArguments(time_mask=0.2))
    with pytest.raises(
        ValueError, match="--time_mask has no effect: SeamlessM4TFeatureExtractor is run in the workers"
    ):
        changing.fit(model)


def test_changes_are_drawn_in_training_alone_and_repeat_for_a_seed():
    options = dict(loudness_jitter=6.0, noise_level=-10.0, time_mask=0.4, frequency_mask=0.4)
    plain, sounds = fresh(seconds=0.5), fresh(seconds=0.5, **options)
    for each in (plain, sounds):
        each.fit(build_encoder(CONFIGS["ast"]()))

    def drawn(seed, modality=sounds):
        random = None if seed is None else np.random.default_rng(seed)
        return finished(modality, [modality(row(0.5), random, 0.5)])["input_values"]

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    for unchanged in (drawn(None), drawn(1, sounds.evaluation()), drawn(1, plain)):
        assert torch.equal(unchanged, drawn(None, plain))
    state = np.random.default_rng(0)
    plain(row(0.5), state, 0.5)
    assert state.bit_generator.state == np.random.default_rng(0).bit_generator.state  # nothing drawn where all is off
    assert "loudness_jitter 6, noise_level -10, time_mask 0.4" in sounds.preparation(sounds.facts())[1]
    same = finished(sounds, [sounds(row(0.5), np.random.default_rng(seed), 0.5) for seed in (1, 2)])["input_values"]
    torch.testing.assert_close(same, torch.cat([drawn(1), drawn(2)]), atol=1e-5, rtol=0)  # in any batch


def test_changes_without_effect_are_refused():
    for option, message in (
        ({"frequency_mask": 0.1}, "--frequency_mask has no effect: the encoder takes waveforms"),
        ({"loudness_jitter": 3.0}, "--loudness_jitter has no effect: Wav2Vec2FeatureExtractor normalises"),
    ):
        with pytest.raises(ValueError, match=message):
            fresh(**option).fit(encoder("layer"))
    fresh(time_mask=0.1, noise_level=0.0).fit(encoder("layer"))
    for wrong in ({"time_mask": 1.5}, {"loudness_jitter": -1.0}, {"num_mel_bins": 0}, {"max_sound_seconds": 0.0}):
        with pytest.raises(Exception, match=f"{next(iter(wrong))} must be"):
            AudioArguments(**wrong)


def test_silence_is_a_bad_sample_where_a_loudness_is_asked_for():
    quiet = {"audio": {"bytes": sound(samples=np.zeros(RATE, np.float32)), "path": None}}
    assert fresh()(quiet, None, 0.5)["sound_length"] == RATE // 2
    with pytest.raises(BadSample, match=r"silence, less than -50 dB \(--min_loudness\)"):
        fresh(min_loudness=-50.0)(quiet, None, 0.5)
    assert fresh(min_loudness=-50.0)(row(0.5), None, 0.5)


def test_a_sound_shorter_than_a_frame_of_log_mel_is_a_bad_sample():
    sounds = fresh(seconds=0.5)
    sounds.fit(build_encoder(CONFIGS["ast"]()))
    with pytest.raises(BadSample, match="sound of 320 samples, fewer than 400"):
        sounds(row(0.02), None, 0.5)


def test_missing_packages_are_named_before_data_is_read(monkeypatch):
    Audio.check_packages()
    for package in ("av", "soxr"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"Audio clips need av and soxr, .*pip install 'hf_pretext\[audio\]'"):
        Audio.check_packages()


def test_loud_samples_are_neither_clipped_nor_wrapped():
    loud = {"audio": {"bytes": float_wav(np.full(RATE, 1.5, np.float32)), "path": None}}
    wave = fresh()(loud, None, 0.5)["input_values"]
    assert wave.min() == wave.max() == 1.5


def float_wav(samples):
    import io

    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
