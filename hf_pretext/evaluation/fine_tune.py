"""Fine-tuning: a copy of the encoder and a linear classifier are trained for a few epochs on the labelled images.

images (n, 3, H, W) uint8 -> normalise, crop, flip -> encoder -> mean of the output -> linear -> classes

The recipe is that of BEiT (https://huggingface.co/papers/2106.08254) and MAE (https://huggingface.co/papers/2111.06377)
in small: AdamW, layer-wise decay of the learning rate, warmup and cosine, label smoothing. Trained and random encoders
have the same budget, the same learning rates to choose from, and the same random numbers.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.std import tqdm
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from ..features import Pooling, encode, width
from ..modules.crops import RATIO
from ..utils.progress import progress
from .labelled_set import LabelledSet
from .transfer import SPLITS, accuracies, recompute_batch_norm

FINE_TUNE, KIND = "fine_tune", "image"  # name of the method; kind of data
SEED = 0  # of the classifier, the order of images, crops and flips
SMALLEST = 0.5  # share of the area of an image that a random crop keeps
PREDICTED = 256  # images of a batch without gradients


@dataclass(frozen=True)
class FineTuning:
    """Settings of fine-tuning.

    epochs: passes over the train split. learning_rates: peak learning rates of the classifier to choose from, on
    validation. batch_size: largest number of images of a batch. layer_decay: factor of the learning rate from one layer
    to the layer before. weight_decay: of matrices and convolutions. warmup: share of the steps. label_smoothing: share
    of the target that all classes have in common. bf16: whether training uses bf16 autocast."""

    epochs: int
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    batch_size: int = 64
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.1
    bf16: bool = False


class Classifier(nn.Module):
    """A copy of an encoder with a fresh linear classifier. pixel_values `(B, 3, H, W)` -> logits `(B, classes)`."""

    def __init__(self, encoder: PreTrainedModel, classes: int, pooling: Pooling = "mean"):
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.head = nn.Linear(width(encoder), classes, device=encoder.device)
        self.pooling = pooling

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(encode(self.encoder, (-1,), self.pooling, pixel_values=pixel_values)[-1])


def check_fine_tuning(epochs: int, kinds: tuple[str, ...]) -> None:
    """Raises `ValueError` for an option `--fine_tune` that does not fit. kinds: kinds of data of the encoders."""
    if epochs < 0:
        raise ValueError(f"--fine_tune is {epochs}, but must be a number of epochs, or 0 for no fine-tuning.")
    if epochs and KIND not in kinds:
        raise ValueError(
            f"--fine_tune {epochs} trains only image encoders, but this encoder takes {', '.join(kinds)}. Leave it out."
        )


def check_in_memory(labelled: LabelledSet) -> None:
    """Raises `ValueError` for a labelled set whose images are not in memory: fine-tuning reads them in random order."""
    if not labelled.pixels:
        raise ValueError(
            f"--fine_tune needs the images of the labelled set in memory, but {labelled.name} is too large. Give a "
            "smaller --eval_rows or --image_size, or leave --fine_tune out."
        )


def fine_tune(
    encoder: PreTrainedModel,
    labelled: LabelledSet,
    settings: FineTuning,
    pooling: Pooling = "mean",
    device: torch.device | str = "cpu",
    description: str = "fine-tuning",
) -> dict:
    """Fine-tunes a copy of an encoder at each learning rate. The encoder and the global generators stay unchanged.

    labelled: a set of images in memory. description: label of the progress bar. Returns
    `{"validation": {"top1", "mean_class"}, "test": {...}, "learning_rate": rate}` of the best top-1 on validation."""
    device, labels = torch.device(device), labelled.labels
    total = len(settings.learning_rates) * steps_of(labelled, settings)
    bar, candidates = progress(total=total, description=description, unit="batch"), []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for rate in settings.learning_rates:
            torch.manual_seed(SEED)
            model = Classifier(encoder.to(device), len(labels.names), pooling)
            train(model, labelled, settings, rate, bar)
            measured = {
                split: accuracies(labels.splits[split], predict(model, labelled, split, settings))
                for split in SPLITS
                if split != "train"
            }
            candidates.append({**measured, "learning_rate": rate})
    bar.close()
    return max(candidates, key=lambda metrics: metrics["validation"]["top1"])


def train(model: Classifier, labelled: LabelledSet, settings: FineTuning, rate: float, bar: tqdm) -> None:
    """Trains a classifier on the train split. rate: peak learning rate."""
    images, device = labelled.inputs.by_name[KIND], model.encoder.device
    pixels, labels = labelled.pixels["train"], torch.from_numpy(labelled.labels.splits["train"])
    generator = torch.Generator().manual_seed(SEED)
    groups = parameter_groups(model, images.normalised_(pixels[:2].to(device, torch.float32)), settings, rate)
    optimizer = torch.optim.AdamW(groups)
    steps = steps_of(labelled, settings)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(settings.warmup * steps), steps)
    model.train()
    for _ in range(settings.epochs):
        for rows in batches_of(len(pixels), settings.batch_size, generator):
            batch = images.normalised_(pixels[rows].to(device, torch.float32))
            batch = cropped(batch, torch.rand(len(rows), 5, generator=generator).to(device))
            with autocast(device, settings):
                logits = model(batch)
            loss = F.cross_entropy(logits.float(), labels[rows].to(device), label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
    recompute_batch_norm(model.encoder, labelled.batches("train", KIND))  # a few steps leave much of the first values


@torch.no_grad()
def predict(model: Classifier, labelled: LabelledSet, split: str, settings: FineTuning) -> np.ndarray:
    """Predicts the classes of a split, `(n,)`."""
    images, device, predicted = labelled.inputs.by_name[KIND], model.encoder.device, []
    model.eval()
    for pixels in labelled.pixels[split].split(PREDICTED):
        with autocast(device, settings):
            logits = model(images.normalised_(pixels.to(device, torch.float32)))
        predicted.append(logits.argmax(1).cpu())
    return torch.cat(predicted).numpy()


def autocast(device: torch.device, settings: FineTuning) -> torch.autocast:
    """Returns the autocast context of training and prediction."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16)


