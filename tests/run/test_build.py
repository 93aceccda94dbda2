"""What training starts from: fresh encoders, full models and single towers."""

import dataclasses

import pytest
import torch
import transformers
from conftest import CONFIGS, TEXT, VIT
from recipe_runs import (
    BRIEFLY,
    CONTRASTIVE,
    FLAVA,
    MASKED_LM,
    MULTIWAY,
    ROTATION,
    main,
    refused,
    saved,
    shakespeare_tokenizer,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM

import hf_pretext
from hf_pretext import MaskedLMForPreTraining, RotationForPreTraining
from hf_pretext.objectives.rotation import RotationTask
from hf_pretext.run.build import Blueprint, Start, by_name, load_tower

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def tokenizer(cache):
    return shakespeare_tokenizer()


def encoder(name: str):
    return AutoModel.from_config(CONFIGS[name]())


def same(first: dict, second: dict) -> bool:
    """Whether two states are the same bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(second[name], value) for name, value in first.items())


# a recipe's own encoder


def test_sizes_are_picked_by_the_names_of_arguments():
    sizes = {"image_size": 64, "vocab_size": 500, "max_length": 20}
    assert by_name(lambda image_size: image_size, sizes) == 64
    assert by_name(lambda max_length, vocab_size: (max_length, vocab_size), sizes) == (20, 500)
    assert by_name(lambda image_size=8, frames=4: (image_size, frames), sizes) == (64, 4)
    assert by_name(lambda: "no sizes", sizes) == "no sizes"


def test_an_argument_without_a_size_is_an_error():
    with pytest.raises(TypeError, match="frames"):
        by_name(lambda frames: frames, {"image_size": 64})


# what training starts from


@pytest.mark.parametrize(
    ("start", "of", "options", "paths"),
    [
        (Start(), (None, None), ("--encoder", "--encoder"), []),
        (Start("a/clip"), ("a/clip", "a/clip"), ("--encoder", "--encoder"), ["a/clip"]),
        (Start(towers={"text": "b"}), (None, "b"), ("--encoder", "--text_encoder"), ["b"]),
        (Start("a", {"image": "b"}), ("a", "a"), ("--image_encoder", "--encoder"), ["a", "b"]),
    ],
    ids=["fresh", "a full model", "a tower", "a contradiction"],
)
def test_a_start_knows_its_paths_and_the_options_that_name_them(start, of, options, paths):
    assert (start.of("image"), start.of("text")) == of
    assert (start.option("image"), start.option("text")) == options
    assert start.paths == paths


def test_base_models_are_those_that_are_no_folder(tmp_path):
    assert Start(towers={"image": str(tmp_path), "text": "somebody/bert"}).base_models == ["somebody/bert"]
    assert Start(str(tmp_path)).base_models == [] and Start("somebody/clip").base_models == ["somebody/clip"]


def test_a_start_is_shown_without_the_folders_of_its_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(Start(str(tmp_path / "clip"))) == "clip" and str(Start()) == ""
    assert str(Start(towers={"image": str(tmp_path / "vit"), "text": "bert"})) == "vit for images, bert for texts"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (Start(), "too small"),
        (Start("a"), "--encoder a: too small"),
        (Start(towers={"image": "b", "text": "c"}), "--image_encoder b, --text_encoder c: too small"),
    ],
)
def test_an_error_names_the_options_that_were_given(start, message):
    with pytest.raises(ValueError) as caught, start.named_in_errors():
        raise ValueError("too small")
    assert str(caught.value) == message
    with pytest.raises(KeyError), start.named_in_errors():
        raise KeyError("of something else")


# a blueprint


@pytest.fixture
def blueprint():
    """Of rotation, from an encoder of this config or a folder."""

    def of(config, path=None) -> Blueprint:
        return Blueprint(RotationForPreTraining, RotationTask(num_rotations=2), config, Start(path))

    return of


def test_a_fresh_model_is_of_its_seed_alone(blueprint):
    plan = blueprint(CONFIGS["vit"]())
    first, missing = plan.fresh(3)
    torch.randn(7)
    again, other = plan.fresh(3)[0], plan.fresh(4)[0]
    assert missing == [] and same(first.state_dict(), again.state_dict())
    assert not same(first.encoder.state_dict(), other.encoder.state_dict())
    assert dataclasses.asdict(first.task) == {**dataclasses.asdict(RotationTask()), "num_rotations": 2}
    assert same(first.state_dict(), plan.random(3).state_dict())


def test_a_model_begins_with_the_weights_that_it_starts_from_and_a_random_one_with_none(blueprint, tmp_path):
    trained = encoder("vit")
    plan = blueprint(trained.config, str(saved(trained, tmp_path)))
    model, missing = plan.fresh(3)
    assert same(model.encoder.state_dict(), trained.state_dict()) and missing == []
    assert not same(plan.random(3).encoder.state_dict(), trained.state_dict())


def test_a_shape_alone_gives_a_fresh_encoder(blueprint, tmp_path):
    config = CONFIGS["vit"]()
    plan = blueprint(config, str(saved(config, tmp_path)))
    assert same(plan.fresh(3)[0].state_dict(), plan.random(3).state_dict())


def test_weights_that_stay_random_are_named(blueprint, tmp_path):
    without(saved(encoder("vit"), tmp_path), "embeddings.cls_token")
    assert blueprint(CONFIGS["vit"](), str(tmp_path)).fresh(0)[1] == ["embeddings.cls_token"]


def test_a_trained_model_is_read_in_float32(blueprint, tmp_path):
    plan = blueprint(CONFIGS["vit"]())
    saved(plan.fresh(3)[0].bfloat16(), tmp_path)
    assert {parameter.dtype for parameter in plan.trained(str(tmp_path)).parameters()} == {torch.float32}


# single towers


def without(folder, *names: str):
    """The same checkpoint, with some weights taken out."""
    weights = load_file(folder / "model.safetensors")
    for name in names:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


POOLER = ("pooler.dense.weight", "pooler.dense.bias")


def test_a_tower_takes_all_weights_of_a_folder(tmp_path):
    trained, fresh = encoder("vit"), encoder("vit")
    load_tower(fresh, str(saved(trained, tmp_path)), "image", frozen=True)
    assert same(fresh.state_dict(), trained.state_dict())


def test_a_tower_that_lacks_weights_is_refused(tmp_path):
    without(saved(encoder("vit"), tmp_path), "embeddings.cls_token", *POOLER)
    with pytest.raises(ValueError, match="--image_encoder .* lacks weights, .*: embeddings.cls_token, pooler.dense.b"):
        load_tower(encoder("vit"), str(tmp_path), "image", frozen=False)


def test_a_pooler_may_be_missing_where_it_is_trained(tmp_path):
    trained, fresh = encoder("vit"), encoder("vit")
    without(saved(trained, tmp_path), *POOLER)
    load_tower(fresh, str(tmp_path), "image", frozen=False)
    assert torch.equal(fresh.embeddings.cls_token, trained.embeddings.cls_token)
    with pytest.raises(ValueError, match="lacks weights, which would stay random: pooler.dense.bias, pooler.dense.we"):
        load_tower(fresh, str(tmp_path), "image", frozen=True)


def test_a_tower_of_a_shape_alone_stays_fresh(tmp_path):
    fresh = encoder("vit")
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    load_tower(fresh, str(saved(CONFIGS["vit"](), tmp_path)), "image", frozen=False)
    assert same(fresh.state_dict(), before)


# runs that start from elsewhere

SIDE = ["--image_size", 32]


@pytest.mark.parametrize(("name", "size"), [("vit", []), ("timm_resnet18", SIDE), ("regnet", SIDE)])
def test_from_a_pretrained_encoder(tmp_path, name, size):
    """Whatever takes images when it is tried: `input_modalities` of RegNet say text."""
    encoder(name).save_pretrained(tmp_path / "encoder")
    options = ["--encoder", tmp_path / "encoder", *size, *BRIEFLY, "--learning_rate", 0.0]
    results = main(ROTATION, *options, output_dir=tmp_path / "run")
    assert results["image_size"] == [32, 32]
    before, after = (AutoModel.from_pretrained(tmp_path / folder) for folder in ("encoder", "run"))
    assert results["encoder"]["class"] == type(before).__name__
    parameters = dict(after.named_parameters())
    assert all(torch.equal(value, parameters[key]) for key, value in before.named_parameters())


def test_the_encoder_as_it_was_is_a_row_of_each_table(tmp_path):
    """With a learning rate of 0 it equals the trained one."""
    torch.manual_seed(7)  # of no random encoder
    encoder("vit").save_pretrained(tmp_path / "encoder")
    options = ["--encoder", tmp_path / "encoder", "--max_steps", 1, "--eval_rows", 40, "--learning_rate", 0.0]
    results = main(ROTATION, *options, output_dir=tmp_path / "run")
    figures = results["transfer"]["figures"]
    assert list(figures)[:3] == ["trained", "start", "random"]
    assert figures["start"] == figures["trained"] != figures["random"]
    assert results["transfer"]["beats_start"] == {"linear_probe_top1": None, "knn_top1": None}
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| continued (rotation) |" in card and "| as it was |" in card and "before this training" in card
    assert "+0.000 over the encoder as it was (no verdict: that needs 3 trained seeds)" in card
    of = results["health"]
    assert of["start"] == {name: value for name, value in of["trained"].items() if name not in ("loss", "accuracy")}
    assert len(of["start"]) == 4 and of["start"]["spread_image"] != of["random"]["spread_image"]
    assert "| | trained | as it was | random | chance |" in card


@pytest.mark.slow
def test_only_towers_with_pretrained_weights_have_a_start(tmp_path):
    encoder("vit").save_pretrained(tmp_path / "vision")
    options = ["--image_encoder", tmp_path / "vision", "--max_steps", 1, "--eval_rows", 40]
    done = main(CONTRASTIVE, *options, output_dir=tmp_path / "run")
    by_kind = {each["kind"]: each["figures"] for each in [done["transfer"], *done["other_transfers"].values()]}
    assert "start" in by_kind["image"] and "start" not in by_kind["text"]
    assert "start" not in done["measures"]  # the projections were not pretrained


def test_a_half_precision_encoder_and_a_labelled_set_without_splits(tmp_path, emoji):
    """The random encoder next to it is in full precision, and training does not see the test rows."""
    encoder("resnet").to(torch.bfloat16).save_pretrained(tmp_path / "encoder")
    emoji(count=60).rename_column("group", "label").to_parquet(tmp_path / "own.parquet")
    original = ["--dataset", tmp_path / "own.parquet", "--eval_dataset", tmp_path / "own.parquet"]
    results = main(ROTATION, "--encoder", tmp_path / "encoder", *original, *SIDE, output_dir=tmp_path / "run")
    assert results["transfer"]["test_seen_in_pretraining"] is False and results["transfer"]["label"] == "label"
    assert results["data"]["rows"] == 44 and results["transfer"]["rows"]["test"] == 12


@pytest.mark.slow
def test_towers_start_from_elsewhere_and_stay_frozen(tmp_path, capsys):
    """From a checkpoint of rotation: batch norm in pieces is no matter where it is frozen."""
    torch.manual_seed(7)
    start = RotationForPreTraining.from_encoder(CONFIGS["timm_resnet18"]())
    start.save_pretrained(tmp_path / "vision")
    options = ["--image_encoder", tmp_path / "vision", "--frozen", "image", "--embed_batch_size", 4]
    done = main(CONTRASTIVE, *options, *BRIEFLY, "--other_captions", "keywords", output_dir=tmp_path / "run")
    assert done["encoders"]["image"]["start"].endswith("vision")
    assert "batch norm" not in capsys.readouterr().out
    tower = hf_pretext.load(tmp_path / "run").encoder.state_dict()
    assert all(torch.equal(tower[name], value) for name, value in start.encoder.state_dict().items())


def test_captions_start_from_a_masked_language_model_of_ours(tokenizer, tmp_path, capsys):
    config = transformers.BertConfig(**{**TEXT, "vocab_size": len(tokenizer)})
    start = MaskedLMForPreTraining.from_encoder(config, mask_token_id=tokenizer.mask_token_id)
    start.save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    options = ["--text_encoder", tmp_path / "text", "--learning_rate", 0.0, "--embed_batch_size", 4]
    done = main(CONTRASTIVE, *options, *BRIEFLY, output_dir=tmp_path / "run")
    assert done["encoders"]["text"]["start"].endswith("text") and done["encoders"]["text"]["class"] == "BertModel"
    assert done["tokenizer"]["from"].endswith("text")
    assert "batch norm normalises each piece of 4 separately" in capsys.readouterr().out
    tower = hf_pretext.load(tmp_path / "run").encoders["text"].state_dict()
    trained = start.encoder.state_dict()
    assert len(trained) > 20 and all(torch.equal(tower[name], value) for name, value in trained.items())
    assert {name.rpartition("_")[2] for name in done["health"]["start"]} == {"text"}  # images began with random weights


def test_going_on_from_a_model_with_its_head(tmp_path, tokenizer):
    """The head that it brings is kept, and so is its tokenizer."""
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(7)
    before = AutoModelForMaskedLM.from_config(config)
    before.save_pretrained(saved(tokenizer, tmp_path / "bert"))
    options = ["--encoder", tmp_path / "bert", "--learning_rate", 0.0, *BRIEFLY]
    results = main(MASKED_LM, *options, output_dir=tmp_path / "run")
    after = AutoModelForMaskedLM.from_pretrained(tmp_path / "run")
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert results["tokenizer"]["from"] == ".../bert"
    assert results["health"]["start"] == results["health"]["trained"]  # with its loss
    assert results["health"]["random"]["loss"] != results["health"]["start"]["loss"]


def test_a_new_head_has_no_loss_of_the_model_as_it_was(tmp_path, tokenizer):
    config = transformers.BertConfig(**{**TEXT, "vocab_size": len(tokenizer)})
    task = MaskedLMForPreTraining.complete(MaskedLMForPreTraining.task_class(), {"text": tokenizer})
    of = {}
    for name, auto in {"encoder": AutoModel, "full": AutoModelForMaskedLM}.items():
        auto.from_config(config).save_pretrained(tmp_path / name)
        of[name] = Blueprint(MaskedLMForPreTraining, task, config, Start(str(tmp_path / name))).as_it_was(0)
    assert of["full"].complete and not of["encoder"].complete
    assert of["full"].kinds == of["encoder"].kinds == ["text"]
    bare = Blueprint(MaskedLMForPreTraining, task, config, Start(str(saved(config, tmp_path / "shape"))))
    assert bare.as_it_was(0) is None and dataclasses.replace(bare, start=Start()).as_it_was(0) is None


# what can't be started from


def test_encoder_that_is_no_vision_model(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "bert")
    message = refused(ROTATION, "--encoder", tmp_path / "bert", "--dataset", "/no/such")  # which is read later
    assert f"--encoder {tmp_path / 'bert'}: The image encoder must accept image inputs" in message
    assert "BertModel (bert) does not" in message


def test_encoder_of_videos(tmp_path):
    """Its main input is called pixel_values, and `input_modalities` say image."""
    config = transformers.TimesformerConfig(**VIT, patch_size=8, num_frames=2)
    AutoModel.from_config(config).save_pretrained(tmp_path / "timesformer")
    message = refused(ROTATION, "--encoder", tmp_path / "timesformer", "--image_size", 32)
    assert "image encoder must accept image inputs, but TimesformerModel (timesformer) does not" in message


def test_encoder_that_is_no_text_model(tmp_path):
    CONFIGS["vit"]().save_pretrained(tmp_path / "vit")
    (tmp_path / "empty.txt").write_text("")  # what would be said of it, had it been read
    message = refused(MASKED_LM, "--encoder", tmp_path / "vit", "--dataset", tmp_path / "empty.txt")
    assert f"--encoder {tmp_path / 'vit'}: transformers has no vit model for masked language modelling" in message


def test_encoder_that_is_not_present():
    assert "--encoder /no/encoder can't be loaded: it is not a folder" in refused(ROTATION, "--encoder", "/no/encoder")
    assert "no/such/folder" in refused(CONTRASTIVE, "--image_encoder", "no/such/folder")


def test_encoder_that_embeds_no_pairs(tmp_path):
    message = refused(CONTRASTIVE, "--encoder", saved(CONFIGS["bert"](), tmp_path / "bert"))
    assert "bert: BertModel does not embed images and texts. Give a CLIPModel" in message


def test_encoder_that_can_not_be_a_tower(tmp_path):
    message = refused(CONTRASTIVE, "--image_encoder", saved(CONFIGS["resnet"](), tmp_path / "resnet"))
    assert "VisionTextDualEncoderModel needs pooled outputs" in message


def test_towers_of_a_model_that_has_none(tmp_path):
    CONFIGS["vit"]().save_pretrained(tmp_path / "vit")
    message = refused(FLAVA, "--image_encoder", tmp_path / "vit")
    assert "--image_encoder: the encoders of flava are parts of one model" in message and "Start from a full" in message


def test_different_model(tmp_path):
    encoder("vit").save_pretrained(tmp_path / "vit")
    message = refused(MULTIWAY, "--encoder", tmp_path / "vit")
    assert f"--encoder {tmp_path / 'vit'}: This objective needs a MultiwayModel" in message
