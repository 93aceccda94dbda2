"""FLAVA: the six losses equal those of transformers, each kind of batch has its losses, and `FlavaModel` loads it."""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import IMAGE, TEXT, VIT
from contract import check_contract
from transformers import AutoModel, FlavaConfig, FlavaModel

import hf_pretext
from hf_pretext import FlavaForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.modules.masking import IGNORED
from hf_pretext.objectives import flava

MASK, CODES = 4, 12
SETTINGS = dict(mask_token_id=MASK, special_token_ids=[0, 1, 2], codebook_size=CODES)
HEADS = {0: "transform.dense", 2: "transform.LayerNorm", 3: "decoder"}


def config() -> FlavaConfig:
    sizes = {name: value for name, value in TEXT.items() if name != "vocab_size"}
    return FlavaConfig(
        image_config={**VIT, "patch_size": 8, "vocab_size": CODES},
        text_config={**TEXT, "max_position_embeddings": 16},
        multimodal_config={**sizes, "num_hidden_layers": 1},
        hidden_size=32,
        projection_dim=24,
        init_codebook=False,
    )


def encoder() -> FlavaModel:
    """Returns a model whose zero parameters are random, or patches would be equal at all positions."""
    model = build_encoder(config())
    for parameter in model.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def pairs(count: int = 6, length: int = 9) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    there = torch.ones(count, length, dtype=torch.long)
    there[1, 5:] = 0
    ids = torch.randint(5, 50, (count, length), generator=random)
    return {
        "pixel_values": torch.randn(count, 3, IMAGE, IMAGE, generator=random),
        "input_ids": ids.masked_fill(there == 0, 0),
        "attention_mask": there,
    }


def kinds(batch: dict) -> dict[str, dict]:
    return {
        "pairs": batch,
        "images": {"pixel_values": batch["pixel_values"]},
        "texts": {name: value for name, value in batch.items() if name != "pixel_values"},
    }


def fitted(**settings) -> FlavaForPreTraining:
    model = FlavaForPreTraining.from_encoder(encoder(), **{**SETTINGS, **settings})
    model.codebook.fit([pairs()["pixel_values"]], progress=False)
    return model


@pytest.mark.parametrize("kind", ["pairs", "images"])
def test_contract(tmp_path, fitted_codebooks, kind):
    fitted_codebooks(pairs()["pixel_values"])
    check_contract(FlavaForPreTraining, encoder(), kinds(pairs())[kind], tmp_path, **SETTINGS)


def test_bare_vectors_of_a_fresh_model_are_drawn_and_those_of_a_given_one_kept():
    def bare(model):
        image = model.full_model.image_model.embeddings
        return [
            image.cls_token,
            image.mask_token,
            image.position_embeddings,
            model.full_model.multimodal_model.cls_token,
        ]

    fresh = FlavaForPreTraining.from_encoder(config(), **SETTINGS)
    assert all(0.01 < vector.std() < 0.03 for vector in bare(fresh))
    given = FlavaForPreTraining.from_encoder(build_encoder(config()), **SETTINGS)
    assert not any(vector.any() for vector in bare(given))


def test_checkpoint_is_flavas_and_keeps_its_codebook(tmp_path):
    model = fitted().eval()
    model.save_pretrained(tmp_path)
    native = AutoModel.from_pretrained(tmp_path).eval()
    assert type(native) is FlavaModel and native.config.pretext["objective"] == "flava"
    pixels = pairs()["pixel_values"]
    found = native.get_image_features(pixels).pooler_output[:, 0]
    torch.testing.assert_close(F.normalize(found, dim=-1), model.embed("image", pixel_values=pixels))
    again = hf_pretext.load(tmp_path)
    assert torch.equal(again.codebook.centres, model.codebook.centres)
    assert "parts" in json.loads((tmp_path / "config.json").read_text())["pretext"]


# comparison with transformers' pretraining class


