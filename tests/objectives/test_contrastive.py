"""Contrastive learning: published losses, native checkpoints, and settings and batches that raise errors."""

import json
import math

import pytest
import torch
import transformers
from conftest import CONFIGS, IMAGE
from contract import check_contract
from torch import nn
from towers import PAIRS, TOWERS, batch_of, pair_of, same
from transformers import AutoModel

import hf_pretext
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.health import chance_of
from hf_pretext.modules.dual_encoder import dual_encoder
from hf_pretext.objectives.contrastive import FRESH, ContrastiveForPreTraining


def test_labels_that_all_differ_are_clip():
    batch = batch_of()
    model = pair_of("clip").eval()
    unicl = pair_of("clip", positives="label").eval()
    unicl.load_state_dict(model.state_dict())
    labels = torch.tensor([7, -3, 2**62, 5, 11, 0])
    found = []
    for one, also in ((unicl, {"labels": labels}), (model, {})):
        loss = one(**batch, **also).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in one.parameters() if p.grad is not None)])
    assert len(found[0]) > 20
    same(*found, atol=1e-6, rtol=0)
    assert not torch.isclose(unicl(**batch, labels=labels % 3).loss, model(**batch).loss, atol=1e-3)


@pytest.mark.parametrize("name", ["clip", "chinese_clip", "align", "vit", "siglip"])
def test_equals_transformers_own_loss(name):
    """Compares loss and all gradients on the same weights and batch."""
    own = {"siglip": {"loss": "sigmoid"}, "align": {"label_smoothing": 0.1}}
    model = pair_of(name, **own.get(name, {})).eval().double()
    batch = batch_of()
    batch["pixel_values"] = batch["pixel_values"].double()
    found = []
    for call in (lambda: model(**batch).loss, lambda: model.full_model(**batch, return_loss=True).loss):
        model.zero_grad()
        loss = call()
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > 20
    same(*found, atol=1e-6, rtol=0)


def test_temperatures_begin_as_published():
    assert math.isclose(pair_of("clip").temperature()[0].item(), 1 / 0.07, rel_tol=1e-6)
    assert math.isclose(pair_of("align").temperature()[0].item(), 1 / 0.07, rel_tol=1e-6)
    for name in ("siglip", "vit", "clip", "align"):
        scale, bias = pair_of(name, loss="sigmoid").temperature()
        assert math.isclose(scale.item(), 10, rel_tol=1e-6) and bias.item() == -10
    trained = transformers.SiglipModel(PAIRS["siglip"]())
    with torch.no_grad():
        trained.logit_scale.fill_(4.7)
    assert ContrastiveForPreTraining.from_encoder(
        trained, loss="sigmoid"
    ).full_model.logit_scale.item() == pytest.approx(4.7)


# checkpoints


@pytest.mark.parametrize("name", [*PAIRS, *TOWERS])
@pytest.mark.parametrize("loss", FRESH)
def test_contract(name, loss, tmp_path):
    full = build_encoder(PAIRS[name]()) if name in PAIRS else dual_encoder(CONFIGS[name](), CONFIGS["bert"](), 24)
    check_contract(ContrastiveForPreTraining, full, batch_of(2), tmp_path, loss=loss)
    native, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (tmp_path / "pretext.safetensors").exists() == (loss == "sigmoid" and not name.startswith("siglip"))
    for key, value in native.state_dict().items():
        assert torch.equal(value, full.state_dict()[key]), key


def test_going_on_from_a_checkpoint(tmp_path):
    model = pair_of("convnext", loss="sigmoid", patch_dropout=0.0)
    with torch.no_grad():
        model.bias.fill_(-3.5)
    model.save_pretrained(tmp_path)
    assert hf_pretext.load(tmp_path).bias.item() == -3.5
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["VisionTextDualEncoderModel"]
    assert config["vision_config"]["hidden_size"] == 32


# settings


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_frozen_tower(name):
    model = pair_of("vit", frozen=name)
    model.train()(**batch_of()).loss.backward()
    assert all(p.grad is None for p in model.encoders[name].parameters())
    assert not model.encoders[name].training
    other = model.encoders["text" if name == "image" else "image"]
    assert other.training and any(p.grad is not None for p in other.parameters())
    assert model.full_model.visual_projection.weight.grad is not None


