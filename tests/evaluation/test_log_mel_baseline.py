"""Log-mel: the formula, padding, and the baseline on real sounds."""

import io

import datasets
import numpy as np
import pytest
import soundfile
import torch
from conftest import CONFIGS
from media import sound
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor

from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.baselines import baseline_transfer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.log_mel import MELS, log_mel_transfer, statistics
from hf_pretext.evaluation.transfer import METHODS
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modules.log_mel import log_mel

RATE = 16_000


def reference(wave: np.ndarray, rate: int) -> np.ndarray:
    """The formula, frame by frame and band by band, in float64: `(frames, MELS)`."""
    length, hop = rate // 40, rate // 100
    points = 1
    while points < length:
        points *= 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    borders = np.linspace(mel(20), mel(rate / 2), MELS + 2)
    centres = mel(np.arange(points // 2 + 1) * rate / points)
    rows = []
    for start in range(0, len(wave) - length + 1, hop):
        frame = wave[start : start + length].astype(np.float64)
        frame = frame - frame.mean()
        frame = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(length)]) * window
        power = np.abs(np.fft.rfft(frame, points)) ** 2
        row = []
        for low, middle, high in zip(borders, borders[1:], borders[2:], strict=False):
            rising, falling = (centres - low) / (middle - low), (high - centres) / (high - middle)
            row.append((np.clip(np.minimum(rising, falling), 0, None) * power).sum())
        rows.append(np.log(np.maximum(row, np.finfo(np.float32).eps)))
    return np.stack(rows)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_000])
def test_it_is_the_formula(rate):
    random = np.random.default_rng(0)
    wave = 0.1 * random.standard_normal(rate // 4) + np.sin(np.arange(rate // 4) / 5)
    ours = log_mel(torch.tensor(wave[None], dtype=torch.float32), rate, MELS)
    expected = reference(wave, rate)
    assert ours.shape == (1, 23, MELS)
    np.testing.assert_allclose(ours[0].numpy(), expected, atol=2e-3)


def test_it_is_what_the_extractor_of_ast_gives():
    wave = torch.tensor(np.random.default_rng(0).standard_normal((1, RATE)), dtype=torch.float32) * 0.1
    extractor = ASTFeatureExtractor(num_mel_bins=MELS, max_length=98, do_normalize=False)
    expected = extractor(wave[0].numpy(), sampling_rate=RATE, return_tensors="pt")["input_values"]
    torch.testing.assert_close(log_mel(wave, RATE, MELS), expected, atol=5e-3, rtol=1e-3)


def test_padding_changes_nothing():
    random = torch.Generator().manual_seed(0)
    short = 0.1 * torch.randn(1, 5_000, generator=random)
    padded = torch.nn.functional.pad(short, (0, 3_000))
    alone = statistics(short, torch.tensor([5_000]), RATE)
    torch.testing.assert_close(statistics(padded, torch.tensor([5_000]), RATE), alone)
    frames = log_mel(short, RATE, MELS)[0]
    torch.testing.assert_close(alone[0], torch.cat([frames.mean(0), frames.std(0, correction=0)]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(statistics(padded, torch.tensor([8_000]), RATE), alone, atol=0.1)
    brief = statistics(short[:, :9], torch.tensor([9]), RATE)  # shorter than a frame
    assert torch.isfinite(brief).all() and brief[0, MELS:].eq(0).all()


def table_of_tones(lengths=(4_000, 4_000)) -> datasets.DatasetDict:
    """Noisy tones of two pitches, at random phase and loudness."""

    def rows(count, seed):
        random = np.random.default_rng(seed)
        for i in range(count):
            time = np.arange(lengths[i // 2 % 2]) / RATE
            wave = random.uniform(0.1, 0.5) * np.sin(2 * np.pi * (300, 2000)[i % 2] * time + random.uniform(0, 6))
            wave = (wave + 0.02 * random.standard_normal(len(wave))).astype(np.float32)
            yield {"audio": {"bytes": sound(samples=wave), "path": None}, "pitch": ("low", "high")[i % 2]}

    tables = {
        split: datasets.Dataset.from_list(list(rows(count, seed))).cast_column("audio", datasets.Audio())
        for seed, (split, count) in enumerate({"train": 60, "validation": 8, "test": 8}.items())
    }
    return datasets.DatasetDict(tables)


@pytest.mark.parametrize("lengths", [(4_000, 4_000), (4_000, 2_500)])
def test_the_baseline_measures_each_method_on_waves(lengths):
    audio = Audio(Wav2Vec2FeatureExtractor(return_attention_mask=True), 0.25)
    labelled = LabelledSet(table_of_tones(lengths), Inputs(audio), "pitch", batch_size=5)
    metrics = log_mel_transfer(labelled, METHODS)
    assert set(metrics) == set(METHODS) and baseline_transfer(labelled, "audio", METHODS) == {"log-mel": metrics}
    for method in METHODS:
        assert metrics[method]["layer"] == "log-mel" and metrics[method]["test"]["top1"] == 1.0


def test_waves_are_those_that_the_workers_decode():
    audio = Audio(Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True), 0.25)
    labelled = LabelledSet(table_of_tones((4_000, 2_500)), Inputs(audio), "pitch", batch_size=3)
    batches = list(labelled.examples("test", "audio"))
    assert [len(audio.waves_of(batch)) for batch in batches] == [3, 3, 2]
    assert audio.lengths_of(batches[0]).tolist() == [4_000, 4_000, 2_500]
    content = table_of_tones()["test"].cast_column("audio", datasets.Audio(decode=False))[0]["audio"]["bytes"]
    first = torch.from_numpy(soundfile.read(io.BytesIO(content), dtype="float32")[0])
    assert torch.equal(audio.waves_of(batches[0])[0], first)


def test_an_extractor_that_gives_no_waves_has_no_baseline():
    audio = Audio(Wav2Vec2FeatureExtractor(), 0.25)
    audio.fit(build_encoder(CONFIGS["ast"]()))
    audio._front_end[:] = [None]  # of an extractor that runs in the workers
    labelled = LabelledSet(table_of_tones(), Inputs(audio), "pitch")
    assert audio.waves_of(next(labelled.examples("test", "audio"))) is None
    assert baseline_transfer(labelled, "audio", METHODS) == {}


def test_knn_compares_standardised_features():
    """Cosines of log-mel as it is are all near 1: its mean over all sounds is far from 0."""
    audio = Audio(Wav2Vec2FeatureExtractor(do_normalize=False), 0.25)
    labelled = LabelledSet(table_of_tones(), Inputs(audio), "pitch")
    seen = {}

    def method(splits, labels):
        seen.update(splits)
        return {"validation": {"top1": 1.0}, "test": {"top1": 1.0}}

    log_mel_transfer(labelled, {"knn": method})
    torch.testing.assert_close(seen["train"].mean(0), torch.zeros(2 * MELS), atol=1e-3, rtol=0)
    assert (seen["train"].std(0, correction=0) - 1).abs().max() < 1e-3
