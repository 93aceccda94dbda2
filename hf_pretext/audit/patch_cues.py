"""Audit of tasks that ask for the pixels of hidden patches: masked images.

model with `ask`, `answer` and `targets`, labelled set -> see `TaskAudit`

An answer is a value, in the space in which the task predicts it, so that bits are those of a Gaussian: ½ log2 of the
variance over the mean squared error. That is usable information (Xu et al. 2020,
https://huggingface.co/papers/2002.10689) of Gaussians with one variance: the best one around the mean of train costs so
many bits more for each value than the best one around the prediction. One factor, chosen on validation, scales what is
predicted beyond the mean; where that is no better there, it is 0, and so are the bits. A cue is what it fills in for
the hidden patches. If the task normalises patches, what is filled in is normalised, too, by its variance plus the best
of `SOFTENINGS` on validation: else the noise of what is nearly flat would become as large as any pattern.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..modeling import PretextModel
from ..modules.cues import Question
from ..modules.patch_cues import PatchCue
from ..modules.patches import EPSILON
from .class_cues import SEED, SHUFFLED, partners
from .example_task import ExampleTask
from .task import BITS, CONTROL, EXPLAINED, EXPLAINED_WITHOUT, OVERFITTING, asks, in_evaluation

MOST = {"train": 1000, "validation": 1000, "test": 1000}  # images, evenly spaced
LEAST = 2.0**-20  # of the variance: no value has more than 10 bits
SOFTENINGS = (EPSILON, 1e-3, 1e-2, 1e-1, 1.0)  # in the units of normalised images, squared

Predict = Callable[[Question], list[Tensor]]  # question -> candidates of predictions, (N, M, d) each
Moments = np.ndarray  # (n, 3): of each image, sums of squares of values, of values times predictions, of predictions


class PatchCues(ExampleTask):
    """Audits the answers of a model that predicts the pixels of hidden patches. Train is only read for the mean of each
    value of a patch, and for over-fitting."""

    unit, most = "value", MOST

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return asks(model, "image", PatchCue)

    @in_evaluation
    def sufficiency(self) -> dict[str, dict]:
        """See `TaskAudit`. Only two numbers are fitted, so that there is one value of each. What the first cue fills in
        elsewhere is a control."""
        first, *_ = self.roles
        fills = {cue.name: (role, self._filling(cue)) for cue, role in self.roles.items()}
        fills[SHUFFLED] = (CONTROL, lambda question: [*map(mixed, self._filling(first)(question))])
        results = {}
        for name, (role, fill) in fills.items():
            best, factor = chosen(self._moments("validation", fill))
            bits, explained, error = gained(self._moments("test", fill)[best], factor)
            results[name] = {"role": role, BITS: [bits], EXPLAINED: [explained], "error": error}
        return results

    @in_evaluation
    def answers(self) -> dict[str, float]:
        test, train = (gained(self._moments(split, self._answer)[0], self.factor) for split in ("test", "train"))
        return {BITS: test[0], EXPLAINED: test[1], OVERFITTING: train[0] - test[0]}

    @in_evaluation
    def reliance(self) -> dict[str, dict[str, float]]:
        """See `TaskAudit`. Images have the cue of another image."""
        results = {}
        for cue in self.roles:
            if cue.exchanged is not None:
                moments = self._moments("test", lambda question, cue=cue: self._answer(self._exchanged(cue, question)))
                results[cue.name] = {EXPLAINED_WITHOUT: gained(moments[0], self.factor)[1]}
        return results

    @cached_property
    def factor(self) -> float:
        """The factor of what the model predicts beyond the mean."""
        return chosen(self._moments("validation", self._answer))[1]

    @cached_property
    def base(self) -> Tensor:
        """Mean of each value of a patch in train, `(d,)`."""
        total, count = 0, 0
        for question in self._questions("train"):
            total, count = total + question.labels.cpu().double().sum((0, 1)), count + question.labels[..., 0].numel()
        return total / count

    def _moments(self, split: str, predict: Predict) -> list[Moments]:
        """Returns the moments of the images of a split, around the base, for each candidate."""
        parts, base = [], self.base
        for question in self._questions(split):
            right = question.labels.cpu().double() - base  # not every device has float64
            parts.append([moments_of(right, given.cpu().double() - base) for given in predict(question)])
        return [np.concatenate(candidate) for candidate in zip(*parts, strict=True)]

    def _answer(self, question: Question) -> list[Tensor]:
        return [self.model.answer(**question.inputs)]

    def _filling(self, cue: PatchCue) -> Predict:
        """Returns the function that gives what a cue fills in for hidden patches, in the space of the answers."""

        def filled(question: Question) -> list[Tensor]:
            known, side = known_pixels(question)
            images = self._with_pixels(question, cue.fill(self._pixels(question), known, side)).inputs["pixel_values"]
            return [self.model.targets(images, question.inputs["hidden"], softening) for softening in SOFTENINGS]

        return filled

    def _exchanged(self, cue: PatchCue, question: Question) -> Question:
        """Returns a question whose images have the cue of others of the batch; a single image keeps its cue."""
        pixels, (known, _) = self._pixels(question), known_pixels(question)
        others, _ = partners(torch.arange(len(pixels)), torch.Generator().manual_seed(SEED))
        others = others.clamp(min=0).to(self.device)
        return self._with_pixels(question, cue.exchanged(pixels, known, pixels[others], known[others]))


def known_pixels(question: Question) -> tuple[Tensor, int]:
    """Returns which pixels are not in hidden patches, `(N, 1, H, W)`, and the number of rows of patches."""
    pixels, hidden = question.inputs["pixel_values"], question.inputs["hidden"]
    count = hidden.shape[1] + question.inputs["visible"].shape[1]
    side = math.isqrt(count)
    known = torch.ones(len(hidden), count, dtype=torch.bool, device=hidden.device).scatter_(1, hidden, False)
    wide = pixels.shape[-1] // side
    return known.view(-1, 1, side, side).repeat_interleave(wide, 2).repeat_interleave(wide, 3), side


def mixed(predictions: Tensor) -> Tensor:
    """Returns predictions `(N, M, d)` with their patches in a random order, across images."""
    order = torch.randperm(predictions.shape[0] * predictions.shape[1], generator=torch.Generator().manual_seed(SEED))
    return predictions.flatten(0, 1)[order.to(predictions.device)].view(predictions.shape)


def moments_of(right: Tensor, given: Tensor) -> Moments:
    """Returns the moments of values and predictions of a batch, `(N, M, d)` each."""
    products = (right * right, right * given, given * given)
    return torch.stack([each.sum((1, 2)) for each in products], dim=1).cpu().numpy()


def chosen(candidates: Sequence[Moments]) -> tuple[int, float]:
    """Returns the number of the candidate that explains most, and the factor of its predictions."""
    factors = [factor_of(moments) for moments in candidates]
    explained = [gained(moments, factor)[1] for moments, factor in zip(candidates, factors, strict=True)]
    best = int(np.argmax(explained))
    return best, factors[best]


def factor_of(moments: Moments) -> float:
    """Returns the factor of predictions with the least squared error, at least 0."""
    _, product, square = moments.sum(0)
    return float(np.maximum(product / square, 0)) if square != 0 else 0.0


def gained(moments: Moments, factor: float) -> tuple[float, float, float]:
    """Returns the bits of a value that predictions times a factor give over the base, the share of the variance that
    they explain, and the standard error of the bits over images. NaN for values that are all the same."""
    variance = moments[:, 0]
    error = np.maximum(moments @ [1, -2 * factor, factor**2], LEAST * variance)
    with np.errstate(invalid="ignore"):
        rest = error.sum() / variance.sum()
        per_image = (variance / variance.mean() - error / error.mean()) / 2 / math.log(2)
    return float(np.log2(1 / rest) / 2), float(1 - rest), float(per_image.std() / len(moments) ** 0.5)


TASK_AUDIT = PatchCues
