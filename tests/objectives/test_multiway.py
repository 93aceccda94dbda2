"""Multiway: one model predicts masked parts of images, texts and pairs; its two sides are plain checkpoints."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import IMAGE, VIT
from contract import check_contract
from test_flava import kinds, pairs
from transformers import AutoModel

import hf_pretext
from hf_pretext import MultiwayForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.modules.masking import IGNORED
from hf_pretext.modules.multiway import MultiwayConfig, MultiwayModel

CODES, MASK = 12, 4
SETTINGS = dict(mask_token_id=MASK, special_token_ids=[0, 1, 2], codebook_size=CODES)


def config() -> MultiwayConfig:
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, num_fusion_layers=1)
    return MultiwayConfig(**sizes, image_size=IMAGE, patch_size=8, vocab_size=50, max_position_embeddings=16)


def fitted(**settings) -> MultiwayForPreTraining:
    model = MultiwayForPreTraining.from_encoder(config(), **{**SETTINGS, **settings})
    model.codebook.fit([pairs()["pixel_values"]], progress=False)
    return model


@pytest.mark.parametrize("kind", ["pairs", "images", "texts"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_contract(tmp_path, fitted_codebooks, kind, weight):
    fitted_codebooks(pairs()["pixel_values"])
    settings = {**SETTINGS, "contrastive_weight": weight}
    check_contract(MultiwayForPreTraining, build_encoder(config()), kinds(pairs())[kind], tmp_path, **settings)


LOADED = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

given = load_file(sys.argv[2])
image, text = (AutoModel.from_pretrained(sys.argv[1], subfolder=side).eval() for side in ("image", "text"))
with torch.no_grad():
    found = {
        "image": image(given["pixel_values"]).last_hidden_state,
        "text": text(given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state,
    }
assert "hf_pretext" not in sys.modules
save_file(found, sys.argv[3])
"""


@pytest.mark.slow
def test_sides_load_without_this_package_and_the_whole_with_it(tmp_path):
    from safetensors.torch import load_file, save_file

    model, batch, folder = fitted(contrastive_weight=1.0).eval(), pairs(), tmp_path / "run"
    model.save_pretrained(folder)
    save_file(batch, tmp_path / "given")
    command = [sys.executable, "-c", LOADED, str(folder), str(tmp_path / "given"), str(tmp_path / "found")]
    subprocess.run(command, check=True, timeout=120)
    found = load_file(tmp_path / "found")
    texts = {name: value for name, value in batch.items() if name != "pixel_values"}
    with torch.no_grad():
        image, text = model.full_model(batch["pixel_values"]), model.full_model(**texts)
    torch.testing.assert_close(found["image"], image.last_hidden_state, atol=1e-6, rtol=0)
    there = batch["attention_mask"].bool()
    torch.testing.assert_close(found["text"][there], text.last_hidden_state[there], atol=1e-6, rtol=0)
    load = f"import hf_pretext; print(type(hf_pretext.load({str(folder)!r})).__name__)"  # a new process
    loaded = subprocess.run([sys.executable, "-c", load], check=True, timeout=120, capture_output=True, text=True)
    assert loaded.stdout.strip() == "MultiwayForPreTraining"
    again = hf_pretext.load(folder).eval()
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_each_kind_has_its_own_losses_and_share_hidden():
    model, batch = fitted(image_mask_ratio=0.5, text_mask_ratio=0.25, pair_text_mask_ratio=0.75), pairs(4, 16)
    shares = {}
    model.hide_tokens = lambda ids, there, ratio: (
        shares.update({len(shares): ratio}) or ids,
        ids.where(ids > 25, IGNORED),
    )
    assert set(model(**batch).losses) == {"pair_image", "pair_text"}
    assert set(model(**kinds(batch)["texts"]).losses) == {"text"}
    assert set(model(**kinds(batch)["images"]).losses) == {"image"}
    assert list(shares.values()) == [0.75, 0.25]
    hidden, codes = model.hide_patches(batch["pixel_values"])
    assert (hidden.sum(1) == 8).all() and ((codes != IGNORED) == hidden).all()


