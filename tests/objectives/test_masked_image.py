"""Masked image modelling against transformers' MAE, SimMIM and BEiT, and its own promises."""

import pytest
import torch
import transformers
from conftest import CONFIGS, IMAGE, VIT
from contract import check_contract
from torch import nn

from hf_pretext.encoders import build_encoder
from hf_pretext.modules.dense import as_map
from hf_pretext.modules.patches import patchify
from hf_pretext.objectives.masked_image import MaskedImageForPreTraining

PATCH, COUNT = 8, 16
CONFIG = {**VIT, "patch_size": PATCH}
SMALL = {"decoder_dim": 32}
DECODER = {**SMALL, "decoder_layers": 2, "visible_only": True}
CONVOLUTIONAL = ("resnet", "regnet", "timm_resnet18", "timm_efficientnet_b0")


def model_of(name: str = "vit", **settings) -> MaskedImageForPreTraining:
    patch = {"patch_size": PATCH} if name in CONVOLUTIONAL else {}
    small = DECODER if settings.get("visible_only") else SMALL
    return MaskedImageForPreTraining.from_encoder(build_encoder(CONFIGS[name]()), **{**small, **patch, **settings})


def images_of(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, IMAGE, IMAGE)


def with_codes(model, images: torch.Tensor):
    model.prepare(iter([{"pixel_values": images}]))
    return model


@pytest.mark.parametrize("name", ["vit", "swin", "resnet", "convnext", "timm_resnet18", "dinov3"])
def test_contract_with_a_learned_patch(name, tmp_path):
    patch = {"patch_size": PATCH} if name in CONVOLUTIONAL else {}
    encoder = build_encoder(CONFIGS[name]())
    check_contract(MaskedImageForPreTraining, encoder, {"pixel_values": images_of()}, tmp_path, **SMALL, **patch)


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip_vision", "siglip_vision", "timm_vit_tiny"])
def test_contract_with_visible_patches_only(name, tmp_path):
    encoder = build_encoder(CONFIGS[name]())
    batch = {"pixel_values": images_of()}
    check_contract(MaskedImageForPreTraining, encoder, batch, tmp_path, **DECODER)


def fixed(monkeypatch, model, hidden: torch.Tensor) -> None:
    """Makes a model hide these patches, `(B, N)`, bool."""
    order, amount = hidden.int().argsort(dim=1, stable=True), int(hidden[0].sum())
    split = (order[:, : hidden.shape[1] - amount], order[:, hidden.shape[1] - amount :])
    monkeypatch.setattr(model, "draw", lambda patches: split)


@pytest.mark.parametrize("normalize", [True, False])
def test_loss_is_that_of_transformers_mae(monkeypatch, normalize):
    config = transformers.ViTMAEConfig(
        **CONFIG, mask_ratio=0.75, norm_pix_loss=normalize, layer_norm_eps=1e-6, hidden_act="gelu",
        decoder_hidden_size=64, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=256,
    )  # fmt: skip
    theirs, images, noise = transformers.ViTMAEForPreTraining(config).eval(), images_of(), torch.rand(3, COUNT)
    encoder = build_encoder(transformers.ViTConfig(**CONFIG, layer_norm_eps=1e-6)).eval()
    ours = MaskedImageForPreTraining.from_encoder(
        encoder, visible_only=True, mask_ratio=0.75, normalize_patches=normalize, decoder_dim=64, decoder_layers=2
    ).eval()
    nn.init.normal_(theirs.vit.embeddings.position_embeddings)
    missing, _ = encoder.load_state_dict(theirs.vit.state_dict(), strict=False)
    assert all("pooler" in name for name in missing)
    theirs.decoder.initialize_weights(COUNT)  # its constructor leaves the positions 0
    copy_decoder(theirs.decoder, ours.pretext_head["predict"])
    expected = theirs(images, noise=noise)
    fixed(monkeypatch, ours, expected.mask.bool())
    output = ours(pixel_values=images)
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-6, rtol=1e-6)
    assert (expected.loss - 1).abs() > 1e-3  # not only the loss of a constant prediction


