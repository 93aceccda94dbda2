"""Compares the training step of each image objective with a bare loop of the same encodings, and MAE with SimMIM.

    python benchmarks/image_objectives.py                 # about 6 minutes on 2 cores

A bare step is plain PyTorch: encoder, head and loss on inputs and targets that were made before. So the ratio is the
cost of what the objective does to a batch: cutting, hiding, converting colours, making targets. Steps of all kinds
alternate, with the same optimizer; the ratio is the median over the turns. The last comparison is of one ViT-S/16 at
224 pixels that sees a quarter of the patches (`visible_only`), and one that sees all of them, with a learned patch in
place of three quarters. The decoder has the default size (4 layers of 256), or the size in masked_image_emoji (2
layers of 128).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, ResNetConfig, ViTConfig, set_seed

from hf_pretext import (
    ColorizationForPreTraining,
    JigsawForPreTraining,
    MaskedImageForPreTraining,
    RelativePositionForPreTraining,
)
from hf_pretext.encoders import build_encoder
from hf_pretext.modeling import PretextModel
from hf_pretext.modules.patches import patchify, unpatchify
from hf_pretext.utils.machine import describe, has_bf16

SIDE, BATCH = 96, 32  # of the ResNet
VIT_SIDE, VIT_BATCH = 224, 32
Loss = Callable[[], Tensor]


def resnet() -> PreTrainedModel:
    sizes = {"embedding_size": 32, "hidden_sizes": [64, 128, 256, 256], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return build_encoder(ResNetConfig(**sizes)).to(memory_format=torch.channels_last)


def vit() -> PreTrainedModel:
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    return build_encoder(ViTConfig(image_size=VIT_SIDE, patch_size=16, **sizes))


def jigsaw(model: PretextModel, pixels: Tensor) -> Loss:
    """Returns the bare loss of tiles that are shuffled already."""
    from hf_pretext.modules.tiles import standardized

    tiles, labels = model.shuffled(pixels)
    tiles, head = standardized(tiles).flatten(0, 1), model.pretext_head

    def loss() -> Tensor:
        features = model.encoder(tiles).last_hidden_state.mean((2, 3))
        return F.cross_entropy(head["permutation"](head["tile"](features).view(len(labels), -1)), labels)

    return loss


def relative_position(model: PretextModel, pixels: Tensor) -> Loss:
    """Returns the bare loss of tiles that are cut already."""
    tiles, labels = model.tiles(pixels).flatten(0, 1), torch.arange(8, device=pixels.device).repeat(len(pixels))

    def loss() -> Tensor:
        each = model.encoder(tiles).last_hidden_state.mean((2, 3)).view(len(pixels), 9, -1)
        others = each[:, [0, 1, 2, 3, 5, 6, 7, 8]]
        pairs = torch.cat([each[:, 4, None].expand_as(others), others], dim=2).flatten(0, 1)
        return F.cross_entropy(model.pretext_head(pairs), labels)

    return loss


def colorization(model: PretextModel, pixels: Tensor) -> Loss:
    """Returns the bare loss of grey images and their nearest bins."""
    gray, _ = model.split(pixels)
    labels = model(pixel_values=pixels).labels

    def loss() -> Tensor:
        outputs = model.encoder(gray, output_hidden_states=True)
        return F.cross_entropy(model.pretext_head(model.encoder, outputs, labels.shape[1:]), labels)

    return loss


def masked_image(model: PretextModel, pixels: Tensor) -> Loss:
    """Returns the bare loss of images whose hidden patches are drawn, and replaced where they are, already."""
    patches = patchify(pixels, model.patch)
    visible, hidden = model.draw(patches)
    targets, predict = model(pixel_values=pixels).labels, model.pretext_head["predict"]
    index, side = hidden[..., None], round(patches.shape[1] ** 0.5)
    seen = unpatchify(patches.scatter(1, index.expand(-1, -1, patches.shape[2]), 0.0), model.patch)

    def of_visible() -> Tensor:
        with model.visible.only(visible, patches.shape[1]):
            states = model.encoder(pixels).last_hidden_state
        predicted = predict(states, visible, patches.shape[1])
        return F.mse_loss(predicted.gather(1, index.expand(-1, -1, predicted.shape[2])), targets)

    def of_all() -> Tensor:
        predicted = predict(model.encoder, model.encoder(seen, output_hidden_states=True), (side, side)).flatten(2).mT
        return F.mse_loss(predicted.gather(1, index.expand(-1, -1, predicted.shape[2])), targets)

    return of_visible if model.task.visible_only else of_all


CASES = {
    "jigsaw": (JigsawForPreTraining, resnet, {}, jigsaw),
    "relative_position": (RelativePositionForPreTraining, resnet, {}, relative_position),
    "colorization": (ColorizationForPreTraining, resnet, {}, colorization),
    "masked_image, learned patch": (
        MaskedImageForPreTraining,
        vit,
        {"mask_ratio": 0.75},
        masked_image,
    ),
    "masked_image, visible patches": (
        MaskedImageForPreTraining,
        vit,
        {"mask_ratio": 0.75, "visible_only": True},
        masked_image,
    ),
    "masked_image, visible patches, small decoder": (
        MaskedImageForPreTraining,
        vit,
        {"mask_ratio": 0.75, "visible_only": True, "decoder_dim": 128, "decoder_layers": 2},
        masked_image,
    ),
}


class Step:
    """A training step with AdamW."""

    def __init__(self, model: nn.Module, loss: Loss, device: torch.device):
        self.loss, self.device = loss, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def seconds(self) -> float:
        """Takes one step. Returns its time, after all work on the GPU is done."""
        begun = clock(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16()):
            loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return clock(self.device) - begun


def loss_of(model: PretextModel, pixels: Tensor) -> Tensor:
    return model(pixel_values=pixels).loss


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    set_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small, large = (torch.rand(n, 3, s, s, device=device) * 2 - 1 for n, s in ((BATCH, SIDE), (VIT_BATCH, VIT_SIDE)))
    pixels_of, steps = {resnet: small, vit: large}, {}
    for name, (objective, encoder, settings, bare) in CASES.items():
        model, pixels = objective.from_encoder(encoder(), **settings).to(device).train(), pixels_of[encoder]
        steps[name] = Step(model, partial(loss_of, model, pixels), device)
        steps[f"{name}, bare"] = Step(model, bare(model, pixels), device)
    turns = [{name: step.seconds() for name, step in steps.items()} for _ in range(options.turns + 3)][3:]
    results = {}
    for name in CASES:
        ratio = statistics.median(turn[name] / turn[f"{name}, bare"] for turn in turns)
        rate = len(pixels_of[CASES[name][1]]) / statistics.median(turn[name] for turn in turns)
        results[name] = {"images_per_second": rate, "step / bare step": ratio}
        print(f"{name}: {rate:.0f} images/s, {ratio:.2f} times the bare step")
    for name in [name for name in CASES if "visible" in name]:
        ratio = statistics.median(turn["masked_image, learned patch"] / turn[name] for turn in turns)
        results[name]["images per second / learned patch"] = ratio
        print(f"{name}: {ratio:.2f} times the images per second of the learned patch")
    print(json.dumps({"results": results, "machine": describe(device)}))


if __name__ == "__main__":
    main()
