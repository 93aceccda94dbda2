"""The recipes on pairs, images alone and texts alone: what they leave, two processes, codebooks and what is fetched."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import EMOJI, REPOSITORY
from PIL import Image
from recipe_runs import BRIEFLY, FLAVA, MULTIWAY, arguments, load_recipe, main, on_two_processes, refused
from transformers import AutoModel, FlavaImageCodebook, FlavaImageCodebookConfig, FlavaModel

import hf_pretext

SMOKED = [FLAVA, pytest.param(MULTIWAY, marks=pytest.mark.slow)]

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module", params=SMOKED)
def smoke(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, folder, main(request.param, "--eval_rows", 40, output_dir=folder)


def test_smoke_run_measures_what_each_side_and_each_are_worth(smoke):
    _, folder, results = smoke
    measured = results["measures"]["trained"]
    wanted = {f"{by}_{kind}" for by in ("matching", "threshold") for kind in ("shuffled", "hard")}
    wanted |= {f"masked_text_{kind}" for kind in ("own", "other", "none", "gain")} | {"text_probe", "image_to_text_r10"}
    assert wanted <= measured.keys() == results["measures"]["chance"].keys()
    assert [os.path.basename(path) for path in results["alone"]["texts"]] == ["shakespeare"]
    codebook = results["seeds"][0]["prepared"]["codebook"]
    assert codebook["size"] == 64 and 2 < codebook["perplexity"] <= 64
    kinds = {key for entry in results["seeds"][0]["history"] for key in entry}
    assert "loss_contrastive" in kinds
    card = (folder / "README.md").read_text()
    assert "| masked words, with the image |" in card and "| linear probe of captions |" in card


def test_checkpoint_loads_without_this_package(smoke):
    name, folder, _ = smoke
    lines = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    lines = re.sub(r'(?<=from_pretrained\(")[^"]*', str(folder), lines)  # the card names no path of this machine
    encoder = "model.image_model" if name == "flava_emoji" else "encoder"
    script = f"{lines}\nimport sys\nassert 'hf_pretext' not in sys.modules\nprint(type({encoder}).__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == {"flava_emoji": "FlavaImageModel", "multiway_emoji": "ViTModel"}[name]
    assert hf_pretext.load(folder).codebook.fitted
    if name == "flava_emoji":
        assert type(AutoModel.from_pretrained(folder)) is FlavaModel


@pytest.mark.slow
def test_two_processes_see_one_kind_a_step_and_all_learn(tmp_path):
    options = ["--eval_rows", "40", "--eval_dataset", "none", "--max_steps", "20", "--logging_steps", "1"]
    options += ["--per_device_train_batch_size", "4", "--record_samples"]
    on_two_processes(FLAVA, *options, output_dir=tmp_path / "run")
    kinds = []
    for rank in (0, 1):
        lines = (tmp_path / "run" / f"samples-rank{rank}.jsonl").read_text().splitlines()
        steps = [{key.split("/")[0] for key in json.loads(line)["keys"]} for line in lines]
        assert all(len(outcome) == 1 for outcome in steps), "a step of several sources"
        kinds.append([next(iter(outcome)) for outcome in steps])
    assert kinds[0] == kinds[1] and len(set(kinds[0])) == 3
    history = json.loads((tmp_path / "run" / "run.json").read_text())["history"]
    terms = {key for entry in history for key in entry if key.endswith("_accuracy")}
    assert {"loss_mim", "loss_mlm", "loss_mmm_image", "loss_itm"} <= {key for entry in history for key in entry}
    assert terms >= {"mim_accuracy", "mlm_accuracy", "mmm_text_accuracy", "itm_accuracy", "contrastive_accuracy"}
    moments = torch.load(tmp_path / "run" / "checkpoint-20" / "optimizer.pt")["state"]
    trained = [p for p in hf_pretext.load(tmp_path / "run").named_parameters() if "pooler" not in p[0]]
    trained = [name for name, _ in trained if "codebook" not in name]
    assert len(moments) == len(trained)  # the optimizer has a state of what had a gradient


def test_more_codes_than_patches(tmp_path):
    message = refused(MULTIWAY, "--codebook_size", 1000, "--codebook_patches", 500)
    assert "codebook_size must be at least 2 and at most codebook_patches=500, but is 1000" in message
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "plain" / "red.png")
    (tmp_path / "plain" / "metadata.csv").write_text("file_name,text\nred.png,a red square\n")
    plain = ("--dataset", tmp_path / "plain", "--eval_dataset", "none", "--horizontal_flip", 0)
    with pytest.raises(SystemExit, match="64 codes needs as many different patches.*--codebook_size"):
        main(MULTIWAY, *plain, output_dir=tmp_path / "other")


def test_a_ready_codebook_is_read(tmp_path):
    small = FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=20)
    FlavaImageCodebook(small).save_pretrained(tmp_path / "codebook")
    options = ("--codebook", tmp_path / "codebook", *BRIEFLY)
    main(MULTIWAY, *options, output_dir=tmp_path / "run")
    codebook = hf_pretext.load(tmp_path / "run").codebook
    assert (codebook.kind, codebook.size, codebook.mean.tolist()) == ("ready", 20, [0.5] * 3)


def test_what_is_not_given_is_fetched_or_the_mend_reported(tmp_path):
    recipe, asked = load_recipe(FLAVA), []

    def gone():
        asked.append("texts_alone")
        raise FileNotFoundError("no apt-get here.")

    recipe.fetch = {"images_alone": lambda: asked.append("images_alone") or [EMOJI], "texts_alone": gone}
    recipe.smoke = {k: v for k, v in recipe.smoke.items() if not k.endswith("_alone")}
    options = arguments([], tmp_path / "run")
    with pytest.raises(SystemExit, match="The default of --texts_alone can't be downloaded: no apt-get here"):
        recipe.main([*options, "--images_alone", str(EMOJI)])
    assert asked == ["texts_alone"]
    with pytest.raises(SystemExit, match="no apt-get here. Or give --texts_alone"):
        recipe.main(options)
    assert asked[1:] == ["images_alone", "texts_alone"] and not (tmp_path / "run").exists()
    with pytest.raises(SystemExit, match="--dataset"):  # who brings pairs is asked for nothing else
        recipe.main([*options, "--dataset", str(tmp_path / "nothing")])
    assert len(asked) == 3