def theirs_of(ours: FlavaForPreTraining) -> transformers.FlavaForPreTraining:
    """Returns transformers' pretraining class with the same weights."""
    theirs = transformers.FlavaForPreTraining(ours.config)
    theirs.flava.load_state_dict(ours.full_model.state_dict())
    for name in ("mim", "mlm", "mmm_image", "mmm_text"):
        head = getattr(theirs, f"{name}_head")
        for number, part in HEADS.items():
            head.get_submodule(part).load_state_dict(ours.pretext_head[name][number].state_dict())
    theirs.itm_head.pooler.dense.load_state_dict(ours.pretext_head["itm"][0].state_dict())
    theirs.itm_head.seq_relationship.load_state_dict(ours.pretext_head["itm"][2].state_dict())
    return theirs.eval()


def both_losses(ours: FlavaForPreTraining, monkeypatch, batch: dict, partner=None) -> tuple[dict, dict]:
    """Returns the losses of both classes for the same masks, visual tokens and mismatched captions."""
    hidden, seen = {}, {}
    hide_patches, hide_tokens, contrast = ours.hide_patches, ours.hide_tokens, ours.contrast

    def same_patches(pixels):
        hidden["patches"] = hide_patches(pixels)
        return hidden["patches"]

    def same_tokens(*arguments):
        seen["tokens"] = hide_tokens(*arguments)
        return seen["tokens"]

    monkeypatch.setattr(ours, "hide_patches", same_patches)
    monkeypatch.setattr(ours, "hide_tokens", same_tokens)
    if partner is not None:
        monkeypatch.setattr(ours, "contrast", lambda *arguments: (*contrast(*arguments)[:2], partner))
    losses = ours.eval()(**batch).losses
    given = dict(batch)
    if "pixel_values" in batch:
        given["bool_masked_pos"], given["mim_labels"] = hidden["patches"][0], hidden["patches"][1].clone()
    if "input_ids" in batch:
        given["input_ids_masked"], given["mlm_labels"] = seen["tokens"]
    if partner is not None:
        another = torch.where(partner < 0, torch.arange(len(partner)), partner)
        given = {
            name: value[another] if "input_ids" in name or "mlm" in name or name == "attention_mask" else value
            for name, value in given.items()
        }
        given["itm_labels"] = (partner < 0).long()
    found = theirs_of(ours)(**given, return_loss=True).loss_info
    return losses, {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_losses_of_one_kind_are_transformers_own(monkeypatch, kind):
    ours, theirs = both_losses(fitted(), monkeypatch, kinds(pairs())[kind])
    assert set(ours) == set(theirs) == {"mim" if kind == "images" else "mlm"}
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name], loss, atol=1e-4, rtol=0)


def test_losses_of_pairs_are_transformers_own(monkeypatch):
    partner = torch.tensor([-1, -1, -1, -1, -1, -1])
    ours, theirs = both_losses(fitted(), monkeypatch, pairs(), partner)
    theirs["contrastive"] = theirs.pop("global_contrastive")
    assert set(ours) == set(theirs) == {"mmm_image", "mmm_text", "itm", "contrastive"}
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name], loss, atol=1e-4, rtol=0)


def test_losses_of_mismatched_pairs_are_transformers_own(monkeypatch):
    partner = torch.tensor([-1, 3, -1, 1, 5, -1])
    ours, theirs = both_losses(fitted(), monkeypatch, pairs(), partner)
    for name in ("mmm_image", "mmm_text", "itm"):  # mismatched pairs count for itm only
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", flava.WEIGHTS)
def test_each_loss_alone_is_learned(name):
    weights = {f"{other}_weight": float(other == name) for other in flava.WEIGHTS}
    model = fitted(**weights, image_mask_ratio=0.3, text_mask_ratio=0.3).train()
    batch = kinds(pairs())[{"mim": "images", "mlm": "texts"}.get(name, "pairs")]
    model.generator = lambda: torch.Generator().manual_seed(0)  # the same masks in each step
    optimizer, found = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(40):
        losses = model(**batch).losses
        assert set(losses) == {name}
        optimizer.zero_grad()
        losses[name].backward()
        optimizer.step()
        found.append(losses[name].item())
    assert found[-1] < 0.7 * found[0]


