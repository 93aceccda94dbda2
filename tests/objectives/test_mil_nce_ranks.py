"""MIL-NCE: two processes with half of the narrated clips each are one with all of them: loss, and every gradient."""

import pytest
from rank_runs import same_values, values_of

SCRIPT = """
import torch
from narrated import as_double, model_of, narrated_clips
from rank_runs import compare, trained

KINDS = {
    "bag": {"learned_temperature": True},
    "nearest": {"positives": "nearest"},
    "word vectors": {"text": None},
}


def compute(kind, rank, ranks):
    torch.manual_seed(0)
    model = model_of("vit", **KINDS[kind])
    batch = as_double(model, narrated_clips(model, 8))
    batch["attention_mask"][4:, :, 6] = batch["attention_mask"][0, 1:, 6] = 0  # shorter texts on the last rank
    for name in ("input_ids", "attention_mask"):  # the last rank has two texts of the first
        batch[name][5, 2], batch[name][6, 0] = batch[name][0, 2], batch[name][0, 1]
    model.freeze_unused(batch)
    part = {name: value.chunk(ranks)[rank] for name, value in batch.items()}
    longest = int(part["attention_mask"].sum(2).max())
    part |= {name: part[name][..., :longest] for name in ("input_ids", "attention_mask")}
    return {**trained(model.train(), part, ranks), "length": torch.tensor(longest)}


compare(KINDS, compute, of_last=True)
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return values_of(SCRIPT, tmp_path_factory.mktemp("one"), 1)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one_with_all_narrated_clips(tmp_path, one, ranks):
    values, expected = values_of(SCRIPT, tmp_path, ranks), dict(one)
    lengths = [each.pop(name) for each in (expected, values) for name in list(each) if name.endswith(": length")]
    assert len(lengths) == 6 and max(lengths[3:]) < min(lengths[:3])  # of the last rank's texts
    assert len(expected) > 150
    assert "nearest: pretext_head.score.logit_scale" not in one and "bag: pretext_head.score.logit_scale" in one
    same_values(values, expected)