def steps_of(labelled: LabelledSet, settings: FineTuning) -> int:
    """Returns the number of steps of the optimizer."""
    return settings.epochs * math.ceil(len(labelled.pixels["train"]) / settings.batch_size)


def batches_of(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Splits `count` shuffled rows into batches of at most `size`. Their sizes differ by at most one, since batch norm
    can't take a last batch of one image."""
    return torch.randperm(count, generator=generator).tensor_split(math.ceil(count / size))


def cropped(pixels: Tensor, draws: Tensor) -> Tensor:
    """Returns a random crop of each image, resized to its size and flipped with probability 1/2: `(B, C, H, W)`.

    draws (`(B, 5)`): uniform in [0, 1), for the area, the ratio of the sides, top, left and flip."""
    area = SMALLEST + (1 - SMALLEST) * draws[:, 0]
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** draws[:, 1]
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)  # shares of width and height
    centres = (1 - sides) * (2 * draws[:, 2:4] - 1)  # in [-1, 1], the coordinates of `grid_sample`
    flips = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    scales = torch.diag_embed(torch.stack([sides[:, 0] * flips, sides[:, 1]], 1))
    grid = F.affine_grid(torch.cat([scales, centres[..., None]], 2), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def parameter_groups(model: Classifier, pixel_values: Tensor, settings: FineTuning, rate: float) -> list[dict]:
    """Returns groups for the optimizer, one for each depth, with and without weight decay
    (biases, norms and positions).

    pixel_values: images `(B, 3, H, W)`, to find the depths with. rate: learning rate of the classifier. Parameters that
    the output does not depend on are left out."""
    depth_of, top = depths(model.encoder, pixel_values)
    named = {f"encoder.{name}": depth for name, depth in depth_of.items()}
    named |= {f"head.{name}": top for name, _ in model.head.named_parameters()}
    parameters, groups = dict(model.named_parameters()), {}
    for name, depth in named.items():
        groups.setdefault((depth, parameters[name].ndim in (2, 4)), []).append(parameters[name])
    return [
        {
            "params": some,
            "lr": rate * settings.layer_decay ** (top - depth),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (depth, decays), some in groups.items()
    ]


def depths(encoder: PreTrainedModel, pixel_values: Tensor) -> tuple[dict[str, int], int]:
    """Returns the depth of each parameter, by name, and the depth of a head on the output.

    The depth is the index of the first hidden state that depends on the parameter: 0 for embeddings, k for block or
    stage k. It is found by gradients, so no names of architectures are needed. An encoder without hidden states has one
    depth. Parameters that the output does not depend on are left out."""
    training = encoder.training
    outputs = encoder.eval()(pixel_values=pixel_values, output_hidden_states=True)
    encoder.train(training)
    hidden, depth_of, left = outputs.hidden_states or (), {}, dict(encoder.named_parameters())
    for depth, state in enumerate((*hidden, outputs.last_hidden_state)):
        if not left or not state.requires_grad:
            continue
        gradients = torch.autograd.grad(state.sum(), list(left.values()), retain_graph=True, allow_unused=True)
        depth_of |= {name: depth for name, gradient in zip(left, gradients, strict=True) if gradient is not None}
        left = {name: parameter for name, parameter in left.items() if name not in depth_of}
    return depth_of, len(hidden)