@torch.no_grad()
def copy_decoder(theirs, ours) -> None:
    """Copies the weights of transformers' MAE decoder into ours, made larger, so that each counts."""
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours.narrow.load_state_dict(theirs.decoder_embed.state_dict())
    ours.mask.copy_(theirs.mask_token.flatten())
    for mine, other in zip(ours.layers.layers, theirs.decoder_layers, strict=True):
        attention, mlp = other.attention, other.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        mine.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        mine.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        for module, same in (
            (mine.self_attn.out_proj, attention.o_proj), (mine.linear1, mlp.fc1), (mine.linear2, mlp.fc2),
            (mine.norm1, other.layernorm_before), (mine.norm2, other.layernorm_after),
        ):  # fmt: skip
            module.load_state_dict(same.state_dict())
    ours.layers.norm.load_state_dict(theirs.decoder_norm.state_dict())
    rows = torch.arange(3 * PATCH**2).view(PATCH, PATCH, 3).permute(2, 0, 1).flatten()  # theirs: row, column, channel
    ours.predict.weight.copy_(theirs.decoder_pred.weight[rows])
    ours.predict.bias.copy_(theirs.decoder_pred.bias[rows])


class OneLayer(nn.Module):
    """A head that is one module on the encoder's output, as in SimMIM and BEiT."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, encoder, outputs, grid):
        return self.module(as_map(encoder, outputs.last_hidden_state))


def test_loss_is_that_of_transformers_simmim(monkeypatch):
    config = transformers.ViTConfig(**CONFIG, encoder_stride=PATCH)
    theirs, images = transformers.ViTForMaskedImageModeling(config).eval(), images_of()
    encoder = build_encoder(config).eval()
    encoder.load_state_dict(theirs.vit.state_dict(), strict=False)
    ours = MaskedImageForPreTraining.from_encoder(encoder, pixel_loss="l1", normalize_patches=False, **SMALL).eval()
    ours.pretext_head["predict"] = OneLayer(theirs.decoder[0])
    with torch.no_grad():
        ours.pretext_head.learned.normal_()
        patch = ours.pretext_head.learned.view(1, 3, PATCH, PATCH)
        theirs.vit.embeddings.mask_token.copy_(encoder.embeddings.patch_embeddings.projection(patch).flatten())
    hidden = torch.rand(3, COUNT).argsort(1) < 10
    fixed(monkeypatch, ours, hidden)
    expected = theirs(images, bool_masked_pos=hidden).loss
    torch.testing.assert_close(ours(pixel_values=images).loss, expected, atol=1e-5, rtol=1e-5)


def test_loss_is_that_of_transformers_beit(monkeypatch):
    config = transformers.BeitConfig(**CONFIG, vocab_size=12, use_mask_token=True)
    theirs, images = transformers.BeitForMaskedImageModeling(config).eval(), images_of(6)
    encoder = build_encoder(transformers.BeitConfig(**CONFIG, use_mean_pooling=False)).eval()
    encoder.load_state_dict(theirs.beit.state_dict(), strict=False)
    ours = MaskedImageForPreTraining.from_encoder(encoder, target="codes", codebook_size=12, region="blocks", **SMALL)
    with_codes(ours, images).eval()
    head = nn.Sequential(theirs.layernorm, theirs.lm_head)
    ours.pretext_head["predict"] = OneLayer(Tokens(head))
    with torch.no_grad():
        theirs.lm_head.weight.normal_()
        ours.pretext_head.learned.normal_()
        patch = ours.pretext_head.learned.view(1, 3, PATCH, PATCH)
        theirs.beit.embeddings.mask_token.copy_(encoder.embeddings.patch_embeddings.projection(patch).flatten())
    _, masked = ours.draw(patchify(images, PATCH))
    hidden = torch.zeros(6, COUNT, dtype=torch.bool).scatter(1, masked, True)
    labels = ours.pretext_head["codebook"](images)[hidden]
    expected = theirs(images, bool_masked_pos=hidden, labels=labels).loss
    torch.testing.assert_close(ours(pixel_values=images).loss, expected, atol=1e-5, rtol=1e-5)


class Tokens(nn.Module):
    """A module of tokens that is applied to a map."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, values):
        return self.module(values.flatten(2).mT).mT.unflatten(2, values.shape[2:])