def test_a_frozen_tower_sees_all_its_patches():
    model = pair_of("vit", frozen="image", patch_dropout=0.5).train()
    seen = []
    model.encoder.layers[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape[1]))
    model(**batch_of())
    assert seen == [1 + (IMAGE // 8) ** 2]


def test_a_scale_does_not_go_with_a_fresh_bias():
    """CLIP-like models have no bias, so the sigmoid loss adds one in the head and resets the scale."""
    trained = pair_of("vit", loss="sigmoid")
    with torch.no_grad():
        trained.full_model.logit_scale.fill_(3.0)
        trained.bias.fill_(-4.0)
    begun = ContrastiveForPreTraining.from_encoder(trained.full_model, loss="sigmoid")
    assert [value.item() for value in begun.temperature()] == pytest.approx([10.0, -10.0], rel=1e-5)
    full = pair_of("siglip", loss="sigmoid").full_model
    with torch.no_grad():
        full.logit_bias.fill_(-4.0)
    begun = ContrastiveForPreTraining.from_encoder(full, loss="sigmoid")
    assert begun.bias.item() == -4.0


def test_logs():
    model = pair_of("clip", positives="label").train()
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    logs = model(**batch_of(6), labels=labels).logs
    assert logs.keys() == {"accuracy", "scale", "negatives"}
    assert model.eval()(**batch_of(6), labels=labels).logs.keys() == {"accuracy"}  # the others are for training only
    assert logs["negatives"].item() == pytest.approx(6 - (2 + 2 + 1 + 3 + 3 + 3) / 6)
    with torch.no_grad():
        batch = batch_of(6)
        scores = (
            model.embed("image", pixel_values=batch["pixel_values"])
            @ model.embed("text", input_ids=batch["input_ids"]).T
        )
    plain = pair_of("clip").eval()
    plain.load_state_dict(model.state_dict())
    assert plain(**batch).logs["accuracy"].item() == (scores.argmax(1) == torch.arange(6)).float().mean()


# errors


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"loss": "hinge"}, "loss"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, but is 1.0"),
        ({"patch_dropout": -0.1}, "patch_dropout must be at least 0"),
        ({"embed_batch_size": 0}, "embed_batch_size must be at least 1, but is 0"),
        ({"loss": "sigmoid", "label_smoothing": 0.1}, "label_smoothing=0.1 needs loss='softmax'"),
        ({"exchange": "ring"}, "exchange='ring' needs loss='sigmoid'"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pair_of("clip", **settings)


def test_batches_that_are_refused():
    model, batch = pair_of("clip"), batch_of()
    with pytest.raises(ValueError, match="6 images came with 5 captions"):
        model(**{**batch, "input_ids": batch["input_ids"][:5], "attention_mask": batch["attention_mask"][:5]})
    with pytest.raises(ValueError, match="at least 2 pairs per global batch, but got 1"):
        model.train()(**batch_of(1))
    with pytest.raises(ValueError, match="needs labels in the batch"):
        pair_of("clip", positives="label")(**batch)
    with pytest.raises(ValueError, match="6 pairs came with 3 labels"):
        pair_of("clip", positives="label")(**batch, labels=torch.arange(3))
    model.full_model.text_projection = nn.Linear(32, 10)
    with pytest.raises(ValueError, match="have width 24, but caption embeddings have width 10"):
        model(**batch)


def test_a_temperature_that_is_not_a_number_is_refused():
    full = transformers.CLIPModel(PAIRS["clip"]())
    with torch.no_grad():
        full.logit_scale.fill_(float("nan"))
    with pytest.raises(ValueError, match="temperature of CLIPModel .* is not finite"):
        ContrastiveForPreTraining.from_encoder(full)


def test_a_checkpoint_that_has_diverged_is_refused(tmp_path):
    model = pair_of("clip")
    with torch.no_grad():
        model.full_model.logit_scale.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is not finite"):
        hf_pretext.load(tmp_path)


@pytest.mark.parametrize(("loss", "known"), [("softmax", True), ("sigmoid", False)])
def test_the_chance_of_a_contrastive_loss_is_that_of_its_batch(loss, known):
    model, batch = pair_of("vit", loss=loss).eval(), batch_of()
    level = {"chance_accuracy": 1 / 6, "chance_loss": math.log(6)}
    assert chance_of(model(**batch)) == (level if known else {})
    assert model.train()(**batch).candidates is None
