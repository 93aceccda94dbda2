"""The Multiway Transformer: which token meets which expert, what it gives, and what it refuses."""

import pytest
import torch
from small_multiway import IMAGE_TOKENS, INPUTS, SMALL, TEXT_TOKENS, build, counts, pixels, words
from transformers import ViTModel

from hf_pretext.features import positions
from hf_pretext.modules.multiway import MultiwayConfig, MultiwayModel


@pytest.fixture
def model() -> MultiwayModel:
    return build()


EXPERTS = {  # that each kind of input meets, layer by layer
    "image": [{"vision"}] * 3,
    "text": [{"language"}] * 3,
    "pair": [{"vision", "language"}] * 2 + [{"fusion"}],
}


def grads(model: MultiwayModel, **batch) -> dict[str, torch.Tensor]:
    """Gradients of the parameters that the last hidden state depends on."""
    model.zero_grad(set_to_none=True)
    (model(**batch).last_hidden_state * torch.linspace(-1, 1, model.config.hidden_size)).pow(2).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", INPUTS)
def test_each_kind_of_input_trains_its_experts_and_no_others(model, kind):
    found = grads(model, **INPUTS[kind]())
    for i, layer in enumerate(model.layers):
        for expert in layer.experts:
            there = {
                f"layers.{i}.experts.{expert}.{name}" in found for name in ("fc1.weight", "fc2.bias", "norm.weight")
            }
            assert there == {expert in EXPERTS[kind][i]}, (i, expert)
    assert {f"layers.{i}.attention.{p}_proj.weight" for i in range(3) for p in "qkvo"} <= found.keys()
    assert ("image_embeddings.cls_token" in found) == (kind != "text")
    assert ("text_embeddings.word_embeddings.weight" in found) == (kind != "image")


def test_only_the_top_layers_have_an_expert_for_pairs(model):
    assert [set(layer.experts) for layer in model.layers] == [{"vision", "language"}] * 2 + [
        {"vision", "language", "fusion"}
    ]
    assert all("fusion" not in layer.experts for layer in build(num_fusion_layers=0).layers)


@pytest.mark.parametrize(
    ("layer", "expert", "changed"),
    [
        (0, "vision", range(IMAGE_TOKENS)),
        (1, "language", range(IMAGE_TOKENS, IMAGE_TOKENS + TEXT_TOKENS)),
        (2, "vision", ()),
        (2, "language", ()),
        (2, "fusion", range(IMAGE_TOKENS + TEXT_TOKENS)),
    ],
)
@torch.no_grad()
def test_each_token_of_a_pair_meets_the_expert_of_its_modality(model, layer, expert, changed):
    batch = INPUTS["pair"]()
    before = model(**batch, output_hidden_states=True).hidden_states
    model.layers[layer].experts[expert].fc1.weight.add_(0.5)
    after = model(**batch, output_hidden_states=True).hidden_states
    differs = (before[layer + 1] != after[layer + 1]).any(-1)  # (B, T)
    assert torch.equal(before[layer], after[layer])
    assert differs.any(0).nonzero().flatten().tolist() == list(changed) and torch.equal(differs[0], differs[1])


@torch.no_grad()
def test_image_and_text_see_each_other(model):
    pair, alone = model(**INPUTS["pair"]()), model(**pixels())
    other = model(**pixels(), **{name: value.flip(0) for name, value in words().items()})
    assert not torch.allclose(pair.image_hidden_state, other.image_hidden_state)
    assert not torch.allclose(pair.image_hidden_state, alone.image_hidden_state)
    other = model(pixels()["pixel_values"].flip(0), **words())
    assert not torch.allclose(pair.text_hidden_state, other.text_hidden_state)


@torch.no_grad()
def test_the_output_has_its_parts(model):
    for kind, make in INPUTS.items():
        output = model(**make(), output_hidden_states=True)
        parts = [part for part in (output.image_hidden_state, output.text_hidden_state) if part is not None]
        lengths = {"image": [IMAGE_TOKENS], "text": [TEXT_TOKENS], "pair": [IMAGE_TOKENS, TEXT_TOKENS]}[kind]
        assert [part.shape for part in parts] == [(2, length, 32) for length in lengths]
        assert torch.equal(torch.cat(parts, 1), output.last_hidden_state)
        assert len(output.hidden_states) == 4
        assert torch.equal(model.norm(output.hidden_states[-1]), output.last_hidden_state)
    assert model(**words()).image_hidden_state is None and model(**pixels()).text_hidden_state is None
    assert model(**words()).hidden_states is None
    assert torch.equal(model(**words(), return_dict=False)[0], model(**words()).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["text", "pair"])
