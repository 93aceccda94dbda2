"""Random changes of sounds against formulas in NumPy."""

import numpy as np
import torch

from hf_pretext.modules.sound_changes import add_noise, change_loudness, masked, white_noise


def test_loudness_changes_by_decibels():
    sound = torch.ones(3, 4)
    louder = change_loudness(sound, torch.tensor([0.0, 0.5, 1.0]), 6.0)
    expected = 10 ** (np.array([-6.0, 0.0, 6.0]) / 20)
    np.testing.assert_allclose(louder[:, 0].numpy(), expected, rtol=1e-6)


def test_noise_has_the_level_that_was_drawn_and_only_where_there_is_sound():
    size = 40_000
    sound = torch.stack([0.1 * torch.ones(size), 0.5 * torch.ones(size)])
    present = torch.arange(size) < torch.tensor([[size], [size // 2]])
    sound = sound * present
    noisy = add_noise(sound, torch.tensor([[0.0, 0.1], [0.5, 0.7]]), -10.0, present)
    noise = (noisy - sound).double().numpy()
    for i, (power, level) in enumerate(((0.01, -10.0), (0.25, -20.0))):
        measured = np.square(noise[i][present[i].numpy()]).mean()
        np.testing.assert_allclose(10 * np.log10(measured / power), level, atol=0.1)
    assert noise[1, size // 2 :].any() == False  # noqa: E712


def test_noise_is_white_and_another_for_each_draw():
    noise = white_noise(torch.tensor([0.1, 0.2, 0.1]), 2**16).double()
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    np.testing.assert_allclose(noise.mean(1), 0, atol=0.02)
    np.testing.assert_allclose(noise.square().mean(1), 1, atol=0.02)
    assert abs(float((noise[0] * noise[1]).mean())) < 0.02
    spectrum = torch.fft.rfft(noise[0]).abs().square()[1:]
    bands = spectrum.view(16, -1).mean(1)
    assert float(bands.max() / bands.min()) < 1.3
    lagged = [abs(float((noise[0, lag:] * noise[0, :-lag]).mean())) for lag in range(1, 50)]
    assert max(lagged) < 0.03


def test_masks_hide_at_most_the_share_and_nothing_else():
    random = torch.Generator().manual_seed(0)
    values, draws = torch.rand(200, 50, 40, generator=random) + 1, torch.rand(200, 4, generator=random)
    for axis, share in ((1, 0.4), (2, 0.3)):
        hidden = masked(values, draws, share, axis, 0.0)
        other = 3 - axis
        lines = (hidden == 0).all(other)
        assert torch.equal(lines, (hidden == 0).any(other))  # a line is hidden as a whole
        assert torch.equal(hidden[hidden != 0], values[hidden != 0])
        width = draws[:, :2] * share * values.shape[axis] / 2
        first = draws[:, 2:] * (values.shape[axis] - width)
        for i in range(len(values)):
            expected = np.zeros(values.shape[axis], bool)
            for w, f in zip(width[i].tolist(), first[i].tolist(), strict=True):
                expected[[p for p in range(values.shape[axis]) if f <= p < f + w]] = True
            assert lines[i].tolist() == expected.tolist()
        assert 0.5 * share < lines.float().mean() * 2 < 1.2 * share
    fill = values.mean((1, 2), keepdim=True)
    hidden = masked(values, draws, 0.4, 1, fill)
    assert ((hidden == values) | (hidden == fill)).all() and (hidden != values).any()
