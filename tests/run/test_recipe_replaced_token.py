"""ELECTRA's recipe in smoke size: its files, what other libraries load, other encoders, and a killed run."""

import json
import os
import subprocess
import sys

import pytest
import torch
from recipe_runs import ONE_THREAD, command, kill_once_there, refused, smoke_run
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, ElectraConfig

import hf_pretext

pytestmark = pytest.mark.usefixtures("cache")
REPLACED_TOKEN, UNMEASURED = "replaced_token_reviews", ("--eval_dataset", "none")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(REPLACED_TOKEN, output_dir=tmp_path_factory.mktemp("smoke") / "run")


def lines_of(folder) -> str:
    card = (folder / "README.md").read_text()
    return (
        card.split("```python\n")[1].split("```")[0].replace('from_pretrained("run")', f'from_pretrained("{folder}")')
    )


def run_without_hf_pretext(lines: str, folder) -> str:
    code = f"import sys; sys.modules['hf_pretext'] = None\n{lines}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_smoke_run_leaves_an_encoder_and_shows_what_it_measured(smoke):
    folder, output = smoke
    for words in ("trained (replaced_token)", "random", "TF-IDF", "majority", "10% of labels", "generator_accuracy"):
        assert words in output
    plain, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(plain).__name__ == "ModernBertModel" and not info["missing_keys"] and not info["unexpected_keys"]
    results = json.loads((folder / "results.json").read_text())
    assert results["transfer"]["methods"] == ["linear_probe_1%", "linear_probe_10%", "linear_probe_100%", "knn"]
    assert results["packed"] is True
    assert results["objective"]["mask_token_id"] == AutoTokenizer.from_pretrained(folder).mask_token_id
    assert hf_pretext.load(folder).parts["generator"] == {"num_hidden_layers": 1}
    assert "AutoModelForPreTraining" not in lines_of(folder)
    assert "ModernBertModel torch.Size([2, 32])" in run_without_hf_pretext(lines_of(folder), folder)


@pytest.mark.slow
def test_an_electra_keeps_its_head_and_loads_where_hf_pretext_is_not_installed(tmp_path):
    config = ElectraConfig(vocab_size=500, embedding_size=16, hidden_size=32, num_hidden_layers=1,
                           num_attention_heads=2, intermediate_size=32, max_position_embeddings=128)  # fmt: skip
    config.save_pretrained(tmp_path / "electra")
    options = ("--encoder", tmp_path / "electra", "--max_steps", 1, "--unit", "word", "--gradient_checkpointing", True)
    folder, _ = smoke_run(REPLACED_TOKEN, *options, *UNMEASURED, output_dir=tmp_path / "run")
    model, info = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "ElectraForPreTraining"
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert "AutoModelForPreTraining" in lines_of(folder)
    assert "ElectraModel torch.Size([2, 32])" in run_without_hf_pretext(lines_of(folder), folder)


def test_settings_that_do_not_fit_are_refused_before_training():
    assert "a generator larger than its encoder" in refused(REPLACED_TOKEN, "--generator_size", 2, *UNMEASURED)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    options, alone = [*UNMEASURED, "--max_steps", 6, "--save_steps", 2], {**os.environ, **ONE_THREAD}
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    kill_once_there(command(REPLACED_TOKEN, *options, output_dir=killed), killed / "checkpoint-2", **ONE_THREAD)
    again = command(REPLACED_TOKEN, *options, "--resume_from_checkpoint", "last", output_dir=killed)
    for typed in (command(REPLACED_TOKEN, *options, output_dir=unbroken), again):
        subprocess.run(typed, check=True, capture_output=True, env=alone)
    for name in ("model.safetensors", "pretext.safetensors"):
        one, two = (load_file(folder / name) for folder in (killed, unbroken))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
