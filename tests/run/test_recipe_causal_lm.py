"""The recipe of causal language modelling, from the command line to what other libraries load."""

import json
import os
import subprocess
import sys

import pytest
from recipe_runs import refused, smoke_run
from transformers import AutoModelForCausalLM, AutoTokenizer

CAUSAL_LM = "causal_lm_reviews"
pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run, as a user starts it, with no network."""
    return smoke_run(CAUSAL_LM, output_dir=tmp_path_factory.mktemp("smoke") / "run")


def test_smoke_run_leaves_what_it_measured(smoke):
    folder, output = smoke
    assert {"model.safetensors", "tokenizer.json", "results.json", "README.md", "modules.json"} <= {*os.listdir(folder)}
    for words in ("trained (causal_lm)", "TF-IDF", "bits per byte saved compared with xz", "bits_per_byte"):
        assert words in output
    results = json.loads((folder / "results.json").read_text())
    assert results["packed"] is True and results["padding"] < 0.05
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = {name: results["objective"][name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    assert ids == {name: getattr(tokenizer, name) for name in ids}
    chance, trained = (results["measures"][who] for who in ("chance", "trained"))
    assert 1 < chance["text_bits"]["mean"] < 8 and chance["text_xz_gain"]["mean"] == 0
    gain = chance["text_bits"]["mean"] - trained["text_bits"]["mean"]
    assert trained["text_bigram_gain"]["mean"] == pytest.approx(gain)
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card and "Witten-Bell" in card


def test_the_loading_lines_and_generation_run_where_hf_pretext_is_not_installed(smoke):
    folder, output = smoke
    lines = [line.strip() for line in output.splitlines() if "from_pretrained" in line or "import Auto" in line]
    code = [
        "import sys; sys.modules['hf_pretext'] = None", *lines,
        "from transformers import pipeline",
        f"generate = pipeline('text-generation', model={str(folder)!r})",
        "print(type(encoder).__name__, len(generate('To be', max_new_tokens=5)))",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, cwd=folder.parent)
    assert done.stdout.split() == ["LlamaModel", "1"], done.stderr
    _, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_prompts_have_no_end(smoke):
    tokenizer = AutoTokenizer.from_pretrained(smoke[0])
    ids = tokenizer("To be")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id not in ids
    assert "add_eos_token" in refused(CAUSAL_LM, "--add_eos_token", "True")
