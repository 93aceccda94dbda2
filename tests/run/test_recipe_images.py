"""The recipes on images alone: what they leave, what is refused, and a run that is killed after it prepared."""

import json

import pytest
import torch
from PIL import Image
from recipe_runs import ONE_THREAD, command, kill_once_there, main, refused
from safetensors.torch import load_file
from transformers import AutoModel, SwinConfig

import hf_pretext
from hf_pretext.objectives.colorization import ColorizationForPreTraining

COLORIZATION, MASKED, JIGSAW = "colorization_emoji", "masked_image_emoji", "jigsaw_emoji"
ALL = {
    COLORIZATION: ("ResNetModel", "ab_error"),
    MASKED: ("ViTModel", "explained"),
    JIGSAW: ("ResNetModel", "accuracy"),
    "relative_position_emoji": ("ResNetModel", "accuracy"),
    "masked_image_resnet_emoji": ("ResNetModel", "explained"),
}
SMOKED = [name if name == MASKED else pytest.param(name, marks=pytest.mark.slow) for name in ALL]

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("name", SMOKED)
def test_smoke_run_leaves_an_encoder_a_card_and_images(name, tmp_path):
    encoder, log = ALL[name]
    results = main(name, "--eval_rows", 40, "--fine_tune", 1, output_dir=tmp_path / "run")
    assert log in results["pretext"] and "fine_tune_top1" in results["transfer"]["figures"]["trained"]
    assert type(AutoModel.from_pretrained(tmp_path / "run")).__name__ == encoder
    assert hf_pretext.load(tmp_path / "run").objective == results["objective"]["name"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "fine-tuning (1 epoch)" in card and "## Limits" in card
    assert ("linear probe, grey images" in card) == (name == COLORIZATION)
    with Image.open(tmp_path / "run" / "report.png") as report:
        illustrated = "illustrate" in type(hf_pretext.load(tmp_path / "run")).capabilities
        assert report.height > (1_400 if illustrated else 1_000)  # curves, what the model sees, and neighbours


@pytest.mark.slow
def test_a_killed_run_keeps_the_weights_of_colors(tmp_path, monkeypatch):
    options = ["--eval_dataset", "none", "--max_steps", 6, "--save_steps", 2]
    main(COLORIZATION, *options, output_dir=tmp_path / "calm")
    killed = tmp_path / "killed"
    kill_once_there(command(COLORIZATION, *options, output_dir=killed), killed / "checkpoint-2", **ONE_THREAD)
    monkeypatch.setattr(ColorizationForPreTraining, "prepare", None)  # a resumed run does not count colours again
    main(COLORIZATION, *options, "--resume_from_checkpoint", "last", output_dir=killed)
    for file in ("model.safetensors", "pretext.safetensors"):
        calm, resumed = load_file(tmp_path / "calm" / file), load_file(killed / file)
        assert calm.keys() == resumed.keys() and all(torch.equal(resumed[name], value) for name, value in calm.items())
    prepared = [json.loads((folder / "run.json").read_text())["prepared"] for folder in (tmp_path / "calm", killed)]
    assert prepared[0] == prepared[1] and prepared[0]["bins"] == 259


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (COLORIZATION, ["--color_jitter", 0.4], "--color_jitter 0.4: colours are what colorization predicts"),
        (COLORIZATION, ["--grayscale", 0.2], "--grayscale 0.2: colours are what colorization predicts"),
        (MASKED, ["--mask_size", 24], "a --mask_size that divides the side of the image"),
        (MASKED, ["--image_size", 60], "can't be cut into patches of 8x8"),
        ("masked_image_resnet_emoji", ["--visible_only"], "no sequence of patches, so it can't skip some. Leave"),
        (JIGSAW, ["--gap", 40], "no room for a tile with a gap of 40 pixels"),
    ],
)
def test_settings_that_can_not_work_are_refused_before_training(name, options, words):
    message = refused(name, *options)
    assert words in message and "Its config has image_size" not in message, message


def test_tiles_that_an_encoder_can_not_take_are_refused_before_training(tmp_path):
    SwinConfig(
        image_size=96, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=6
    ).save_pretrained(tmp_path / "swin")
    assert "Give --tile_size 96" in refused(JIGSAW, "--encoder", tmp_path / "swin", "--image_size", 96)
