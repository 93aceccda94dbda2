"""Audit of tasks that ask for one of many classes at some places of an example: tokens of a text, cells of an image.

contexts (n,), answers (n,) -> readers by counts (see `counts`) -> what each cue reveals
model with `ask` and `answer` -> logits of the asked places (M, classes) -> bits over the base

The base is the frequency of the answers in train, which has 0 bits.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..modules.cues import Question
from ..modules.losses import rows_of_a_tile, widened
from ..modules.masking import IGNORED, positions_of
from .class_cues import SEED, SHUFFLED
from .counts import Contexts, CountReader
from .readers import floored, one_thread
from .task import ACCURACY, BITS, CONTROL, CUE, ENTROPY, OVERFITTING

SHARPNESS = (0.0, *np.geomspace(0.25, 2, 13).tolist())  # 1 / temperature; 0 is the base

Given = Mapping[str, tuple[Contexts, np.ndarray]]  # contexts of a cue and right answers, by split


def sufficient(
    frequency: str, cues: Sequence[tuple[str, str, Given]], prior: np.ndarray, independent: int | None = None
) -> dict[str, dict]:
    """Reads answers from each cue by counts. Counts need no seed: there is one value of each.

    frequency: name of the base in tables. cues: name, role, and what train, validation and test have of each. prior:
    probabilities of the answers without a cue, `(classes,)`. independent: number of test places that tell nothing of
    each other, for the standard error; default: all. Returns what `TaskAudit.sufficiency` does. The first cue
    of another place is a control."""
    _, _, first = cues[0]
    independent = independent or len(first["test"][1])
    accuracy = float((first["test"][1] == prior.argmax()).mean())
    results = {frequency: {"role": CUE, BITS: [0.0], ACCURACY: [accuracy]}}
    for number, (name, role, given) in enumerate(cues):
        reader = CountReader(*given["train"], prior)
        results[name] = {"role": role, **measured(reader, given, independent)}
        if not number:
            mixed = {split: (reordered(contexts), right) for split, (contexts, right) in given.items()}
            results[SHUFFLED] = {"role": CONTROL, **measured(reader, mixed, independent)}
    return results


def measured(reader: CountReader, given: Given, independent: int) -> dict:
    """Fits a reader on validation. Returns its bits and accuracy on test, and the standard error of the bits."""
    with one_thread():
        reader.fit(*given["validation"])
        bits, right = reader.bits(*given["test"])
    error = float(bits.std() / independent**0.5)
    return {BITS: [float(bits.mean())], ACCURACY: [float(right.mean())], "error": error}


def reordered(contexts: Contexts) -> Contexts:
    """Returns contexts `(n,)` in a random order, the same for all."""
    order = np.random.default_rng(SEED).permutation(len(contexts[0]))
    return [one[order] for one in contexts]


def answers_over(
    base: np.ndarray, answer: Callable[..., Tensor], questions: Callable[[str], Iterator[Question]]
) -> dict[str, float]:
    """Measures the answers of a model over a base, see `TaskAudit.answers`. The temperature does not change accuracy.

    base: log-probabilities of the answers, `(classes,)`. answer: `PretextModel.answer`. questions: those of a split."""
    best = int(answered(base, answer, questions("validation"), SHARPNESS)[BITS].argmax())
    train, test = (answered(base, answer, questions(s), SHARPNESS[best : best + 1]) for s in ("train", "test"))
    return {
        BITS: float(test[BITS][0]),
        ACCURACY: test[ACCURACY],
        ENTROPY: test[ENTROPY],
        OVERFITTING: float(train[BITS][0] - test[BITS][0]),
    }


def answered(
    base: np.ndarray, answer: Callable[..., Tensor], questions: Iterator[Question], sharpness: tuple[float, ...]
) -> dict:
    """Returns the bits of the right answers over the base, at each sharpness, `(len(sharpness),)`; accuracy; and
    entropy. Logits are in memory for one batch."""
    sums, right, entropy, count = np.zeros(len(sharpness)), 0, 0.0, 0
    for question in questions:
        asked = question.labels != IGNORED
        labels = question.labels[positions_of(asked)]
        logits = answer(asked=asked, **question.inputs)
        on_device = torch.from_numpy(base).float().to(logits.device)
        rows = rows_of_a_tile(logits, len(base))
        for tile, some in zip(logits.split(rows), labels.split(rows), strict=True):
            of_base = base[some.cpu().numpy()]
            scores = of_labels(widened(tile), some, on_device, sharpness).cpu().double().numpy()
            sums += (floored(scores, of_base[:, None]) - of_base[:, None]).sum(0)
            entropy -= of_base.sum()
            right += int((tile.argmax(1) == some).sum())
        count += len(labels)
    return {
        BITS: sums / count / math.log(2),
        ACCURACY: right / count,
        ENTROPY: float(entropy) / count / math.log(2),
    }


def of_labels(logits: Tensor, labels: Tensor, base: Tensor, sharpness: tuple[float, ...]) -> Tensor:
    """Returns log-probabilities of labels `(M,)` at each sharpness, `(M, len(sharpness))`. Sharpness scales what the
    logits `(M, classes)` say beyond the base, as in `readers.calibrated`."""
    results = []
    for scale in sharpness:
        scores = base + scale * (logits - base)
        results.append(scores.gather(1, labels[:, None])[:, 0] - scores.logsumexp(1))
    return torch.stack(results, dim=1)
