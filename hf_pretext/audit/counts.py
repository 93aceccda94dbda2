"""Readers of tokens by counts: how well are tokens predicted from one or two tokens near them, or from their position?

contexts (n,), tokens (n,) of train -> counts -> probability of each token after a context (m, vocabulary)

One context: interpolated Witten-Bell smoothing, see `evaluation/next_token.py`, with a strength. Two contexts: the
product of both conditionals over the marginal, which is right if the contexts are independent given the token, as in a
Markov chain; then interpolated with counts of both contexts together. Last, a share of the marginal is mixed in.
Strengths and share are chosen on validation, by cross-entropy. Sums over the vocabulary are sparse, so that the choice
takes seconds.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

STRENGTHS = (*(2.0**power for power in range(-4, 5)), 1e9)  # of the smoothing; 1 is Witten-Bell, the last hides all
SHARES = tuple(np.linspace(0, 1, 21).tolist())  # of the reader, over the marginal: 0 gives 0 bits
SCORES = 2**22  # dense scores at a time: rows times classes
SPARSE_ROWS = 512  # rows of sparse counts at a time

Contexts = Sequence[np.ndarray]  # one or two arrays (n,) of integers


class Seen(NamedTuple):
    """What train has after contexts.

    count: of one token each, `(n,)`, or of all tokens, `(n, vocabulary)`. total: of tokens after the context, and
    kinds: of different ones, at least 1; `(n,)`, or `(n, 1)`."""

    count: np.ndarray
    total: np.ndarray
    kinds: np.ndarray


class Counts:
    """How often train has each token after each context."""

    def __init__(self, contexts: np.ndarray, tokens: np.ndarray, vocabulary: int):
        """contexts, tokens: integers `(n,)`, tokens below `vocabulary`."""
        self.known, rows = np.unique(contexts, return_inverse=True)
        shape = (len(self.known) + 1, vocabulary)  # the last row: of contexts that train lacks
        self.table = csr_matrix((np.ones(len(rows)), (rows, tokens)), shape)
        self.total = np.asarray(self.table.sum(1))[:, 0]
        self.kinds = np.maximum(np.diff(self.table.indptr), 1)

    def find(self, contexts: np.ndarray) -> np.ndarray:
        """Returns the rows of contexts in the table, `(n,)`."""
        at = np.searchsorted(self.known, contexts).clip(max=len(self.known) - 1)
        return np.where(self.known[at] == contexts, at, len(self.known))

    def of(self, contexts: np.ndarray, tokens: np.ndarray) -> Seen:
        """Returns the counts of one token after each context."""
        at = self.find(contexts)
        return Seen(np.asarray(self.table[at, tokens]).reshape(-1), self.total[at], self.kinds[at])

    def of_all(self, contexts: np.ndarray) -> Seen:
        """Returns the counts of all tokens after each context."""
        at = self.find(contexts)
        return Seen(self.table[at].toarray(), self.total[at, None], self.kinds[at, None])


class Settings(NamedTuple):
    """Settings of a reader: the strength of each context, of both together, and the share of the reader."""

    strengths: tuple[float, ...]
    together: float = 1.0
    share: float = 1.0


class CountReader:
    """Predicts tokens from one or two contexts, by counts. `fit` comes before `bits`.

    contexts, tokens: of train. prior: probabilities of the tokens without a context, `(vocabulary,)`, above 0."""

    def __init__(self, contexts: Contexts, tokens: np.ndarray, prior: np.ndarray):
        self.prior, self.settings = prior, None
        self.counts = [Counts(one, tokens, len(prior)) for one in contexts]
        self.span = 1 + max(int(one.max()) for one in contexts)
        self.together = Counts(self._pairs(contexts), tokens, len(prior)) if len(contexts) == 2 else None

    def fit(self, contexts: Contexts, tokens: np.ndarray) -> None:
        """Chooses the settings that give tokens of validation the highest likelihood."""
        prior, overlap = self.prior[tokens], self._overlap(contexts)
        seen = [counts.of(one, tokens) for counts, one in zip(self.counts, contexts, strict=True)]

        def best(options: Iterable[Settings], together: Seen | None) -> Settings:
            likelihoods = {}
            for settings in options:
                result = conditional(seen, together, overlap, prior, settings)
                for share in SHARES:
                    likelihoods[settings._replace(share=share)] = np.log(mixed(result, prior, share)).mean()
            return max(likelihoods, key=likelihoods.get)

        strengths = itertools.product(STRENGTHS, repeat=len(seen))
        self.settings = best((Settings(some) for some in strengths), None)
        if self.together:
            options = (self.settings._replace(together=strength) for strength in STRENGTHS)
            self.settings = best(options, self.together.of(self._pairs(contexts), tokens))

    def bits(self, contexts: Contexts, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the bits of tokens over the marginal, and whether each is the most likely one: `(n,)` each."""
        bits, right = np.empty(len(tokens)), np.empty(len(tokens), bool)
        step = max(SCORES // len(self.prior), 1)
        for first in range(0, len(tokens), step):
            some = slice(first, first + step)
            probabilities = self.probabilities([one[some] for one in contexts])
            of_token = np.take_along_axis(probabilities, tokens[some, None], axis=1)[:, 0]
            bits[some] = np.log2(of_token / self.prior[tokens[some]])
            right[some] = probabilities.argmax(1) == tokens[some]
        return bits, right

    def probabilities(self, contexts: Contexts) -> np.ndarray:
        """Returns the probabilities of all tokens, `(n, vocabulary)`."""
        seen = [counts.of_all(one) for counts, one in zip(self.counts, contexts, strict=True)]
        together = self.together and self.together.of_all(self._pairs(contexts))
        overlap = self._overlap(contexts)
        overlap = overlap if overlap is None else overlap[:, None]
        result = conditional(seen, together, overlap, self.prior, self.settings)
        return mixed(result, self.prior, self.settings.share)

    def _pairs(self, contexts: Contexts) -> np.ndarray:
        """Returns one number for each pair of contexts, `(n,)`; -1 for those beyond the largest one of train."""
        left, right = (one.astype(np.int64) for one in contexts)
        return np.where(np.maximum(left, right) < self.span, left * self.span + right, -1)

    def _overlap(self, contexts: Contexts) -> np.ndarray | None:
        """Returns the sum over tokens of the product of their counts after both contexts, over the marginal, `(n,)`;
        None for one context."""
        if len(contexts) == 1:
            return None
        parts = []
        for first in range(0, len(contexts[0]), SPARSE_ROWS):
            left, right = (
                counts.table[counts.find(one[first : first + SPARSE_ROWS])]
                for counts, one in zip(self.counts, contexts, strict=True)
            )
            parts.append(left.multiply(right) @ (1 / self.prior))
        return np.concatenate(parts)


def conditional(
    seen: Sequence[Seen], together: Seen | None, overlap: np.ndarray | None, prior: np.ndarray, settings: Settings
) -> np.ndarray:
    """Returns the probabilities of tokens after their contexts.

    seen, together: counts after each context, and after both together; None leaves the latter out. overlap: see
    `product`. prior: probabilities without a context, of the same tokens as the counts."""
    if len(seen) == 1:
        result = interpolated(seen[0], settings.strengths[0], prior)
    else:
        result = product(*seen, settings.strengths, prior, overlap)
    return interpolated(together, settings.together, result) if together else result


def mixed(result: np.ndarray, prior: np.ndarray, share: float) -> np.ndarray:
    """Returns a share of the probabilities of a reader, and for the rest the prior."""
    return share * result + (1 - share) * prior


def interpolated(seen: Seen, strength: float, lower: np.ndarray) -> np.ndarray:
    """Returns smoothed probabilities after a context: counts, plus `strength * kinds` times `lower`, the probabilities
    without the context."""
    weight = strength * seen.kinds
    return (seen.count + weight * lower) / (seen.total + weight)


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Returns smoothed probabilities from counts, `(classes,)`, all above 0.

    Smoothed by Witten-Bell, as the readers are: half a count for each of many classes would take a share of all others,
    that readers give back."""
    return interpolated(Seen(counts, counts.sum(), (counts > 0).sum()), 1.0, 1 / len(counts))


def product(
    left: Seen, right: Seen, strengths: tuple[float, ...], prior: np.ndarray, overlap: np.ndarray
) -> np.ndarray:
    """Returns the product of the probabilities after two contexts, as of `interpolated`, over the prior, normalised.

    overlap: sum over all tokens of left count times right count over prior."""
    a, b = (strength * side.kinds for strength, side in zip(strengths, (left, right), strict=True))
    total = overlap + b * left.total + a * right.total + a * b
    return (left.count + a * prior) * (right.count + b * prior) / prior / total
