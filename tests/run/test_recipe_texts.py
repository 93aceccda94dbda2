"""The recipe on texts, from the command line to what other libraries load, and the mistakes a user can make."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
import time

import pytest
import torch
import transformers
from conftest import CONFIGS, REPOSITORY
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.features import pool
from hf_pretext.stream.sample_log import read_lines

RECIPE = REPOSITORY / "recipes" / "masked_lm_reviews.py"
SHAKESPEARE = REPOSITORY / "recipes" / "data" / "shakespeare"
FILES = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "results.json", "README.md",
    "report.png", "modules.json", "sentence_bert_config.json",
}  # fmt: skip
LINES = [
    "Two households, both alike in dignity,",
    "In fair Verona, where we lay our scene,",
    "From ancient grudge break",
]


def main(*options, output_dir):
    spec = importlib.util.spec_from_file_location("masked_lm_reviews", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe.main(
        ["--smoke", "--use_cpu", "--disable_tqdm", "True", "--output_dir", str(output_dir), *map(str, options)]
    )


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run, as a user starts it, with no network."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    done = subprocess.run(
        [sys.executable, str(RECIPE), "--smoke", "--output_dir", str(folder)],
        capture_output=True, text=True, cwd=folder.parent, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(open_source(str(SHAKESPEARE), needed=("text",)), size=300)


def test_smoke_run_leaves_every_file_and_shows_what_it_measured(smoke):
    folder, output = smoke
    assert set(os.listdir(folder)) >= FILES
    for words in ("trained (masked_lm)", "random", "TF-IDF", "majority", "10% of labels", "bits_per_byte", "Next:"):
        assert words in output
    results = json.loads((folder / "results.json").read_text())
    assert results["transfer"]["methods"] == ["linear_probe_1%", "linear_probe_10%", "linear_probe_100%", "knn"]
    assert results["transfer"]["label"] == "kind" and results["transfer"]["classes"] == ["comedy", "sonnets", "tragedy"]
    assert results["packed"] is True and results["padding"] < 0.05
    assert results["objective"]["mask_token_id"] == AutoTokenizer.from_pretrained(folder).mask_token_id
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card and "smoke run" in card and "packed side by side" in card
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


def test_killed_in_the_middle_of_packing_and_resumed_bit_for_bit(tmp_path):
    options = ["--smoke", "--use_cpu", "--max_steps", "24", "--save_steps", "3", "--eval_dataset", "none"]
    options += ["--logging_steps", "1", "--record_samples", "--unit", "span"]
    command = [sys.executable, str(RECIPE), *options, "--output_dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 120
    while not (tmp_path / "run" / "checkpoint-6").exists() and time.time() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -9 and not (tmp_path / "run" / "results.json").exists()
    resumed = subprocess.run([*command, "--resume_from_checkpoint", "last"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumes from" in resumed.stdout
    main(*options[2:], output_dir=tmp_path / "whole")
    runs = [json.loads((tmp_path / name / "results.json").read_text())["seeds"][0] for name in ("run", "whole")]
    assert runs[0]["digest"] == runs[1]["digest"]
    losses = [[entry["loss"] for entry in run["history"]] for run in runs]
    assert len(losses[0]) == 24 and losses[0] == losses[1]
    samples = [read_lines(tmp_path / name / "samples-rank0.jsonl") for name in ("run", "whole")]
    assert samples[0] == samples[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]


def test_an_architecture_that_can_not_pack_takes_batches_of_like_length(tmp_path, tokenizer):
    """DeBERTa's attention takes no mask between documents."""
    config = transformers.DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        relative_attention=True, pos_att_type=["c2p", "p2c"], pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "deberta")
    results = main(
        "--encoder", tmp_path / "deberta", "--tokenizer", save(tokenizer, tmp_path / "tokenizer"),
        "--eval_rows", 30, "--max_steps", 6, "--unit", "word", output_dir=tmp_path / "run",
    )  # fmt: skip
    assert results["packed"] is False and results["encoder"]["class"] == "DebertaV2Model"
    assert results["padding"] < 0.1  # of batches of like length
    assert all(entry["loss"] > 0 for entry in results["seeds"][0]["history"])
    AutoModelForMaskedLM.from_pretrained(tmp_path / "run")


def test_going_on_from_a_model_with_its_head(tmp_path, tokenizer):
    """The head that it brings is kept, and so is its tokenizer."""
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    before = AutoModelForMaskedLM.from_config(config)
    before.save_pretrained(save(tokenizer, tmp_path / "bert"))
    options = ["--encoder", tmp_path / "bert", "--learning_rate", 0.0, "--max_steps", 1, "--eval_dataset", "none"]
    results = main(*options, output_dir=tmp_path / "run")
    after = AutoModelForMaskedLM.from_pretrained(tmp_path / "run")
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert results["tokenizer"]["from"] == str(tmp_path / "bert")


