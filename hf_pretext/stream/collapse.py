"""Reports a run that collapsed: features that are equal for all rows, or targets that became uniform.

output of each step -> sums on the device -> means of a window of steps -> a warning, or `Collapsed` on all ranks

The rule, on two windows of `WINDOW` steps in a row, so that it is reported within 50 steps of the step that shows it:

- Constant features: the spread of the features over the examples of a step (see `spread`) is below `CONSTANT`.
- Uniform targets, for a loss that is one cross-entropy of K classes: the soft targets have the entropy ln K; or the
  loss was below ln K before and now is ln K again, with an accuracy at chance or hardly any scatter; or each loss
  equals ln K to 4 digits, after warmup. A run that has not yet learned is at ln K, too, but its losses scatter: it is
  not reported.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from ..utils.files import without_nan
from ..utils.ranks import rank_and_ranks
from .divergence import last_checkpoint_before

WINDOW, IN_A_ROW = 20, 2  # steps of a window, and windows that must show a collapse
CONSTANT = 5e-3  # spread of features below which they are constant; of encoders before training it is above 0.09
LEAST_EXAMPLES = 4  # of a step whose features are looked at
LEARNED, NEAR, EXACT = 0.95, 2e-2, 1e-4  # of a loss divided by ln K: below it; differences from 1
LUCK = 0.15  # accuracy up to which it is at chance, where 0 is that of a guess and 1 is all correct
NAMES = ("spread", "loss", "accuracy", "entropy", "deviation")
log = logging.get_logger(__name__)


class Collapsed(ValueError):
    """The features of a run are constant, or its targets are uniform."""


def spread(features: Tensor) -> Tensor:
    """Returns how much features `(n, d)` differ between examples, `()`: the mean standard deviation of the channels of
    the L2-normalised features, times sqrt(d).

    It is 0 for constant features, and 1 for features of independent directions around 0 (SimSiam, Chen and He 2021,
    https://arxiv.org/abs/2011.10566, whose 1/sqrt(d) is 1 here)."""
    normalised = F.normalize(features.float(), dim=1)
    return normalised.std(0, correction=0).mean() * math.sqrt(features.shape[1])


def number_of_classes(output: Mapping[str, Any]) -> int | None:
    """Returns the number of classes K of an output (see `PretextOutput`) whose loss is one cross-entropy, so that a
    uniform prediction has the loss ln K; None for other losses.

    It is `candidates` of the output if set, else the last size of logits `(n, K)` with labels `(n,)` or `(n, K)`."""
    if output.get("losses") is not None and len(output["losses"]) > 1:
        return None
    if output.get("candidates") is not None:
        return output["candidates"]
    logits, labels = output.get("logits"), output.get("labels")
    if logits is None or labels is None or logits.ndim != 2 or logits.shape[1] < 2:
        return None
    hard = labels.ndim == 1 and not labels.is_floating_point() and len(labels) == len(logits)
    return logits.shape[1] if hard or is_soft(output) else None


def is_soft(output: Mapping[str, Any]) -> bool:
    """Returns True for soft targets: labels of the shape of the logits `(n, K)`, which objectives with softmax scores
    alone have. Regression has such labels, too: see `signals`, which checks that they sum to 1."""
    logits, labels = output.get("logits"), output.get("labels")
    return labels.is_floating_point() and labels.shape == logits.shape


def signals(output: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the signals of one step, `()` each, on the device: nothing waits for it.

    spread: see `spread`. loss: divided by ln K. deviation: distance of this loss from 1. accuracy: 0 for a guess, 1 for
    all correct. entropy: of soft targets, divided by ln K. Signals that the output does not give are left out."""
    values: dict[str, Tensor] = {}
    features, classes = output.get("features"), number_of_classes(output)
    if features is not None and features.ndim == 2 and len(features) >= LEAST_EXAMPLES:
        values["spread"] = spread(features.detach())
    if classes is None or classes < 2:
        return values
    if output.get("candidates") is None and is_soft(output):
        targets = output["labels"].detach().float()
        entropy = torch.special.entr(targets.clamp(min=0)).sum(1).mean() / math.log(classes)
        sums_to_1 = ((targets.sum(1) - 1).abs().amax() < 1e-2) & (targets.amin() >= 0)
        values["entropy"] = torch.where(sums_to_1, entropy, 0.0)
        return values
    values["loss"] = output["loss"].detach().float() / math.log(classes)
    values["deviation"] = (values["loss"] - 1).abs()
    if "accuracy" in (output.get("logs") or {}):
        values["accuracy"] = (output["logs"]["accuracy"].detach().float() - 1 / classes) / (1 - 1 / classes)
    return values


@dataclass
class Verdict:
    """Judges a run by the means of its windows, in their order. It holds what earlier windows showed.

    learned: whether a window had a loss below ln K. in_a_row: number of windows up to the last one that showed a
    collapse, by what collapsed."""

    learned: bool = False
    in_a_row: dict[str, int] = field(default_factory=dict)

    def judge(self, means: Mapping[str, float], after_warmup: bool = True) -> str | None:
        """Returns what collapsed, or None. means: of the signals of a window, by name (see `signals`); deviation: the
        largest. after_warmup: True if the learning rate is not rising any more."""
        shown = {
            "the features of all rows are the same": means.get("spread", 1) < CONSTANT,
            "the targets are uniform": self._is_uniform(means, after_warmup),
        }
        self.learned |= means.get("loss", 1) < LEARNED
        self.in_a_row = {what: self.in_a_row.get(what, 0) + 1 if is_shown else 0 for what, is_shown in shown.items()}
        return next((what for what, count in self.in_a_row.items() if count >= IN_A_ROW), None)

    def _is_uniform(self, means: Mapping[str, float], after_warmup: bool) -> bool:
        if means.get("entropy", 0) > 1 - EXACT:
            return True
        deviation = means.get("deviation", 1)
        if abs(means.get("loss", 0) - 1) > NEAR:
            return False
        lost = self.learned and (means.get("accuracy", 1) < LUCK or deviation < NEAR)
        return lost or (after_warmup and deviation < EXACT)


class CollapseWatch(TrainerCallback):
    """Callback that reports a collapse once, with the step, and ends the run if `stop` is set.

    It waits for the device once in `WINDOW` steps and at each checkpoint, which has its `state`. reported: what was
    reported, as sentences without a full stop."""

    def __init__(self, stop: bool = False):
        self.stop, self.reported = stop, []
        self._verdict = Verdict()
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def look(self, output: Mapping[str, Any]) -> None:
        """Adds the output of a training step. Call it on every rank."""
        for name, value in signals(output).items():
            before = self._sums.get(name, torch.zeros_like(value))
            self._sums[name] = torch.maximum(before, value) if name == "deviation" else before + value
            self._counts[name] += 1

    def on_step_end(self, args, state, control, **kwargs):
        """Judges a window at its last step. Raises `Collapsed`, on all ranks at the same step, if `stop` is set."""
        if state.global_step % WINDOW:
            return
        means = self._pop(args.device)
        what = self._verdict.judge(means, state.global_step - WINDOW >= args.get_warmup_steps(state.max_steps))
        if what is None:
            return
        known = any(sentence.startswith(what) for sentence in self.reported)
        if known and not self.stop:  # a run that collapsed may resume with `stop`
            return
        if not known:
            self.reported.append(f"{what}, from about step {state.global_step - IN_A_ROW * WINDOW + 1:,}")
        message = description(args, what, state.global_step, means)
        if self.stop:
            raise Collapsed(message)
        if state.is_world_process_zero:
            log.warning(f"{message} --stop_on_collapse ends such a run.")

    def record(self) -> dict[str, list[str]]:
        """Returns the entry of results.json about a collapse; `{}` for a run without one."""
        return {"collapsed": self.reported} if self.reported else {}

    def state(self, device: torch.device) -> dict[str, Any]:
        """Returns what a resumed run needs, for JSON: what was reported, what earlier windows showed, and the sums and
        counts of the window that has begun, over all ranks. Call it on every rank. Waits once for the device."""
        sums, counts = self._over_ranks(device)
        window = {name: [value, count] for name, value, count in zip(NAMES, sums, counts, strict=True) if count}
        return {"reported": self.reported, "verdict": asdict(self._verdict), "window": without_nan(window)}

    def resume(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restores a `state`. The main process gets the sums of all ranks."""
        self.reported, self._verdict = [*state["reported"]], Verdict(**state["verdict"])
        window = state["window"] if rank_and_ranks()[0] == 0 else {}
        values = {name: math.nan if value is None else value for name, (value, _) in window.items()}
        self._sums = {name: torch.tensor(value, device=device) for name, value in values.items()}
        self._counts = Counter({name: int(count) for name, (_, count) in window.items()})

    def _pop(self, device: torch.device) -> dict[str, float]:
        """Returns the means of the window over all ranks, and resets them. Waits once for the device."""
        values, counts = self._over_ranks(device)
        self._sums, self._counts = {}, Counter()
        means = {name: value / count for name, value, count in zip(NAMES, values, counts, strict=True) if count}
        return {**means, "deviation": values[-1]} if counts[-1] else means

    def _over_ranks(self, device: torch.device) -> tuple[list[float], list[float]]:
        """Returns the sums of the window over all ranks (of the deviation the largest value), and the counts, in the
        order of `NAMES`. Waits once for the device."""
        present = [name for name in NAMES if name in self._sums]
        sums = torch.zeros(2, len(NAMES), device=device)
        for name in present:
            sums[0, NAMES.index(name)] = self._sums[name]
            sums[1, NAMES.index(name)] = self._counts[name]
        if rank_and_ranks()[1] > 1:
            largest = sums[:1, -1:].clone()
            dist.all_reduce(sums)
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
            sums[:1, -1:] = largest
        values, counts = sums.tolist()
        return values, counts


def description(args: TrainingArguments, what: str, step: int, means: Mapping[str, float]) -> str:
    """Returns the message: what collapsed, by which value, the last checkpoint before it and the fix."""
    begins = max(step - IN_A_ROW * WINDOW, 0)
    by = (
        f"spread {means['spread']:.1e}, independent features have 1"
        if "features" in what
        else "the loss or the entropy of the targets is ln K, that of K equal probabilities"
    )
    checkpoint = last_checkpoint_before(args.output_dir, begins + 1)
    kept = f"The last checkpoint before it is {checkpoint}." if checkpoint else "No checkpoint is from before it."
    return (
        f"Training collapsed: in steps {begins + 1:,} to {step:,}, {what} ({by}), with --learning_rate "
        f"{args.learning_rate:g}. {kept} Train again with a lower --learning_rate or more --warmup_steps; for an "
        "objective with a teacher, with a higher momentum or another temperature of the teacher. Check also that the "
        "rows of the data differ."
    )
