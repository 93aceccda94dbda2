"""The recipe on images with captions, from the command line to what transformers loads, and a user's mistakes."""

import importlib.util
import json
import os
import subprocess
import sys

import datasets
import pytest
import torch
import transformers
from conftest import CONFIGS, EMOJI, REPOSITORY, TEXT, VIT, timm
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, AutoTokenizer, pipeline

import hf_pretext
from hf_pretext import ContrastiveForPreTraining, MaskedLMForPreTraining, RotationForPreTraining
from hf_pretext.evaluation.retrieval import retrieval

RECIPES = REPOSITORY / "recipes"
RECIPE = RECIPES / "contrastive_emoji.py"
FILES = {
    "config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "results.json", "README.md",
    "report.png",
}  # fmt: skip


BRIEFLY = ("--eval_dataset", "none", "--max_steps", 1)


def main(*options, output_dir, name="contrastive_emoji"):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe.main(
        ["--smoke", "--use_cpu", "--disable_tqdm", "True", "--output_dir", str(output_dir), *map(str, options)]
    )


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run, as a user starts it."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    done = subprocess.run(
        [sys.executable, str(RECIPE), "--smoke", "--use_cpu", "--output_dir", str(folder)],
        capture_output=True, text=True, cwd=folder.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_smoke_run_leaves_every_file_and_shows_each_encoder(smoke):
    folder, output = smoke
    assert set(os.listdir(folder)) >= FILES
    assert Image.open(folder / "report.png").size[0] > 800
    assert "image to caption, R@10" in output
    assert "zero-shot, top-1" in output
    assert "AutoProcessor" in output
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: zero-shot-image-classification" in card
    assert "| image to caption, R@1 |" in card
    assert "no labels used" in card
    measures = json.loads((folder / "results.json").read_text())["measures"]
    assert list(measures) == ["trained", "random", "chance"]
    assert len(measures["random"]["zero_shot_top1"]["values"]) == 3