def test_texts_with_signs_of_mathematics_are_drawn_as_they_are(tmp_path):
    from functools import partial

    from hf_pretext.cards.report import draw, draw_fractions

    results = json.loads((REPOSITORY / "model_cards" / "masked_lm_reviews" / "results.json").read_text())
    predictions = [("the $100 million #1 hit made $____, 50% off", "$200", ["$5", "\\frac", "_", "^"])]
    panel = partial(draw_fractions, transfer=results["transfer"], predictions=predictions)
    draw(tmp_path / "r.png", results, (panel, 4.2))
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_the_reviews_are_split_in_blocks_of_each_label():
    spec = importlib.util.spec_from_file_location("reviews", REPOSITORY / "recipes" / "data" / "reviews.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [{"text": str(i), "sentiment": i % 2, "source": "imdb" if i < 40 else "rt"} for i in range(60)]
    parts = {split: module.block(rows, *part) for split, part in module.SPLITS.items()}
    assert [len(part) for part in parts.values()] == [48, 6, 6]
    assert sorted(int(row["text"]) for part in parts.values() for row in part) == list(range(60))
    assert {row["text"] for row in parts["test"]} == {"36", "37", "38", "39", "58", "59"}


def save(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return folder


def test_two_processes_train_one_tokenizer_and_share_one_corpus(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
        "--rdzv_endpoint", "localhost:0", str(RECIPE), "--smoke", "--use_cpu", "--output_dir", str(tmp_path / "run"),
        "--eval_dataset", "none", "--vocab_size", "400",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "home" / "hf_pretext"
    assert len(list((kept / "tokenizers").iterdir())) == len(list((kept / "texts").iterdir())) == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["processes"] == 2 and results["seeds"][0]["samples_seen"] == 4 * 4 * 2


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
    source = open_source(str(path), needed=("text",), sample_by=options[0] if options else None)
    outcome = [row["text"].strip() for piece, count in enumerate(source.counts) for row in source.read(piece, 0, count)]
    assert [text for text in outcome if text] == documents


def test_users_texts_without_labels(tmp_path):
    (tmp_path / "own.txt").write_text("\n\n".join(" ".join(LINES) for _ in range(200)))
    results = main("--dataset", tmp_path / "own.txt", "--eval_rows", 30, output_dir=tmp_path / "run")
    assert results["transfer"]["dataset"].endswith("recipes/data/shakespeare")
    assert results["tokenizer"]["from"] is None and results["tokens"] > 1000


class TestMistakes:
    """Each is reported before training, with the value and the fix, and leaves nothing behind."""

    @pytest.fixture
    def refused(self, capsys, tmp_path):
        def error(*options):
            with pytest.raises(SystemExit) as stopped:
                main(*options, output_dir=tmp_path / "run")
            assert stopped.value.code not in (0, None)
            assert not (tmp_path / "run").exists()
            return str(stopped.value.code) + capsys.readouterr().err

        return error

    def test_empty_corpus(self, refused, tmp_path):
        (tmp_path / "empty.jsonl").write_text('{"text": ""}\n{"text": "  "}\n')
        assert "has no text in its column 'text'" in refused("--dataset", tmp_path / "empty.jsonl")
        (tmp_path / "empty.txt").write_text("")
        assert "empty.txt" in refused("--dataset", tmp_path / "empty.txt")

    def test_a_column_of_numbers(self, refused, tmp_path):
        (tmp_path / "numbers.jsonl").write_text('{"text": 1}\n{"text": 2}\n')
        assert "no column of texts that can be told" in refused("--dataset", tmp_path / "numbers.jsonl")
        message = refused("--dataset", tmp_path / "numbers.jsonl", "--text_column", "text")
        assert "the column 'text' (--text_column) holds no texts" in message and "text (int64)" in message

    def test_a_tokenizer_without_a_mask_token(self, refused, tokenizer, tmp_path):
        bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
        assert "has no mask token" in refused("--tokenizer", save(bare, tmp_path / "bare"))

    def test_a_tokenizer_that_is_not_present(self, refused):
        assert "--tokenizer /no/such is neither a folder" in refused("--tokenizer", "/no/such")

    def test_longer_than_the_encoder_can_see(self, refused, tokenizer, tmp_path):
        config = transformers.RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=66, pad_token_id=0,
        )  # fmt: skip
        config.save_pretrained(tmp_path / "roberta")
        options = ["--encoder", tmp_path / "roberta", "--tokenizer", save(tokenizer, tmp_path / "tokenizer")]
        message = refused(*options, "--max_length", 80)
        assert "--max_length 80 is more than the 65 positions" in message and "--max_length 65 or less" in message
        assert "max_length 2 leaves no room" in refused("--max_length", 2)
        assert "Give at least 3" in refused("--max_length", -1)

    def test_vocabularies_that_differ(self, refused, tokenizer, tmp_path):
        CONFIGS["bert"]().save_pretrained(tmp_path / "bert")
        options = ["--encoder", tmp_path / "bert", "--tokenizer", save(tokenizer, tmp_path / "tokenizer")]
        message = refused(*options)
        assert "The tokenizer has 300 tokens" in message and "a vocabulary of 50" in message
        other = train_tokenizer(open_source(str(SHAKESPEARE), needed=("text",)), size=280)
        AutoModel.from_config(transformers.BertConfig(vocab_size=280, num_hidden_layers=1)).save_pretrained(
            tmp_path / "with"
        )
        save(other, tmp_path / "with")
        message = refused("--encoder", tmp_path / "with", "--tokenizer", tmp_path / "tokenizer")
        assert "is not the one that --encoder" in message

    def test_an_encoder_that_is_no_text_model(self, refused, tmp_path):
        CONFIGS["vit"]().save_pretrained(tmp_path / "vit")
        (tmp_path / "empty.txt").write_text("")  # what would be said of it, had it been read
        message = refused("--encoder", tmp_path / "vit", "--dataset", tmp_path / "empty.txt")
        assert f"--encoder {tmp_path / 'vit'}: transformers has no vit for masked language modelling" in message


def test_help_is_about_texts(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main("--help", output_dir=tmp_path)
    assert stopped.value.code in (0, None)
    output = capsys.readouterr().out
    for words in ("--tokenizer", "--max_length", "--mask_ratio", "--sample_by", "your own texts"):
        assert words in output
    assert "--crop_scale" not in output and "--image_size" not in output
