"""What is masked: how much of it, words and spans as a whole, never special tokens."""

import pytest
import torch

from hf_pretext.modules.masking import LONGEST_SPAN, draw_units, unit_starts


def test_every_token_is_as_likely_to_be_hidden():
    allowed = torch.ones(4000, 20, dtype=torch.bool)
    allowed[:, 0] = False
    starts = torch.ones_like(allowed)
    share = draw_units(allowed, starts, 0.15).float().mean(0)
    assert share[0] == 0 and torch.allclose(share[1:], torch.tensor(3 / 19), atol=0.03)


def test_whole_words():
    """Words of one to four tokens; each is hidden whole or not at all."""
    random = torch.Generator().manual_seed(0)
    starts = torch.rand(64, 120, generator=random) < 0.5
    starts[:, 0] = True
    allowed = torch.ones_like(starts)
    allowed[:, 100:] = False
    starts[:, 100] = True
    hidden = draw_units(allowed, starts, 0.2, random)
    words = starts.long().cumsum(1)
    for row, word in zip(hidden, words, strict=True):
        for number in word[:100].unique():
            assert len(row[word == number].unique()) == 1
    assert not hidden[:, 100:].any()
    assert hidden.sum(1).float().mean().item() == pytest.approx(20, abs=1)


def test_spans_have_geometric_lengths():
    words = torch.ones(200, 500, dtype=torch.bool)
    starts = unit_starts(words.shape, "span", words, words.device, torch.Generator().manual_seed(0))
    lengths = torch.cat([row.nonzero().flatten().diff() for row in starts])
    assert lengths.max() <= LONGEST_SPAN
    for length in (1, 2, 3, 4):
        assert (lengths == length).float().mean().item() == pytest.approx(0.2 * 0.8 ** (length - 1), abs=0.01)
