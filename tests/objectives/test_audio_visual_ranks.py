"""Two processes with half of the clips each are one with all of them: loss, and every gradient."""

import pytest
from rank_runs import same_values, values_of

SCRIPT = """
import torch
from clips import clips, model_of
from rank_runs import compare, trained

KINDS = {
    "contrastive": {},
    "fixed temperature": {"learned_temperature": False},
    "shifted": {"negatives": "shifted", "easy_until": 0.0, "shifted_share": 1.0},  # all, so that no draw matters
    "shifted, none yet": {"negatives": "shifted"},
}


def compute(kind, rank, ranks):
    torch.manual_seed(0)
    model = model_of("wav2vec2", "vit", **KINDS[kind]).double().train()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in clips(model, 8).items()}
    if "shifted" in kind:
        for name in ("input_values", "attention_mask", "sound_start"):
            batch[name][5, 1] = batch[name][5, 0]  # without another time
    model.freeze_unused(batch)
    return trained(model.train(), {name: value.chunk(ranks)[rank] for name, value in batch.items()}, ranks)


compare(KINDS, compute)
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return values_of(SCRIPT, tmp_path_factory.mktemp("one"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_equal_one_with_all_clips(tmp_path, one, ranks):
    assert len(one) > 150
    assert "fixed temperature: pretext_head.score.logit_scale" not in one
    assert one["shifted: loss"] > one["shifted, none yet: loss"]  # more candidates
    same_values(values_of(SCRIPT, tmp_path, ranks), one)
