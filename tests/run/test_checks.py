"""What is refused before anything is trained or written: with the value and the fix, and nothing is left behind."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import CONFIGS, VIT
from recipe_runs import CONTRASTIVE, FLAVA, ROTATION, load_recipe, refused, requested
from safetensors.torch import load_file, save_file
from transformers import AutoModel, TrainingArguments
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.objectives.contrastive import ContrastiveForPreTraining, ContrastiveTask
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.run.build import Blueprint, Start
from hf_pretext.run.checks import (
    check_finished,
    check_holds_same,
    check_not_begun,
    check_reloads,
    check_start,
    finished,
    is_longer,
    kinds_alone,
    size_hint,
)

pytestmark = pytest.mark.usefixtures("cache")

# settings

BAD_SETTINGS = {
    "an odd number of turns": (ROTATION, ["--num_rotations", 3], "num_rotations"),
    "more turns than there are": (ROTATION, ["--rotations_per_image", 7], "between 1 and num_rotations=4"),
    "a crop of nothing": (ROTATION, ["--crop_scale", 0], "crop_scale must be above 0"),
    "no parts": (ROTATION, ["--parts", 0], "parts must be at least 1, but is 0"),
    "more bad samples than all": (
        ROTATION, ["--max_bad_fraction", 2], "max_bad_fraction must lie between 0 and 1, but is 2.0",
    ),
    "images of no pixels": (ROTATION, ["--max_image_pixels", 0], "max_image_pixels must be above 0"),
    "samples of no bytes": (ROTATION, ["--max_sample_bytes", 0], "max_sample_bytes must be at least 1, but is 0"),
    "too few weights": (CONTRASTIVE, ["--caption_weights", "1"], "caption_weights needs 2 numbers"),
    "a sigmoid that is smoothed": (
        CONTRASTIVE,
        ["--loss", "sigmoid", "--label_smoothing", "0.1"],
        "needs loss='softmax'",
    ),
    "a prompt without a place": (CONTRASTIVE, ["--prompts", "a photo"], "nor a language. Languages are ar, de, en"),
    "a frozen tower at random": (CONTRASTIVE, ["--frozen", "text"], "Give a pretrained --text_encoder"),
    "an unknown tracker": (ROTATION, ["--report_to", "nonsense"], "--report_to nonsense is unknown. Give some of "),
    "an encoder that keeps its activations": (
        ROTATION, ["--gradient_checkpointing", "True"],
        "ResNetModel can't use --gradient_checkpointing. Leave it out",
    ),
    "a batch of one": (
        CONTRASTIVE, ["--per_device_train_batch_size", "1"], "contrastive needs at least 2 rows. Give --per_",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_bad_setting_is_refused(name):
    recipe, options, words = BAD_SETTINGS[name]
    assert words in refused(recipe, *options)


# the output folder


def test_output_folder_of_different_objective(tmp_path):
    folder = tmp_path / "other"
    AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(folder)
    assert "contains another model" in refused(ROTATION, output_dir=folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pretext": {"objective": "jigsaw"}}))
    assert "contains a run of the objective 'jigsaw'" in refused(ROTATION, output_dir=folder)


def test_output_folder_with_a_readme_of_somebody_else(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    assert "contains a README.md that is not from a run" in refused(ROTATION, output_dir=tmp_path / "project")


def test_unwritable_output_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "can't be written to" in refused(ROTATION, output_dir=tmp_path / "file" / "run")
    assert "can't be written to" in refused(ROTATION, output_dir="/proc/run")


def test_nothing_to_resume():
    assert "does not exist" in refused(ROTATION, "--resume_from_checkpoint", "last")
    message = refused(ROTATION, "--resume_from_checkpoint", "/no/checkpoint-1")
    assert "/no/checkpoint-1 is not a checkpoint folder" in message


def test_a_checkpoint_of_one_seed_does_not_resume_several():
    message = refused(ROTATION, "--resume_from_checkpoint", "run/checkpoint-1", "--seeds", 0, 1)
    assert "run/checkpoint-1 is a checkpoint of one seed, but --seeds are [0, 1]" in message


def test_a_folder_of_the_same_objective_or_of_no_model_may_be_used(tmp_path):
    check_holds_same(tmp_path / "none", "rotation")
    check_holds_same(tmp_path, "rotation")
    RotationForPreTraining.from_encoder(CONFIGS["resnet"]()).save_pretrained(tmp_path)
    check_holds_same(tmp_path, "rotation")
    with pytest.raises(ValueError, match="contains a run of the objective 'rotation'"):
        check_holds_same(tmp_path, "contrastive")


def test_a_config_that_can_not_be_read_is_of_another_model(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="contains another model"):
        check_holds_same(tmp_path, "rotation")


def test_a_run_that_was_begun_is_refused_whichever_seed_it_is_of(tmp_path):
    folders = [str(tmp_path), str(tmp_path / "seed-1")]
    check_not_begun(folders)
    (tmp_path / "seed-1" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(ValueError, match="seed-1 contains an unfinished run. Resume it with --resume_from_checkpoint"):
        check_not_begun(folders)
    (tmp_path / "seed-1" / "run.json").touch()
    assert finished(folders[1]) and not finished(folders[0])
    with pytest.raises(ValueError, match="seed-1 contains a finished run"):
        check_not_begun(folders)


def finished_run(folder, **record) -> SimpleNamespace:
    """Writes the record of a finished run. Returns what asks for a run of `steps` steps with this identity."""
    (folder / "run.json").write_text(json.dumps({"identity": {"seed": 3, "learning_rate": 0.1}, "steps": 4, **record}))

    def experiment(steps=4, resume="last", **identity):
        args = TrainingArguments(str(folder), max_steps=steps, resume_from_checkpoint=resume, use_cpu=True)
        return SimpleNamespace(
            request=SimpleNamespace(arguments={3: args}), identity=lambda seed: {"seed": seed, **identity}
        )

    return experiment


def test_a_finished_run_with_other_settings_is_refused(tmp_path):
    experiment = finished_run(tmp_path)
    (tmp_path / "run.json").rename(tmp_path / "elsewhere")
    check_finished(experiment(learning_rate=0.2))
    (tmp_path / "elsewhere").rename(tmp_path / "run.json")
    check_finished(experiment(learning_rate=0.1))
    with pytest.raises(ValueError, match="contains a finished run with learning_rate 0.1, not 0.2. Give another"):
        check_finished(experiment(learning_rate=0.2))
    with pytest.raises(ValueError, match="contains a finished run with learning_rate 0.1, not 0.2. Give another"):
        check_finished(experiment(steps=8, learning_rate=0.2))
    with pytest.raises(ValueError, match="a finished run with a None, not 1; b None, not 2; c None, not 3. Give"):
        check_finished(experiment(learning_rate=0.1, a=1, b=2, c=3, d=4))  # three are enough


def test_a_finished_run_is_longer_or_not_and_never_shorter(tmp_path):
    def longer(record, **asked):
        finished_run(tmp_path, **record)
        return is_longer(TrainingArguments(str(tmp_path), use_cpu=True, **asked))

    steps, epochs = {"length": {"steps": 4}}, {"length": {"epochs": 2.0}}
    assert longer(steps, max_steps=5) and not longer(steps, max_steps=4)
    assert longer(epochs, num_train_epochs=2.5) and not longer(epochs, num_train_epochs=2)
    assert longer({}, max_steps=5) and not longer({}, max_steps=4) and not longer({})  # of an earlier version
    for record, asked, words in (
        (steps, {"max_steps": 3}, "of --max_steps 4, and --max_steps 3 can't lengthen it"),
        (epochs, {"num_train_epochs": 1}, "of --num_train_epochs 2.0, and --num_train_epochs 1 can't lengthen it"),
        (epochs, {"max_steps": 99}, "of --num_train_epochs 2.0, and --max_steps 99 can't lengthen it"),
    ):
        with pytest.raises(ValueError, match=words):
            longer(record, **asked)


def test_a_finished_run_without_a_checkpoint_or_with_a_damaged_one_is_not_lengthened(tmp_path):
    experiment = finished_run(tmp_path, length={"steps": 4})
    with pytest.raises(ValueError, match="a finished run without a checkpoint, so --max_steps 8 can't lengthen it"):
        check_finished(experiment(steps=8, learning_rate=0.1))
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(ValueError, match="has no checkpoint to resume from: checkpoint-4: manifest.json is missing"):
        check_finished(experiment(steps=8, learning_rate=0.1))


# the start


def checked(task=None, rows=2, processes=1, **start) -> None:
    """Checks the start of a run on pairs."""
    blueprint = Blueprint(ContrastiveForPreTraining, task or ContrastiveTask(), None, Start(**start))
    first = SimpleNamespace(per_device_train_batch_size=rows, world_size=processes)
    check_start(SimpleNamespace(objective=ContrastiveForPreTraining, first=first), blueprint)


def test_a_full_model_leaves_no_place_for_towers():
    with pytest.raises(ValueError, match="--encoder a contains all encoders. Leave out --image_encoder and --text_"):
        checked(encoder="a", towers={"image": "b", "text": "c"})


def test_rows_to_compare_may_lie_on_several_processes():
    checked(rows=1, processes=2)
    with pytest.raises(ValueError, match="a global batch of 1 row, but contrastive needs at least 2 rows"):
        checked(rows=1)


def test_a_frozen_tower_needs_weights(tmp_path):
    CONFIGS["vit"]().save_pretrained(tmp_path)
    frozen = ContrastiveTask(frozen="image")
    for start in ({}, {"towers": {"text": "b"}}, {"towers": {"image": str(tmp_path)}}, {"encoder": str(tmp_path)}):
        with pytest.raises(ValueError, match="--frozen image would freeze a randomly initialised encoder"):
            checked(frozen, **start)
    checked(frozen, towers={"image": "somebody/vit"})
    checked(frozen, encoder="somebody/clip")


# a trial of the model


def test_wrong_image_size_for_the_encoder(tmp_path):
    AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path / "vit")
    message = refused(ROTATION, "--encoder", tmp_path / "vit", "--image_size", 48)
    assert "48x48 pixels (--image_size) do not fit" in message
    assert "Its config has image_size=32: give --image_size 32" in message


def test_encoder_with_a_weight_missing(tmp_path):
    AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path / "vit")
    weights = load_file(tmp_path / "vit" / "model.safetensors")
    del weights["embeddings.cls_token"]
    save_file(weights, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
    message = refused(ROTATION, "--encoder", tmp_path / "vit", "--image_size", 32)
    assert "lacks weights that training needs: embeddings.cls_token" in message


def test_objective_whose_state_can_not_be_stored(monkeypatch):
    class Unstorable(RotationForPreTraining):
        def get_extra_state(self):
            return {"seen": 3}  # safetensors hold tensors alone

    monkeypatch.setattr("hf_pretext.recipe.objective_class", lambda name: Unstorable)
    message = refused(ROTATION)
    assert "A checkpoint of Unstorable can't be saved and loaded again: AttributeError: 'dict'" in message


def test_encoder_that_can_be_built_but_not_loaded(tmp_path, monkeypatch):
    """`from_pretrained` builds a model on the meta device, where numbers can't be read."""

    class ReadingConfig(transformers.ViTConfig):
        model_type = "reading_vit"

    class ReadingModel(transformers.ViTModel):
        config_class = ReadingConfig

        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.register_buffer("drop", torch.tensor(torch.ones(4).sum().item()))

    monkeypatch.setitem(CONFIG_MAPPING._extra_content, "reading_vit", ReadingConfig)
    monkeypatch.setitem(MODEL_MAPPING._extra_content, ReadingConfig, ReadingModel)
    recipe = load_recipe(ROTATION)
    recipe.smoke_encoder = lambda image_size: ReadingConfig(**{**VIT, "image_size": image_size}, patch_size=16)
    with pytest.raises(SystemExit) as stopped:
        recipe.main(["--smoke", "--use_cpu", "--output_dir", str(tmp_path / "run")])
    assert "can't be saved and loaded again" in str(stopped.value) and "meta" in str(stopped.value)
    assert not (tmp_path / "run").exists()


