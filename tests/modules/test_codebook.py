"""Visual tokens: codes of the nearest centres, encoders that describe patches, DALL-E's codebook."""

import math
import sys

import numpy as np
import pytest
import torch
from codebooks import PATCHES, encoder_of, fitted, one_thread, pixels_of, ready, unlike  # noqa: F401
from conftest import CONFIGS, IMAGE
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import nn
from transformers import (
    AutoModel,
    Dinov2WithRegistersConfig,
    FlavaImageProcessor,
    ViTConfig,
    ViTModel,
)

from hf_pretext.modules.codebook import PatchCodebook, ReadyCodebook
from hf_pretext.modules.patches import patchify


@pytest.fixture
def images(emoji):
    """64 of the embedded set: 1024 patches of 8 x 8 pixels."""
    return pixels_of(emoji())


# codes


def test_codes_are_of_the_nearest_centres_and_row_by_row(images):
    codebook = fitted(images)
    patches = patchify(images, 8).double()
    expected = torch.cdist(patches, codebook.centres.double()).argmin(2)
    codes = codebook(images)
    assert codes.dtype == torch.int64 and codes.shape == (64, 16) and unlike(codes) == 32
    assert torch.equal(codes, expected)


def test_codes_are_those_of_float32_under_autocast(images):
    for codebook in (fitted(images, size=200), PatchCodebook(200, 8, encoder_of("vit")), ready()):
        if not codebook.fitted:
            codebook.fit([images], progress=False)
        expected = codebook(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(codebook(images), expected)
            inside = type(codebook).forward.__wrapped__  # without what keeps it exact
            assert not torch.equal(inside(codebook, images), expected) or codebook.kind == "features"


def test_images_that_do_not_fit(images):
    with pytest.raises(ValueError, match="Images of 32x32 pixels can't be cut into patches of 5x5"):
        PatchCodebook(4, 5).fit([images])
    with pytest.raises(ValueError, match="Images of 32x32 pixels can't be cut into patches of 5x5"):
        ready(5)(images)


@pytest.mark.parametrize("size, patch_size", [(1, 8), (8, 0)])
def test_sizes_that_make_no_sense(size, patch_size):
    with pytest.raises(ValueError, match=f"not {size} and {patch_size}"):
        PatchCodebook(size, patch_size)


def test_a_codebook_that_was_not_fitted_is_refused(images):
    codebook = PatchCodebook(8, 8)
    assert not codebook.fitted
    for use in (lambda: codebook(images), lambda: codebook.perplexity):
        with pytest.raises(ValueError, match="8 codes has no centres yet: fit it first with .* or load"):
            use()
    codebook.load_state_dict(fitted(images, 8).state_dict())
    assert codebook.fitted and codebook(images).shape == (64, 16)


# fitting


def test_the_same_batches_and_seed_give_the_same_centres(images):
    torch.set_num_threads(2)
    with threadpool_limits(2):
        first, again, other = fitted(images), fitted(images), fitted(images, seed=1)
    assert torch.equal(first.centres, again.centres) and torch.equal(first.counts, again.counts)
    assert not torch.equal(first.centres, other.centres)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_centres_and_codes_are_the_same_on_a_gpu(images):
    expected, codebook = fitted(images), PatchCodebook(32, 8).cuda()
    codebook.fit(images.split(10), progress=False)
    assert codebook.centres.is_cuda and torch.equal(codebook.centres.cpu(), expected.centres)
    assert torch.equal(codebook(images.cuda()).cpu(), expected(images))


def test_fitting_leaves_the_global_generators_alone(images):
    ours, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    fitted(images)
    assert torch.equal(torch.get_rng_state(), ours) and (np.random.get_state()[1] == numpys).all()


def test_fitting_returns_its_metrics(images):
    codebook = PatchCodebook(32, 8)
    fit = codebook.fit(images.split(10), progress=False)
    patches, codes = patchify(images, 8).flatten(0, 1), codebook(images).flatten()
    counts = np.bincount(codes, minlength=32)
    assert fit["patches"] == 1024 and fit["dead"] == 0
    assert codebook.counts.tolist() == counts.tolist()
    shares = [count / 1024 for count in counts.tolist()]
    assert fit["perplexity"] == pytest.approx(math.prod(share**-share for share in shares)) == codebook.perplexity
    assert 1 < fit["perplexity"] < 32
    assert fit["error"] == pytest.approx(float((patches - codebook.centres[codes]).square().mean()), rel=1e-4)


def test_no_more_patches_are_seen_than_asked_for(images):
    asked = []

    def batches():
        for part in images.split(10):
            asked.append(len(part))
            yield part

    codebook = PatchCodebook(8, 8)
    assert codebook.fit(batches(), patches=200, progress=False)["patches"] == 200
    assert asked == [10, 10] and codebook.counts.sum() == 200
    assert torch.equal(codebook.centres, fitted(images[:13], 8, patches=200).centres)


def test_fewer_patches_than_codes_are_refused(images):
    with pytest.raises(ValueError, match=r"65 codes needs .* the 64 given .* only 6\d .* Give fewer codes"):
        fitted(images[:4], 65)
    one = images[:1, :, :8, :8].repeat(100, 1, 4, 4)  # 1600 times the same patch
    with pytest.raises(ValueError, match="2 codes needs .* the 1600 given .* only 1 "):
        fitted(one, 2)
    with pytest.raises(ValueError, match="the 0 given patches"):
        PatchCodebook(2, 8).fit([], progress=False)


def test_as_many_codes_as_patches_take_one_each():
    images = torch.randn(4, 3, 32, 32).repeat(3, 1, 1, 1)
    codebook = PatchCodebook(64, 8)
    fit = codebook.fit([images], progress=False)
    assert codebook.counts.tolist() == [3.0] * 64
    assert fit["perplexity"] == pytest.approx(64) and fit["error"] == 0


def test_progress_is_shown_and_goes_away(images, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    PatchCodebook(8, 8).fit([images])
    shown = capsys.readouterr().err
    assert "fitting the codebook:" in shown and "patches/s" in shown
    assert not shown.split("\r")[-2].strip()  # the bar was wiped out
    PatchCodebook(8, 8).fit([images], progress=False)
    assert not capsys.readouterr().err


# encoders that describe patches


@pytest.mark.parametrize("kind, patch_size", PATCHES.items())
def test_patches_are_described_by_an_encoders_last_states(kind, patch_size, images):
    torch.manual_seed(0)
    encoder = encoder_of(kind)
    codebook = PatchCodebook(6, patch_size, encoder)
    patches = (IMAGE // patch_size) ** 2
    images = images[:16]
    described = codebook.describe(images)
    with torch.no_grad():
        hidden = encoder.eval()(images).last_hidden_state
    assert described.shape == (16, patches, codebook.centres.shape[1])
    if hidden.ndim == 4:
        expected = torch.stack([hidden[:, :, i, j] for i in range(hidden.shape[2]) for j in range(hidden.shape[3])], 1)
    else:
        expected = hidden[:, hidden.shape[1] - patches :]
    assert torch.equal(described, expected)
    fit = codebook.fit(images.split(10), progress=False)
    codes = codebook(images)
    assert fit["dead"] == 0 and unlike(codes) == 6
    assert torch.equal(codes, torch.cdist(described.double(), codebook.centres.double()).argmin(2))


def test_tokens_that_are_no_patches_are_left_out(images):
    config = CONFIGS["dinov2"]().to_dict() | {"num_register_tokens": 4}
    encoder = AutoModel.from_config(Dinov2WithRegistersConfig(**config))
    described = PatchCodebook(6, 8, encoder).describe(images)
    with torch.no_grad():
        assert torch.equal(described, encoder.eval()(images).last_hidden_state[:, 5:])


@pytest.mark.parametrize("kind, patch_size, gives", [("vit", 4, "17 tokens"), ("vit", 16, "17"), ("resnet", 16, "8x8")])
def test_another_grid_is_refused(kind, patch_size, gives, images):
    if kind == "resnet":
        gives = "x".join(map(str, encoder_of(kind)(images).last_hidden_state.shape[2:])) + " cells"
    cells = IMAGE // patch_size
    with pytest.raises(ValueError, match=f"gives {gives}.* but the codebook needs {cells}x{cells} patches"):
        PatchCodebook(6, patch_size, encoder_of(kind)).describe(images)


def test_an_encoder_of_something_else_is_refused():
    with pytest.raises(ValueError, match="image encoder must accept image inputs"):
        PatchCodebook(6, 8, encoder_of("bert"))


def test_the_encoder_stays_as_it_is(images):
    for codebook in (PatchCodebook(6, 8, ViTModel(ViTConfig(**dropping()))), ready()):
        nn.ModuleDict({"pretext_head": codebook}).train()
        assert not any(module.training for module in codebook.modules())
        assert not any(parameter.requires_grad for parameter in codebook.parameters())
        codebook.fit([images], progress=False)
        images.requires_grad_()
        codes = codebook(images)
        assert torch.equal(codebook(images), codes) and unlike(codes) > 1
        if isinstance(codebook, PatchCodebook):
            assert not codebook.describe(images).requires_grad
        images = images.detach()


def dropping() -> dict:
    return CONFIGS["vit"]().to_dict() | {"hidden_dropout_prob": 0.5}


# a ready codebook


def by_hand(codebook: ReadyCodebook, image: Image.Image, side: int) -> torch.Tensor:
    size = {"height": side, "width": side}
    processor = FlavaImageProcessor(codebook_size=size, codebook_crop_size=size, codebook_resample=3)
    pixels = processor(image, return_codebook_pixels=True, return_tensors="pt")["codebook_pixel_values"]
    return codebook.codebook.get_codebook_indices(pixels).flatten(1)


@pytest.mark.parametrize("patch_size", [8, 16])  # images of the codebook's size, and of twice that size
def test_ready_codes_are_those_of_flavas_own_pixels(patch_size, emoji):
    rows = emoji(count=8)
    side = 4 * patch_size
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    codebook = ready(patch_size, mean=mean, std=std)
    raw = (pixels_of(rows, side) + 1) / 2
    images = (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    codes = codebook(images)
    assert codebook.fitted and codebook.size == 64 and codebook.fit([images]) == {}
    assert codes.shape == (8, 16) and codes.dtype == torch.int64 and unlike(codes) > 5
    files = [Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()) for image in raw]
    expected = torch.cat([by_hand(codebook, image, 32) for image in files])
    same = (codes == expected).float().mean()
    assert same == 1 if patch_size == 8 else same > 0.95  # FLAVA's resizing rounds


def test_a_ready_codebooks_cells_are_within_their_bounds(images):
    cells = ready(4)(images), ready(4).cells(images)
    assert cells[0].shape == (64, 64) and cells[1].shape == (64, 3, 64, 64)
    assert cells[1].min() == pytest.approx(0.1) and cells[1].max() == pytest.approx(0.9)
