"""What is masked: how much of it, words and spans as a whole, never special tokens."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from hf_pretext.modules import losses, masking
from hf_pretext.modules.codebook import PatchCodebook
from hf_pretext.modules.masking import (
    IGNORED,
    LONGEST_SPAN,
    MaskTask,
    check_share,
    draw_masked,
    draw_units,
    masked_prediction,
    prediction_head,
    replaced,
    sampled,
    unit_starts,
    visual_tokens,
    with_tokens_of,
    without_special,
)


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


def units_of(size: int, tokens: int, rows: int = 8) -> torch.Tensor:
    """Where units of equal sizes begin."""
    return (torch.arange(tokens) % size == 0).expand(rows, -1)


@pytest.mark.parametrize(
    ("size", "ratio", "count"),
    [(1, 0.25, 3), (1, 0.15, 2), (1, 0.01, 1), (3, 0.3, 3), (3, 0.4, 6), (4, 0.7, 8), (6, 0.1, 6), (12, 0.9, 12)],
)
def test_as_many_units_of_12_tokens_as_come_closest(size, ratio, count):
    """Of 3.6 tokens in units of three, one unit; of 4.8, two; and always one at least."""
    starts = units_of(size, 12)
    hidden = draw_units(torch.ones_like(starts), starts, ratio)
    assert hidden.sum(1).tolist() == [count] * 8
    assert (hidden.view(8, -1, size).all(2) == hidden.view(8, -1, size).any(2)).all()


def test_no_other_number_of_the_drawn_units_would_come_closer():
    starts, allowed = torch.rand(200, 60) < 0.4, torch.rand(200, 60) < 0.8
    hidden, units = draw_units(allowed, starts, 0.3), starts.long().cumsum(1)
    for row, unit, possible in zip(hidden, units, allowed, strict=True):
        wanted, sizes = 0.3 * possible.sum(), torch.bincount(unit, possible.float())
        drawn = torch.bincount(unit, row.float())
        assert ((drawn == 0) | (drawn == sizes)).all()
        assert (row.sum() - wanted).abs() <= sizes.max() / 2 or (drawn > 0).sum() == 1


def test_shares_are_of_the_allowed_tokens_and_a_row_without_any_has_none_hidden():
    allowed = torch.zeros(3, 40, dtype=torch.bool)
    allowed[0, :20], allowed[1, 7] = True, True
    hidden = draw_units(allowed, torch.ones_like(allowed), 0.25)
    assert hidden.sum(1).tolist() == [5, 1, 0] and not (hidden & ~allowed).any()


def test_units_begin_at_tokens_or_words_as_asked():
    words = torch.tensor([[True, False, True, True, False]])
    assert torch.equal(unit_starts(words.shape, "word", words, words.device), words)
    assert unit_starts((2, 5), "token", None, words.device).tolist() == [[True] * 5] * 2


def test_spans_begin_at_words_alone_and_end_after_ten(monkeypatch):
    words = torch.arange(100).expand(2, -1) % 2 == 0  # 50 words of two tokens
    monkeypatch.setattr(masking, "SPAN_STOP", 0.0)
    starts = unit_starts(words.shape, "span", words, words.device)
    assert [row.nonzero().flatten().diff().tolist() for row in starts] == [[20] * 4] * 2
    monkeypatch.setattr(masking, "SPAN_STOP", 1.0)
    assert torch.equal(unit_starts(words.shape, "span", words, words.device), words)


def test_special_tokens_and_padding_may_not_be_masked():
    ids, there = torch.tensor([[1, 7, 2, 8, 0]]), torch.tensor([[True, True, True, True, False]])
    assert without_special(ids, there, [0, 1, 2]).tolist() == [[False, True, False, True, False]]
    for none in (None, []):
        assert torch.equal(without_special(ids, there, none), there)


IDS = torch.arange(5, 45).expand(50, -1)


def test_hidden_tokens_alone_become_the_mask_token():
    hidden = torch.rand(50, 40) < 0.3
    assert torch.equal(replaced(IDS, hidden, 4, 60, (1.0, 0.0)), IDS.masked_fill(hidden, 4))
    assert torch.equal(replaced(IDS, hidden, 4, 60, (0.0, 0.0)), IDS)


def test_shares_of_hidden_tokens_that_become_the_mask_or_another():
    hidden = torch.arange(40).expand(50, -1) < 20
    seen = replaced(IDS, hidden, 4, 1000, (0.5, 0.3))
    as_mask, same = (seen == 4) & hidden, (seen == IDS) & hidden
    assert as_mask.sum() / 1000 == pytest.approx(0.5, abs=0.05)
    assert same.sum() / 1000 == pytest.approx(0.2, abs=0.05)
    assert torch.equal(seen[~hidden], IDS[~hidden]) and seen.max() > 900


def test_random_tokens_are_of_the_vocabulary_and_never_special():
    ids, hidden = torch.full((50, 40), 4), torch.ones(50, 40, dtype=torch.bool)
    seen = replaced(ids, hidden, 9, 6, (0.0, 1.0), special_token_ids=[0, 1, 2])
    assert seen.unique().tolist() == [3, 4, 5]
    assert replaced(ids, hidden, 9, 6, (0.0, 1.0)).unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_the_same_generator_hides_and_replaces_the_same():
    found = []
    for seed in (1, 1, 2):
        random = torch.Generator().manual_seed(seed)
        starts = unit_starts(IDS.shape, "span", torch.ones_like(IDS, dtype=torch.bool), IDS.device, random)
        hidden = draw_units(torch.ones_like(starts), starts, 0.3, random)
        found.append((starts, hidden, replaced(IDS, hidden, 4, 60, generator=random)))
    assert all(torch.equal(one, same) for one, same in zip(found[0], found[1], strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(found[0], found[2], strict=True))


def test_replacing_without_a_mask_token_is_refused():
    with pytest.raises(ValueError, match="mask_token_id is not set"):
        replaced(IDS, IDS > 9, None, 60)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(ValueError, match=f"some_share must lie between 0 and 1, but is {share}"):
        check_share("some_share", share)
    check_share("some_share", 0.5)


def test_settings_take_the_tokenizers_tokens_where_they_leave_them_open():
    tokenizer = SimpleNamespace(mask_token_id=4, all_special_ids=[4, 0, 2])
    assert with_tokens_of(MaskTask(), tokenizer) == MaskTask(mask_token_id=4, special_token_ids=[0, 2, 4])
    given = MaskTask(mask_token_id=7, special_token_ids=[])
    assert with_tokens_of(given, tokenizer) == given
    causal = SimpleNamespace(mask_token_id=None, all_special_ids=[0])
    assert with_tokens_of(MaskTask(mask_token_id=7), causal).mask_token_id == 7
    with pytest.raises(ValueError, match="has no mask token.*--mask_token_id"):
        with_tokens_of(MaskTask(), causal)


def test_predictions_are_scored_where_something_is_hidden_alone():
    head, states, seen = prediction_head(8, 5), torch.randn(3, 6, 8, requires_grad=True), []
    head.register_forward_hook(lambda module, given, output: seen.append(given[0].shape))
    labels = torch.randint(5, (3, 6)).masked_fill(torch.rand(3, 6) < 0.5, IGNORED)
    loss, accuracy = masked_prediction(head, states, labels)
    hidden = labels != IGNORED
    assert seen == [(int(hidden.sum()), 8)]
    logits = head(states)
    torch.testing.assert_close(loss, F.cross_entropy(logits.mT, labels, ignore_index=IGNORED))
    assert accuracy == pytest.approx(float((logits.argmax(-1) == labels)[hidden].float().mean()))
    loss.backward()
    assert states.grad[hidden].any() and not states.grad[~hidden].any()


def test_nothing_hidden_is_a_loss_of_0_that_reaches_the_head():
    head, states = prediction_head(8, 5), torch.randn(3, 6, 8)
    loss, accuracy = masked_prediction(head, states, torch.full((3, 6), IGNORED))
    loss.backward()
    assert loss.item() == accuracy.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())  # other processes wait for them


def test_images_have_no_visual_tokens_before_the_codebook_is_fitted():
    codebook, images = PatchCodebook(4, 8), torch.randn(5, 3, 16, 24)
    found = visual_tokens(codebook, images, training=False)
    assert found.tolist() == [[0] * 6] * 5 and found.dtype == torch.int64
    with pytest.raises(ValueError, match="fit it first"):
        visual_tokens(codebook, images, training=True)
    codebook.fit([images], progress=False)
    for training in (True, False):
        assert torch.equal(visual_tokens(codebook, images, training), codebook(images))
    assert len(codebook(images).unique()) == 4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_are_as_frequent_as_the_softmax_says(temperature, monkeypatch):
    """A special token is never sampled, however probable. Tiles change nothing of that."""
    monkeypatch.setattr(losses, "TILE", 7000)
    logits = torch.tensor([2.0, 0.0, 9.0, 1.0, -1.0], requires_grad=True)
    random = torch.Generator().manual_seed(0)
    tokens = sampled(logits.expand(40000, 5), temperature, [2], random)
    allowed = torch.tensor([0, 1, 3, 4])
    expected = torch.zeros(5).index_copy_(0, allowed, (logits.detach()[allowed] / temperature).softmax(0))
    torch.testing.assert_close(tokens.bincount(minlength=5) / 40000, expected, atol=0.01, rtol=0)
    assert not tokens.requires_grad and torch.equal(logits[2], torch.tensor(9.0))
    assert torch.equal(sampled(logits.expand(90, 5), generator=random.manual_seed(1)),
                       sampled(logits.expand(90, 5), generator=random.manual_seed(1)))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_samples_of_other_dtypes(dtype):
    tokens = sampled(torch.zeros(20000, 4, dtype=dtype), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tokens.bincount(minlength=4) / 20000, torch.full((4,), 0.25), atol=0.02, rtol=0)
    assert sampled(torch.zeros(0, 4, dtype=dtype)).shape == (0,)


def test_units_that_need_the_starts_of_words():
    allowed = torch.ones(2, 12, dtype=torch.bool)
    starts = torch.arange(12).expand(2, -1) % 3 == 0
    masked = draw_masked(allowed, 0.5, "word", starts, torch.Generator().manual_seed(0))
    assert masked.view(2, 4, 3).all(2).sum(1).tolist() == [2, 2] and masked.sum() == 12
    assert draw_masked(allowed, 0.5).sum(1).tolist() == [6, 6]
    with pytest.raises(ValueError, match="unit='span' needs word_starts in the batch, but got None"):
        draw_masked(allowed, 0.5, "span")
