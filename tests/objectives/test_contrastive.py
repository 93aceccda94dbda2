"""The published losses, the native checkpoints, big batches in pieces, and what is refused."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import CONFIGS, IMAGE, TEXT, VIT
from contract import check_contract
from open_clip.loss import ClipLoss, SigLipLoss
from torch import nn
from transformers import AutoModel

import hf_pretext
from hf_pretext.encoders import build_encoder
from hf_pretext.modules import losses
from hf_pretext.modules.dual_encoder import dual_encoder
from hf_pretext.modules.losses import sigmoid_loss, softmax_loss
from hf_pretext.objectives.contrastive import FRESH, ContrastiveForPreTraining

VISION = {**VIT, "patch_size": 8}
WORDS = {**TEXT, "max_position_embeddings": 16}
ENDS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)


def align_config():
    vision = dict(image_size=IMAGE, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=24)
    return transformers.AlignConfig(vision_config=vision, text_config=WORDS, projection_dim=80)


PAIRS = {
    "clip": lambda: transformers.CLIPConfig(vision_config=VISION, text_config={**WORDS, **ENDS}, projection_dim=24),
    "siglip": lambda: transformers.SiglipConfig(vision_config=VISION, text_config={**WORDS, **ENDS}),
    "siglip2": lambda: transformers.Siglip2Config(
        vision_config={**VISION, "num_patches": 16}, text_config={**WORDS, **ENDS}
    ),
    "chinese_clip": lambda: transformers.ChineseCLIPConfig(vision_config=VISION, text_config=WORDS, projection_dim=24),
    "align": align_config,
}
TOWERS = ("vit", "swin", "convnext", "timm_resnet18")


def pair_of(name: str, **settings) -> ContrastiveForPreTraining:
    if name in PAIRS:
        model = ContrastiveForPreTraining.from_encoder(PAIRS[name](), **settings)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and name == "align":  # or its pictures' embeddings begin at 1e-17
                nn.init.kaiming_normal_(module.weight)
        return model
    return ContrastiveForPreTraining.from_encoders(CONFIGS[name](), CONFIGS["bert"](), 24, **settings)


def batch_of(count: int = 6, length: int = 7, seed: int = 1) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 50, (count, length), generator=random)
    ids[:, -1] = 2  # the end of a text, where some pool
    return {
        "pixel_values": torch.randn(count, 3, IMAGE, IMAGE, generator=random),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }


def features(rows: int = 12, columns: int = 12, width: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    made = (torch.randn(n, width, generator=random, dtype=torch.float64) for n in (rows, columns))
    return tuple(F.normalize(value, dim=1).requires_grad_() for value in made)


def gradients(loss: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or dict(atol=1e-10, rtol=1e-10)))


@pytest.fixture(params=[2**22, 30], ids=["one tile", "tiles of 2 rows"])
def tile(request, monkeypatch):
    monkeypatch.setattr(losses, "TILE", request.param)


# losses


def test_softmax_equals_open_clips(tile):
    images, texts = features()
    scale, labels = torch.tensor(14.3, dtype=torch.float64, requires_grad=True), torch.arange(12)
    ours = softmax_loss(images, texts, scale, labels, labels)
    theirs = ClipLoss()(images, texts, scale)
    same(gradients(ours, images, texts, scale), gradients(theirs, images, texts, scale))


def test_sigmoid_equals_open_clips(tile):
    images, texts = features()
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (10.0, -10.0))
    ours = sigmoid_loss(images, texts, scale, bias, torch.arange(12), torch.arange(12))
    theirs = SigLipLoss()(images, texts, scale, bias)
    same(gradients(ours, images, texts, scale, bias), gradients(theirs, images, texts, scale, bias))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("both", [True, False])
def test_softmax_with_several_right_ones(tile, smoothing, both):
    """UniCL's: the targets are one matrix, divided by its rows, or its columns."""
    images, texts = features(columns=15)
    row_labels, column_labels = torch.arange(12) % 5, torch.arange(15) % 5
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    ours = softmax_loss(images, texts, scale, row_labels, column_labels, smoothing, both)
    right = (row_labels[:, None] == column_labels).double()
    scores = scale * images @ texts.T
    ways = [(scores, right), (scores.T, right.T)][: 1 + both]
    theirs = sum(F.cross_entropy(s, r / r.sum(1, keepdim=True), label_smoothing=smoothing) for s, r in ways) / len(ways)
    same(gradients(ours, images, texts, scale), gradients(theirs, images, texts, scale))


def test_sigmoid_with_several_right_ones(tile):
    images, texts = features(columns=15)
    row_labels, column_labels = torch.arange(12) % 5, torch.arange(15) % 5
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (4.0, -2.0))
    ours = sigmoid_loss(images, texts, scale, bias, row_labels, column_labels)
    sign = 2.0 * (row_labels[:, None] == column_labels) - 1
    theirs = -F.logsigmoid(sign * (scale * images @ texts.T + bias)).sum() / 12
    same(gradients(ours, images, texts, scale, bias), gradients(theirs, images, texts, scale, bias))


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
    """On the same weights and batch, with every gradient."""
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


def test_towers_keep_their_weights_and_are_trained_in_place():
    vision, text = build_encoder(CONFIGS["vit"]()), build_encoder(CONFIGS["bert"]())
    before = {**vision.state_dict(prefix="v."), **text.state_dict(prefix="t.")}
    before = {name: value.clone() for name, value in before.items()}
    model = ContrastiveForPreTraining.from_encoders(vision, text)
    assert model.encoders == {"image": vision, "text": text}
    for name, value in {**vision.state_dict(prefix="v."), **text.state_dict(prefix="t.")}.items():
        assert torch.equal(value, before[name]), name


