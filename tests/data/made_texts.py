"""Makes random texts for the tests of tokenizers and of tokenised texts."""

import datasets
import numpy as np

from hf_pretext.data.sources import open_source

SENTENCE = "the film was a long walk through rain and light with people who never said what they wanted Größe 電影"
WORDS = SENTENCE.split()


def corpus(count: int = 60, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(2, 60))) for _ in range(count)]


def source(contents):
    return open_source(datasets.Dataset.from_dict({"text": contents}), needed=("text",))
