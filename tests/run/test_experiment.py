"""A run, planned: options in their dataclasses, what a run depends on, and how it is announced."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from recipe_runs import FLAVA, MASKED_LM, ROTATION, load_recipe, planned, refused, requested
from transformers import TrainingArguments

from hf_pretext.evaluation.fine_tune import FineTuning
from hf_pretext.run.experiment import announcement, changed_arguments, out_of_place

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def experiment(cache, tmp_path_factory):
    """A run on images that was planned and never trained."""
    return planned(ROTATION, "--eval_rows", 40, output_dir=tmp_path_factory.mktemp("planned") / "run")


# what is asked for


def test_licence_that_the_hub_does_not_know():
    message = refused(ROTATION, "--license", "Apache2")
    assert "--license Apache2: the Hub has no licence of this name. Is it apache-2.0" in message


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (ROTATION, ("--fine_tune", -1), "--fine_tune is -1, but must be a number of epochs, or 0"),
        (ROTATION, ("--fine_tune", 2, "--eval_dataset", "none"), "--fine_tune 2 needs a labelled set, but"),
        (MASKED_LM, ("--fine_tune", 2), "--fine_tune 2 trains only image encoders, but this encoder takes text"),
    ],
)
def test_fine_tuning_without_images_or_labels(recipe, options, message):
    assert message in refused(recipe, *options)


def test_fine_tuning_on_more_images_than_fit_in_memory(monkeypatch):
    monkeypatch.setattr("hf_pretext.evaluation.labelled_set.KEPT_BYTES", 1000)
    message = refused(ROTATION, "--fine_tune", 1)
    assert "--fine_tune needs the images of the labelled set in memory, but" in message and "--eval_rows" in message


def test_seeds_that_repeat():
    assert "--seeds are [1, 1], but they must be different numbers" in refused(ROTATION, "--seeds", 1, 1)


def test_no_dataset_is_an_error_when_it_is_needed():
    request = requested(ROTATION)
    without = dataclasses.replace(request, options=dataclasses.replace(request.options, dataset=[]))
    assert len(request.datasets) == 1
    with pytest.raises(ValueError, match="--dataset is missing"):
        without.datasets  # noqa: B018


def test_each_seed_has_a_folder_and_only_the_first_is_pushed():
    arguments = requested(ROTATION, "--seeds", 4, 2, "--push_to_hub", output_dir="run").arguments
    assert {seed: args.output_dir for seed, args in arguments.items()} == {4: "run", 2: "run/seed-2"}
    assert {seed: (args.seed, args.push_to_hub) for seed, args in arguments.items()} == {4: (4, True), 2: (2, False)}


@pytest.mark.parametrize(
    ("options", "seeds"), [([], [0]), (["--seed", 7], [7]), (["--seed", 7, "--seeds", 1, 2], [1, 2])]
)
def test_one_seed_given_is_the_only_one_unless_several_are(options, seeds):
    assert list(requested(ROTATION, *options).arguments) == seeds


@pytest.mark.parametrize(("options", "bf16"), [(["--bf16", "True"], True), (["--bf16", "False"], False)])
def test_the_precision_that_is_given_is_not_chosen_by_the_machine(options, bf16, monkeypatch):
    monkeypatch.setattr("hf_pretext.run.experiment.has_bf16", lambda use_cpu: not bf16)
    assert requested(ROTATION, *options).first.bf16 is bf16
    assert requested(ROTATION).first.bf16 is not bf16
    recipe = load_recipe(ROTATION)
    recipe.settings["bf16"] = bf16
    monkeypatch.setattr("recipe_runs.load_recipe", lambda name: recipe)
    assert requested(ROTATION).first.bf16 is bf16  # as the recipe says


def test_there_is_a_labelled_set_unless_it_is_left_out():
    assert requested(ROTATION).evaluated and not requested(ROTATION, "--eval_dataset", "none").evaluated


def test_smoke_takes_the_tiny_encoder():
    request = requested(ROTATION)
    full = dataclasses.replace(request, options=dataclasses.replace(request.options, smoke=False))
    assert request.encoder_function is request.recipe.smoke_encoder
    assert full.encoder_function is request.recipe.encoder


# what is of a recipe's own data alone


@pytest.mark.parametrize(
    ("given", "dropped", "kept"),
    [
        ({"dataset"}, {"text_column", "images_alone", "license", "mixture_weights"}, set()),
        ({"dataset"}, {"eval_dataset", "eval_label"}, {"max_length"}),
        ({"audio_encoder"}, {"num_mel_bins"}, {"video_size"}),
        ({"texts_alone"}, {"mixture_weights"}, {"license", "images_alone"}),
        (
            {"eval_dataset"},
            {"eval_label", "prompts", "order_classes", "localization_dataset"},
            {"text_column", "license"},
        ),
        ({"localization_dataset"}, {"localization_text_column"}, {"localization_step", "eval_label"}),
        ({"eval_label"}, {"heldout_dataset", "order_classes"}, {"prompts"}),
        ({"seconds"}, {"full_video"}, {"num_frames"}),
        ({"other_captions"}, {"caption_weights", "caption_languages"}, {"text_column"}),
        ({"encoder"}, {"image_size"}, {"license"}),
        ({"image_encoder"}, {"image_size"}, {"max_length"}),
        ({"text_encoder"}, set(), {"image_size"}),
        (set(), set(), {"license"}),
    ],
)
def test_options_of_other_data_are_dropped(given, dropped, kept):
    names = out_of_place(dict.fromkeys(given))
    assert dropped <= names and not kept & names


def test_an_option_that_is_given_is_never_dropped():
    assert "license" not in out_of_place({"dataset": ["a"], "license": "mit"})
    request = requested(ROTATION, "--dataset", "a", "--license", "mit")
    assert request.options.license == "mit" and request.options.limits is None


def test_data_of_a_user_has_none_of_the_recipes_columns_and_weights():
    request = requested(FLAVA, "--dataset", "a.parquet")
    assert request.options.mixture_weights is None and request.pairs.images_alone is None
    assert requested(FLAVA).options.mixture_weights == [0.7, 0.15, 0.15]


# what a run depends on


def test_settings_are_those_that_differ_from_the_defaults_of_transformers():
    changed = changed_arguments(requested(ROTATION, "--weight_decay", 0.0, "--hub_model_id", "a/b"))
    assert changed["learning_rate"] == 1.5e-3 and changed["lr_scheduler_type"] == "cosine"
    assert not {"weight_decay", "hub_model_id", "output_dir", "use_cpu", "disable_tqdm"} & changed.keys()


def test_what_a_run_depends_on_is_json_and_of_its_seed(experiment):
    identity = experiment.identity(0)
    assert identity == json.loads(json.dumps(identity))
    assert (identity["num_rotations"], identity["image_size"]) == (4, [64, 64])
    assert identity["encoder"]["model_type"] == "resnet" and identity["data"][0]["name"].endswith("emoji")
    assert experiment.identity(1) == {**identity, "seed": 1}


@pytest.mark.parametrize("options", [{"save_steps": 1, "max_steps": 90}, {"logging_steps": 1, "eval_steps": 3}])
def test_a_run_does_not_depend_on_what_changes_nothing_that_is_learned(experiment, options):
    values = {**experiment.request.values, **options}
    changed = dataclasses.replace(experiment, request=dataclasses.replace(experiment.request, values=values))
    assert changed.identity(0) == experiment.identity(0)


def test_a_run_depends_on_its_learning_rate(experiment):
    values = {**experiment.request.values, "learning_rate": 9.0}
    changed = dataclasses.replace(experiment, request=dataclasses.replace(experiment.request, values=values))
    assert changed.identity(0) == {**experiment.identity(0), "learning_rate": 9.0}


# a plan


def test_a_plan_trains_nothing_and_writes_nothing(experiment):
    folder = Path(experiment.request.first.output_dir)
    assert not folder.exists()


def test_a_plan_knows_the_model_from_its_trial(experiment):
    trial, model = experiment.trial, experiment.blueprint.random(0)
    assert trial.convolutional and trial.encoder_classes == {"image": "ResNetModel"}
    assert trial.parameters == sum(parameter.numel() for parameter in model.encoder.parameters())
    (batch,) = experiment.noise()
    assert batch["pixel_values"].shape[-2:] == (64, 64)


def test_methods_know_the_shares_of_labels_that_are_asked_for(experiment):
    assert list(experiment.methods("image")) == ["linear_probe", "knn"]
    options = dataclasses.replace(experiment.request.options, eval_fractions=[0.1, 1.0])
    asked = dataclasses.replace(experiment, request=dataclasses.replace(experiment.request, options=options))
    assert list(asked.methods("image")) == ["linear_probe_10%", "linear_probe_100%", "knn"]


def test_fine_tuning_is_of_images_in_the_precision_of_the_run(experiment):
    assert experiment.fine_tuning("image") is None
    options = dataclasses.replace(experiment.request.options, fine_tune=5)
    asked = dataclasses.replace(experiment, request=dataclasses.replace(experiment.request, options=options))
    assert asked.fine_tuning("image") == FineTuning(5, bf16=experiment.request.first.bf16)
    assert asked.fine_tuning("text") is None and asked.identity(0) == experiment.identity(0)


def test_of_several_gpus_one_is_used_without_accelerate_and_it_is_said(experiment, monkeypatch):
    def set_up(args):
        vars(args).setdefault("_n_gpu", 4)
        args.distributed_state = None
        return torch.device("cuda")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(set_up))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    request = requested(ROTATION, "--bf16", "False")
    assert request.first.n_gpu == 1
    line = announcement(dataclasses.replace(experiment, request=request))
    assert line.endswith("Uses 1 of 4 GPUs; for all, start it with accelerate launch --num_processes 4")


def test_an_announcement_says_what_is_trained_on_what(experiment):
    line = announcement(experiment)
    assert line.startswith("rotation_emoji: rotation on 3,") and "\n" not in line
    for words in ("emoji; ResNetModel from scratch, seed 0; cpu, ", ", channels_last, processes: 1"):
        assert words in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label_smoothing_factor", 0.1), "--label_smoothing_factor 0.1 has no effect: the objective computes"),
        (("--dataloader_drop_last", True), "--dataloader_drop_last True has no effect: no batch is incomplete"),
        (("--logging_nan_inf_filter", True), "--logging_nan_inf_filter True would log NaN losses as 0"),
    ],
)
def test_an_option_without_effect_is_refused_before_anything_is_written(options, message):
    assert message in refused(ROTATION, *options)


def test_the_report_may_show_another_set(tmp_path):
    few = tmp_path / "few"
    for i in range(40):
        (few / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (6 * i, 0, 0)).save(few / "ab"[i % 2] / f"{i}.png")
    label = ("--eval_label", "group")
    usual = planned(ROTATION, *label, output_dir=tmp_path / "run")
    assert usual.sets.shown is usual.labelled
    apart = planned(ROTATION, "--eval_dataset", few, "--report_dataset", few, output_dir=tmp_path / "run")
    assert apart.sets.shown is not apart.labelled and apart.sets.shown.name == str(few)
    assert "--report_dataset" in refused(ROTATION, "--eval_dataset", "none", "--report_dataset", few)
