"""SimCSE and TSDAE: two processes with half of the texts each are one with all of them: loss, and every gradient."""

import pytest
from rank_runs import same_values, values_of

SCRIPT = """
import torch
from rank_runs import compare, trained
from test_sentence import TSDAE, model_of, texts, with_negatives, without_dropout

KINDS = {"simcse": {}, "negatives": {"mlp_head": False, "pooling": "cls"}, "tsdae": TSDAE}


def compute(kind, rank, ranks):
    model = without_dropout(model_of(**KINDS[kind]).double())
    batch = texts((12, 9, 5, 4))
    if kind == "negatives":
        batch = with_negatives(batch)
    if kind == "tsdae":  # nothing is drawn: all of the words are left
        model.corrupt = lambda ids, present, *others: (ids, present.long())
    model.freeze_unused(batch)
    without_dropout(model)
    part = {name: value.chunk(ranks)[rank] for name, value in batch.items()}
    longest = int(part["attention_mask"].sum(1).max())
    names = ("input_ids", "attention_mask", "word_starts")
    part |= {name: part[name][:, :longest] for name in names}
    return trained(model, part, ranks)


compare(KINDS, compute)
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return values_of(SCRIPT, tmp_path_factory.mktemp("one"), 1)


def test_processes_equal_one_with_all_texts(tmp_path, one):
    assert len(one) > 100 and {name.partition(":")[0] for name in one} == {"simcse", "negatives", "tsdae"}
    same_values(values_of(SCRIPT, tmp_path, 2), one)