def test_weights_that_load_with_other_values_are_named(monkeypatch):
    model, load = RotationForPreTraining.from_encoder(CONFIGS["resnet"]()), RotationForPreTraining.from_pretrained
    check_reloads(model)

    def forgetful(*arguments, **options):
        loaded = load(*arguments, **options)
        torch.nn.init.zeros_(next(loaded.encoder.parameters()))
        return loaded

    monkeypatch.setattr(RotationForPreTraining, "from_pretrained", forgetful)
    with pytest.raises(ValueError, match="RotationForPreTraining changes these weights when loaded: full_model.emb"):
        check_reloads(model)


def test_a_config_with_another_size_of_images_gives_a_hint():
    images = {size: Inputs(Image(default_processor(size))) for size in (32, 40)}
    vit, resnet = (SimpleNamespace(config=CONFIGS[name]()) for name in ("vit", "resnet"))
    assert size_hint(vit, images[40]).endswith("image_size=32: give --image_size 32.")
    assert size_hint(vit, images[32]) == size_hint(resnet, images[40]) == ""


def test_kinds_that_also_come_alone_are_those_that_options_name():
    assert kinds_alone(requested(ROTATION)) == kinds_alone(requested(CONTRASTIVE)) == []
    assert kinds_alone(requested(FLAVA)) == ["image", "text"]
    assert kinds_alone(requested(CONTRASTIVE, "--texts_alone", "some.txt")) == ["text"]
