"""Visual words: pieces of clips by hand, normalisation and size of the encoder, empty words, and what is refused."""

import logging

import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS, IMAGE

from hf_pretext.encoders import build_encoder
from hf_pretext.modules.hierarchical_kmeans import leaves
from hf_pretext.modules.visual_words import VisualWords, VisualWordsTask
from hf_pretext.utils.settings import make_settings


def words_of(kind: str = "resnet", num_words: int = 2, levels: int = 2, branches: int = 3) -> VisualWords:
    return VisualWords(build_encoder(CONFIGS[kind]()), num_words, levels, branches)


def films(count: int = 20, frames: int = 4, side: int = IMAGE) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand(count, frames, 3, side, side, generator=random) + torch.rand(
        count, frames, 3, 1, 1, generator=random
    )


def test_a_piece_is_the_mean_of_its_frames_features():
    words, clips = words_of(), films(3)
    with torch.no_grad():
        hidden = words.encoder(clips.flatten(0, 1)).last_hidden_state.mean((2, 3)).view(3, 4, -1)
    expected = torch.stack([hidden[:, :2].mean(1), hidden[:, 2:].mean(1)], 1)
    torch.testing.assert_close(words.describe(clips), expected)


def test_frames_that_repeat_are_encoded_once(monkeypatch):
    words, clips = words_of(), films(3)
    clips[0, 1:], clips[2, 2:] = clips[0, :1], clips[2, 1:2]  # 1, 4 and 2 different frames
    with torch.no_grad():
        hidden = words.encoder(clips.flatten(0, 1)).last_hidden_state.mean((2, 3)).view(3, 2, 2, -1)
    counts, encode = [], words.encoder.forward
    monkeypatch.setattr(
        words.encoder, "forward", lambda pixel_values: counts.append(len(pixel_values)) or encode(pixel_values)
    )
    torch.testing.assert_close(words.describe(clips), hidden.mean(2))
    assert counts == [7]


def test_a_video_encoder_takes_the_frames_of_a_piece_together():
    words, clips = words_of("videomae"), films(3, frames=8)
    with torch.no_grad():
        expected = words.encoder(clips[:, 4:]).last_hidden_state.mean(1)
    torch.testing.assert_close(words.describe(clips)[:, 1], expected)


def test_frames_get_the_normalisation_and_the_size_of_the_encoder():
    words, clips = words_of("vit"), films(2, side=48)
    words.set_normalisation([0.1] * 3, [0.2] * 3)
    words.set_normalisation([0.4] * 3, [0.5] * 3, prefix="encoder_")
    pixels = ((clips * 0.2 + 0.1) - 0.4) / 0.5
    resized = F.interpolate(pixels.flatten(0, 1), (IMAGE, IMAGE), mode="bilinear", antialias=True)
    torch.testing.assert_close(words.prepared(clips).flatten(0, 1), resized)


def test_words_are_the_leaves_of_the_features():
    words, clips = words_of(), films()
    words.fit(clips.split(6), progress=False)
    codes = words(clips)
    assert codes.shape == (20, 2) and codes.dtype == torch.int64
    assert torch.equal(codes.flatten(), leaves(words.describe(clips).flatten(0, 1), words.tree, words.counts))
    assert torch.equal(torch.bincount(codes.flatten(), minlength=9).float(), words.counts)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(words(clips), codes)


def test_fitting_reads_no_more_pieces_than_asked():
    words, read = words_of(), []

    def batches():
        for clips in films().split(4):
            read.append(len(clips))
            yield clips

    words.fit(batches(), pieces=11, progress=False)
    assert read == [4, 4] and words.counts.sum() == 11


def test_random_words_are_never_empty_ones_and_equally_frequent(caplog):
    words = words_of(levels=2, branches=4)
    few = films(3).repeat(5, 1, 1, 1, 1)  # 6 different pieces
    with caplog.at_level(logging.WARNING):
        words.fit([few], progress=False)
    assert "Only 6 of 16 visual words have pieces" in caplog.text
    drawn = words.drawn((6000,), torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=16) / 6000
    assert torch.equal(shares > 0, words.counts > 0)
    torch.testing.assert_close(shares[words.counts > 0], torch.full((6,), 1 / 6), rtol=0, atol=0.02)
    assert words.facts() == {"size": 16, "used": 6, "perplexity": pytest.approx(6.0)}


def test_the_encoder_stays_frozen_in_a_model_that_trains():
    words = words_of().train().requires_grad_(True).train()
    assert not words.encoder.training and not any(p.requires_grad for p in words.parameters())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"4 frames \(--num_frames\) can't be cut into 3 pieces"):
        words_of(num_words=3).describe(films(1))
    with pytest.raises(ValueError, match="These 9 visual words have no clusters yet"):
        words_of()(films(1))
    with pytest.raises(ValueError, match="All 8 pieces .* have the same features"):
        words_of().fit([torch.zeros(4, 4, 3, IMAGE, IMAGE)], progress=False)
    with pytest.raises(ValueError, match="must accept video inputs"):
        words_of("bert")
    for settings, message in (
        ({"branches": 1}, "branches at least 2, but are 4, 2 and 1"),
        ({"levels": 3, "branches": 12, "word_pieces": 1000}, "give 1,728 visual words, but word_pieces is 1,000"),
    ):
        with pytest.raises(ValueError, match=message):
            make_settings(VisualWordsTask, **settings)
