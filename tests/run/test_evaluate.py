"""What a run measures: every encoder of its model, by the methods asked for, next to the baselines of its kind."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hf_pretext.cards.results import CARD, read_results, transfers
from hf_pretext.cards.tables import MISSING, columns, figure, table
from hf_pretext.evaluation.comparison import UNMEASURED
from hf_pretext.evaluation.fine_tune import FINE_TUNE, FineTuning

METHODS = ["linear_probe_1%", "linear_probe_10%", "linear_probe_100%", "knn"]
OF_IMAGES = [*METHODS, FINE_TUNE]


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """A smoke run of images with captions, whose probes know 1, 10 and 100 % of the labels, with fine-tuning."""
    spec = importlib.util.spec_from_file_location("contrastive_emoji", REPOSITORY / "recipes" / "contrastive_emoji.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = str(tmp_path_factory.mktemp("runs") / "run")
    options = ["--smoke", "--use_cpu", "--disable_tqdm", "True", "--fine_tune", "2"]
    options += ["--eval_fractions", "0.01", "0.1", "1"]
    module.recipe.main([*options, "--output_dir", folder])
    return folder


def test_every_encoder_is_evaluated(folder):
    results = read_results(folder)
    assert results["transfer"]["kind"] == "image"
    assert {kind: transfer["kind"] for kind, transfer in results["other_transfers"].items()} == {"text": "text"}
    assert list(results["encoders"]) == ["image", "text"]
    for transfer, baseline, methods in zip(transfers(results), ("pixels", "TF-IDF"), (OF_IMAGES, METHODS), strict=True):
        assert transfer["methods"] == methods
        assert list(transfer["figures"]) == ["trained", "random", baseline, "majority"]
        assert len(transfer["figures"]["random"]["knn_top1"]["values"]) == 3
        for who in ("trained", "random"):
            assert all(0 < transfer["figures"][who][f"{method}_top1"]["mean"] < 1 for method in methods)
    image, text = (transfer["details"]["trained"][0]["knn"]["layers"] for transfer in transfers(results))
    assert image != text  # of two encoders


def test_fine_tuning_is_in_the_results_the_table_and_the_card(folder):
    results, card = read_results(folder), (Path(folder) / CARD).read_text()
    transfer, text = transfers(results)
    settings = FineTuning(2, bf16=results["settings"].get("bf16", False))
    assert transfer[FINE_TUNE] == json.loads(json.dumps(asdict(settings)))
    assert FINE_TUNE not in text and f"{FINE_TUNE}_top1" in transfer["beats_random"]
    assert transfer["details"]["trained"][0][FINE_TUNE]["learning_rate"] in FineTuning(2).learning_rates
    (images, texts) = (part.partition("Pretext task on")[0] for part in card.partition("### The text encoder")[::2])
    for words in (
        "linear probe, 1% of labels top-1 | linear probe, 10% of labels top-1 | linear probe, 100% of labels top-1",
        " | fine-tuning (2 epochs) top-1 |",
        "- fine-tuning (2 epochs): no verdict",
        "and of the fine-tuned encoder. Label",
        "Fine-tuning: all weights of the encoder, ",
        "linear probe, 100% of labels; kNN): trained",
    ):
        assert words in images and (words in texts) == ("fine-tun" not in words.lower())
    assert figure(transfer["figures"]["random"][f"{FINE_TUNE}_top1"]) in images


def test_a_baseline_without_an_answer_to_a_method_is_a_dash(folder):
    results = read_results(folder)
    transfer = results["other_transfers"]["text"]
    assert transfer["figures"]["TF-IDF"]["knn_top1"] == UNMEASURED
    rows = {row[0]: dict(zip(columns(transfer), row[1:], strict=True)) for row in table(results, transfer)}
    assert rows["TF-IDF"]["knn_top1"] == MISSING
    assert rows["TF-IDF"]["linear_probe_10%_top1"] != MISSING and rows["majority"]["knn_top1"] != MISSING