def test_losses_are_cross_entropy_of_what_was_hidden():
    model, batch = fitted().eval(), pairs()
    hidden, codes = model.hide_patches(batch["pixel_values"])
    seen, words = model.hide_tokens(batch["input_ids"], batch["attention_mask"], 0.5)
    output = model.full_model(batch["pixel_values"], seen, batch["attention_mask"], hidden)
    image = model.pretext_head["image"](output.last_hidden_state[:, 1:17])
    text = model.pretext_head["text"](output.last_hidden_state[:, 17:])
    found = model(**batch).losses
    torch.testing.assert_close(found["pair_image"], F.cross_entropy(image.mT, codes, ignore_index=IGNORED))
    torch.testing.assert_close(found["pair_text"], F.cross_entropy(text.mT, words, ignore_index=IGNORED))


def test_every_parameter_learns_from_one_kind_or_another():
    frozen = fitted().freeze_unused(*kinds(pairs()).values())
    assert frozen == []
    experts = fitted().freeze_unused(kinds(pairs())["images"])
    assert any(".language." in name for name in experts) and not any(".vision." in name for name in experts)


@pytest.mark.slow
def test_each_kind_is_learned():
    for kind, batch in kinds(pairs()).items():
        model = fitted(contrastive_weight=float(kind == "pairs"), text_mask_ratio=0.3).train()
        model.generator = lambda: torch.Generator().manual_seed(0)
        optimizer, found = torch.optim.AdamW(model.parameters(), 3e-3), []
        for _ in range(40):
            output = model(**batch)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            found.append({name: loss.item() for name, loss in output.losses.items()})
        for name, first in found[0].items():
            assert found[-1][name] < 0.7 * first, (kind, name)


def test_matching_score_is_the_gain_in_log_probability_from_the_image():
    model, batch = fitted().eval(), pairs(2)
    ids, there = batch["input_ids"], batch["attention_mask"].bool()
    seen = torch.where(there, MASK, ids)
    with torch.no_grad():
        found = model.match(**batch)
        predicted = [
            model.pretext_head["text"](model.full_model(pixels, seen, batch["attention_mask"]).text_hidden_state)
            for pixels in (batch["pixel_values"], None)
        ]
    with_it, without = (logits.log_softmax(-1).gather(2, ids[..., None])[..., 0] for logits in predicted)
    torch.testing.assert_close(found, ((with_it - without) * there).sum(1), atol=1e-5, rtol=1e-5)


def test_embeddings_are_those_of_each_side_alone():
    model, batch = fitted(contrastive_weight=1.0).eval(), pairs()
    image = model.full_model.image_side()(batch["pixel_values"]).last_hidden_state[:, 0]
    wanted = F.normalize(model.pretext_head["contrastive"]["image"](image), dim=-1)
    torch.testing.assert_close(model.embed("image", pixel_values=batch["pixel_values"]), wanted, atol=1e-5, rtol=1e-5)
    plain = fitted().eval()
    first = plain.full_model(batch["pixel_values"]).last_hidden_state[:, 0]
    torch.testing.assert_close(plain.embed("image", pixel_values=batch["pixel_values"]), F.normalize(first, dim=-1))


def test_bad_input(tmp_path):
    model, batch = fitted(), pairs()
    with pytest.raises(ValueError, match="needs pixel_values, input_ids, or both, but has neither"):
        model(attention_mask=batch["attention_mask"])
    with pytest.raises(ValueError, match="6 images came with 4 texts"):
        model(batch["pixel_values"], batch["input_ids"][:4])
    with pytest.raises(ValueError, match="needs a MultiwayModel or a MultiwayConfig, not a ViTModel"):
        MultiwayForPreTraining.from_encoder(transformers.ViTConfig(**VIT, patch_size=8))
    with pytest.raises(ValueError, match="pair_text_mask_ratio must lie between 0 and 1, but is 0.0"):
        fitted(pair_text_mask_ratio=0.0)
    with pytest.raises(ValueError, match="contrastive_weight must be at least 0"):
        fitted(contrastive_weight=-1.0)
    model.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["architectures"] == ["MultiwayModel"] and said["model_type"] == "multiway"
    assert not (tmp_path / "model.safetensors").exists()
    assert type(AutoModel.from_pretrained(tmp_path)) is MultiwayModel
