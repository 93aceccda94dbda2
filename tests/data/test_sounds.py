"""Parts of sound files: rates, depths, channels, codecs; what is cut or damaged is a bad sample."""

import io
import struct
import sys

import numpy as np
import pytest
import soundfile
import torch
from made_clips import RATE, sound_file, tone

from hf_pretext.data import sounds
from hf_pretext.data.clips import to_clip
from hf_pretext.data.limits import BadSample, Limits

NOISE = 0.1 * np.random.default_rng(0).standard_normal((4 * RATE, 1)).astype(np.float32).cumsum(0) % 0.5


def power(samples) -> float:
    return float(np.square(np.asarray(samples, dtype=np.float64)).mean())


# resampling


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("target", [8_000, 16_000, 48_000])
def test_a_tone_stays_the_tone_at_any_rate(rate, target):
    clip = to_clip(sound_file(tone(3.0, rate, 1000), rate), 1.0, at=0.5, sampling_rate=target)
    assert clip.sound.shape == clip.mask.shape == (target,) and clip.mask.all() and clip.start == 1.0
    np.testing.assert_allclose(clip.sound, tone(1.0, target, 1000), atol=2e-3)  # in phase: 1 s has 1,000 periods


@pytest.mark.parametrize("pitch", [8_300, 9_000, 12_000, 15_999, 20_000])
@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_no_frequency_above_half_the_rate_passes(rate, pitch):
    content = tone(2.0, rate, pitch)
    clip = to_clip(sound_file(content, rate), 1.0, at=0.5, sampling_rate=16_000)
    assert 10 * np.log10(power(clip.sound) / power(content)) < -80  # dB; 8.3 kHz leaked at -10 before


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_the_samples_of_a_part_are_those_of_the_resampled_file(rate):
    content = sound_file(np.random.default_rng(0).uniform(-0.5, 0.5, 4 * rate), rate, subtype="FLOAT")
    full = to_clip(content, 4.0, sampling_rate=RATE).sound
    part = to_clip(content, 1.0, at=0.5, sampling_rate=RATE)
    torch.testing.assert_close(part.sound, full[round(1.5 * RATE) :][:RATE], atol=1e-3, rtol=0)


def test_without_resampling_the_samples_are_those_of_the_file():
    content = sound_file(NOISE, subtype="FLOAT")
    clip = to_clip({"bytes": content, "path": None}, 1.0, at=0.25, sampling_rate=RATE)
    assert clip.start == 0.75 and clip.frames is None and clip.sound.dtype == torch.float32
    np.testing.assert_array_equal(clip.sound.numpy(), NOISE[12_000:28_000, 0])


# depth, channels, codecs


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("FLAC", "PCM_24", 1e-6),
        ("AIFF", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "ULAW", 3e-2),
        ("WAV", "IMA_ADPCM", 3e-2),
        ("OGG", "VORBIS", 6e-2),
        ("OGG", "OPUS", 6e-2),
        ("MP3", None, 6e-2),
        ("AU", "PCM_16", 1e-4),
        ("RF64", "PCM_16", 1e-4),
        ("W64", "PCM_16", 1e-4),
        ("CAF", "PCM_16", 1e-4),
    ],
)
def test_formats_and_depths(format, subtype, error):
    """A tone of few bits, whose frames use the bits of many earlier ones in MP3."""
    content = sound_file(tone(4.0), format=format, subtype=subtype)
    full = soundfile.SoundFile(io.BytesIO(content)).read(dtype="float32")
    assert np.abs(full[2000:-2000] - tone(4.0)[2000 : len(full) - 2000]).max() < error
    for at in (0.0, 0.5, 0.9):
        clip = to_clip(content, 1.0, at=at, sampling_rate=RATE)
        expected = full[round(clip.start * RATE) :][:RATE]
        assert clip.mask.all() and clip.start == pytest.approx(3 * at, abs=0.03)
        np.testing.assert_allclose(clip.sound, expected, atol=1e-3 if subtype == "OPUS" else 1e-6)


def test_gsm_in_wav_which_can_not_be_sought():
    content = sound_file(tone(4.0, 8_000), 8_000, subtype="GSM610")
    assert not soundfile.SoundFile(io.BytesIO(content)).seekable()
    for at in (0.0, 0.5, 1.0):
        clip = to_clip(content, 1.0, at=at, sampling_rate=8_000)
        full = soundfile.SoundFile(io.BytesIO(content)).read(99_999, dtype="float32")
        np.testing.assert_array_equal(clip.sound.numpy(), full[round(clip.start * 8_000) :][:8_000])
        assert clip.start == pytest.approx(3.0 * at, abs=0.03) and power(clip.sound) == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(channels):
    samples = np.stack([tone(2.0, pitch=500.0 * (i + 1), level=0.9) for i in range(channels)], 1)
    sound = to_clip(sound_file(samples), 1.0, at=0.5, sampling_rate=RATE).sound
    np.testing.assert_allclose(sound, samples[:RATE].mean(1), atol=1e-4)