def test_transformers_alone_loads_it_and_finds_the_same(smoke):
    folder, _ = smoke
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is transformers.VisionTextDualEncoderModel
    assert not info["missing_keys"]
    processor = AutoProcessor.from_pretrained(folder)
    data = datasets.load_dataset(str(EMOJI), split="test")
    rows = data.select([i * len(data) // 64 for i in range(64)])
    images = [Image.alpha_composite(Image.new("RGBA", p.size, "white"), p.convert("RGBA")) for p in rows["image"]]
    names = list(dict.fromkeys(rows["text"]))
    inputs = processor(text=names, images=[p.convert("RGB") for p in images], return_tensors="pt", padding=True)
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    outcome = retrieval(outputs.image_embeds, outputs.text_embeds, rows["text"], names)
    refused = json.loads((folder / "results.json").read_text())["measures"]["trained"]
    assert {name: refused[name]["mean"] for name in refused if name in outcome} == pytest.approx(
        {name: outcome[name] for name in refused if name in outcome}, abs=0.02
    )


def test_the_zero_shot_pipeline_runs_on_the_folder(smoke):
    assert sum(classified(smoke[0])) == pytest.approx(1, abs=1e-4)


def classified(folder) -> list[float]:
    """What transformers' pipeline says of an image and some names."""
    classify = pipeline("zero-shot-image-classification", model=str(folder))
    outcome = classify(Image.new("RGB", (70, 64), "red"), candidate_labels=["red heart", "cat", "flag"])
    assert {one["label"] for one in outcome} == {"red heart", "cat", "flag"}
    return [one["score"] for one in outcome]


@pytest.mark.parametrize("vision, text", [("vit", "bert"), ("convnext", "roberta"), ("timm_resnet10t", "bert")])
def test_towers_side_by_side_run_in_the_pipeline(vision, text, smoke, tmp_path):
    processor = AutoProcessor.from_pretrained(smoke[0])
    words = dict(TEXT, vocab_size=len(processor.tokenizer), max_position_embeddings=40)
    towers = {
        "vit": lambda: transformers.ViTConfig(**{**VIT, "image_size": 64}, patch_size=8),
        "convnext": CONFIGS["convnext"],
        "timm_resnet10t": lambda: timm("resnet10t"),
        "bert": lambda: transformers.BertConfig(**words),
        "roberta": lambda: transformers.RobertaConfig(**words, pad_token_id=processor.tokenizer.pad_token_id),
    }
    ContrastiveForPreTraining.from_encoders(towers[vision](), towers[text](), 24).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not AutoModel.from_pretrained(tmp_path, output_loading_info=True)[1]["missing_keys"]
    assert sum(classified(tmp_path)) == pytest.approx(1, abs=1e-4)


def test_a_stopped_run_goes_on_to_the_same_weights(smoke, tmp_path):
    folder, _ = smoke
    options = ("--eval_dataset", "none", "--save_total_limit", 5)
    main(*options, output_dir=tmp_path)
    os.unlink(tmp_path / "run.json")
    for name in os.listdir(tmp_path / "checkpoint-4"):
        os.unlink(tmp_path / "checkpoint-4" / name)
    os.rmdir(tmp_path / "checkpoint-4")
    main(*options, "--resume_from_checkpoint", "last", output_dir=tmp_path)
    ours, unbroken = (load_file(path / "model.safetensors") for path in (tmp_path, folder))
    assert all(torch.equal(ours[name], unbroken[name]) for name in unbroken)


def test_towers_start_from_elsewhere_and_stay_frozen(tmp_path, capsys):
    """From a checkpoint of rotation: batch norm in pieces is no matter where it is frozen."""
    torch.manual_seed(7)
    start = RotationForPreTraining.from_encoder(CONFIGS["timm_resnet18"]())
    start.save_pretrained(tmp_path / "vision")
    options = ["--image_encoder", tmp_path / "vision", "--frozen", "image", "--embed_batch_size", 4]
    done = main(*options, *BRIEFLY, "--other_captions", "keywords", output_dir=tmp_path / "run")
    assert done["encoders"]["image"]["start"].endswith("vision")
    assert "batch norm" not in capsys.readouterr().out
    tower = hf_pretext.load(tmp_path / "run").encoder.state_dict()
    assert all(torch.equal(tower[name], value) for name, value in start.encoder.state_dict().items())


def test_captions_start_from_a_masked_language_model_of_ours(smoke, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(smoke[0])
    config = transformers.BertConfig(**{**TEXT, "vocab_size": len(tokenizer)})
    start = MaskedLMForPreTraining.from_encoder(config, mask_token_id=tokenizer.mask_token_id)
    start.save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    options = ["--text_encoder", tmp_path / "text", "--learning_rate", 0.0, "--embed_batch_size", 4]
    done = main(*options, *BRIEFLY, output_dir=tmp_path / "run")
    assert done["encoders"]["text"]["start"].endswith("text") and done["encoders"]["text"]["class"] == "BertModel"
    assert done["tokenizer"]["from"].endswith("text")
    assert "batch norm normalises each piece of 4 separately" in capsys.readouterr().out
    tower = hf_pretext.load(tmp_path / "run").encoders["text"].state_dict()
    trained = start.encoder.state_dict()
    assert len(trained) > 20 and all(torch.equal(tower[name], value) for name, value in trained.items())


def test_the_tokenizer_of_an_open_clip_model(tmp_path):
    done = main("--tokenizer", "open_clip:ViT-B-32", "--eval_dataset", "none", "--max_steps", 1, output_dir=tmp_path)
    assert done["tokenizer"] == {"from": "open_clip:ViT-B-32", "class": "CLIPTokenizer", "kind": "BPE", "tokens": 49408}
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 49408


@pytest.mark.parametrize(
    "name, settings",
    [
        ("siglip_emoji", {"loss": "sigmoid", "positives": "label"}),
        ("unicl_emoji", {"positives": "label"}),
        ("align_openclipart", {"label_smoothing": 0.1}),
    ],
)
def test_the_other_recipes_run(name, settings, tmp_path):
    done = main("--eval_dataset", "none", "--max_steps", 1, output_dir=tmp_path, name=name)
    assert done["recipe"] == name
    assert settings.items() <= done["objective"].items()
    outside = tmp_path / "pretext.safetensors"  # what VisionTextDualEncoderModel has no place for
    bias = [key for key in (load_file(outside) if outside.exists() else ()) if key.endswith("logit_bias")]
    assert len(bias) == (done["objective"]["loss"] == "sigmoid")


SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/" viewBox="0 0 10 10">
<metadata><rdf:RDF><cc:Work><dc:title>{title}</dc:title><dc:subject><rdf:Bag><rdf:li>{keyword}</rdf:li></rdf:Bag>
</dc:subject></cc:Work></rdf:RDF></metadata><rect width="10" height="10" fill="{colour}"/></svg>"""


def test_drawings_of_a_folder(tmp_path, monkeypatch):
    """Rendered once, again when the folder has changed; what can't be used is left out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(RECIPES / "data"))
    from openclipart import openclipart

    drawings = tmp_path / "drawings"
    drawings.mkdir()
    with pytest.raises(ValueError, match="no SVG file with a title"):
        openclipart(drawings)
    (drawings / "a.svg").write_text(SVG.format(title="red_square", keyword="square", colour="#f00"))
    (drawings / "untitled.svg").write_text(SVG.format(title="", keyword="square", colour="#f00"))
    (drawings / "cut.svg").write_text(SVG.format(title="cut", keyword="square", colour="#f00")[:-60])
    folder = openclipart(drawings)
    (row,) = datasets.load_dataset("parquet", data_files=str(folder / "train.parquet"), split="train")
    assert (row["text"], row["keywords"]) == ("red square", ["square"])
    assert row["image"].size == (96, 96) and row["image"].convert("RGB").getpixel((48, 48)) == (255, 0, 0)
    assert openclipart(drawings) == folder
    (drawings / "b.svg").write_text(SVG.format(title="blue square", keyword="square", colour="#00f"))
    changed = openclipart(drawings)
    assert changed != folder and len(datasets.load_dataset("parquet", data_dir=str(changed), split="train")) == 2
    with pytest.raises(ValueError, match="There is no folder"):
        openclipart(tmp_path / "missing")


def shapes(tokens: int) -> dict[str, transformers.PreTrainedConfig]:
    """Tiny models of every kind that --encoder takes, for a tokenizer that is trained here."""
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


@pytest.mark.parametrize("name", ["clip", "siglip", "chinese_clip", "align"])
def test_every_kind_of_model_is_read_full(name, tmp_path, capsys):
    options = ["--vocab_size", 500, "--eval_dataset", "none", "--max_steps", 2, "--learning_rate", 0.01]
    shapes(500)[name].save_pretrained(tmp_path / "shape")
    loss = ["--loss", "sigmoid"] if name == "siglip" else []
    done = main("--encoder", tmp_path / "shape", *options, *loss, output_dir=tmp_path / "run")
    fixed = name == "siglip"
    assert done["padded"] == ("to --max_length" if fixed else "to the longest of a batch")
    assert done["max_length"] == (64 if fixed else 24)
    model, info = AutoModel.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert type(model).__name__ == type(shapes(500)[name]).__name__.replace("Config", "Model")
    assert not info["missing_keys"]
    assert type(AutoProcessor.from_pretrained(tmp_path / "run")).__name__.endswith("Processor")
    assert all(0 < score < 1 for score in classified(tmp_path / "run"))


def test_captions_that_are_cut_are_counted(tmp_path, capsys):
    main("--max_length", 4, "--eval_dataset", "none", "--max_steps", 2, output_dir=tmp_path)
    assert (
        "of the captions that this process saw were longer than 4 tokens (--max_length), and were cut."
        in capsys.readouterr().out
    )


def test_a_tower_that_pools_at_different_token_is_refused(tmp_path):
    config = shapes(500)["clip"]
    config.text_config.eos_token_id = 499
    config.save_pretrained(tmp_path / "shape")
    with pytest.raises(SystemExit) as stopped:
        main("--encoder", tmp_path / "shape", "--vocab_size", 500, output_dir=tmp_path / "run")
    assert "looks for the end of a text at the token 499" in str(stopped.value.code)
    assert "where the tokenizer puts 3" in str(stopped.value.code)


MISTAKES = {
    "a column that is not there": (["--other_captions", "colour"], "no column 'colour' (--other_captions"),
    "an image for a caption": (["--other_captions", "image"], "'image' (--other_captions) holds Image values"),
    "too few weights": (["--caption_weights", "1"], "caption_weights needs 2 numbers"),
    "texts that are images": (["--text_column", "image"], "holds no texts"),
    "a frozen tower at random": (["--frozen", "text"], "give it a --text_encoder"),
    "a batch of one": (["--per_device_train_batch_size", "1"], "needs at least 2 rows to compare. Give --per_"),
    "a sigmoid that is smoothed": (["--loss", "sigmoid", "--label_smoothing", "0.1"], "leave it 0"),
    "a prompt without a place": (["--prompts", "a photo"], "or a language (ar, de, en"),
    "nowhere": (["--image_encoder", "no/such/folder"], "no/such/folder"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_reported_before_anything_is_written(mistake, tmp_path, capsys):
    options, refused = MISTAKES[mistake]
    with pytest.raises(SystemExit) as stopped:
        main(*options, output_dir=tmp_path / "run")
    assert refused in str(stopped.value.code) + capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_encoders_that_do_not_fit_are_refused(tmp_path, capsys):
    shapes = {"resnet": CONFIGS["resnet"](), "bert": CONFIGS["bert"](), "short": CONFIGS["bert"]()}
    shapes["short"].max_position_embeddings, shapes["short"].vocab_size = 8, 4000
    for name, config in shapes.items():
        config.save_pretrained(tmp_path / name)
    refused = {
        ("--encoder", "bert"): "bert: BertModel does not embed images and texts. Give a CLIPModel",
        ("--image_encoder", "resnet"): "can't put it into a pair of towers",
        (
            "--text_encoder",
            "short",
            "--vocab_size",
            4000,
            "--max_length",
            20,
        ): "--max_length 20 is more than the 8 positions",
    }
    for (option, name, *more), words in refused.items():
        with pytest.raises(SystemExit) as stopped:
            main(option, tmp_path / name, *more, output_dir=tmp_path / "run")
        assert words in str(stopped.value.code)
