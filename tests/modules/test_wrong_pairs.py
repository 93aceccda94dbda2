"""Wrong pairs: drawn by scores or evenly, never a right one, and counted like right ones."""

import pytest
import torch
import torch.nn.functional as F

from hf_pretext.modules.masking import IGNORED
from hf_pretext.modules.wrong_pairs import balanced_accuracy, balanced_cross_entropy, wrong_ones


@pytest.mark.parametrize("hard", [True, False])
def test_what_is_wrong_is_drawn_by_the_scores_or_evenly(hard):
    scores = torch.tensor([[5.0, 2.0, 1.0, 0.0]]).expand(20_000, 4)
    same = torch.tensor([[True, False, False, False]]).expand(20_000, 4)
    share = torch.bincount(wrong_ones(scores, same, hard), minlength=4) / 20_000
    wanted = torch.cat([torch.zeros(1), scores[0, 1:].softmax(0) if hard else torch.full((3,), 1 / 3)])
    torch.testing.assert_close(share, wanted, atol=0.015, rtol=0)


@pytest.mark.parametrize("seed", [None, 3])
def test_the_draw_is_that_of_multinomial(seed):
    scores, same = 3 * torch.randn(500, 40), torch.rand(500, 40) < 0.3
    chance = scores.masked_fill(same, -torch.inf).softmax(1)
    generators = [None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2)]
    state = torch.get_rng_state()
    expected = torch.multinomial(chance, 1, generator=generators[0])[:, 0]
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    assert torch.equal(wrong_ones(scores, same, True, generators[1]), expected)
    assert torch.equal(torch.get_rng_state(), after)


def test_nothing_is_drawn_where_all_belong_together():
    same = torch.tensor([[True, True], [True, False]])
    found = wrong_ones(torch.zeros(2, 2), same, True)
    assert found.tolist() == [IGNORED, 1]


def test_scores_far_apart_still_leave_something_to_draw():
    scores = torch.tensor([[1000.0, -1000.0, -1200.0]])
    assert wrong_ones(scores, torch.tensor([[True, False, False]]), True).tolist() == [1]


def test_right_and_wrong_pairs_count_alike():
    logits, labels = torch.tensor([2.0, -1.0, 0.5, 3.0, 9.0]), torch.tensor([1, 0, 0, 0, IGNORED])
    right = F.softplus(-logits[:1]).mean()
    wrong = F.softplus(logits[1:4]).mean()
    torch.testing.assert_close(balanced_cross_entropy(logits, labels), (right + wrong) / 2)
    assert balanced_accuracy(logits, labels).item() == pytest.approx((1 + 1 / 3) / 2)
