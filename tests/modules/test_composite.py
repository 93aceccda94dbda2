"""Composites: each encoder in its sub-folder, the same outputs when loaded, and what is refused."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIGS, encoder_inputs
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, BertModel, ViTModel

from hf_pretext.encoders import build_encoder
from hf_pretext.features import pool
from hf_pretext.modalities import Inputs
from hf_pretext.modalities._clips import Part
from hf_pretext.modules.composite import CompositeConfig, CompositeModel, TwoEncoders, columns_of
from hf_pretext.objectives.rotation import RotationTask
from hf_pretext.registry import modality_class


class ImageAndTextForPreTraining(TwoEncoders):
    objective, task_class, inputs = "image_and_text", RotationTask, ("image", "text")

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.heads = nn.ModuleDict({kind: nn.Linear(32, 8) for kind in self.inputs})
        self.post_init()

    def forward(self, pixel_values, input_ids, attention_mask=None):
        image, text = (pool(self.encoders[kind](given).last_hidden_state) for kind, given in
                       (("image", pixel_values), ("text", input_ids)))  # fmt: skip
        distance = (self.heads["image"](image) - self.heads["text"](text)).pow(2).mean()
        return self.output({"distance": distance}, {}, features=image)


def towers() -> dict:
    return {"image": build_encoder(CONFIGS["vit"]()), "text": build_encoder(CONFIGS["bert"]())}


@pytest.fixture
def model() -> CompositeModel:
    return CompositeModel.of(**towers()).eval()


def inputs(model: CompositeModel) -> dict[str, dict[str, torch.Tensor]]:
    return {kind: encoder_inputs(encoder) for kind, encoder in model.encoders.items()}


def hidden(model: CompositeModel) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {kind: output.last_hidden_state for kind, output in model(**inputs(model)).items()}


def test_encoders_are_the_given_ones_with_their_weights():
    given = towers()
    before = {kind: [p.clone() for p in encoder.parameters()] for kind, encoder in given.items()}
    model = CompositeModel.of(**given)
    assert all(model.encoders[kind] is encoder for kind, encoder in given.items())
    for kind, encoder in given.items():
        assert all(torch.equal(p, b) for p, b in zip(encoder.parameters(), before[kind], strict=True))
    assert model.main_input_name == "pixel_values"


def test_each_encoder_gets_its_own_inputs_and_one_may_be_asked_alone(model):
    batch = inputs(model)
    output = model(**batch)
    assert list(output) == ["image", "text"]
    for kind, encoder in model.encoders.items():
        expected = encoder(**batch[kind]).last_hidden_state
        assert torch.equal(output[kind].last_hidden_state, expected)
        assert list(model(**{kind: batch[kind]})) == [kind]


def test_saved_in_a_sub_folder_for_each_and_loaded_with_equal_outputs(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "image", "text"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["CompositeModel"] and set(config["encoders"]) == {"image", "text"}
    expected = hidden(model)
    for auto in (CompositeModel, AutoModel):
        again, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(again) is CompositeModel and not any(info.values())
        found = hidden(again)
        assert all(torch.equal(found[kind], expected[kind]) for kind in expected)
    for kind, class_ in {"image": ViTModel, "text": BertModel}.items():
        plain = AutoModel.from_pretrained(tmp_path, subfolder=kind)
        assert type(plain) is class_
        assert torch.equal(plain.eval()(**inputs(model)[kind]).last_hidden_state, expected[kind])


def test_a_config_alone_gives_fresh_encoders_of_its_shapes(model):
    config = AutoConfig.for_model(**json.loads(json.dumps(model.config.to_dict())))
    assert type(config) is CompositeConfig
    fresh, weights = AutoModel.from_config(config), model.state_dict()
    assert {name: value.shape for name, value in fresh.state_dict().items()} == {k: v.shape for k, v in weights.items()}
    assert type(fresh.encoders["text"]) is BertModel
    name = "encoders.image.embeddings.patch_embeddings.projection.weight"
    assert not torch.equal(fresh.state_dict()[name], weights[name])


def test_another_state_dict_is_shared_out_among_the_folders(model, tmp_path):
    given = {name: value + 1 for name, value in model.state_dict().items() if value.is_floating_point()}
    rest = {name: value for name, value in model.state_dict().items() if name not in given}
    model.save_pretrained(tmp_path, state_dict={**given, **rest})
    for kind, encoder in model.encoders.items():
        saved = AutoModel.from_pretrained(tmp_path, subfolder=kind).state_dict()
        assert saved.keys() == encoder.state_dict().keys()
        assert all(torch.equal(value, {**given, **rest}[f"encoders.{kind}.{name}"]) for name, value in saved.items())


def test_missing_weights_of_a_part_are_reported_with_its_kind(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "text" / "model.safetensors"
    weights = load_file(file)
    weights["more"] = weights.pop("embeddings.word_embeddings.weight")
    save_file(weights, file, {"format": "pt"})
    _, info = CompositeModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {"text.embeddings.word_embeddings.weight"}
    assert info["unexpected_keys"] == {"text.more"}


def test_all_parts_are_loaded_in_the_asked_type_of_numbers(model, tmp_path):
    model.bfloat16().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    for dtype in (torch.float32, torch.bfloat16):
        again = CompositeModel.from_pretrained(tmp_path, dtype=dtype)
        assert {p.dtype for p in again.parameters()} == {dtype}
        assert all(torch.equal(again.state_dict()[name].to(value.dtype), value)
                   for name, value in model.state_dict().items())  # fmt: skip


def test_no_encoder_and_two_types_of_numbers_are_refused():
    made = towers()
    with pytest.raises(ValueError, match="needs encoders"):
        CompositeModel.of()
    with pytest.raises(ValueError, match="of the same dtype, but got .*float16"):
        CompositeModel.of(image=made["image"].half(), text=made["text"])


def test_an_objective_takes_encoders_and_configs_alike():
    given = towers()
    model = ImageAndTextForPreTraining.from_encoders(image=given["image"], text=CONFIGS["bert"](), num_rotations=2)
    assert model.encoders["image"] is given["image"] and type(model.encoders["text"]) is BertModel
    assert list(model.encoders) == ["image", "text"] and model.task.num_rotations == 2
    whole = CompositeModel.of(**given)
    assert ImageAndTextForPreTraining.from_encoder(whole).full_model is whole


def test_a_saved_config_gives_the_same_fresh_weights(tmp_path):
    """JSON sorts the kinds, but weights are drawn in the order of `inputs`."""

    class TextAndImage(ImageAndTextForPreTraining):
        inputs = ("text", "image")

    config = CompositeModel.of(text=build_encoder(CONFIGS["bert"]()), image=build_encoder(CONFIGS["vit"]())).config
    config.save_pretrained(tmp_path)
    saved, drawn = CompositeConfig.from_pretrained(tmp_path), []
    assert list(saved.encoders) != list(config.encoders)
    for each in (config, saved):
        torch.manual_seed(0)
        drawn.append(TextAndImage.from_encoder(each).state_dict())
    assert all(torch.equal(value, drawn[1][name]) for name, value in drawn[0].items())
    assert list(saved.encoders) == ["image", "text"]  # unchanged


def test_an_objective_and_its_heads_come_back(tmp_path):
    model = ImageAndTextForPreTraining.from_encoders(**towers()).eval()
    batch = {**encoder_inputs(model.encoders["image"]), **encoder_inputs(model.encoders["text"])}
    model.save_pretrained(tmp_path)
    again = ImageAndTextForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(again(**batch).loss, model(**batch).loss)
    assert set(load_file(tmp_path / "pretext.safetensors")) == {
        f"heads.{kind}.{name}" for kind in ("image", "text") for name in ("weight", "bias")
    }


def test_what_is_no_composite_of_the_right_kinds_is_refused():
    made = towers()
    build = ImageAndTextForPreTraining
    with pytest.raises(ValueError, match="needs an encoder for each of image, text: give text="):
        build.from_encoders(image=made["image"])
    with pytest.raises(ValueError, match=r"needs a CompositeModel of image and text, not a ViTModel.*from_encoders"):
        build.from_encoder(made["image"])
    with pytest.raises(ValueError, match="needs a CompositeModel of image and text, not a CompositeModel"):
        build.from_encoder(CompositeModel.of(image=made["image"], audio=made["text"]))
    with pytest.raises(ValueError, match="image inputs, but BertModel"):
        build.from_encoder(CompositeModel.of(image=made["text"], text=made["image"]))


def test_a_config_takes_other_encoders_in_place_of_some(model):
    config = TwoEncoders.with_encoders(model.config, {"image": CONFIGS["dinov2"]()})
    assert config.encoders["image"]["model_type"] == "dinov2" and model.config.encoders["image"]["model_type"] == "vit"
    assert config.encoders["text"] == model.config.encoders["text"]


# columns of a batch


def takes(**names: str) -> dict:
    """Stands for encoders: the argument names of their main inputs, by kind."""
    return {kind: SimpleNamespace(main_input_name=name) for kind, name in names.items()}


def numbered(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(i) for i, name in enumerate(names)}


@pytest.mark.parametrize(
    ("encoders", "columns", "expected"),
    [
        (
            {"audio": "input_values", "video": "pixel_values_videos"},
            ("pixel_values_videos", "labels", "input_values", "attention_mask", "keys"),
            {"audio": {"input_values": 2, "attention_mask": 3}, "video": {"pixel_values_videos": 0}},
        ),
        (
            {"audio": "pixel_values", "video": "pixel_values"},
            ("pixel_values", "video_pixel_values"),
            {"audio": {"pixel_values": 0}, "video": {"pixel_values": 1}},
        ),
        (
            {"video": "pixel_values", "audio": "pixel_values"},  # the first of the inputs has no prefix
            ("pixel_values", "audio_pixel_values"),
            {"video": {"pixel_values": 0}, "audio": {"pixel_values": 1}},
        ),
        (
            {"audio": "input_values", "text": "input_ids"},
            ("input_values", "input_ids", "attention_mask"),  # the mask of the texts: that of audio has a prefix
            {"audio": {"input_values": 0}, "text": {"input_ids": 1, "attention_mask": 2}},
        ),
        (
            {"audio": "input_values", "text": "input_ids"},
            ("input_values", "audio_attention_mask", "input_ids", "attention_mask"),
            {"audio": {"input_values": 0, "attention_mask": 1}, "text": {"input_ids": 2, "attention_mask": 3}},
        ),
        (
            {"image": "pixel_values", "video": "pixel_values"},
            ("pixel_values", "video_pixel_values", "attention_mask"),
            {"image": {"pixel_values": 0}, "video": {"pixel_values": 1}},
        ),
        ({"audio": "input_features"}, ("input_features", "pixel_values"), {"audio": {"input_features": 0}}),
        ({"video": "pixel_values"}, ("pixel_values", "video_pixel_values"), {"video": {"pixel_values": 1}}),
    ],
)
def test_columns_of_each_kind(encoders, columns, expected):
    batch = numbered(*columns)
    parts = columns_of(batch, takes(**encoders))
    assert {kind: {name: int(value) for name, value in part.items()} for kind, part in parts.items()} == expected
    assert list(parts) == list(encoders) and list(batch) == list(columns)


def test_columns_are_named_as_inputs_names_them():
    """The names of `Inputs` for every order of two kinds whose encoders have arguments of one name."""
    for kinds in itertools.permutations(("audio", "video", "image"), 2):
        modalities = [modality_class(kind).__new__(modality_class(kind)) for kind in kinds]
        for modality in modalities:  # outputs and part depend on the encoder
            modality.__class__ = type("Of", (type(modality),), {"outputs": ("pixel_values",), "part": Part(1.0)})
        inputs = Inputs(*modalities)
        parts = {kind: {"pixel_values": torch.tensor(i)} for i, kind in enumerate(kinds)}
        batch = {name: value for kind, part in parts.items() for name, value in inputs.renamed(kind, part).items()}
        assert len(batch) == 2 and columns_of(batch, takes(**dict.fromkeys(kinds, "pixel_values"))) == parts


def test_a_batch_without_the_column_of_a_kind_is_refused():
    with pytest.raises(ValueError, match="no input_values for the audio encoder, only pixel_values, labels"):
        columns_of(numbered("pixel_values", "labels"), takes(audio="input_values", video="pixel_values"))
    with pytest.raises(ValueError, match="no pixel_values for the video encoder.*as video_pixel_values if another"):
        columns_of(numbered("pixel_values"), takes(audio="pixel_values", video="pixel_values"))
