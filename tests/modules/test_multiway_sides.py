"""The two plain models of a Multiway Transformer: they give the same features, and go back into it."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_multiway import INPUTS, build, counts, pixels, words
from transformers import AutoModel, RobertaPreLayerNormConfig, RobertaPreLayerNormModel, ViTConfig, ViTModel

from hf_pretext.modules.multiway import MultiwayModel
from hf_pretext.modules.multiway_sides import COLUMNS, NAMES, check_agreement, paired

PLAIN_PROCESS = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
folder, report = sys.argv[1], {}
inputs = load_file(folder + "/inputs.safetensors")
outputs = {}
for side, names in {"image": ["pixel_values"], "text": ["input_ids", "attention_mask"]}.items():
    model, info = AutoModel.from_pretrained(folder, subfolder=side, output_loading_info=True)
    with torch.no_grad():
        output = model(**{name: inputs[name] for name in names})
    outputs |= {side: output.last_hidden_state.contiguous(), side + "_pooled": output.pooler_output.contiguous()}
    report[side] = [type(model).__name__, sorted(info["missing_keys"]), sorted(info["unexpected_keys"])]
save_file(outputs, folder + "/outputs.safetensors")
report["imported"] = "hf_pretext" in sys.modules
json.dump(report, open(folder + "/report.json", "w"))
"""


