"""What a run measures: every encoder of its model, by the methods asked for, next to the baselines of its kind."""

import importlib.util

import pytest
from conftest import REPOSITORY

from hf_pretext.cards.results import read_results, transfers
from hf_pretext.cards.tables import MISSING, columns, table
from hf_pretext.evaluation.comparison import UNMEASURED

METHODS = ["linear_probe_10%", "linear_probe_100%", "knn"]


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """A smoke run of images with captions, whose probes know a tenth and all of the labels."""
    spec = importlib.util.spec_from_file_location("contrastive_emoji", REPOSITORY / "recipes" / "contrastive_emoji.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = str(tmp_path_factory.mktemp("runs") / "run")
    options = ["--smoke", "--use_cpu", "--disable_tqdm", "True", "--eval_fractions", "0.1", "1"]
    module.recipe.main([*options, "--output_dir", folder])
    return folder


def test_every_encoder_is_evaluated(folder):
    results = read_results(folder)
    assert results["transfer"]["kind"] == "image"
    assert {kind: transfer["kind"] for kind, transfer in results["other_transfers"].items()} == {"text": "text"}
    assert list(results["encoders"]) == ["image", "text"]
    for transfer, baseline in zip(transfers(results), ("pixels", "TF-IDF"), strict=True):
        assert transfer["methods"] == METHODS
        assert list(transfer["figures"]) == ["trained", "random", baseline, "majority"]
        assert len(transfer["figures"]["random"]["knn_top1"]["values"]) == 3
        for who in ("trained", "random"):
            assert all(0 < transfer["figures"][who][f"{method}_top1"]["mean"] < 1 for method in METHODS)
    image, text = (transfer["details"]["trained"][0]["knn"]["layers"] for transfer in transfers(results))
    assert image != text  # of two encoders


def test_a_baseline_without_an_answer_to_a_method_is_a_dash(folder):
    results = read_results(folder)
    transfer = results["other_transfers"]["text"]
    assert transfer["figures"]["TF-IDF"]["knn_top1"] == UNMEASURED
    rows = {row[0]: dict(zip(columns(transfer), row[1:], strict=True)) for row in table(results, transfer)}
    assert rows["TF-IDF"]["knn_top1"] == MISSING
    assert rows["TF-IDF"]["linear_probe_10%_top1"] != MISSING and rows["majority"]["knn_top1"] != MISSING
