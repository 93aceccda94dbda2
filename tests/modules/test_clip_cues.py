"""Cues of sounds and films: known values, and films and sounds that have the cues of others."""

import torch

from hf_pretext.modules.clip_cues import BRIGHTNESS, CENTROID, FRAME_COLORS, LOUDNESS, MOTION, PARTS, SILENCE, loudness

RATE = 16_000
SECOND = torch.arange(RATE) / RATE


def tone(hertz: float, amplitude: float = 1.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * hertz * SECOND)


def films(count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_loudness_of_a_sine_and_of_silence():
    levels = LOUDNESS.read(torch.stack([tone(400), tone(400, 0.1), tone(400, 0)]))
    assert levels.shape == (3, PARTS)
    torch.testing.assert_close(levels[0], torch.full((PARTS,), -3.01), atol=0.01, rtol=0)  # its mean square is 1/2
    torch.testing.assert_close(levels[1], levels[0] - 20, atol=0.01, rtol=0)
    assert (levels[2] == -80).all()


def test_a_sound_gets_the_loudness_of_others():
    steady, fading = (
        torch.stack([tone(400), tone(900, 0.01)]),
        torch.stack([tone(300, 0.2), tone(700) * (1.1 - SECOND)]),
    )
    changed = LOUDNESS.exchanged(steady, fading)
    assert (loudness(changed) - loudness(fading)).abs().max() < 1  # dB; the gain changes within a part
    torch.testing.assert_close(CENTROID.read(changed), CENTROID.read(steady), atol=0.01, rtol=0)
    shorter = LOUDNESS.exchanged(steady[:, :8000], fading)
    assert shorter.shape == (2, 8000)
    assert (loudness(shorter) - loudness(fading)).abs().max() < 1


def test_centroid_is_the_pitch_of_a_sine():
    centroids = CENTROID.read(torch.stack([tone(2000), tone(6000, 0.1), tone(400, 0)]))
    torch.testing.assert_close(centroids[:2], torch.tensor([[0.25], [0.75]]).expand(2, PARTS), atol=0.01, rtol=0)
    assert (centroids[2] == 0).all()


def test_silence_at_the_ends():
    late, early = tone(400), tone(400)
    late[:4000], early[12_000:] = 0, 0
    shares = SILENCE.read(torch.stack([late, early, tone(400, 0)]))
    torch.testing.assert_close(shares, torch.tensor([[0.25, 0], [0, 0.25], [1, 1]]), atol=1e-3, rtol=0)


def test_a_short_sound_is_read():
    for cue in (LOUDNESS, CENTROID, SILENCE):
        assert cue.read(torch.ones(2, 3)).isfinite().all()


def test_a_film_gets_the_brightness_of_others():
    mine, others = films(), 0.3 * films(seed=1)
    changed = BRIGHTNESS.exchanged(mine, others)
    assert BRIGHTNESS.read(changed).shape == (3, 4)
    torch.testing.assert_close(BRIGHTNESS.read(changed), BRIGHTNESS.read(others))
    torch.testing.assert_close(changed - mine, (changed - mine).mean((2, 3, 4), keepdim=True).expand_as(mine))


def test_a_film_gets_the_motion_of_others():
    mine, others = films(), 0.3 * films(seed=1)
    changed = MOTION.exchanged(mine, others)
    torch.testing.assert_close(MOTION.read(changed).mean(1), MOTION.read(others).mean(1))
    torch.testing.assert_close(changed.mean(1), mine.mean(1))
    still = mine[:, :1].expand_as(mine)
    torch.testing.assert_close(MOTION.exchanged(still, others), still)
    assert (MOTION.read(still) == 0).all()


def test_colours_of_frames():
    assert FRAME_COLORS.kind == "video"
    assert FRAME_COLORS.read(films()).view(3, 4, -1).sum(2).allclose(torch.tensor(1.0))
