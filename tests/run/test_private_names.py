"""What is pushed names no folder and no file of the machine, and a run resumes where its folders have moved."""

import json
import shutil
from pathlib import Path

import pytest
import transformers
from conftest import EMOJI
from recipe_runs import CONTRASTIVE, FLAVA, MASKED_LM, SHAKESPEARE, main, saved, shakespeare_tokenizer

from hf_pretext.cards.push import revisions

SECRET = "telltale"
STEPS = ("--max_steps", 4, "--save_steps", 2, "--record_samples", "True", "--logging_steps", 1)


def leaks(run: Path, into: Path) -> dict[str, set[str]]:
    """The files that a push of everything would send and that name what is secret."""
    staged = [folder for folder, _, _ in revisions(run, "me/x", "main", "last", True, into / "last")]
    staged += [folder for folder, _, _ in revisions(run, "me/x", "main", "all", True, into / "all")]
    files = {path for folder in staged for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "results.json", "stream.json", "trainer_state.json"} <= {path.name for path in files}
    assert all(SECRET not in path.name for path in files)
    secret = (SECRET.encode(), str(run.parent).encode())
    return {str(path.relative_to(into)) for path in files if any(word in path.read_bytes() for word in secret)}


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A folder that is below neither the current nor the home folder, with texts in files of their own names."""
    place = tmp_path / f"{SECRET}-client"
    (place / "texts").mkdir(parents=True)
    for split in ("train", "validation"):
        shutil.copy(SHAKESPEARE / f"{split}.jsonl", place / "texts" / f"{split}-{SECRET}.jsonl")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return place


def test_a_run_of_texts_names_nothing_and_resumes_where_everything_has_moved(secret, tmp_path):
    tokenizer = saved(shakespeare_tokenizer(), secret / "tokenizer")
    shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=300)
    encoder = saved(transformers.BertForMaskedLM(transformers.BertConfig(**shape)), secret / "encoder")

    def options(place):
        from_place = {"dataset": "texts", "encoder": "encoder", "tokenizer": "tokenizer"}
        given = [word for name, folder in from_place.items() for word in (f"--{name}", place / folder)]
        return (*given, "--eval_dataset", "none", *STEPS)

    done = main(MASKED_LM, *options(secret), output_dir=secret / "run")
    assert leaks(secret / "run", tmp_path / "staged") == set()
    assert done["data"]["dataset"] == ".../texts" and encoder.exists() and tokenizer.exists()
    moved = tmp_path / f"moved-{SECRET}"
    secret.rename(moved)
    options_moved = (*options(moved), "--resume_from_checkpoint", "last")
    finished = main(MASKED_LM, *options_moved, output_dir=moved / "run")  # which is known as finished
    assert finished["seeds"][0]["digest"] == done["seeds"][0]["digest"]
    pushed = tmp_path / "staged" / "last" / "end" / "checkpoint-4"  # on another machine, from what was pushed
    longer = (*options(moved), "--max_steps", 6, "--resume_from_checkpoint", pushed)
    resumed = main(MASKED_LM, *longer, output_dir=tmp_path / "run")
    assert resumed["seeds"][0]["resumed"][0]["samples_seen"] == done["seeds"][0]["samples_seen"]
    train = moved / "texts" / f"train-{SECRET}.jsonl"
    train.write_text(train.read_text() + train.read_text().splitlines()[0] + "\n")
    with pytest.raises(SystemExit, match=f"train-{SECRET}.jsonl had "):  # the name of the file of this machine
        main(MASKED_LM, *longer, output_dir=tmp_path / "new")


@pytest.mark.slow
def test_pairs_with_an_evaluation_and_towers_name_nothing(secret, tmp_path):
    shutil.copytree(EMOJI, secret / "emoji")
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    image = transformers.ViTModel(transformers.ViTConfig(**small, image_size=32, patch_size=8))
    options = ["--dataset", secret / "emoji", "--eval_dataset", secret / "emoji", "--eval_label", "group", *STEPS]
    options += ["--image_encoder", saved(image, secret / "image"), "--image_size", 32, "--eval_rows", 60]
    main(CONTRASTIVE, *options, output_dir=secret / "run")
    assert leaks(secret / "run", tmp_path / "staged") == set()


@pytest.mark.slow
def test_a_codebook_names_nothing(secret, tmp_path):
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    image = transformers.ViTModel(transformers.ViTConfig(**small, image_size=64, patch_size=16))
    codebook = saved(image, secret / "codebook")
    options = ["--eval_dataset", "none", "--codebook", codebook, "--codebook_size", 16, *STEPS]
    options += ["--codebook_patches", 64]
    main(FLAVA, *options, output_dir=secret / "run")
    assert leaks(secret / "run", tmp_path / "staged") == set()
    settings = json.loads((secret / "run" / "config.json").read_text())["pretext"]
    assert settings["codebook"] == ".../codebook"
