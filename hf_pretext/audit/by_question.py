"""Base of the audits of tasks that may ask several questions: those of SoundNet's teachers, of XDC's directions, of the
words and the visual words of VideoBERT.

answers to each question -> their means, and cues that are named by the question, too
"""

from abc import abstractmethod

import numpy as np

from .task import ACCURACY, BITS, ENTROPY, OVERFITTING, QUESTION, TaskAudit, in_evaluation


class ByQuestion(TaskAudit):
    """Audits a model by each of its `questions` in turn. Of several, cues are named by the question, too, and the
    metrics of `answers` are means."""

    @in_evaluation
    def sufficiency(self) -> dict[str, dict]:
        """See `TaskAudit`. The first cue of another example is a control, too."""
        return {
            self._named(name, question): {**each, **({QUESTION: question} if self._several else {})}
            for question in self.model.questions
            for name, each in self._sufficiency(question).items()
        }

    @in_evaluation
    def answers(self) -> dict[str, float]:
        """See `TaskAudit`. Of several questions, `bits_QUESTION` is that of each."""
        each = {question: self._answers(question) for question in self.model.questions}
        means = {
            metric: float(np.mean([answers[metric] for answers in each.values()]))
            for metric in (BITS, ACCURACY, ENTROPY, OVERFITTING)
        }
        return means | ({f"{BITS}_{name}": answers[BITS] for name, answers in each.items()} if self._several else {})

    @in_evaluation
    def reliance(self) -> dict[str, dict[str, float]]:
        return {
            self._named(name, question): each
            for question in self.model.questions
            for name, each in self._reliance(question).items()
        }

    # one question: see `TaskAudit`

    @abstractmethod
    def _sufficiency(self, question: str) -> dict[str, dict]: ...

    @abstractmethod
    def _answers(self, question: str) -> dict[str, float]: ...

    @abstractmethod
    def _reliance(self, question: str) -> dict[str, dict[str, float]]: ...

    @property
    def _several(self) -> bool:
        return len(self.model.questions) > 1

    def _named(self, cue: str, question: str) -> str:
        return f"{cue} ({question.replace('_', ' ')})" if self._several else cue
