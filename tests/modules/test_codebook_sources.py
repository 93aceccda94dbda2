"""Codebooks out of a path, out of an entry of config.json, and out of a checkpoint."""

import json
from dataclasses import dataclass

import pytest
import torch
from codebooks import PATCHES, encoder_of, one_thread, pixels_of, ready  # noqa: F401
from conftest import CONFIGS, IMAGE
from torch import nn
from transformers import AutoModel, BertModel, FlavaConfig, FlavaForPreTraining, ViTImageProcessor

from hf_pretext.modeling import PretextModel
from hf_pretext.modules.codebook import PatchCodebook
from hf_pretext.modules.codebook_sources import codebook_config, codebook_from, open_codebook
from hf_pretext.modules.normalisation import normalisation_of


@dataclass
class CodesTask:
    codebook: dict | None = None


class CodesForPreTraining(PretextModel):
    objective, task_class, inputs = "codes", CodesTask, ("image",)

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.pretext_head = nn.ModuleDict({"codebook": codebook_from(self.task.codebook), "head": nn.Linear(32, 8)})
        self.post_init()


def codebooks() -> dict:
    """One codebook of each kind, by name, fitted to a batch of images."""
    made = {"pixels": lambda: PatchCodebook(16, 8), "ready": lambda: ready(mean=(0.1, 0.2, 0.3), std=(0.3, 0.4, 0.5))}
    return made | {k: (lambda k=k: PatchCodebook(6, PATCHES[k], encoder_of(k))) for k in PATCHES}


@pytest.mark.parametrize("name", codebooks())
def test_a_model_keeps_its_codebook_bit_for_bit(name, emoji, tmp_path):
    images = pixels_of(emoji())
    codebook = codebooks()[name]()
    codebook.fit([images], progress=False)
    entry = codebook_config(codebook)
    model = CodesForPreTraining.from_encoder(CONFIGS["vit"](), codebook=json.loads(json.dumps(entry)))
    model.pretext_head["codebook"].load_state_dict(codebook.state_dict())
    model.save_pretrained(tmp_path)
    again = CodesForPreTraining.from_pretrained(tmp_path).pretext_head["codebook"]
    assert again is not codebook and type(again) is type(codebook) and again.kind == codebook.kind
    for key, value in codebook.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert len(codebook.state_dict()) == len(again.state_dict())
    assert codebook_config(again) == entry
    assert again.fitted and torch.equal(again(images), codebook(images))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not any(module.training for module in again.modules())


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind of codebook: 'words'. Give 'pixels', 'features' or 'ready'"):
        codebook_from({"kind": "words"})


def save_codebook(folder) -> dict[str, torch.Tensor]:
    inner = ready().codebook
    inner.save_pretrained(folder)
    return inner.state_dict()


def save_flava(folder) -> dict[str, torch.Tensor]:
    inner = ready().codebook
    small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    image = dict(**small, image_size=16, patch_size=8, vocab_size=64)
    parts = dict(image_config=image, text_config=dict(**small, vocab_size=20), multimodal_config=small)
    config = FlavaConfig(**parts, image_codebook_config=inner.config.to_dict(), hidden_size=8, projection_dim=8)
    FlavaForPreTraining(config, inner).save_pretrained(folder)
    return inner.state_dict()


@pytest.mark.parametrize("save", [save_codebook, save_flava])
def test_a_flava_codebook_is_opened_ready(save, tmp_path):
    expected = save(tmp_path)
    codebook = open_codebook(str(tmp_path), 512, 4)
    assert codebook.kind == "ready" and codebook.size == 64 and codebook.patch_size == 4
    assert codebook.mean.tolist() == codebook.std.tolist() == [0.5] * 3
    found = codebook.codebook.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items()) and len(found) == len(expected)


def test_pixels_and_encoders_are_opened(tmp_path):
    assert codebook_config(open_codebook(None, 32, 4)) == {"kind": "pixels", "size": 32, "patch_size": 4}
    encoder = encoder_of("vit")
    encoder.config.pretext = {"objective": "rotation"}
    encoder.save_pretrained(tmp_path)
    codebook = open_codebook(str(tmp_path), 32, 8)
    assert (codebook.kind, codebook.size, codebook.patch_size) == ("features", 32, 8)
    assert torch.equal(codebook.encoder.layernorm.weight, encoder.layernorm.weight)
    assert torch.equal(
        codebook.encoder.embeddings.position_embeddings.data, encoder.embeddings.position_embeddings.data
    )
    entry = json.dumps(codebook_config(codebook))
    assert "rotation" not in entry and str(tmp_path) not in entry


