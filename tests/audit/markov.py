"""Texts whose tokens are known: a labelled set of words, a small masked language model, and a Markov chain."""

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from hf_pretext import MaskedLMForPreTraining
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.text import Corpus

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LENGTH, ROWS = 40, {"train": 3000, "validation": 700, "test": 700}
RATIO = 0.15
CHAIN = np.array(  # row: a word; column: the one after it
    [[0.7, 0.1, 0.1, 0.1], [0.05, 0.05, 0.8, 0.1], [0.1, 0.1, 0.1, 0.7], [0.5, 0.3, 0.1, 0.1]]
)


def words(count: int) -> list[str]:
    return [f"w{i}" for i in range(count)]


def labelled(texts: dict[str, np.ndarray], vocabulary: list[str], max_length: int = 64) -> LabelledSet:
    """A labelled set of texts, given as numbers of words `(n, length)` by split."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(SPECIAL + vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    both_ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=both_ends)
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    rows = {
        split: {"text": [" ".join(vocabulary[i] for i in row) for row in some], "label": ["a", "b"] * (len(some) // 2)}
        for split, some in texts.items()
    }
    data = datasets.DatasetDict({split: datasets.Dataset.from_dict(some) for split, some in rows.items()})
    return LabelledSet(data, Inputs(Corpus(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names), max_length)))


def masked_lm(vocabulary: int, **settings) -> MaskedLMForPreTraining:
    """A small masked language model with random weights; all masked tokens become the mask token."""
    shape = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    config = BertConfig(vocab_size=len(SPECIAL) + vocabulary, max_position_embeddings=64, pad_token_id=0, **shape)
    torch.manual_seed(0)
    settings = {"special_token_ids": [0, 1, 2, 3, 4], "replaced_by_mask": 1.0, "replaced_by_random": 0.0} | settings
    return MaskedLMForPreTraining.from_encoder(config, mask_token_id=4, **settings)


def trained(model, some, steps: int = 150):
    """Trains on the train texts of a set, for some seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    batches = list(some.pretext_batches("train"))
    ids = torch.cat([batch["input_ids"] for batch in batches])  # all texts are of one length
    torch.manual_seed(0)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(ids), (64,))
        model(input_ids=ids[rows]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def stationary() -> np.ndarray:
    """Probabilities of the words of the chain."""
    values, vectors = np.linalg.eig(CHAIN.T)
    one = np.real(vectors[:, np.argmax(np.real(values))])
    return one / one.sum()


def chains(seed: int = 0) -> dict[str, np.ndarray]:
    """Texts of the Markov chain in its stationary state, by split: `(n, LENGTH)`."""
    random, texts = np.random.default_rng(seed), {}
    for split, rows in ROWS.items():
        some = [random.choice(4, size=rows, p=stationary())]
        for _ in range(LENGTH - 1):
            some.append((random.random((rows, 1)) > CHAIN[some[-1]].cumsum(1)).sum(1))
        texts[split] = np.stack(some, axis=1)
    return texts


def information() -> tuple[float, float, float]:
    """Bits of a word of the chain: of its entropy, in one neighbour (the left or the right one), and in both."""
    prior = stationary()
    pairs = prior[:, None] * CHAIN  # (left, word)
    triples = pairs[:, :, None] * CHAIN  # (left, word, right)
    edges = triples.sum(1, keepdims=True)  # (left, right)
    entropy = -(prior * np.log2(prior)).sum()
    one = (pairs * np.log2(CHAIN / prior)).sum()
    return entropy, one, (triples * np.log2(triples / edges / prior[None, :, None])).sum()


def expected() -> tuple[float, float]:
    """Bits of a masked word in the left neighbour, and in both neighbours, where others may be masked and the first
    and the last word of a text have one neighbour."""
    _, one, both = information()
    masked = round(LENGTH * RATIO)
    seen = (LENGTH - masked) / (LENGTH - 1)  # probability that another word is not masked
    seen_both = seen * (LENGTH - masked - 1) / (LENGTH - 2)
    inner = 1 - 2 / LENGTH
    either = inner * (2 * (seen - seen_both)) + 2 / LENGTH * seen  # one of both neighbours is visible
    return one * seen * (1 - 1 / LENGTH), both * inner * seen_both + one * either
