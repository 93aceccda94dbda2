"""The recipes on pairs, images alone and texts alone: what they leave, two processes, and a user's mistakes."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import CONFIGS, EMOJI, REPOSITORY
from safetensors.torch import load_file
from transformers import AutoModel, FlavaImageCodebook, FlavaImageCodebookConfig, FlavaModel

import hf_pretext

RECIPES = REPOSITORY / "recipes"
NAMES = ("flava_emoji", "multiway_emoji")
SMOKED = ["flava_emoji", pytest.param("multiway_emoji", marks=pytest.mark.slow)]
QUICK = ["--smoke", "--use_cpu", "--disable_tqdm", "True", "--eval_rows", "40"]


def main(name, *options, output_dir):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe.main([*QUICK, "--output_dir", str(output_dir), *map(str, options)])


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module", params=SMOKED)
def smoke(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, folder, main(request.param, output_dir=folder)


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
    encoder = "model.image_model" if name == "flava_emoji" else "encoder"
    script = f"{lines}\nimport sys\nassert 'hf_pretext' not in sys.modules\nprint(type({encoder}).__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == {"flava_emoji": "FlavaImageModel", "multiway_emoji": "ViTModel"}[name]
    assert hf_pretext.load(folder).codebook.fitted
    if name == "flava_emoji":
        assert type(AutoModel.from_pretrained(folder)) is FlavaModel


def test_two_processes_see_one_kind_a_step_and_all_learn(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
        "--rdzv_endpoint", "localhost:0", str(RECIPES / "flava_emoji.py"), *QUICK, "--eval_dataset", "none",
        "--max_steps", "20", "--per_device_train_batch_size", "4", "--logging_steps", "1", "--record_samples",
        "--output_dir", str(tmp_path / "run"),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
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


@pytest.mark.slow
def test_a_killed_run_of_several_kinds_ends_as_one_never_killed(tmp_path):
    def run(name, *options, **more):
        command = [sys.executable, str(RECIPES / "flava_emoji.py"), *QUICK, "--eval_dataset", "none"]
        command += ["--max_steps", "24", "--save_steps", "7", "--record_samples", "--output_dir", str(tmp_path / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, env=environment, **more)

    unbroken, killed = run("whole"), run("run")
    while not (tmp_path / "run" / "checkpoint-14").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not (tmp_path / "run" / "run.json").exists()
    assert run("run", "--resume_from_checkpoint", "last").wait() == 0 and unbroken.wait() == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    first, second = ((tmp_path / name / "samples-rank0.jsonl").read_text() for name in ("whole", "run"))
    assert first == second and len(first.splitlines()) == 24


class TestMistakes:
    @pytest.fixture
    def refused(self, tmp_path):
        def error_of(name, *options):
            with pytest.raises(SystemExit) as stopped:
                main(name, *options, output_dir=tmp_path / "run")
            assert not (tmp_path / "run").exists(), "something was written"
            return str(stopped.value)

        return error_of

    def test_texts_for_a_recipe_that_needs_pairs(self, refused, tmp_path):
        (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n")
        for name in (*NAMES, "matching_emoji"):
            assert "no column of images" in refused(name, "--dataset", tmp_path / "texts.txt")

    def test_what_learns_from_pairs_alone(self, refused):
        message = refused("matching_emoji", "--images_alone", EMOJI)
        assert "--images_alone: matching learns from pairs alone" in message

    def test_towers_of_a_model_that_has_none(self, refused, tmp_path):
        CONFIGS["vit"]().save_pretrained(tmp_path / "vit")
        message = refused("flava_emoji", "--image_encoder", tmp_path / "vit")
        assert "--image_encoder: the encoders of flava are parts of one model. Start from a full model" in message

    def test_different_model(self, refused, tmp_path):
        AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path / "vit")
        message = refused("multiway_emoji", "--encoder", tmp_path / "vit")
        assert f"--encoder {tmp_path / 'vit'}: This objective needs a MultiwayModel" in message

    def test_more_codes_than_patches(self, refused, tmp_path):
        message = refused("multiway_emoji", "--codebook_size", 1000, "--codebook_patches", 500)
        assert "codebook_size must be at least 2 and at most codebook_patches=500, but is 1000" in message
        from PIL import Image

        (tmp_path / "plain").mkdir()
        Image.new("RGB", (64, 64), "red").save(tmp_path / "plain" / "red.png")
        (tmp_path / "plain" / "metadata.csv").write_text("file_name,text\nred.png,a red square\n")
        plain = ("--dataset", tmp_path / "plain", "--eval_dataset", "none", "--horizontal_flip", 0)
        with pytest.raises(SystemExit, match="64 codes needs as many different patches.*--codebook_size"):
            main("multiway_emoji", *plain, output_dir=tmp_path / "other")

    def test_parts_that_nothing_trains_are_reported(self, tmp_path, capsys):
        options = ("--dataset", EMOJI, "--eval_dataset", "none", "--max_steps", 1)
        main("multiway_emoji", *options, "--contrastive_weight", 0, output_dir=tmp_path / "run")
        output = capsys.readouterr().out
        assert "weights have no part in any loss" in output and "experts.vision" in output

    def test_a_ready_codebook_is_read(self, tmp_path):
        small = FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=20)
        FlavaImageCodebook(small).save_pretrained(tmp_path / "codebook")
        options = ("--codebook", tmp_path / "codebook", "--eval_dataset", "none", "--max_steps", 1)
        main("multiway_emoji", *options, output_dir=tmp_path / "run")
        codebook = hf_pretext.load(tmp_path / "run").codebook
        assert (codebook.kind, codebook.size, codebook.mean.tolist()) == ("ready", 20, [0.5] * 3)

    def test_what_is_not_given_is_fetched_or_the_mend_reported(self, tmp_path, monkeypatch):
        spec = importlib.util.spec_from_file_location("flava_emoji", RECIPES / "flava_emoji.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        recipe, asked = module.recipe, []

        def gone():
            asked.append("texts_alone")
            raise FileNotFoundError("no apt-get here.")

        recipe.fetch = {"images_alone": lambda: asked.append("images_alone") or [EMOJI], "texts_alone": gone}
        recipe.smoke = {k: v for k, v in recipe.smoke.items() if not k.endswith("_alone")}
        options = [*QUICK, "--output_dir", str(tmp_path / "run")]
        with pytest.raises(SystemExit, match="--texts_alone is fetched where it is not given, but: no apt-get here"):
            recipe.main([*options, "--images_alone", str(EMOJI)])
        assert asked == ["texts_alone"]
        with pytest.raises(SystemExit, match="no apt-get here. Or give --texts_alone"):
            recipe.main(options)
        assert asked[1:] == ["images_alone", "texts_alone"] and not (tmp_path / "run").exists()
        with pytest.raises(SystemExit, match="--dataset"):  # who brings pairs is asked for nothing else
            recipe.main([*options, "--dataset", str(tmp_path / "nothing")])
        assert len(asked) == 3

    def test_different_codebook_for_an_unfinished_run(self, tmp_path):
        options = ("--eval_dataset", "none", "--max_steps", 2)
        main("multiway_emoji", *options, output_dir=tmp_path / "run")
        (tmp_path / "run" / "run.json").unlink()
        with pytest.raises(SystemExit, match="was trained with codebook_size=64, not 32"):
            resumed = (*options, "--resume_from_checkpoint", "last", "--codebook_size", 32)
            main("multiway_emoji", *resumed, output_dir=tmp_path / "run")

    def test_a_rare_kind(self, refused):
        assert "each must be at least a twentieth" in refused("flava_emoji", "--mixture_weights", 98, 1, 1)

    def test_steps_of_different_size(self, tmp_path):
        main("multiway_emoji", "--eval_dataset", "none", "--max_steps", 2, output_dir=tmp_path / "run")
        (tmp_path / "run" / "run.json").unlink()
        options = ("--eval_dataset", "none", "--resume_from_checkpoint", "last", "--per_device_train_batch_size", 16)
        with pytest.raises(SystemExit, match="in steps of one source, each of 8 samples, not 16"):
            main("multiway_emoji", *options, output_dir=tmp_path / "run")