def test_opposite_phases_do_not_vanish():
    """Of channels that cancel each other, the loudest one is taken; else the mean, so that no channel is lost."""
    first, second = tone(2.0), tone(2.0, pitch=700.0)
    for others, expected in (
        ([first, -first], first),
        ([0.5 * first, -first], -first),
        ([first, -first, first, -first], first),
        ([first + 0.1 * second, -first + 0.1 * second], first + 0.1 * second),  # nearly opposite
        ([first, second], (first + second) / 2),
        ([first, 0 * first], first / 2),
        ([first, 0 * first, 0 * first, 0 * first, 0 * first, 0 * first], first / 6),  # only one of six
        ([first, first], first),
        ([0 * first, 0 * first], 0 * first),
    ):
        sound = to_clip(sound_file(np.stack(others, 1), subtype="FLOAT"), 1.0, at=0.5, sampling_rate=RATE).sound
        np.testing.assert_allclose(sound, expected[RATE // 2 :][:RATE], atol=1e-6)


# length


def test_a_shorter_sound_is_padded_with_a_mask():
    clip = to_clip(sound_file(tone(0.5, 8_000), 8_000), 2.0, at=0.9, sampling_rate=RATE)
    assert clip.start == 0.0 and clip.sound.shape == (2 * RATE,)
    assert clip.mask.sum() == RATE // 2 and clip.mask[: RATE // 2].all() and not clip.sound[RATE // 2 :].any()
    assert power(clip.sound[: RATE // 2]) == pytest.approx(0.125, abs=0.01)


def test_a_part_is_where_it_is_asked_for():
    ramp = np.arange(RATE, dtype=np.float32) / RATE
    for at, first in ((0.0, 0.0), (0.5, 0.375), (1.0, 0.75)):
        clip = to_clip(sound_file(ramp), 0.25, at=at, sampling_rate=RATE)
        assert clip.sound[0].item() == pytest.approx(first, abs=1e-3) and clip.start == first


# bad content


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", None), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None), ("AU", None),
        ("RF64", None), ("W64", None), ("CAF", None),
    ],
)  # fmt: skip
def test_a_cut_sound_is_a_bad_sample(format, subtype, part):
    content = sound_file(NOISE, format=format, subtype=subtype)
    with pytest.raises(BadSample, match="cut file|cut sound|damaged sound"):
        to_clip(content[: int(part * len(content))], 0.5, sampling_rate=RATE)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3", "AIFF", "AU"])
def test_less_than_5_percent_missing_is_not_used(format):
    content = sound_file(NOISE, format=format)
    clip = to_clip(content[: int(0.97 * len(content))], 1.0, at=1.0, sampling_rate=RATE)
    assert 2.7 < clip.start < 2.95 and clip.mask.all()


def test_a_wav_from_a_pipe_states_no_size():
    content = bytearray(sound_file(NOISE))
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF):
        content[4:8] = struct.pack("<I", size)
        assert to_clip(bytes(content), 1.0, sampling_rate=RATE).mask.all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "empty sound: the file or value has 0 bytes"),
        (lambda: b"hello" * 100, "damaged sound: Format not recognised."),
        (lambda: None, "sound is NoneType, not bytes"),
        (lambda: sound_file(tone(0.0)), "empty sound"),
        (lambda: sound_file(np.array([0.0, np.nan] * RATE), subtype="FLOAT"), "not all samples are finite"),
        (lambda: sound_file(np.array([0.0, np.inf] * RATE), subtype="FLOAT"), "not all samples are finite"),
        (lambda: sound_file(tone(2.0, 800_000), 800_000), "a sampling rate of 800,000 Hz"),
        (lambda: sound_file(np.zeros((900, 20)), 700_000), "20 channels of 700,000 Hz"),
    ],
)
def test_invalid_sounds_are_bad_samples(content, reason):
    with pytest.raises(BadSample, match=reason):
        to_clip(content(), 0.5, sampling_rate=RATE)


def test_the_reason_of_a_damaged_sound_is_always_the_same():
    """So that equal reasons are counted together."""
    reasons = set()
    for _ in range(3):
        with pytest.raises(BadSample) as error:
            to_clip(b"hello" * 100, 1.0, sampling_rate=RATE)
        reasons.add(str(error.value))
    assert reasons == {"damaged sound: Format not recognised."}


def test_limits_of_sounds():
    content = sound_file(tone(1.0))
    to_clip(content, 0.5, sampling_rate=RATE, limits=Limits(seconds=1.0, bytes=len(content)))
    with pytest.raises(BadSample, match=r"more than 0.4 seconds of sound \(--max_sound_seconds\)"):
        to_clip(content, 0.5, sampling_rate=RATE, limits=Limits(seconds=0.4))
    with pytest.raises(BadSample, match=r"--max_sample_bytes"):
        to_clip(content, 0.5, sampling_rate=RATE, limits=Limits(bytes=len(content) - 1))


@pytest.mark.parametrize(("level", "loudness"), [(0.0, "silence"), (0.01, "-43 dB"), (0.1, None)])
def test_sounds_of_too_little_loudness(level, loudness):
    """A sine of the full range has -3 dB. Padding is left out."""
    content = sound_file(tone(1.0, level=level), subtype="FLOAT")
    assert to_clip(content, 9.0, sampling_rate=RATE).sound.abs().max() == pytest.approx(level, rel=0.01)
    if loudness is None:
        assert to_clip(content, 9.0, sampling_rate=RATE, min_loudness=-23.5).mask.sum() == RATE
        return
    with pytest.raises(BadSample, match=rf"{loudness}, less than -40 dB \(--min_loudness\)"):
        to_clip(content, 9.0, sampling_rate=RATE, min_loudness=-40.0)


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_packages_of_sounds_are_named(package, monkeypatch):
    content = sound_file(tone(1.0, 8_000), 8_000)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf"{package} is not installed. Install it: pip install 'hf_pretext\[audio\]'"
    ):
        to_clip(content, 0.5, sampling_rate=RATE)


def test_only_the_part_is_decoded(monkeypatch):
    reads = []
    read = soundfile.SoundFile.read

    def counting(file, frames=-1, **options):
        reads.append(frames)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    to_clip(sound_file(tone(60.0), format="FLAC"), 1.0, at=0.5, sampling_rate=RATE)
    assert sum(reads) <= (1 + 2 * sounds.MARGIN) * RATE + 2