@pytest.mark.parametrize("settings", [{}, {"visible_only": True}, {"region": "blocks"}, {"region": "square"}])
def test_hidden_pixels_change_nothing(settings):
    """Bit for bit: features, and predictions of all hidden patches."""
    model, images = model_of(**settings).eval(), images_of()
    _, hidden = model.draw(patchify(images, PATCH))
    index = hidden[..., None].expand(-1, -1, 3 * PATCH**2)
    patches = patchify(images, PATCH)
    others = patches.scatter(1, index, 7.0).unflatten(1, (4, 4)).unflatten(3, (3, PATCH, PATCH))
    others = others.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
    first, second = model(pixel_values=images), model(pixel_values=others)
    assert torch.equal(first.features, second.features) and torch.equal(first.logits, second.logits)
    assert not torch.equal(first.loss, second.loss)
    assert not torch.equal(first.features, model(pixel_values=images + 1).features)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"mask_ratio": 0.75}, 12),
        ({"mask_ratio": 0.5, "mask_size": 16}, 8),
        ({"mask_ratio": 0.4, "region": "blocks"}, 6),
        ({"mask_ratio": 0.25, "region": "square"}, 4),
        ({"mask_ratio": 0.01}, 1),
    ],
)
def test_as_many_patches_are_hidden_in_each_image(settings, count):
    model = model_of(**settings)
    visible, hidden = model.draw(torch.zeros(50, COUNT, 3 * PATCH**2))
    assert hidden.shape == (50, count) and visible.shape == (50, COUNT - count)
    assert (torch.cat([visible, hidden], dim=1).sort(1).values == torch.arange(COUNT)).all()
    assert (hidden.diff(dim=1) > 0).all() and (visible.diff(dim=1) > 0).all()
    assert len(hidden.unique(dim=0)) > 1
    if settings.get("mask_size"):
        corner = hidden // 4 // 2 * 2 + hidden % 4 // 2  # the unit of 2 x 2 patches
        assert all(sorted(row.unique(return_counts=True)[1].tolist()) == [4, 4] for row in corner)


def test_the_encoder_sees_all_patches_outside_of_the_objective():
    model, images = model_of(visible_only=True).eval(), images_of()
    plain = build_encoder(CONFIGS["vit"]()).eval()
    plain.load_state_dict(model.encoder.state_dict())
    model(pixel_values=images)
    assert torch.equal(model.encoder(images).last_hidden_state, plain(images).last_hidden_state)
    assert model(pixel_values=images).features.shape == model.encoder(images).last_hidden_state.mean(1).shape


@pytest.mark.parametrize("settings", [{}, {"visible_only": True}])
def test_gradient_checkpointing_changes_no_gradient(settings):
    model, images = model_of(**settings), images_of()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(5)
        model.zero_grad()
        model.train()(pixel_values=images).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("settings", [{}, {"visible_only": True}, {"target": "codes", "codebook_size": 8}])
def test_bfloat16_gives_about_the_loss_of_float32(settings):
    model, images = model_of(**settings), images_of()
    if settings.get("target"):
        with_codes(model, images)
    model.eval()
    exact = model(pixel_values=images).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pixel_values=images)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, exact, rtol=0.02, atol=0.02)


def test_codes_of_the_checkpoint_come_back(tmp_path):
    model, images = model_of(target="codes", codebook_size=8), images_of(8)
    with pytest.raises(ValueError, match="fit it first"):
        model.train()(pixel_values=images)
    with_codes(model, images).save_pretrained(tmp_path)
    loaded = MaskedImageForPreTraining.from_pretrained(tmp_path)
    assert loaded.prepared() == model.prepared() and loaded.prepared()["codebook"]["size"] == 8
    assert torch.equal(loaded(pixel_values=images).labels, model.eval()(pixel_values=images).labels)
    assert model_of().prepared() == {}


@pytest.mark.parametrize("settings", [{}, {"normalize_patches": False}, {"visible_only": True}])
def test_illustration_keeps_visible_patches(settings):
    model, images = model_of(**settings).eval(), images_of()
    shown = model.illustrate(pixel_values=images)
    assert list(shown) == ["image", "hidden patches", "predicted patches"]
    visible, _ = model.draw(patchify(images, PATCH))
    for title in ("hidden patches", "predicted patches"):
        patches = patchify(shown[title], PATCH)
        index = visible[..., None].expand(-1, -1, patches.shape[2])
        assert torch.equal(patches.gather(1, index), patchify(images, PATCH).gather(1, index))
    of_codes = with_codes(model_of(target="codes", codebook_size=4), images).eval()
    assert list(of_codes.illustrate(pixel_values=images)) == ["image", "hidden patches"]


