"""Recipes as a user runs them, in smoke size: run, refused, killed, on two processes, planned alone; and tiny models
that they start from."""

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import transformers
from conftest import REPOSITORY

from hf_pretext import registry
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.recipe import Recipe, option_types
from hf_pretext.run.command_line import CommandLine
from hf_pretext.run.experiment import Experiment, Request, ask, plan
from hf_pretext.samples import SAMPLES

RECIPES = REPOSITORY / "recipes"
SHAKESPEARE = SAMPLES / "shakespeare"
ROTATION, CONTRASTIVE, MASKED_LM = "rotation_emoji", "contrastive_emoji", "masked_lm_reviews"
SENTENCE = "sentence_reviews"
FLAVA, MULTIWAY, MATCHING = "flava_emoji", "multiway_emoji", "matching_emoji"
QUICK = ["--smoke", "--use_cpu", "--disable_tqdm", "True"]
BRIEFLY = ("--eval_dataset", "none", "--max_steps", 1)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # where several processes share the cores


def load_recipe(name: str) -> Recipe:
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe


def arguments(options, output_dir) -> list[str]:
    """Options of a smoke run."""
    return [*QUICK, "--output_dir", str(output_dir), *map(str, options)]


def main(name: str, *options, output_dir) -> dict:
    """A smoke run in this process. Returns what results.json holds."""
    return load_recipe(name).main(arguments(options, output_dir))


def refused(name: str, *options, output_dir=None) -> str:
    """The message of a run that is refused, after checking that it left nothing behind."""
    with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stderr(io.StringIO()) as errors:
        folder = output_dir or os.path.join(empty, "run")
        existed, before = os.path.exists(folder), os.path.isdir(folder) and sorted(os.listdir(folder))
        with pytest.raises(SystemExit) as stopped:
            main(name, *options, output_dir=folder)
        assert stopped.value.code not in (0, None)
        assert os.path.exists(folder) == existed, "something was written"
        assert (os.path.isdir(folder) and sorted(os.listdir(folder))) == before, "something was written"
    return str(stopped.value.code) + errors.getvalue()


def command(name: str, *options, output_dir) -> list[str]:
    """What a user types for a smoke run."""
    return [sys.executable, str(RECIPES / f"{name}.py"), "--smoke", *map(str, options), "--output_dir", str(output_dir)]


def smoke_run(name: str, *options, output_dir: Path) -> tuple[Path, str]:
    """A smoke run as a user starts it, with no network: its folder and what it printed."""
    typed, environment = command(name, *options, output_dir=output_dir), {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(typed, capture_output=True, text=True, cwd=output_dir.parent, env=environment)
    assert done.returncode == 0, done.stderr
    return output_dir, done.stdout


def on_two_processes(name: str, *options, output_dir, **environment) -> str:
    """What a smoke run on two processes prints."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    python, *typed = command(name, "--use_cpu", *options, output_dir=output_dir)
    done = subprocess.run(
        [python, *launch, "--rdzv_endpoint", "localhost:0", *typed],
        capture_output=True, text=True, timeout=600, env={**os.environ, **ONE_THREAD, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_once_there(typed: list[str], path: Path, **environment) -> None:
    """Starts a command, and ends it by SIGKILL as soon as it has written this."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process, deadline = subprocess.Popen(typed, **quiet, env={**os.environ, **environment}), time.time() + 120
    while not path.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9, "it was not killed"


# a run that is not trained


def parsed(name: str, *options, output_dir="run"):
    """What `ask` wants of a recipe with these options."""
    recipe = load_recipe(name)
    objective = registry.objective_class(recipe.objective)
    command_line = CommandLine(option_types(objective), name, recipe.doc, recipe.settings, recipe.smoke)
    return recipe, objective, command_line, command_line.parse(arguments(options, output_dir))


def requested(name: str, *options, output_dir="run") -> Request:
    """The options of a smoke run; no data is read."""
    return ask(*parsed(name, *options, output_dir=output_dir))


def planned(name: str, *options, output_dir) -> Experiment:
    """A smoke run that could begin."""
    return plan(requested(name, *options, output_dir=output_dir))


# what a run starts from


def shakespeare_tokenizer(size: int = 300):
    return train_tokenizer(open_source(str(SHAKESPEARE), needed=("text",)), size=size)


def saved(thing, folder: Path) -> Path:
    thing.save_pretrained(folder)
    return folder


def pair_shapes(tokens: int) -> dict[str, transformers.PreTrainedConfig]:
    """Tiny models of every kind of pairs that --encoder takes, for a tokenizer that is trained in the run."""
    vision = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32)
    vision, text = {**vision, "patch_size": 8}, {**vision, "vocab_size": tokens, "max_position_embeddings": 24}
    del text["image_size"]
    ends = dict(bos_token_id=2, eos_token_id=3, pad_token_id=0)
    align = dict(image_size=32, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=24)
    return {
        "clip": transformers.CLIPConfig(vision_config=vision, text_config={**text, **ends}, projection_dim=24),
        "siglip": transformers.SiglipConfig(
            vision_config=vision, text_config={**text, **ends, "max_position_embeddings": 64}
        ),  # the pipeline pads SigLIP's texts to 64, whatever the model says
        "chinese_clip": transformers.ChineseCLIPConfig(vision_config=vision, text_config=text, projection_dim=24),
        "align": transformers.AlignConfig(vision_config=align, text_config=text, projection_dim=80),
    }


class InThisProcess:
    """A pool that runs jobs in this process, one after the other."""

    def __init__(self, workers, context, initializer):
        assert context.get_start_method() == "spawn" and callable(initializer)

    def map(self, function, *arguments):
        return map(function, *arguments)

    def shutdown(self, cancel_futures):
        pass
