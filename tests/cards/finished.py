"""A finished run and a Hub to publish it on, for the tests of what is published."""

import shutil

import torch
from conftest import CONFIGS, REPOSITORY
from huggingface_hub import HfApi
from loopback_hub import online
from transformers import AutoModel

import hf_pretext
from hf_pretext.modalities.image import default_processor

MODEL = "tester/model"
READER = "hf_reader_secret"


def online_hub(tmp_path, monkeypatch):
    """A Hub that this process's client knows and may write to."""
    with online(tmp_path / "hub", monkeypatch, readers={READER}) as hub:
        monkeypatch.setattr("transformers.utils.hub._hf_api", HfApi(endpoint=hub.url))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def finished_run(tmp_path):
    """A folder as a finished run leaves it: weights in several files, a checkpoint, what is of this machine alone."""
    folder = tmp_path / "run"
    model = hf_pretext.RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()))
    for place in (folder, folder / "checkpoint-2", folder / "seed-1"):
        model.save_pretrained(place, max_shard_size="5KB")
        default_processor(32).save_pretrained(place)
    recorded = REPOSITORY / "model_cards" / "rotation_emoji"
    for name in ("results.json", "report.png"):
        shutil.copy(recorded / name, folder)
    for name in ("run.json", "bad_samples.jsonl", "checkpoint-2/trainer_state.json", "checkpoint-2/stream.json"):
        (folder / name).write_text("{}")
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt"):
        torch.save({}, folder / "checkpoint-2" / name)
    return folder


def weights(names) -> set[str]:
    return {name for name in names if "safetensors" in name}
