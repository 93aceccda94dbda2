"""The defaults of `hf-pretext train`: they are those of the recorded recipes, and every encoder can be made."""

import dataclasses
import inspect
import json

import pytest
from conftest import REPOSITORY
from recipe_runs import load_recipe

from hf_pretext import registry
from hf_pretext.presets import CONTINUED_RATE, LARGE_EPOCHS, MOST_EPOCHS, Preset, films
from hf_pretext.recipe import default_recipe, option_types

OBJECTIVES = registry.names(registry.OBJECTIVES)
RECIPES = {  # whose settings the defaults are
    "audio_visual": "audio_visual_atari",
    "contrastive": "contrastive_emoji",
    "causal_lm": "causal_lm_reviews",
    "masked_lm": "masked_lm_reviews",
    "replaced_token": "replaced_token_reviews",
    "sentence": "sentence_reviews",
    "mil_nce": "mil_nce_babyai",
    "soundnet": "soundnet_atari",
    "videobert": "videobert_babyai",
    "xdc": "xdc_atari",
}
OTHERS = {  # differ with a reason
    "mil_nce": {"vocab_size"},  # the sentences of the recipe have 100 words
    "videobert": {"vocab_size"},
    "matching": {"negatives"},
}
SIZES = {
    "image_size": 224, "vocab_size": 500, "max_length": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_defaults_are_those_of_the_recorded_recipe(name):
    preset, recipe = registry.preset(name), load_recipe(RECIPES.get(name, f"{name}_emoji"))
    assert (preset.encoder, preset.tiny) == (recipe.encoder, recipe.smoke_encoder)
    differ = {
        option: (value, recipe.settings.get(option))
        for option, value in preset.settings.items()
        if recipe.settings.get(option, value) != value and option not in OTHERS.get(name, ())
    }
    assert differ == {}
    results = json.loads((REPOSITORY / "model_cards" / recipe.name / "results.json").read_text())
    assert results["seeds"][0]["samples_seen"] == pytest.approx(preset.samples, rel=0.02)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_encoder_is_made_and_each_option_exists(name):
    preset, objective = registry.preset(name), registry.objective_class(name)
    known = {field.name for type_ in option_types(objective) for field in dataclasses.fields(type_)}
    for options in (preset.settings, preset.for_large, preset.smoke):
        assert options.keys() <= known
    for encoder in (preset.encoder, preset.large, preset.tiny):
        sizes = {name: value for name, value in SIZES.items() if name in inspect.signature(encoder).parameters}
        assert encoder(**sizes).to_dict()
    recipe = default_recipe(name)
    assert recipe.command == f"hf-pretext train {name}" and f"{preset.dataset}\n" in recipe.doc


def test_an_option_that_an_objective_needs_is_named_where_the_command_is():
    needed = {name: registry.preset(name).needs for name in OBJECTIVES if registry.preset(name).needs}
    assert needed.keys() == {"soundnet", "videobert"}
    for name, option in needed.items():
        doc, task = default_recipe(name).doc, registry.objective_class(name).task_class()
        assert f"hf-pretext train {name} {option} --dataset path/to/data " in doc
        assert getattr(task, option.split()[0].removeprefix("--")) is None


def test_the_number_of_visual_words_is_that_of_the_docs():
    assert f"the {films.WORDS} visual words" in films.bert.__doc__


def preset(**more):
    return Preset(None, None, None, "emoji", samples=1000, settings={"per_device_train_batch_size": 10}, **more)


@pytest.mark.parametrize(
    ("rows", "large", "length"),
    [
        (100, False, {"num_train_epochs": 10}),
        (1, False, {"num_train_epochs": MOST_EPOCHS}),
        (300, False, {"num_train_epochs": 3.33}),
        (10_000_000, False, {"num_train_epochs": 0.01}),
        (None, False, {"max_steps": 100}),
        (200_000, True, {"num_train_epochs": LARGE_EPOCHS}),
    ],
)
def test_length_depends_on_the_number_of_samples(rows, large, length):
    options = preset().options(rows, large)
    assert {name: options.get(name) for name in length} == length
    assert len({"max_steps", "num_train_epochs"} & options.keys()) == 1
    assert (options["logging_steps"], options["save_steps"]) == (0.02, 0.1)  # of the steps of the run, however many


def test_a_pretrained_encoder_gets_a_small_learning_rate():
    settings = {"per_device_train_batch_size": 1, "learning_rate": 1.0, "visible_only": True}
    one = Preset(None, None, None, "emoji", 10, settings)
    assert one.options(10)["learning_rate"] == 1.0 and one.options(10)["visible_only"]
    continued = one.options(10, continued=True)
    assert continued["learning_rate"] == CONTINUED_RATE and "visible_only" not in continued


def test_large_settings_win_and_an_objective_without_defaults_names_the_fix(monkeypatch):
    assert preset(for_large={"weight_decay": 0.5}).options(10, large=True)["weight_decay"] == 0.5
    monkeypatch.delattr(registry.find(registry.OBJECTIVES, "rotation"), "PRESET")
    with pytest.raises(ValueError, match="rotation has no PRESET.* Run a recipe"):
        registry.preset("rotation")