@torch.no_grad()
def test_plain_transformers_loads_both_sides(tmp_path):
    """By a process that knows nothing of this package, with equal features; texts at real tokens, and only there."""
    model = build()
    batch = pixels() | words()
    model.save_pretrained(tmp_path)
    save_file(batch, tmp_path / "inputs.safetensors")
    command = [sys.executable, "-c", PLAIN_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {
        "image": ["ViTModel", [], []], "text": ["RobertaPreLayerNormModel", [], []], "imported": False,
    }  # fmt: skip
    outputs = load_file(tmp_path / "outputs.safetensors")
    image, text = model(**pixels()).last_hidden_state, model(**words()).last_hidden_state
    torch.testing.assert_close(outputs["image"], image, atol=1e-6, rtol=0)
    there = words()["attention_mask"].bool()
    torch.testing.assert_close(outputs["text"][there], text[there], atol=1e-6, rtol=0)
    torch.testing.assert_close(outputs["image_pooled"], image[:, 0].tanh())
    torch.testing.assert_close(outputs["text_pooled"], text[:, 0].tanh())


def test_a_tokenizer_of_pairs_of_sentences_fits_the_text_side():
    model = build()
    ids = words()["input_ids"]
    side = model.text_side()
    torch.testing.assert_close(side(ids, token_type_ids=ids * 0 + 1)[0], side(ids)[0])


@torch.no_grad()
def test_the_whole_reloads_exactly_with_attention_still_one(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    outside = set(load_file(tmp_path / "pretext.safetensors"))
    experts = {f"layers.2.experts.fusion.{n}.{w}" for n in ("norm", "fc1", "fc2") for w in ("weight", "bias")}
    assert outside == {f"full_model.{name}" for name in (*experts, "image_embeddings.mask_token")}
    for auto in (MultiwayModel, AutoModel):
        again, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(again) is MultiwayModel and not info["missing_keys"] and not info["unexpected_keys"]
        assert again.config.to_diff_dict() == model.config.to_diff_dict()
        assert again.num_parameters() == model.num_parameters() == sum(counts(model).values())
        for make in INPUTS.values():
            assert torch.equal(again(**make()).last_hidden_state, model(**make()).last_hidden_state)
    before = {kind: again(**make()).last_hidden_state for kind, make in INPUTS.items()}
    again.layers[0].attention.q_proj.weight.add_(0.1)
    for kind, make in INPUTS.items():
        assert not torch.allclose(again(**make()).last_hidden_state, before[kind])


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_side_goes_back_where_it_came_from(name):
    model = build()
    side = getattr(model, f"{name}_side")()
    fresh = MultiwayModel(model.config).eval()
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    getattr(fresh, f"load_{name}_side")(side)
    taken = {key for key, value in fresh.state_dict().items() if torch.equal(value, model.state_dict()[key])}
    kept = {key for key, value in fresh.state_dict().items() if torch.equal(value, before[key])}
    other = {"image": ("language", "text_embeddings"), "text": ("vision", "image_embeddings")}[name]
    assert kept == {key for key in before if {*other, "fusion", "mask_token"} & set(key.split("."))}
    assert taken == before.keys() - kept


@torch.no_grad()
def test_a_text_model_with_token_types_gives_equal_features():
    model = build()
    torch.manual_seed(5)
    config = RobertaPreLayerNormConfig(**model.config.text_side().to_dict() | {"type_vocab_size": 1})
    text = RobertaPreLayerNormModel(config).eval()
    text.embeddings.token_type_embeddings.weight.normal_()
    model.load_text_side(text)
    there = words()["attention_mask"].bool()
    torch.testing.assert_close(model(**words())[0][there], text(**words())[0][there], atol=1e-6, rtol=0)


@pytest.mark.parametrize("change", [{"patch_size": 16}, {"layer_norm_eps": 1e-6}, {"qkv_bias": False}])
def test_a_side_that_does_not_fit_is_refused(change):
    model = build()
    other = ViTModel(ViTConfig(**model.config.image_side().to_dict() | change))
    (name, value), before = *change.items(), model.image_embeddings.cls_token.clone()
    with pytest.raises(ValueError, match=f"ViTModel has {name}={value}, but this model needs"):
        model.load_image_side(other)
    with pytest.raises(ValueError, match="a RobertaPreLayerNormModel, not a ViTModel"):
        model.load_text_side(other)
    assert torch.equal(model.image_embeddings.cls_token, before)


def test_sides_are_copies_and_saving_draws_no_random_numbers(tmp_path):
    model = build()
    state = torch.get_rng_state()
    model.save_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    side = model.image_side()
    side.layernorm.weight.data.zero_()
    assert model.norm.weight.abs().sum() > 0
    assert model.to(torch.bfloat16).image_side().dtype == torch.bfloat16


def test_each_weight_lies_in_a_side_or_outside_of_both():
    model = build()
    state, sides = model.state_dict(), {ViTModel: model.image_side(), RobertaPreLayerNormModel: model.text_side()}
    of_sides = set()
    for class_, side in sides.items():
        pairs = paired(state, model.config, class_)
        of_sides |= {ours for ours, _ in pairs}
        left = side.state_dict().keys() - {theirs for _, theirs in pairs}
        assert {name.split(".")[-2] for name in left} <= {"dense", "token_type_embeddings"}  # dense: of the pooler
        assert all(torch.equal(state[ours], side.state_dict()[theirs]) for ours, theirs in pairs)
        assert len({theirs for _, theirs in pairs}) == len(pairs) > 30
    assert model.outside_parts() == state.keys() - of_sides
    assert all(len(row) == 1 + len(COLUMNS) for row in NAMES)


def test_two_sides_become_one_model_again_in_their_type_of_numbers():
    model = build()
    for dtype in (torch.float32, torch.bfloat16):
        model = model.to(dtype)
        state = torch.get_rng_state()
        again = MultiwayModel.joined(model.config, {"image": model.image_side(), "text": model.text_side()})
        assert torch.equal(torch.get_rng_state(), state) and again.dtype == dtype
        same = {name for name, value in again.state_dict().items() if torch.equal(value, model.state_dict()[name])}
        assert model.state_dict().keys() - same == model.outside_parts()


def test_sides_that_disagree_are_refused_and_what_they_disagree_about_is_named():
    model = build()
    image, text = model.image_side(), model.text_side()
    check_agreement(model.config, image, text)
    with torch.no_grad():
        text.embeddings.word_embeddings.weight.add_(1)  # not shared
        image.embeddings.cls_token.add_(1)
    check_agreement(model.config, image, text)
    for name in ("encoder.layer.1.attention.output.dense.bias", "LayerNorm.weight"):
        side = model.text_side()
        side.state_dict()[name].add_(1e-3)
        with pytest.raises(ValueError, match=r"differ in 1 shared weights, for example (layers.1|layernorm)"):
            check_agreement(model.config, image, side)
    with pytest.raises(ValueError, match="differ in 32 shared weights"):  # 10 in each layer, and the final norm's 2
        check_agreement(model.config, image, build().text_side())
