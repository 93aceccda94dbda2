"""Two towers as one model: how they are put together, big batches in pieces, patches that are dropped."""

import math
from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import CONFIGS, IMAGE
from torch import nn
from towers import PAIRS, batch_of, pair_of, same

from hf_pretext import ContrastiveForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.modules.dual_encoder import (
    StatisticsKept,
    TwoTowers,
    batch_norm_note,
    batch_norms,
    blank,
    check_pairs,
    clamp_scale,
    dropped_patches,
    dual_encoder,
    image_inputs,
    in_pieces,
    normalised,
    pair_labels,
    scale_of,
)


def test_a_temperature_stays_above_0_for_a_sigmoid():
    model = pair_of("align", loss="sigmoid").train()
    with torch.no_grad():
        model.full_model.temperature.fill_(-1e-3)
    assert model(**batch_of()).logs["scale"].item() == pytest.approx(100)


@pytest.mark.parametrize("name", ["clip", "align"])
def test_the_scale_stays_at_most_at_a_hundred_and_can_come_back(name):
    model = pair_of(name)
    with torch.no_grad():
        parameter = model.full_model.logit_scale if name == "clip" else model.full_model.temperature
        parameter.fill_(math.log(300) if name == "clip" else 1 / 300)
    output = model.train()(**batch_of())
    assert output.logs["scale"].item() == pytest.approx(100)
    output.loss.backward()
    assert parameter.grad.abs() > 0


def test_towers_keep_their_weights_and_are_trained_in_place():
    vision, text = build_encoder(CONFIGS["vit"]()), build_encoder(CONFIGS["bert"]())
    before = {**vision.state_dict(prefix="v."), **text.state_dict(prefix="t.")}
    before = {name: value.clone() for name, value in before.items()}
    model = ContrastiveForPreTraining.from_encoders(vision, text)
    assert model.encoders == {"image": vision, "text": text}
    for name, value in {**vision.state_dict(prefix="v."), **text.state_dict(prefix="t.")}.items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("settings", [{}, {"loss": "sigmoid"}, {"positives": "label", "label_smoothing": 0.1}])