@pytest.mark.parametrize("name", ["swin", "dinov3", "convnext"])
def test_encoders_that_cannot_skip_patches_are_refused(name):
    with pytest.raises(ValueError, match=r"can't skip patches: .* Leave --visible_only out, or give a ViT"):
        model_of(name, visible_only=True)(pixel_values=images_of())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("resnet", {"visible_only": True}, "ResNetModel has no sequence of patches, so it can't skip some"),
        ("vit", {"visible_only": True, "patch_size": 4}, "patch_size is 4, but ViTModel has patches of 8 pixels"),
        ("vit", {"mask_ratio": 1.0}, "mask_ratio must lie between 0 and 1"),
        ("vit", {"mask_size": 0}, "mask_size must be at least 1"),
        ("vit", {"mask_size": 16, "region": "blocks"}, "mask_size=16 is for region=random, not for region=blocks"),
        ("vit", {"codebook": "some/model"}, "codebook=some/model is for target=codes, .* default, None"),
        ("vit", {"target": "codes", "pixel_loss": "l1"}, "pixel_loss=l1 is for target=pixels, .* default, l2"),
        ("vit", {"target": "codes", "normalize_patches": False}, "normalize_patches=False is for target=pixels"),
        ("vit", {"decoder_layers": 2}, "decoder_layers=2 is for visible_only. Leave it at its default, 4"),
        ("vit", {"decoder_dim": 48, "visible_only": True}, "decoder_dim must be a multiple of 32"),
        ("vit", {"decoder_dim": 12}, "decoder_dim must be a multiple of 8"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, settings, words):
    with pytest.raises(ValueError, match=words):
        model_of(name, **settings)


@pytest.mark.parametrize("settings", [{"mask_size": 12}, {"mask_size": 24}, {"mask_size": 4}])
def test_a_mask_size_that_does_not_divide_the_image_is_refused(settings):
    with pytest.raises(ValueError, match=r"can't be hidden in squares of \d+x\d+ pixels"):
        model_of(**settings)(pixel_values=images_of())


def test_images_that_are_no_multiple_of_the_patch_size_or_not_square_are_refused():
    with pytest.raises(ValueError, match="Images of 36x36 pixels can't be cut into patches of 8x8"):
        model_of("resnet")(pixel_values=torch.randn(2, 3, 36, 36))
    for height, width in ((32, 48), (16, 64)):  # the second has as many patches as a square image
        with pytest.raises(ValueError, match=f"Square images are needed, but got {height}x{width}"):
            model_of("resnet")(pixel_values=torch.randn(2, 3, height, width))


@pytest.mark.parametrize("settings", [{}, {"visible_only": True}, {"region": "blocks"}])
def test_a_ratio_that_hides_all_patches_is_refused(settings):
    with pytest.raises(ValueError, match="mask_ratio 0.98 hides 16 of 16 patches"):
        model_of(mask_ratio=0.98, **settings)(pixel_values=images_of())


def test_a_square_that_hides_the_only_patch_is_refused():
    with pytest.raises(ValueError, match="mask_ratio 0.6 hides 0 of 1 patches"):
        model_of("resnet", region="square", patch_size=32)(pixel_values=images_of())


def test_the_first_step_may_be_in_bfloat16():
    model = model_of(visible_only=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(pixel_values=images_of()).loss.isfinite()


def test_an_error_of_the_image_size_is_not_one_of_skipping_patches():
    with pytest.raises(ValueError, match="doesn't match model"):
        model_of(visible_only=True)(pixel_values=torch.randn(2, 3, 64, 64))


def test_constant_images_have_a_finite_share_of_variance():
    output = model_of()(pixel_values=torch.zeros(2, 3, 32, 32))
    assert output.logs["explained"].isfinite()


@pytest.mark.parametrize("name", ["deit", "beit", "ijepa", "vit_msn"])
def test_other_encoders_that_the_docs_name_skip_patches(name, tmp_path):
    positions = {"use_absolute_position_embeddings": True} if name == "beit" else {}
    encoder = build_encoder(transformers.AutoConfig.for_model(name, **CONFIG, **positions))
    batch = {"pixel_values": images_of()}
    check_contract(MaskedImageForPreTraining, encoder, batch, tmp_path, **DECODER)


def test_codes_of_the_features_of_an_encoder_come_back(tmp_path):
    build_encoder(CONFIGS["dinov2"]()).save_pretrained(tmp_path / "features")
    model, images = model_of(target="codes", codebook_size=8, codebook=str(tmp_path / "features")), images_of(8)
    output = with_codes(model, images).eval()(pixel_values=images)
    codebook = model.pretext_head["codebook"]
    assert torch.equal(output.labels, codebook(images).gather(1, model.draw(patchify(images, PATCH))[1]))
    assert codebook.kind == "features" and len(output.labels.unique()) > 1
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "features").rename(tmp_path / "elsewhere")  # the checkpoint holds the encoder of the codebook
    loaded = MaskedImageForPreTraining.from_pretrained(tmp_path / "model").eval()
    assert loaded.prepared() == model.prepared()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    again = loaded(pixel_values=images)
    assert torch.equal(again.labels, output.labels) and torch.equal(again.loss, output.loss)
