"""Readers of tokens by counts: their probabilities."""

import numpy as np
import pytest

from hf_pretext.audit.counts import CountReader, Counts, Settings, conditional, frequencies, interpolated, mixed

VOCABULARY = 7


def some(seed: int, count: int = 200) -> tuple[list[np.ndarray], np.ndarray]:
    """Two contexts that depend on the token, and tokens."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, VOCABULARY, count)
    return [(tokens + random.integers(0, 3, count)) % (VOCABULARY + 1) for _ in range(2)], tokens


def reader(contexts: int) -> CountReader:
    (given, tokens), prior = some(0), np.arange(1, VOCABULARY + 1) / np.arange(1, VOCABULARY + 1).sum()
    return CountReader(given[:contexts], tokens, prior)


@pytest.mark.parametrize("contexts", [1, 2])
def test_probabilities_sum_to_one_and_are_those_of_the_choice(contexts):
    """The sums over tokens that `fit` uses equal the ones written out, also for contexts that train lacks."""
    predicts = reader(contexts)
    given, tokens = some(1)
    given = [np.concatenate([one[:contexts] * 0 + 99, one]) for one in given][:contexts]
    given[0][-3:], tokens = 1234, np.concatenate([tokens[:contexts], tokens])
    predicts.fit(given, tokens)
    assert predicts.settings.share > 0.5
    for settings in (predicts.settings, Settings((0.5, 4.0)[:contexts], 2.0, 0.7)):
        predicts.settings = settings
        probabilities = predicts.probabilities(given)
        np.testing.assert_allclose(probabilities.sum(1), 1)
        np.testing.assert_allclose(probabilities[0], predicts.prior)
        seen = [counts.of(one, tokens) for counts, one in zip(predicts.counts, given, strict=True)]
        together = predicts.together and predicts.together.of(predicts._pairs(given), tokens)
        prior = predicts.prior[tokens]
        result = conditional(seen, together, predicts._overlap(given), prior, settings)
        expected = np.take_along_axis(probabilities, tokens[:, None], 1)[:, 0]
        np.testing.assert_allclose(mixed(result, prior, settings.share), expected)
        bits, right = predicts.bits(given, tokens)
        np.testing.assert_allclose(bits, np.log2(expected / prior), atol=1e-12)
        assert (right == (probabilities.argmax(1) == tokens)).all()


def test_one_context_is_smoothed_as_bigrams_are():
    counts = Counts(np.array([3, 3, 3, 5]), np.array([0, 0, 1, 2]), VOCABULARY)
    prior = np.full(VOCABULARY, 1 / VOCABULARY)
    found = interpolated(counts.of_all(np.array([3, 4])), 1.0, prior)
    np.testing.assert_allclose(found[0], (np.array([2, 1, 0, 0, 0, 0, 0]) + 2 * prior) / 5)
    np.testing.assert_allclose(found[1], prior)


def test_a_context_that_says_nothing_gives_no_bits():
    predicts, (given, tokens) = reader(1), some(1, 5000)
    predicts.prior = np.full(VOCABULARY, 1 / VOCABULARY)
    nothing = [np.random.default_rng(5).permutation(given[0])]
    predicts.fit(nothing, tokens)
    assert abs(predicts.bits(nothing, tokens)[0].mean()) < 0.01
    predicts.fit(given[:1], tokens)
    assert predicts.bits(given[:1], tokens)[0].mean() > 0.5


def test_a_large_vocabulary_costs_the_tokens_that_occur_little():
    """Of 1,000 tokens of 20 kinds, 30,000 that never occur take a share of kinds / (tokens + kinds)."""
    tokens = np.random.default_rng(0).integers(0, 20, 1000)
    prior = frequencies(np.bincount(tokens, minlength=30_000))
    assert prior.sum() == pytest.approx(1) and prior.min() > 0
    assert -np.log2(prior[tokens]).mean() < np.log2(20) + 0.05