def test_every_parameter_learns_from_one_kind_or_another():
    model = fitted()
    frozen = model.freeze_unused(*kinds(pairs()).values())
    assert frozen and all("pooler" in name for name in frozen)
    assert set(model.freeze_unused(pairs())) > {"pretext_head.mlm.0.weight", "pretext_head.mim.0.weight"}


def test_a_mismatched_pair_gets_another_caption():
    model, batch = fitted().eval(), pairs()
    fuse = model.fuse
    seen = {}
    model.fuse = lambda *arguments: seen.update(states=arguments) or fuse(*arguments)
    model.contrast = lambda *_: (torch.zeros(()), torch.zeros(()), torch.tensor([-1, 0, -1, -1, -1, -1]))
    model.hide_tokens = lambda ids, there, _: (ids, ids.where(there == 1, IGNORED))
    model(**batch)
    _, states, there = seen["states"]
    torch.testing.assert_close(states[1], states[0])
    assert there[1].tolist() == batch["attention_mask"][0].tolist() != batch["attention_mask"][1].tolist()


def test_tokens_and_embeddings_of_pairs_equal_the_plain_model():
    model, batch = fitted().eval(), pairs()
    plain = model.full_model(**batch).multimodal_embeddings
    torch.testing.assert_close(model.encode_pairs(*batch.values()), plain)
    hidden = batch["input_ids"] > 25
    predicted = model.predict_tokens(hidden, batch["input_ids"], batch["attention_mask"], batch["pixel_values"])
    torch.testing.assert_close(predicted, model.pretext_head["mmm_text"](plain[:, -9:][hidden]))
    alone = model.predict_tokens(hidden, batch["input_ids"], batch["attention_mask"])
    text = model.full_model.text_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(alone, model.pretext_head["mlm"](text[hidden]))
    torch.testing.assert_close(model.embed("text", **kinds(batch)["texts"]).norm(dim=1), torch.ones(6))


def test_bad_input():
    model, batch = fitted(), pairs()
    with pytest.raises(ValueError, match="needs pixel_values, input_ids, or both, but has neither"):
        model(attention_mask=batch["attention_mask"])
    with pytest.raises(ValueError, match="6 images came with 4 captions"):
        model(batch["pixel_values"], batch["input_ids"][:4])
    with pytest.raises(ValueError, match="needs a FlavaModel or a FlavaConfig, not a ViTModel"):
        FlavaForPreTraining.from_encoder(transformers.ViTConfig(**VIT, patch_size=8))
    with pytest.raises(ValueError, match="text_mask_ratio must lie between 0 and 1, but is 1.5"):
        fitted(text_mask_ratio=1.5)
    with pytest.raises(ValueError, match="one of them above 0"):
        fitted(**{f"{name}_weight": 0.0 for name in flava.WEIGHTS})
    unfitted = FlavaForPreTraining.from_encoder(encoder(), **SETTINGS)
    with pytest.raises(ValueError, match="fit it first"):
        unfitted.train()(pixel_values=batch["pixel_values"])


def test_a_kind_of_batch_without_a_loss_is_refused():
    model = fitted(mim_weight=0.0, mmm_image_weight=0.0, mmm_text_weight=0.0)
    assert set(model(**pairs()).losses) == {"itm", "contrastive"}
    with pytest.raises(ValueError, match="no loss for this kind of batch"):
        model(**kinds(pairs())["images"])


def test_what_no_loss_asks_for_is_not_part_of_the_output():
    model = fitted(contrastive_weight=0.0).train()
    output = model(**pairs())
    assert not output.features.requires_grad  # or DDP would wait for the gradient of the last norm


def test_a_codebook_of_another_size_does_not_load(tmp_path):
    model = fitted()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretext"]["parts"]["codebook"]["size"] = CODES + 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="weights whose shapes do not match its config.json"):
        hf_pretext.load(tmp_path)
