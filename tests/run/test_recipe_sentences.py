"""The recipe of vectors of texts: a run of each method, hard negatives, and what is refused."""

import json

import pytest
import torch
from recipe_runs import BRIEFLY, SENTENCE, main, refused
from safetensors.torch import load_file
from transformers import AutoModel

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke") / "run"
    return folder, main(SENTENCE, output_dir=folder)


def test_smoke_run_measures_probes_and_halves(smoke):
    folder, results = smoke
    assert results["transfer"]["methods"] == ["linear_probe_1%", "linear_probe_10%", "linear_probe_100%", "knn"]
    measured = results["measures"]
    names = {"halves_r1", "halves_r10", "halves_r1_baseline", "halves_r10_baseline"}
    assert all({*measured[who]} == names for who in ("trained", "random", "chance"))
    assert results["objective"]["method"] == "tsdae" and results["objective"]["start_token_id"] == 2
    assert "packed" not in results and results["samples"] == "texts"
    assert {"perplexity", "accuracy", "loss"} <= {*results["pretext"]}
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in card and "second half of a text, R@10" in card
    assert "Texts: one in each row." in card and "Captions" not in card
    assert results["usage"]["output"] == "ModernBertModel torch.Size([])"


def test_the_folder_is_the_encoder_and_the_decoder_lies_next_to_it(smoke):
    folder, _ = smoke
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    stored = load_file(folder / "pretext.safetensors")
    assert stored and all(name.startswith("decoder.") for name in stored)
    assert not any("word_embeddings" in name for name in stored)  # the encoder's
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] and not pooling["pooling_mode_cls_token"]


def test_simcse_with_hard_negatives_and_the_first_token(tmp_path):
    rows = [{"text": f"a text of number {i}", "other": f"not the number {i + 1}"} for i in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ["--dataset", tmp_path / "texts.jsonl", "--text_column", "text", "--negative_column", "other"]
    given = ["--method", "simcse", "--pooling", "cls", "--logging_steps", 1, *BRIEFLY]
    results = main(SENTENCE, *options, *given, output_dir=tmp_path / "run")
    assert results["objective"]["negative_column"] == "other"
    assert set(load_file(tmp_path / "run" / "pretext.safetensors")) == {"pretext_head.0.weight", "pretext_head.0.bias"}
    pooling = json.loads((tmp_path / "run" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_cls_token"] and not pooling["pooling_mode_mean_tokens"]
    without = main(SENTENCE, *options[:4], *given, output_dir=tmp_path / "without")
    losses = [each["seeds"][0]["history"][0]["loss"] for each in (results, without)]
    assert losses[0] > losses[1]  # more negatives
    assert torch.isfinite(torch.tensor(losses)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "simcse", "--per_device_train_batch_size", "1"], "sentence needs at least 2 rows"),
        (["--method", "tsdae", "--negative_column", "text"], "has no effect with method='tsdae'"),
        (["--method", "simcse", "--negative_column", "nothing"], "nothing"),
        (["--delete_ratio", "0"], "delete_ratio must lie between 0 and 1"),
    ],
)
def test_bad_options_are_refused(options, words):
    assert words in refused(SENTENCE, *options)
