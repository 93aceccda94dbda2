"""Temporal localization: which window of its film belongs to a sentence.

windows of a film (n, D), sentences of the film (m, D) -> cosine (m, n) -> the nearest window of each sentence -> R@1,
median error of its time in seconds

R@1 is the share of sentences whose nearest window has its middle within the time that the film shows what they say.
This is the recall of CrossTask (Zhukov et al. 2019, https://huggingface.co/papers/1903.08225), by which MIL-NCE is
measured, too. Overlap (IoU), as in moment retrieval, needs predicted lengths: windows of one length can't reach it for
much shorter and much longer sentences.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor

from ..modeling import PretextModel
from ..utils.paths import relative
from ..utils.settings import accepts_ints, refuse_without_effect
from .labelled_set import LabelledSet
from .measure import Measure, Metrics, Subject
from .retrieval import TIE, check_features
from .timed_films import PREFIX, Plan, Sentence, within

R1, MEDIAN = f"{PREFIX}r1", f"{PREFIX}median_seconds"
WORDS = {R1: "temporal localization, R@1", MEDIAN: "temporal localization, median error in seconds"}
Answers = np.ndarray  # (3, k): for k answers whether each is right, its error in seconds, and its weight


@accepts_ints
@strict
@dataclass
class LocalizationArguments:
    """Settings of temporal localization, which looks for the time of each sentence in its film.

    localization_dataset: Films with lists of sentences and of the times at which the film shows what they say. If not
        set: not measured.
    localization_video_column: Column of the films. If not set: detected.
    localization_text_column: Column of the lists of sentences. If not set: detected.
    localization_start_column: Column of the lists of times, in seconds, at which the film begins to show what a
        sentence says. If not set: the times of the texts or subtitles. If set, the texts' own times `start` and `end`
        are measured, too.
    localization_end_column: Column of the lists of times at which that ends.
    localization_seconds: Length of a window of a film. If not set: --seconds.
    localization_step: Seconds between two windows.
    """

    _argument_group_name: ClassVar[str] = "temporal localization"

    localization_dataset: str | None = None
    localization_video_column: str | None = None
    localization_text_column: str | None = None
    localization_start_column: str | None = None
    localization_end_column: str | None = None
    localization_seconds: float | None = None
    localization_step: float = 1.0

    def validate_ranges(self):
        for name in ("localization_seconds", "localization_step"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, but is {value}.")

    def validate_columns(self):
        if (self.localization_start_column is None) != (self.localization_end_column is None):
            raise ValueError(
                "localization_start_column and localization_end_column are the start and the end of the same times. "
                "Give both, or neither."
            )

    def validate_use(self):
        for name in vars(self):
            refuse_without_effect(self, name, self.localization_dataset is None, "the films of localization_dataset")

    @property
    def columns(self) -> dict[str, str | None]:
        """Names in the data by canonical names, see `TimedFilms`."""
        return {
            "video": self.localization_video_column,
            "text": self.localization_text_column,
            "true_start": self.localization_start_column,
            "true_end": self.localization_end_column,
        }


def answers(chosen: np.ndarray, times: np.ndarray, sentences: Iterable[Sentence]) -> Answers:
    """Returns whether each chosen window is right, its error in seconds, and its weight: `(3, k)`.

    chosen: windows that are chosen for each sentence, bool `(m, n)`; several are equally likely, so that weights of a
    sentence add up to 1. times: of the windows, `(n,)`. The error is the distance to the middle of the nearest time of
    the sentence."""
    weights = chosen / chosen.sum(1, keepdims=True)
    right = np.stack([within(times, sentence.times) for sentence in sentences])
    errors = np.stack([np.abs(times[:, None] - each.times.mean(1)).min(1) for each in sentences])
    return np.stack([right[chosen], errors[chosen], weights[chosen]])


def summary(of_films: Iterable[Answers]) -> Metrics:
    """Returns R@1 and the median error in seconds over the answers of all films."""
    right, errors, weights = np.concatenate(list(of_films), axis=1)
    order = np.argsort(errors, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    lower, upper = (errors[order[np.argmax(share >= 0.5 + side)]] for side in (-1e-9, 1e-9))
    return {R1: float((right * weights).sum() / weights.sum()), MEDIAN: float((lower + upper) / 2)}


def of_embeddings(windows: Tensor, sentences: Tensor, plan: Plan) -> Answers:
    """Returns the answers of embeddings of a film's windows, `(n, D)`, and sentences, `(m, D)`: those of the nearest
    window of each sentence by cosine. Of windows that are equally near, each is equally likely: embeddings that are all
    equal answer at random. Raises `ValueError` for embeddings that are not finite."""
    check_features(windows=windows, sentences=sentences)
    scores = F.normalize(sentences.float(), dim=1) @ F.normalize(windows.float(), dim=1).T  # (m, n)
    return answers((scores >= scores.amax(1, keepdim=True) - TIE).numpy(), plan.times, plan.sentences)


def of_chance(plan: Plan) -> Answers:
    """Returns the answers of a random window: all, equally likely."""
    return answers(np.ones((len(plan.sentences), len(plan.times)), bool), plan.times, plan.sentences)


def of_subtitles(plan: Plan) -> Answers:
    """Returns the answers of the middles of the times of the subtitles."""
    times = np.array([np.mean(sentence.subtitle) for sentence in plan.sentences])
    return answers(np.eye(len(times), dtype=bool), times, plan.sentences)


def compute(subject: Subject) -> Metrics:
    """Computes R@1 and the median error of the films of a labelled set; `{}` for a set without."""
    if subject.labelled.timed is None:
        return {}
    of_films = []
    for plan, batches in subject.labelled.timed:
        sentences = subject.embed("text", subject.text_batches([sentence.text for sentence in plan.sentences]))
        of_films.append(of_embeddings(subject.embed("video", batches), sentences, plan))
    return summary(of_films)


def chance_of(labelled: LabelledSet, model: PretextModel | type[PretextModel]) -> Metrics:
    """Chance levels of `compute`: the exact expectation of R@1 for a random window, and the median over all windows."""
    return {} if labelled.timed is None else summary(map(of_chance, labelled.timed.plans))


def described(labelled: LabelledSet) -> dict:
    """Describes the films of a labelled set for results.json, with the metrics of the times of the subtitles, if these
    have others; `{}` for a set without films."""
    films = labelled.timed
    if films is None:
        return {}
    return {
        "localization": {
            "dataset": relative(films.name),
            "revision": films.revision,
            "films": len(films.plans),
            "sentences": len(films),
            "left_out": dict(films.left_out),
            "seconds": films.seconds,
            "step": films.step,
            "subtitles": summary(map(of_subtitles, films.plans)) if films.has_subtitles else None,
        }
    }


def words(name: str) -> str | None:
    """Wording of a metric."""
    return WORDS.get(name)


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    films = results["localization"]
    subtitles = films["subtitles"]
    compared = (
        f" The times of the subtitles themselves: R@1 {subtitles[R1]:.3f}, median error {subtitles[MEDIAN]:.1f} s."
        if subtitles
        else ""
    )
    left_out = "".join(f" {count:,} {what} are left out." for what, count in films["left_out"].items())
    return (
        f"Temporal localization: for each of {films['sentences']:,} sentences, the nearest window by cosine is looked "
        f"for in its own film, of {films['films']:,} films of `{films['dataset']}`. A window lasts "
        f"{films['seconds']:g} s; there is one every {films['step']:g} s. R@1 is the share of sentences for which the "
        "middle of this window is within their true time, and the error is the distance of the two middles. Chance is "
        f"a random window.{compared}{left_out}"
    )


MEASURE = Measure(
    needs=("embed",),
    kinds=("video", "text"),
    compute=compute,
    chance=chance_of,
    words=words,
    protocol=protocol,
    headlines=(R1, MEDIAN),
    options=(LocalizationArguments,),
    least_kinds=2,
    order=5,
)