def test_padding_changes_nothing(model, kind):
    batch = INPUTS[kind]()
    expected = model(**batch)
    more = {"input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 3), value=3)}
    more["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, 3))
    output = model(**batch | more)
    there = batch["attention_mask"].bool()
    torch.testing.assert_close(output.text_hidden_state[:, :TEXT_TOKENS][there], expected.text_hidden_state[there])
    if kind == "pair":
        torch.testing.assert_close(output.image_hidden_state, expected.image_hidden_state)
    front = {name: torch.nn.functional.pad(batch[name], (3, 0), value=3 * (name == "input_ids")) for name in more}
    output = model(**batch | front)  # positions are counted without it, wherever it is
    torch.testing.assert_close(output.text_hidden_state[:, 3:][there], expected.text_hidden_state[there])
    short = model(**{name: value[1:, :6] if name in more else value[1:] for name, value in batch.items()})
    torch.testing.assert_close(short.text_hidden_state[0], expected.text_hidden_state[1, :6])


@torch.no_grad()
def test_a_masked_patch_is_not_seen(model):
    images, mask = pixels()["pixel_values"], torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 5] = True  # in the grid of 4 x 4: row 1, column 1
    before = model(images, bool_masked_pos=mask).last_hidden_state
    changed = images.clone()
    changed[:, :, 8:16, 8:16] = 0.0
    assert torch.equal(before, model(changed, bool_masked_pos=mask).last_hidden_state)
    assert not torch.allclose(before, model(images).last_hidden_state)
    changed[:, :, :8, :8] = 0.0
    assert not torch.allclose(before, model(changed, bool_masked_pos=mask).last_hidden_state)
    vit = ViTModel(model.config.image_side(), use_mask_token=True).eval()
    vit.load_state_dict(model.image_side().state_dict() | {"embeddings.mask_token": model.image_embeddings.mask_token})
    torch.testing.assert_close(vit(images, bool_masked_pos=mask).last_hidden_state, before, atol=1e-6, rtol=0)


def test_the_giant_has_as_many_parameters_as_the_papers():
    """Table 2 of the paper; norms counted with their linear layers would make attention 318 million."""
    with torch.device("meta"):
        giant = MultiwayModel(
            MultiwayConfig(
                hidden_size=1408, intermediate_size=6144, num_hidden_layers=40, num_attention_heads=16, patch_size=14
            )
        )
    found = {kind: round(count / 1e6) for kind, count in counts(giant).items()}
    expected = {"vision": 692, "language": 692, "fusion": 52, "attention": 317}
    assert {kind: found[kind] for kind in expected} == expected


def test_fresh_weights_are_small():
    model = MultiwayModel(MultiwayConfig(**SMALL))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            assert bool((parameter == float("norm.weight" in name)).all()), name
        else:
            assert 0.01 < parameter.std() < 0.03, name
    assert not model.text_embeddings.word_embeddings.weight[3].any()
    assert model.get_input_embeddings() is model.text_embeddings.word_embeddings
    assert positions(model) == (4, 12)


def test_gradient_checkpointing_gives_equal_gradients(model):
    model.train()
    expected = {kind: grads(model, **make()) for kind, make in INPUTS.items()}
    model.gradient_checkpointing_enable()
    calls = []
    model.layers[0].attention.register_forward_hook(lambda *_: calls.append(1))
    for kind, make in INPUTS.items():
        found = grads(model, **make())
        assert found.keys() == expected[kind].keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[kind][name], msg=name)
    assert len(calls) == 2 * len(INPUTS)  # each once more, for the gradient


@torch.no_grad()
@pytest.mark.parametrize("autocast", [True, False])
def test_bf16(model, autocast):
    batch = INPUTS["pair"]() | {"bool_masked_pos": torch.arange(16).expand(2, -1) < 4}
    expected = model(**batch).last_hidden_state
    model = model if autocast else model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(**batch).last_hidden_state
    assert output.dtype == (torch.float32 if autocast else torch.bfloat16)
    error = (output.float() - expected).pow(2).mean() / expected.pow(2).mean()
    assert 0 < error < 1e-2


def test_dropout_is_of_training_alone():
    model = build(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    batch = INPUTS["pair"]()
    assert torch.equal(model(**batch)[0], model(**batch)[0])
    model.train()
    assert not torch.allclose(model(**batch)[0], model(**batch)[0])


IDS = torch.ones(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "got no input. Give pixel_values, input_ids"),
        ({"pixel_values": torch.rand(2, 3, 32, 24)}, r"\(3, 32, 24\) don't fit the model's \(3, 32, 32\)"),
        ({"pixel_values": torch.rand(2, 1, 32, 32)}, r"\(1, 32, 32\) don't fit"),
        ({"input_ids": torch.ones(2, 13, dtype=torch.long)}, "13 tokens exceed max_position_embeddings=12"),
        ({"pixel_values": torch.rand(3, 3, 32, 32), "input_ids": IDS}, "3 images came with 2 texts"),
        ({"input_ids": IDS, "attention_mask": IDS[:, :4]}, r"\(2, 4\), but input_ids have shape \(2, 5\)"),
        ({"pixel_values": torch.rand(2, 3, 32, 32), "attention_mask": IDS}, r"\(2, 5\), but input_ids are missing"),
        ({"input_ids": IDS, "bool_masked_pos": torch.ones(2, 16)}, "bool_masked_pos came without pixel_values"),
        ({"pixel_values": torch.rand(2, 3, 32, 32), "bool_masked_pos": torch.ones(2, 17)}, r"\(2, 17\).*\(2, 16\)"),
    ],
)
def test_bad_input_is_refused(model, batch, message):
    with pytest.raises(ValueError, match=message):
        model(**batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size must be a multiple of num_attention_heads=5, but is 32"),
        ({"patch_size": 12}, "image_size must be a multiple of patch_size=12, but is 32"),
        ({"num_fusion_layers": 4}, "num_fusion_layers must be 0 to num_hidden_layers=3, but is 4"),
        ({"num_fusion_layers": -1}, "num_fusion_layers must be 0 to num_hidden_layers=3, but is -1"),
    ],
)
def test_bad_config_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MultiwayConfig(**SMALL | settings)
