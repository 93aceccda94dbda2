"""The recipe on images with captions, from the command line to what transformers loads."""

import json
import os

import datasets
import pytest
import torch
import transformers
from conftest import CONFIGS, EMOJI, TEXT, VIT, timm
from PIL import Image
from recipe_runs import BRIEFLY, CONTRASTIVE, RECIPES, main, pair_shapes, refused, smoke_run
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, pipeline

from hf_pretext import ContrastiveForPreTraining
from hf_pretext.evaluation.retrieval import retrieval

FILES = {
    "config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "results.json", "README.md",
    "report.png",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run, as a user starts it, that also measures classes that it has not seen."""
    folder = tmp_path_factory.mktemp("smoke")
    rows = datasets.load_dataset(str(EMOJI), split="test").select(range(60))
    unseen = rows.map(lambda row, i: {"group": f"unseen {i % 2}"}, with_indices=True)
    unseen.to_parquet(folder / "heldout" / "train-0.parquet")
    options = ("--heldout_dataset", folder / "heldout", "--eval_text_label", "style")
    return smoke_run(CONTRASTIVE, "--use_cpu", *options, output_dir=folder / "run")


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


def test_held_out_classes_and_labels_of_one_kind_are_measured(smoke):
    folder, output = smoke
    results, card = json.loads((folder / "results.json").read_text()), (folder / "README.md").read_text()
    names = results["measures"]["trained"].keys()
    assert names == results["measures"]["chance"].keys()
    assert {name for name in names if name.startswith("heldout_")} == {f"heldout_{n}" for n in names if "held" not in n}
    few = results["heldout"]["rows"]["test"]
    assert (
        few == 12
        and results["heldout"]["held_out_by"] == "classes"
        and results["heldout"]["classes"] == ["unseen 0", "unseen 1"]
    )
    assert results["measures"]["chance"]["heldout_image_to_text_r10"]["mean"] == pytest.approx(10 / few, abs=0.1)
    assert "image to caption, R@10, held out" in output and f"test split ({few} rows)" in card
    assert results["transfer"]["label"] == "group" and results["other_transfers"]["text"]["label"] == "style"


def test_a_set_of_known_classes_is_not_held_out(tmp_path):
    message = refused(CONTRASTIVE, "--heldout_dataset", EMOJI)
    assert "has classes that the train split of" in message and "different captions, for example" in message
    message = refused(CONTRASTIVE, *BRIEFLY, "--heldout_dataset", EMOJI)
    assert "needs a labelled set, but --eval_dataset is none" in message


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
    options = ("--eval_dataset", "none", "--held_out_rows", 0, "--save_total_limit", 5)
    main(CONTRASTIVE, *options, output_dir=tmp_path)
    os.unlink(tmp_path / "run.json")
    for name in os.listdir(tmp_path / "checkpoint-4"):
        os.unlink(tmp_path / "checkpoint-4" / name)
    os.rmdir(tmp_path / "checkpoint-4")
    main(CONTRASTIVE, *options, "--resume_from_checkpoint", "last", output_dir=tmp_path)
    ours, unbroken = (load_file(path / "model.safetensors") for path in (tmp_path, folder))
    assert all(torch.equal(ours[name], unbroken[name]) for name in unbroken)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("siglip_emoji", {"loss": "sigmoid", "positives": "label"}),
        ("unicl_emoji", {"positives": "label"}),
        ("align_openclipart", {"label_smoothing": 0.1}),
    ],
)
def test_the_other_recipes_run(name, settings, tmp_path):
    done = main(name, *BRIEFLY, output_dir=tmp_path)
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
    large = openclipart(drawings, side=128)
    assert large != folder
    (row,) = datasets.load_dataset("parquet", data_files=str(large / "train.parquet"), split="train")
    assert row["image"].size == (128, 128)
    (drawings / "b.svg").write_text(SVG.format(title="blue square", keyword="square", colour="#00f"))
    changed = openclipart(drawings)
    assert changed != folder and len(datasets.load_dataset("parquet", data_dir=str(changed), split="train")) == 2
    with pytest.raises(ValueError, match="There is no folder"):
        openclipart(tmp_path / "missing")


@pytest.mark.parametrize("name", ["clip", "siglip", "chinese_clip", "align"])
def test_every_kind_of_model_is_read_full(name, tmp_path, capsys):
    options = ["--vocab_size", 500, "--eval_dataset", "none", "--max_steps", 2, "--learning_rate", 0.01]
    pair_shapes(500)[name].save_pretrained(tmp_path / "shape")
    loss = ["--loss", "sigmoid"] if name == "siglip" else []
    done = main(CONTRASTIVE, "--encoder", tmp_path / "shape", *options, *loss, output_dir=tmp_path / "run")
    fixed = name == "siglip"
    assert done["padded"] == ("to --max_length" if fixed else "to the longest of a batch")
    assert done["max_length"] == (64 if fixed else 24)
    model, info = AutoModel.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert type(model).__name__ == type(pair_shapes(500)[name]).__name__.replace("Config", "Model")
    assert not info["missing_keys"]
    assert type(AutoProcessor.from_pretrained(tmp_path / "run")).__name__.endswith("Processor")
    assert all(0 < score < 1 for score in classified(tmp_path / "run"))
