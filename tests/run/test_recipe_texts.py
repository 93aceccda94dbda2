"""The recipe on texts, from the command line to what other libraries load."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from recipe_runs import MASKED_LM, main, on_two_processes, smoke_run
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from hf_pretext.data.lines import Reading
from hf_pretext.data.sources import open_source
from hf_pretext.features import pool

FILES = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "results.json", "README.md",
    "report.png", "modules.json", "sentence_bert_config.json",
}  # fmt: skip
LINES = [
    "Two households, both alike in dignity,",
    "In fair Verona, where we lay our scene,",
    "From ancient grudge break",
]


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run, as a user starts it, with no network."""
    return smoke_run(MASKED_LM, output_dir=tmp_path_factory.mktemp("smoke") / "run")


def test_smoke_run_leaves_every_file_and_shows_what_it_measured(smoke):
    folder, output = smoke
    assert set(os.listdir(folder)) >= FILES
    for words in (
        "trained (masked_lm)",
        "random",
        "TF-IDF",
        "majority",
        "10% of labels",
        "bits_per_byte",
        "Next steps:",
    ):
        assert words in output
    results = json.loads((folder / "results.json").read_text())
    assert results["transfer"]["methods"] == ["linear_probe_1%", "linear_probe_10%", "linear_probe_100%", "knn"]
    assert results["transfer"]["label"] == "kind" and results["transfer"]["classes"] == ["comedy", "sonnets", "tragedy"]
    assert results["packed"] is True and results["padding"] < 0.05
    assert results["objective"]["mask_token_id"] == AutoTokenizer.from_pretrained(folder).mask_token_id
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card and "smoke run" in card
    assert "packed, with attention inside each document" in card
    for figures in results["transfer"]["figures"].values():
        assert f"{figures['linear_probe_100%_top1']['mean']:.3f}" in card


def test_the_loading_lines_and_fill_mask_run_where_hf_pretext_is_not_installed(smoke):
    folder, output = smoke
    lines = [line.strip() for line in output.splitlines() if "from_pretrained" in line or "import Auto" in line]
    assert len(lines) == 3
    code = [
        "import sys; sys.modules['hf_pretext'] = None", *lines,
        "from transformers import pipeline",
        f"print(type(encoder).__name__, len(pipeline('fill-mask', model={str(folder)!r})('To be or [MASK] to be')))",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, cwd=folder.parent)
    assert done.stdout.split() == ["ModernBertModel", "5"], done.stderr
    _, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_sentence_transformers_gives_our_features(smoke):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder, _ = smoke
    texts = ["The lady doth protest too much", "Brevity", " ".join(LINES * 40)]  # the last one is cut
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts, convert_to_tensor=True)
    tokens, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokens(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        ours = pool(encoder(**batch).last_hidden_state, batch["attention_mask"])
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def test_the_reviews_are_split_in_blocks_of_each_label():
    spec = importlib.util.spec_from_file_location("reviews", REPOSITORY / "recipes" / "data" / "reviews.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [{"text": str(i), "sentiment": i % 2, "source": "imdb" if i < 40 else "rt"} for i in range(60)]
    parts = {split: module.block(rows, *part) for split, part in module.SPLITS.items()}
    assert [len(part) for part in parts.values()] == [48, 6, 6]
    assert sorted(int(row["text"]) for part in parts.values() for row in part) == list(range(60))
    assert {row["text"] for row in parts["test"]} == {"36", "37", "38", "39", "58", "59"}


@pytest.mark.parametrize(
    ("content", "options", "documents"),
    [
        ("\n".join(LINES), [], LINES),
        (f"\n{LINES[0]}\n{LINES[1]}\n\n{LINES[2]}\n", [], ["\n".join(LINES[:2]).strip(), LINES[2]]),
        (f"{LINES[0]}\n\n{LINES[1]}", ["line"], LINES[:2]),
        (f"{LINES[0]}\n\n{LINES[1]}", ["document"], [f"{LINES[0]}\n\n{LINES[1]}"]),
    ],
    ids=["a line is one", "a blank line ends one", "lines are asked for", "the file is asked for"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_documents_of_plain_text_files(tmp_path, content, options, documents, packed):
    path = tmp_path / ("own.txt.gz" if packed else "own.txt")
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    source = open_source(str(path), needed=("text",), reading=Reading(options[0] if options else None))
    outcome = [row["text"].strip() for piece, count in enumerate(source.counts) for row in source.read(piece, 0, count)]
    assert [text for text in outcome if text] == documents


def test_users_texts_without_labels(tmp_path):
    (tmp_path / "own.txt").write_text("\n\n".join(" ".join(LINES) for _ in range(200)))
    results = main(MASKED_LM, "--dataset", tmp_path / "own.txt", output_dir=tmp_path / "run")
    assert "transfer" not in results and results["health"]["trained"]["loss"]["mean"] > 0
    assert results["tokenizer"]["from"] is None and results["tokens"] > 1000


@pytest.mark.slow
def test_two_processes_train_one_tokenizer_and_share_one_corpus(tmp_path):
    options = ["--eval_dataset", "none", "--vocab_size", "400"]
    on_two_processes(MASKED_LM, *options, output_dir=tmp_path / "run", HF_HOME=str(tmp_path / "home"))
    kept = tmp_path / "home" / "hf_pretext"
    assert len(list((kept / "tokenizers").iterdir())) == len(list((kept / "texts").iterdir())) == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["processes"] == 2 and results["seeds"][0]["samples_seen"] == 4 * 4 * 2
