"""Tokens near a hidden one, and texts in which they are those of another one."""

import torch

from hf_pretext.modules.token_cues import exchanged, tokens_at

IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]])


def test_tokens_at_a_place():
    assert tokens_at(IDS, -1, 99).tolist() == [[99, 1, 2, 3, 4], [99, 6, 7, 8, 9]]
    assert tokens_at(IDS, 2, 99).tolist() == [[3, 4, 5, 99, 99], [8, 9, 0, 99, 99]]
    assert torch.equal(tokens_at(IDS, 0, 99), IDS)


def test_neighbours_are_exchanged_where_both_have_them():
    """The first token has none to its left, and the last one of the second text none to its right."""
    present = torch.tensor([[True] * 5, [True] * 4 + [False]])
    where = torch.tensor([0, 0, 1]), torch.tensor([0, 3, 3])
    found = exchanged(IDS, present, where, torch.tensor([1, 2, 1]), (-1, 1))
    assert found.tolist() == [[1, 5, 8, 4, 5], [6, 7, 3, 9, 0]]
    assert exchanged(IDS, present, where, torch.tensor([1, 2, 0]), (0,)).tolist() == [[4, 2, 3, 9, 5], [6, 7, 8, 1, 0]]
