"""Replaced token detection: two processes with half of the texts each are one with all of them."""

import torch
from rank_runs import same_values, values_of

SCRIPT = """
import torch
from rank_runs import compare, trained
from test_replaced_token import SURE, masked, model_of


def compute(kind, rank, ranks):
    model = model_of(kind, temperature=SURE).double().train()
    batch = masked((12, 7, 9, 5))
    model.freeze_unused(batch)
    part = {name: value.chunk(ranks)[rank] for name, value in batch.items()}
    longest = int(part["attention_mask"].sum(1).max())
    part = {name: value[:, :longest] for name, value in part.items()}
    count = torch.tensor([int(part["attention_mask"].sum()), int((part["labels"] >= 0).sum())])
    return {**trained(model, part, ranks), "count": count}


compare(["narrow electra", "bert"], compute, of_last=True)
"""


def test_two_processes_equal_one_with_all_texts(tmp_path):
    """Loss and every gradient, although the texts of the second process are shorter and have fewer masked tokens."""
    one, two = (values_of(SCRIPT, tmp_path, ranks) for ranks in (1, 2))
    for kind in ("narrow electra", "bert"):
        all_tokens, of_last = one.pop(f"{kind}: count"), two.pop(f"{kind}: count")
        assert (of_last < all_tokens / 2).all() and (of_last > 0).all()
    assert len(one) > 120 and all(torch.isfinite(value).all() for value in one.values())
    same_values(two, one)
