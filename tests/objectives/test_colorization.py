import numpy as np
import pytest
import torch
from conftest import CONFIGS, IMAGE
from contract import check_bfloat16, check_contract
from transformers import ViTImageProcessor

from hf_pretext.encoders import build_encoder
from hf_pretext.modules.lab import lab_of
from hf_pretext.objectives.colorization import ColorizationForPreTraining

SMALL = {"color_grid": 4, "head_dim": 16, "bin_size": 20}


def model_of(name: str = "resnet", **settings) -> ColorizationForPreTraining:
    return ColorizationForPreTraining.from_encoder(build_encoder(CONFIGS[name]()), **{**SMALL, **settings})


def images_of(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, IMAGE, IMAGE) * 2 - 1


@pytest.mark.parametrize("name", ["vit", "swin", "resnet", "convnext", "timm_vit_tiny"])
def test_contract(name, tmp_path):
    check_contract(
        ColorizationForPreTraining, build_encoder(CONFIGS[name]()), {"pixel_values": images_of()}, tmp_path, **SMALL
    )


def reference(model, images: np.ndarray) -> float:
    """The loss cell by cell, in NumPy, from the model's own logits."""
    cells = model.task.color_grid
    rgb = torch.tensor(images.reshape(len(images), 3, cells, IMAGE // cells, cells, -1).mean((3, 5))) / 2 + 0.5
    ab = lab_of(rgb)[:, 1:].numpy()
    logits = model(pixel_values=torch.tensor(images)).logits.detach().numpy()
    bins, weights, total = model.pretext_head.bins.centers.numpy(), model.pretext_head.weights.numpy(), []
    for b, y, x in np.ndindex(len(images), cells, cells):
        distance = np.sqrt(((ab[b, :, y, x] - bins) ** 2).sum(1))
        nearest = distance.argsort()[:5]
        near = np.exp(-(distance[nearest] ** 2) / (2 * 5**2))
        scores = logits[b, :, y, x] - logits[b, :, y, x].max()
        log_p = scores - np.log(np.exp(scores).sum())
        total.append(-weights[nearest[0]] * (near / near.sum() * log_p[nearest]).sum())
    return float(np.mean(total))


def test_loss_is_that_of_the_reference():
    model = model_of().eval()
    model.pretext_head.weights.copy_(torch.rand(len(model.pretext_head.bins)) + 0.5)
    images = images_of()
    assert model(pixel_values=images).loss.item() == pytest.approx(reference(model, images.numpy()), rel=1e-4)


def test_the_encoder_sees_grey_of_the_same_lightness():
    model, images = model_of(), images_of()
    gray, ab = model.split(images)
    assert gray.shape == images.shape and ab.shape == (3, 2, 4, 4)
    torch.testing.assert_close(gray[:, 0], gray[:, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(lab_of(gray / 2 + 0.5)[:, 0], lab_of(images / 2 + 0.5)[:, 0], atol=1e-2, rtol=0)
    assert lab_of(gray / 2 + 0.5)[:, 1:].abs().max() < 0.05
    again, _ = model.split(gray)
    torch.testing.assert_close(again, gray, atol=1e-4, rtol=0)


def test_the_normalisation_is_that_of_the_processor():
    processor = ViTImageProcessor(image_mean=[0.2, 0.4, 0.6], image_std=[0.3, 0.2, 0.1])
    task = ColorizationForPreTraining.complete(model_of().task, {"image": processor})
    assert task.image_mean == [0.2, 0.4, 0.6]
    rgb, model = torch.rand(2, 3, IMAGE, IMAGE), model_of(image_mean=task.image_mean, image_std=task.image_std)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (task.image_mean, task.image_std))
    usual = model_of()
    torch.testing.assert_close(model.split((rgb - mean) / std)[1], usual.split(rgb * 2 - 1)[1], atol=1e-3, rtol=0)


def test_autocast_changes_no_target():
    model, images = model_of(), images_of()
    with torch.autocast("cpu", torch.bfloat16):
        lower = model.split(images)
    assert all(torch.equal(*pair) for pair in zip(lower, model.split(images), strict=True))


def smoothed(shares: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Shares of the bins, each spread over all bins by a Gaussian of deviation 5, in NumPy."""
    near = np.exp(-((bins[:, None] - bins[None]) ** 2).sum(2) / (2 * 5**2))
    return shares @ (near / near.sum(1, keepdims=True))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_bfloat16_gives_about_the_loss_of_float32(name):
    check_bfloat16(model_of(name), {"pixel_values": images_of()})


def test_weights_are_those_of_the_paper():
    model = model_of(rebalance=0.3)
    red = torch.tensor([0.8, -0.8, -0.8]).view(3, 1, 1).expand(1, 3, IMAGE, IMAGE)
    blue = torch.tensor([-0.8, -0.8, 0.8]).view(3, 1, 1).expand(1, 3, IMAGE, IMAGE)
    batch = torch.cat([red] * 9 + [blue])
    seen = []

    def batches():
        while True:
            seen.append(len(batch))
            yield {"pixel_values": batch}

    model.prepare(batches())
    assert sum(seen) == 2_000
    labels = [int(model.eval()(pixel_values=image).labels[0, 0, 0]) for image in (red, blue)]
    weights = model.pretext_head.weights
    common, rare = weights[labels[0]], weights[labels[1]]
    shares = np.zeros(len(weights))
    shares[labels] = 0.9, 0.1
    shares = smoothed(shares, model.pretext_head.bins.centers.double().numpy())
    expected = 1 / (0.7 * shares + 0.3 / len(weights))
    expected /= (expected * shares).sum()
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-4)
    assert rare > 2 * common and (weights.numpy() * shares).sum() == pytest.approx(1, rel=1e-5)
    assert model.prepared()["weights"] == [round(float(weights.min()), 3), round(float(weights.max()), 3)]
    equal = model_of(rebalance=1.0)
    equal.prepare(batches())
    torch.testing.assert_close(equal.pretext_head.weights, torch.ones(len(weights)))


def test_the_gradient_of_a_rare_bin_is_larger_by_its_weight():
    model, image = model_of().eval(), images_of(1)
    gradients, rare = [], model(pixel_values=image).labels[0, 0, 0]
    for weight in (1.0, 3.0):
        model.pretext_head.weights[rare] = weight
        output = model(pixel_values=image)
        gradients.append(torch.autograd.grad(output.loss, output.logits)[0])
    of_rare = (output.labels == rare)[:, None]
    assert 0 < of_rare.sum() < of_rare.numel()
    torch.testing.assert_close(gradients[1], torch.where(of_rare, 3 * gradients[0], gradients[0]))


def test_the_predicted_color_is_the_annealed_mean():
    model = model_of(temperature=0.5)
    logits = torch.randn(1, len(model.pretext_head.bins), 2, 2)
    p = torch.exp(logits / 0.5) / torch.exp(logits / 0.5).sum(1, keepdim=True)
    centers = model.pretext_head.bins.centers
    expected = torch.stack([(p * centers[:, c].view(1, -1, 1, 1)).sum(1) for c in (0, 1)], dim=1)
    torch.testing.assert_close(model.colors(logits), expected, atol=1e-3, rtol=1e-4)


def test_illustration_has_the_lightness_of_the_image():
    model, images = model_of().eval(), images_of()
    shown = model.illustrate(pixel_values=images * 0.3)
    assert list(shown) == ["image", "grey input", "predicted colours"]
    lightness = [lab_of(value / 2 + 0.5)[:, :1] for value in shown.values()]
    assert lightness[0].std() > 1
    for title, value in zip(shown, lightness, strict=True):
        torch.testing.assert_close(value, lightness[0], atol=0.1, rtol=0, msg=title)
    assert (shown["predicted colours"] - shown["grey input"]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bin_size": 1}, "bin_size must be between 2 and 50"),
        ({"color_grid": 0}, "color_grid must be at least 1"),
        ({"rebalance": 2.0}, "rebalance must be between 0 and 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"head_dim": 12}, "head_dim must be a multiple of 8"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        model_of(**settings)