@pytest.mark.parametrize("size", [1, 4, 5])
def test_pieces_equal_the_whole_batch(settings, size):
    batch = {**batch_of(10), "labels": torch.arange(10) % 4}
    found = []
    for embed_batch_size in (None, size):
        torch.manual_seed(0)
        model = pair_of("vit", embed_batch_size=embed_batch_size, **settings).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        output = model(**batch)
        output.loss.backward()
        found.append([output.loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > 30
    same(*found, atol=1e-5, rtol=0)


def test_pieces_with_dropout_equal_the_same_pieces_with_their_graphs_kept(monkeypatch):
    found = []
    for kept in (True, False):
        if kept:
            monkeypatch.setattr("hf_pretext.modules.dual_encoder.checkpoint", lambda function, *a, **_: function(*a))
        else:
            monkeypatch.undo()
        torch.manual_seed(0)
        model = pair_of("vit", embed_batch_size=4, patch_dropout=0.5).train()
        assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
        output = model(**batch_of(10))
        output.loss.backward()
        found.append([output.loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    same(*found, atol=1e-7, rtol=1e-6)


def test_pieces_in_mixed_precision_and_accumulated():
    batches, found = [batch_of(10, seed=seed) for seed in (1, 2)], []
    for embed_batch_size in (None, 4):
        torch.manual_seed(0)
        model = pair_of("vit", embed_batch_size=embed_batch_size).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16):
                output = model(**batch)
            assert output.loss.dtype == torch.float32
            (output.loss / 2).backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    for full, pieces in zip(*found, strict=True):  # of numbers with 8 binary digits
        assert (full - pieces).norm() <= 0.03 * full.norm() + 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pieces_on_a_gpu():
    """In bf16 with dropout: the random numbers of the device are those of the first pass."""
    found = []
    for kept in (True, False):
        torch.manual_seed(0)
        model = pair_of("vit", embed_batch_size=4).cuda().train()
        batch = {name: value.cuda() for name, value in batch_of(10).items()}
        with pytest.MonkeyPatch.context() as patch, torch.autocast("cuda", torch.bfloat16):
            if kept:
                patch.setattr("hf_pretext.modules.dual_encoder.checkpoint", lambda function, *a, **_: function(*a))
            loss = model(**batch).loss
            loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    same(*found, atol=1e-3, rtol=1e-2)


def test_a_graph_of_pieces_can_be_gone_through_twice():
    model = pair_of("timm_resnet18", embed_batch_size=2).train()
    loss = model(**batch_of(6)).loss
    found = []
    for _ in range(2):
        model.zero_grad()
        loss.backward(retain_graph=True)
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    same(*found, atol=1e-6, rtol=1e-5)


def test_batch_norm_counts_each_piece_once():
    model = pair_of("timm_resnet18", embed_batch_size=4).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model(**batch_of(8)).loss.backward()
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}
    after = {name: value.clone() for name, value in model.named_buffers()}
    again = pair_of("timm_resnet18", embed_batch_size=4).train()
    again.load_state_dict({**model.state_dict(), **dict(again.named_buffers())}, strict=False)
    with torch.no_grad():
        again(**batch_of(8))
    for name, value in again.named_buffers():
        torch.testing.assert_close(after[name], value)


@pytest.mark.parametrize("name", ["vit", "clip", "siglip", "siglip2", "chinese_clip", "timm_resnet18", "swin"])
def test_patch_dropout(name):
    if name in ("timm_resnet18", "swin"):
        with pytest.raises(ValueError, match="needs an image encoder with a sequence of patches"):
            pair_of(name, patch_dropout=0.5)
        return
    model, seen = pair_of(name, patch_dropout=0.5), []
    layer = next(m for n, m in model.encoder.named_modules() if n.endswith(("layers.0", "layer.0")))
    layer.register_forward_pre_hook(lambda module, a, k: seen.append((a or (k["hidden_states"],))[0]), with_kwargs=True)
    model.train()(**batch_of())
    model.eval()(**batch_of())
    first = 0 if name.startswith("siglip") else 1
    assert [tokens.shape[1] for tokens in seen] == [first + 8, first + 16]
    full = seen[1].detach()
    if name in ("vit", "siglip"):  # no dropout, no norm before the layers: what is left is some of what was there
        for left, all_ in zip(seen[0], full, strict=True):
            nearest = torch.cdist(left, all_).argmin(1)
            assert len(nearest.unique()) == len(left)
            torch.testing.assert_close(left, all_[nearest])
        places = [torch.cdist(left, all_).argmin(1) for left, all_ in zip(seen[0], full, strict=True)]
        assert any(not torch.equal(places[0].sort().values, other.sort().values) for other in places[1:])


def test_a_frozen_tower_goes_through_its_pieces_once():
    found, seen = [], []
    for size in (None, 4):
        torch.manual_seed(0)
        model = pair_of("vit", frozen="image", embed_batch_size=size).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.encoder.register_forward_hook(lambda *_: seen.append(1))
        output = model(**batch_of(10))
        output.loss.backward()
        found.append([output.loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    same(*found, atol=1e-5, rtol=0)
    assert len(seen) == 1 + 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_towers_in_few_digits(dtype):
    """The projections are of their type; embeddings have length 1 in float32, and the loss is of that."""
    towers = [build_encoder(CONFIGS[name]()).to(dtype) for name in ("vit", "bert")]
    model = ContrastiveForPreTraining.from_encoders(*towers, 24)
    assert {p.dtype for p in model.full_model.parameters() if p.ndim} == {dtype}
    batch = batch_of()
    output = model(**{**batch, "pixel_values": batch["pixel_values"].to(dtype)})
    assert output.loss.dtype == output.features.dtype == torch.float32
    assert torch.allclose(output.features.norm(dim=1), torch.ones(6), atol=1e-6)
    with pytest.raises(ValueError, match="Give both in one dtype"):
        ContrastiveForPreTraining.from_encoders(towers[0], CONFIGS["bert"]())


def test_embeddings_in_mixed_precision_have_length_one():
    with torch.autocast("cpu", torch.bfloat16):
        features = pair_of("vit")(**batch_of()).features
    assert features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(6), atol=1e-6)


@pytest.mark.parametrize(
    "vision, text, message",
    [
        ("resnet", "bert", r"ResNetModel gives vectors of shape \(16, 1, 1\).* image encoder, for example ViT, Swin"),
        ("vit", "modernbert", "ModernBertModel gives no pooled output.* text encoder, for example BERT, RoBERTa"),
        ("bert", "bert", "image encoder must accept image inputs"),
        ("vit", "vit", "text encoder must accept text inputs"),
    ],
)
def test_towers_that_can_not_be_stored_are_refused(vision, text, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveForPreTraining.from_encoders(CONFIGS[vision](), CONFIGS[text]())


def test_what_embeds_no_pairs_is_refused():
    with pytest.raises(ValueError, match="ViTModel does not embed images and texts"):
        ContrastiveForPreTraining.from_encoder(CONFIGS["vit"]())


# what is put together


def test_two_encoders_become_one_model_with_fresh_projections():
    image, text = build_encoder(CONFIGS["convnext"]()).train(), build_encoder(CONFIGS["bert"]()).eval()
    model = dual_encoder(image, text, 24)
    assert model.vision_model is image and model.text_model is text
    assert model.visual_projection.weight.shape == model.text_projection.weight.shape == (24, 32)
    assert model.config.vision_config.hidden_size == 32  # ConvNext's config names none
    assert image.training and not text.training  # which trying them out leaves alone
    assert model.config.text_config.model_type == "bert"


def test_configs_of_other_towers_go_in_place_of_some():
    config = dual_encoder(CONFIGS["vit"](), CONFIGS["bert"](), 24).config
    other = TwoTowers.with_encoders(config, {"image": CONFIGS["dinov2"]()})
    assert other.vision_config.model_type == "dinov2" and other.projection_dim == 24
    assert other.text_config.to_diff_dict() == config.text_config.to_diff_dict()


def test_a_scale_comes_from_a_logarithm_or_a_temperature():
    logarithm = SimpleNamespace(logit_scale=nn.Parameter(torch.tensor([2.0]).log()))
    assert scale_of(logarithm).shape == () and scale_of(logarithm).item() == pytest.approx(2)
    assert scale_of(SimpleNamespace(temperature=nn.Parameter(torch.tensor(0.25)))).item() == 4


@pytest.mark.parametrize(("bounded", "scale"), [(True, 100.0), (False, 300.0)])
def test_a_scale_is_kept_at_most_at_a_hundred_where_it_is_bounded(bounded, scale):
    model = SimpleNamespace(logit_scale=nn.Parameter(torch.tensor(300.0).log()))
    clamp_scale(model, bounded)
    assert scale_of(model).item() == pytest.approx(scale, rel=1e-5)
    for temperature in (1 / 300, -1.0):
        model = SimpleNamespace(temperature=nn.Parameter(torch.tensor(temperature)))
        clamp_scale(model, bounded)
        assert scale_of(model).item() == pytest.approx(100)


def test_embeddings_come_to_length_1_in_float32_or_better():
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        found = normalised(torch.tensor([[3, 4], [0, 2]], dtype=dtype))
        assert found.dtype == expected and found.flatten().tolist() == pytest.approx([0.6, 0.8, 0, 1])


def test_each_pair_is_its_own_label_where_there_are_none():
    for training in (True, False):
        assert pair_labels(None, 3, torch.device("cpu"), training).tolist() == [0, 1, 2]
    labels = torch.tensor([5, 5, 1])
    assert pair_labels(labels, 3, labels.device, True) is labels


@pytest.mark.parametrize(
    ("images", "texts", "labels", "training", "message"),
    [
        ((3, 8), (2, 8), None, False, "3 images came with 2 captions"),
        ((3, 8), (3, 9), None, False, "have width 8, but caption embeddings have width 9"),
        ((3, 8), (3, 8), 2, False, "3 pairs came with 2 labels"),
        ((1, 8), (1, 8), None, True, "at least 2 pairs per global batch, but got 1"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(images, texts, labels, training, message):
    with pytest.raises(ValueError, match=message):
        check_pairs(torch.zeros(images), torch.zeros(texts), labels and torch.zeros(labels), training)
    check_pairs(torch.zeros(1, 8), torch.zeros(1, 8), torch.zeros(1), False)


# pieces and patches


def test_rows_go_through_a_tower_in_pieces_and_in_order():
    tower, sizes = nn.Linear(4, 3), []
    rows, more = torch.randn(10, 4), torch.randn(10, 1)

    def embed(part, other):
        sizes.append(len(part))
        return tower(part) + other

    for size, expected in ((None, [10]), (10, [10]), (4, [4, 4, 2])):
        sizes.clear()
        torch.testing.assert_close(in_pieces(embed, size, tower, rows, more), tower(rows) + more)
        assert sizes == expected
    sizes.clear()
    in_pieces(embed, 4, tower, rows, more).sum().backward()
    assert sorted(sizes) == [2, 2, 4, 4, 4, 4]  # each once more for its gradient


def test_statistics_stay_while_a_piece_is_computed_again():
    tower = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False)).train()
    assert batch_norms(tower) == [tower[0]]
    kept = StatisticsKept(tower)
    for _ in range(2):
        with kept:
            tower(5 + torch.randn(6, 4))
        assert not tower[0].running_mean.any() and tower[0].num_batches_tracked == 0 and tower[0].momentum == 0.1
    tower(5 + torch.randn(6, 4))
    assert tower[0].running_mean.mean() > 0.3 and tower[0].num_batches_tracked == 1


@pytest.mark.parametrize(("share", "left"), [(0.0, 16), (0.25, 12), (0.5, 8), (0.99, 1)])
def test_a_share_of_patches_is_dropped_and_only_meanwhile(share, left):
    tower, pixels = build_encoder(CONFIGS["vit"]()).eval(), torch.randn(2, 3, IMAGE, IMAGE)
    with dropped_patches(tower, share):
        assert tower(pixels).last_hidden_state.shape == (2, 1 + left, 32)
        with pytest.raises(RuntimeError), dropped_patches(tower, share):
            raise RuntimeError
    assert tower(pixels).last_hidden_state.shape == (2, 17, 32)


def test_a_blank_image_is_of_the_towers_size_and_type():
    for name, side in (("vit", IMAGE), ("timm_resnet18", 64)):
        found = blank(build_encoder(CONFIGS[name]()).half())
        assert found.shape == (2, 3, side, side) and found.dtype == torch.float16 and not found.any()


def test_siglip_2_gets_patches_as_its_own_processor_cuts_them():
    from transformers import Siglip2ImageProcessor

    model = transformers.Siglip2Model(PAIRS["siglip2"]())
    images = torch.randint(0, 256, (2, 3, IMAGE, IMAGE), dtype=torch.uint8)
    processor = Siglip2ImageProcessor(do_resize=False, do_rescale=False, do_normalize=False, patch_size=8)
    expected = processor([*images], max_num_patches=16, return_tensors="pt")
    found = image_inputs(model, images.float())
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value.double(), expected[name].double()), name
    plain = transformers.SiglipModel(PAIRS["siglip"]())
    assert image_inputs(plain, images) == {"pixel_values": images}


@pytest.mark.parametrize(
    ("settings", "batch_size", "noted"),
    [
        (dict(embed_batch_size=4), 8, True),
        (dict(embed_batch_size=8), 8, False),
        (dict(embed_batch_size=4, frozen="image"), 8, False),
        ({}, 8, False),
    ],
    ids=["pieces", "a full batch", "a frozen tower", "not asked for"],
)
def test_batch_norm_of_pieces_is_noted(settings, batch_size, noted):
    """A ResNet normalises, BERT does not."""
    towers = CONFIGS["timm_resnet18"](), CONFIGS["bert"]()
    model = ContrastiveForPreTraining.from_encoders(*towers, 8, **settings)
    note = batch_norm_note(model, batch_size)
    assert ("batch norm normalises each piece of 4 separately" in note) if noted else note is None