def test_what_can_not_be_opened(tmp_path):
    with pytest.raises(ValueError, match="--codebook /nowhere can't be loaded: it is not a folder"):
        open_codebook("/nowhere", 8, 8)
    BertModel(CONFIGS["bert"]()).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="image encoder must accept image inputs, but BertModel"):
        open_codebook(str(tmp_path / "bert"), 8, 8, option="--tokens")
    CONFIGS["vit"]().save_pretrained(tmp_path / "shape")
    with pytest.raises(ValueError, match="shape has no weights that can be loaded"):
        open_codebook(str(tmp_path / "shape"), 8, 8)


def test_missing_weights_are_an_error_and_poolers_are_not(tmp_path):
    encoder = encoder_of("vit")
    state = encoder.state_dict()
    poolerless = {name: value for name, value in state.items() if "pooler" not in name}
    encoder.save_pretrained(tmp_path / "a", state_dict=poolerless)
    assert len(poolerless) < len(state) and open_codebook(str(tmp_path / "a"), 8, 8).kind == "features"
    encoder.save_pretrained(tmp_path / "b", state_dict={k: v for k, v in state.items() if k != "layernorm.weight"})
    with pytest.raises(ValueError, match="lacks weights of ViTModel, which would stay random: layernorm.weight"):
        open_codebook(str(tmp_path / "b"), 8, 8)
    save_flava(tmp_path / "whole")
    FlavaForPreTraining.from_pretrained(tmp_path / "whole").flava.save_pretrained(tmp_path / "c")
    with pytest.raises(ValueError, match="lacks weights of FlavaForPreTraining.*image_codebook"):
        open_codebook(str(tmp_path / "c"), 8, 8)


def test_an_encoder_sees_images_normalised_as_its_own_processor_has_them(tmp_path):
    encoder = AutoModel.from_config(CONFIGS["vit"]())
    encoder.save_pretrained(tmp_path)
    own = {"image_mean": [0.2, 0.4, 0.6], "image_std": [0.3, 0.2, 0.1]}
    ViTImageProcessor(**own).save_pretrained(tmp_path)
    codebook = open_codebook(str(tmp_path), 8, encoder.config.patch_size)
    codebook.set_normalisation(*normalisation_of(ViTImageProcessor(do_normalize=False)))  # images in [0, 1]
    images = torch.rand(2, 3, IMAGE, IMAGE)
    mean, std = (torch.tensor(own[f"image_{name}"])[:, None, None] for name in ("mean", "std"))
    wanted = encoder.eval()((images - mean) / std).last_hidden_state[:, 1:]
    torch.testing.assert_close(codebook.describe(images), wanted, atol=1e-4, rtol=1e-4)


def test_a_shape_is_built_again_with_its_encoder_and_without_its_values():
    codebook = PatchCodebook(6, 8, encoder_of("vit"))
    shape = json.loads(json.dumps(codebook_config(codebook)))
    assert set(shape) == {"kind", "size", "patch_size", "encoder"} and shape["kind"] == "features"
    again = codebook_from(shape)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in codebook.state_dict().items()}
    assert not torch.equal(again.encoder.embeddings.cls_token, codebook.encoder.embeddings.cls_token)
    assert codebook_config(again) == codebook_config(codebook)


def test_an_encoder_that_was_kept_in_few_digits_describes_in_float32(tmp_path):
    encoder_of("vit").bfloat16().save_pretrained(tmp_path)
    codebook = open_codebook(str(tmp_path), 8, 8)
    assert {parameter.dtype for parameter in codebook.parameters()} == {torch.float32}


@pytest.mark.parametrize("trouble", ["nowhere", "no weights", "weights missing"])
def test_errors_call_the_option_and_the_path_by_name(trouble, tmp_path):
    encoder = encoder_of("vit")
    if trouble == "no weights":
        encoder.config.save_pretrained(tmp_path)
    if trouble == "weights missing":
        encoder.save_pretrained(tmp_path, state_dict={"layernorm.bias": torch.zeros(32)})
    path = str(tmp_path / "nowhere") if trouble == "nowhere" else str(tmp_path)
    with pytest.raises(ValueError, match=f"^--tokens {path} "):
        open_codebook(path, 8, 8, option="--tokens")
