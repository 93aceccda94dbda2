"""Front ends on the device give what the feature extractors of transformers give."""

import numpy as np
import pytest
import torch
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from hf_pretext.modules.log_mel import KaldiLogMel, Waveform, WhisperLogMel, front_end_of

RATE, LENGTH = 16_000, 32_000
TIME = np.arange(LENGTH) / RATE
RANDOM = np.random.default_rng(0)
SOUNDS = {
    "noise": 0.1 * RANDOM.standard_normal(LENGTH),
    "quiet noise": 1e-4 * RANDOM.standard_normal(LENGTH),
    "tone": 0.5 * np.sin(2 * np.pi * 440 * TIME),
    "chirp": 0.9 * np.sin(2 * np.pi * (50 + 2000 * TIME) * TIME),
    "square": 0.8 * np.sign(np.sin(2 * np.pi * 200 * TIME)),
    "click": np.eye(1, LENGTH, LENGTH // 2)[0],
    "offset": 0.5 + 0.01 * np.sin(2 * np.pi * 300 * TIME),
    "silence": np.zeros(LENGTH),
}
SHORTER = (LENGTH, 20_000, 400)  # samples


@pytest.mark.parametrize(
    "extractor",
    [
        ASTFeatureExtractor(num_mel_bins=128, max_length=198),
        ASTFeatureExtractor(num_mel_bins=64, max_length=250, do_normalize=False),
        ASTFeatureExtractor(num_mel_bins=40, max_length=100, mean=-5.0, std=3.0),
        WhisperFeatureExtractor(chunk_length=2),
        WhisperFeatureExtractor(chunk_length=5, feature_size=128),
    ],
    ids=["ast", "ast, not normalised", "ast, cut", "whisper", "whisper, 128 bins"],
)
def test_log_mel_of_a_batch_is_that_of_the_extractor(extractor):
    front_end = front_end_of(extractor, LENGTH, padded=False)
    assert type(front_end) is (KaldiLogMel if isinstance(extractor, ASTFeatureExtractor) else WhisperLogMel)
    waves, lengths, expected = [], [], []
    for samples in SOUNDS.values():
        for length in SHORTER:
            wave = np.where(np.arange(LENGTH) < length, samples, 0).astype(np.float32)
            made = extractor(wave[:length], sampling_rate=RATE, return_tensors="pt")
            waves.append(wave), lengths.append(length), expected.append(made[extractor.model_input_names[0]][0])
    ours = front_end(torch.from_numpy(np.stack(waves)), torch.tensor(lengths))
    assert ours.shape == torch.stack(expected).shape and ours.dtype == torch.float32
    for i, other in enumerate(expected):
        assert float((ours[i] - other).abs().max()) < 2e-3, (list(SOUNDS)[i // len(SHORTER)], lengths[i])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_attention_mask": True},
        {"do_normalize": False},
        {"padding_value": 0.5, "return_attention_mask": True},
    ],
    ids=str,
)
def test_waveforms_are_those_of_the_extractor(options, padded):
    extractor = Wav2Vec2FeatureExtractor(**options)
    front_end = front_end_of(extractor, LENGTH, padded)
    assert type(front_end) is Waveform
    sounds = [SOUNDS["noise"][:length].astype(np.float32) for length in SHORTER]
    how = (
        {"padding": "max_length", "max_length": LENGTH} if padded else {"padding": True, "return_attention_mask": True}
    )
    theirs = extractor(sounds, sampling_rate=RATE, return_tensors="pt", **how)["input_values"]
    waves = torch.stack([torch.nn.functional.pad(torch.from_numpy(s), (0, LENGTH - len(s))) for s in sounds])
    torch.testing.assert_close(front_end(waves, torch.tensor(SHORTER)), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("extractor", [SeamlessM4TFeatureExtractor(), ClapFeatureExtractor()], ids=["seamless", "clap"])
def test_an_extractor_that_differs_has_no_front_end(extractor):
    assert front_end_of(extractor, LENGTH, padded=False) is None


def test_a_subclass_that_changes_one_thing_has_no_front_end():
    class Louder(ASTFeatureExtractor):
        def normalize(self, values):
            return super().normalize(values) + 3e-3

    class Shifted(Wav2Vec2FeatureExtractor):
        @staticmethod
        def zero_mean_unit_var_norm(values, attention_mask, padding_value=0.0):
            return [value - value.max() for value in values]

    assert front_end_of(Louder(num_mel_bins=32, max_length=64), LENGTH, padded=False) is None
    assert front_end_of(Shifted(), LENGTH, padded=False) is None


def test_a_front_end_gives_the_same_in_each_batch():
    front_end = front_end_of(ASTFeatureExtractor(num_mel_bins=64, max_length=198), LENGTH, padded=False)
    waves = torch.from_numpy(np.stack(list(SOUNDS.values()) * 3).astype(np.float32))
    together = front_end(waves, torch.full((len(waves),), LENGTH))
    alone = torch.cat([front_end(wave[None], torch.tensor([LENGTH])) for wave in waves])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
