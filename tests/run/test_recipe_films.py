"""The recipes on Atari films, in smoke size: on the embedded films, without network."""

import json

import pytest
import transformers
from PIL import Image
from recipe_runs import load_recipe, main, refused
from transformers import AutoModel

pytestmark = pytest.mark.usefixtures("cache")
AUDIO_VISUAL, XDC, SOUNDNET = "audio_visual_atari", "xdc_atari", "soundnet_atari"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folders"), [(AUDIO_VISUAL, ("audio", "video")), (XDC, ("audio", "video")), (SOUNDNET, ("",))]
)
def test_smoke_runs_measure_each_encoder_next_to_its_baselines(name, folders, tmp_path):
    results = main(name, output_dir=tmp_path / "run")
    for folder in folders:
        model, info = AutoModel.from_pretrained(tmp_path / "run", subfolder=folder, output_loading_info=True)
        assert type(model) is transformers.ResNetModel and not info["missing_keys"] and not info["unexpected_keys"]
    assert {"trained", "random", "log-mel", "majority"} <= results["transfer"]["figures"].keys()
    assert ("other_transfers" in results) == (len(folders) == 2)
    if len(folders) == 2:
        assert "frame pixels" in results["other_transfers"]["video"]["figures"]
    measured = results.get("measures", {}).get("trained", {}).keys()
    assert ("audio_to_video_r10" in measured) == (name == AUDIO_VISUAL)
    assert Image.open(tmp_path / "run" / "report.png").size[0] > 800
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(kept) and kept["pretext"]["objective"] == name.removesuffix("_atari")


def test_data_that_the_options_replace_is_not_fetched():
    recipe, fetched = load_recipe(AUDIO_VISUAL), []
    recipe.fetch = {name: lambda name=name: fetched.append(name) for name in recipe.fetch}
    assert set(recipe.fetch) == {"dataset", "eval_dataset", "heldout_dataset"}
    given = {"dataset": ["mine"], "eval_dataset": "none"}
    recipe._with_fetched(dict(given), given)
    assert fetched == []
    recipe._with_fetched({"dataset": ["mine"]}, {"dataset": ["mine"], "eval_label": "json.session"})
    assert fetched == []  # the label is a column of the user's own data
    recipe._with_fetched({"eval_dataset": "none"}, {"eval_dataset": "none"})
    assert fetched == ["dataset"]


def test_a_label_of_a_kind_without_encoder_is_refused():
    message = refused(SOUNDNET, "--eval_video_label", "json.session")
    assert "--eval_video_label json.session: soundnet has no encoder of video" in message