def test_going_on_from_a_checkpoint(tmp_path):
    model = pair_of("convnext", loss="sigmoid", patch_dropout=0.0)
    with torch.no_grad():
        model.bias.fill_(-3.5)
    model.save_pretrained(tmp_path)
    assert hf_pretext.load(tmp_path).bias.item() == -3.5
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["VisionTextDualEncoderModel"]
    assert config["vision_config"]["hidden_size"] == 32


# big batches


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


# settings


@pytest.mark.parametrize("name", ["vit", "clip", "siglip", "siglip2", "chinese_clip", "timm_resnet18", "swin"])
def test_patch_dropout(name):
    if name in ("timm_resnet18", "swin"):
        with pytest.raises(ValueError, match="patch_dropout needs a tower whose patches are a sequence"):
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


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_frozen_tower(name):
    model = pair_of("vit", frozen=name)
    model.train()(**batch_of()).loss.backward()
    assert all(p.grad is None for p in model.encoders[name].parameters())
    assert not model.encoders[name].training
    other = model.encoders["text" if name == "image" else "image"]
    assert other.training and any(p.grad is not None for p in other.parameters())
    assert model.full_model.visual_projection.weight.grad is not None


def test_a_frozen_tower_goes_through_its_pieces_once():
    found, seen = [], []
    for size in (None, 4):
        torch.manual_seed(0)
        model = pair_of("vit", frozen="vision", embed_batch_size=size).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.encoder.register_forward_hook(lambda *_: seen.append(1))
        output = model(**batch_of(10))
        output.loss.backward()
        found.append([output.loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    same(*found, atol=1e-5, rtol=0)
    assert len(seen) == 1 + 3


def test_a_frozen_tower_sees_all_its_patches():
    model = pair_of("vit", frozen="vision", patch_dropout=0.5).train()
    seen = []
    model.encoder.layers[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape[1]))
    model(**batch_of())
    assert seen == [1 + (IMAGE // 8) ** 2]


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
    with pytest.raises(ValueError, match="give both in one"):
        ContrastiveForPreTraining.from_encoders(towers[0], CONFIGS["bert"]())


def test_embeddings_in_mixed_precision_have_length_one():
    with torch.autocast("cpu", torch.bfloat16):
        features = pair_of("vit")(**batch_of()).features
    assert features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(6), atol=1e-6)


def test_a_scale_does_not_go_with_a_fresh_bias():
    """A sigmoid's bias is a head of ours where the architecture has none: without it, its scale means nothing."""
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
    assert model.eval()(**batch_of(6), labels=labels).logs.keys() == {"accuracy"}  # the others tell of training alone
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


# what is refused


@pytest.mark.parametrize(
    "vision, text, message",
    [
        ("resnet", "bert", r"ResNetModel gives vectors of shape \(16, 1, 1\).* Take ViT, Swin"),
        ("vit", "modernbert", "ModernBertModel gives no pooled output.* Take BERT, RoBERTa or CLIP"),
        ("bert", "bert", "needs an encoder of the kind image"),
        ("vit", "vit", "needs an encoder of the kind text"),
    ],
)
def test_towers_that_can_not_be_stored_are_refused(vision, text, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveForPreTraining.from_encoders(CONFIGS[vision](), CONFIGS[text]())


def test_what_embeds_no_pairs_is_refused():
    with pytest.raises(ValueError, match="ViTModel does not embed images and texts"):
        ContrastiveForPreTraining.from_encoder(CONFIGS["vit"]())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"loss": "hinge"}, "loss"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, but is 1.0"),
        ({"patch_dropout": -0.1}, "patch_dropout must be at least 0"),
        ({"embed_batch_size": 0}, "embed_batch_size must be at least 1, but is 0"),
        ({"loss": "sigmoid", "label_smoothing": 0.1}, "of loss='softmax' alone"),
        ({"exchange": "ring"}, "a softmax needs all scores"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pair_of("clip", **settings)


def test_batches_that_are_refused():
    model, batch = pair_of("clip"), batch_of()
    with pytest.raises(ValueError, match="6 images came with 5 captions"):
        model(**{**batch, "input_ids": batch["input_ids"][:5], "attention_mask": batch["attention_mask"][:5]})
    with pytest.raises(ValueError, match="A batch of one pair"):
        model.train()(**batch_of(1))
    with pytest.raises(ValueError, match="needs labels in the batch"):
        pair_of("clip", positives="label")(**batch)
    with pytest.raises(ValueError, match="6 pairs came with 3 labels"):
        pair_of("clip", positives="label")(**batch, labels=torch.arange(3))
    model.full_model.text_projection = nn.Linear(32, 10)
    with pytest.raises(ValueError, match="embedded in 24 numbers, captions in 10"):
        model(**batch)


def test_a_temperature_that_is_not_a_number_is_refused():
    full = transformers.CLIPModel(PAIRS["clip"]())
    with torch.no_grad():
        full.logit_scale.fill_(float("nan"))
    with pytest.raises(ValueError, match="temperature of CLIPModel is not a number"):
        ContrastiveForPreTraining.from_encoder(full)


def test_a_checkpoint_that_has_diverged_is_refused(tmp_path):
    model = pair_of("clip")
    with torch.no_grad():
        model.full_model.logit_scale.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is not a number"):
        hf_pretext.load(tmp_path)
