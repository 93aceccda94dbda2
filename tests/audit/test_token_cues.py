"""What a masked language model answers by, on texts whose cues are known."""

import numpy as np
import pytest
import torch
from markov import (
    CHAIN,
    LENGTH,
    RATIO,
    SPECIAL,
    chains,
    expected,
    information,
    labelled,
    masked_lm,
    stationary,
    trained,
    words,
)
from transformers import BertConfig, LlamaConfig

from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.task import task_audit
from hf_pretext.audit.token_cues import FREQUENCY, SPACING, WIDEST, TokenCues, buckets, sparse
from hf_pretext.modules.masking import positions_of
from hf_pretext.modules.token_cues import IN_PLACE, LEFT, NEIGHBOURS, POSITION, RIGHT, tokens_at
from hf_pretext.objectives.causal_lm import CausalLMForPreTraining
from hf_pretext.objectives.sentence import SentenceForPreTraining

KINDS, NOISE, SHORT = 8, 12, 10  # planted words, each after a marker of its own, among words of noise
CONTROLS = (FREQUENCY, SHUFFLED)


@pytest.fixture(scope="module")
def chain_set():
    return labelled(chains(), words(4))


def bits(table: dict, cue) -> float:
    return table[cue if isinstance(cue, str) else cue.name]["bits"][0]


def accuracy(table: dict, cue) -> float:
    return table[cue if isinstance(cue, str) else cue.name]["accuracy"][0]


def test_bits_of_neighbours_in_a_markov_chain(chain_set):
    table = task_audit(masked_lm(4, mask_ratio=RATIO), chain_set).sufficiency()
    left, both = expected()
    assert bits(table, LEFT) == pytest.approx(left, abs=0.05) and bits(table, RIGHT) == pytest.approx(left, abs=0.05)
    assert bits(table, NEIGHBOURS) == pytest.approx(both, abs=0.05) and both > left + 0.2
    assert all(abs(bits(table, name)) < 0.01 for name in (*CONTROLS, POSITION, IN_PLACE))
    assert accuracy(table, FREQUENCY) == pytest.approx(stationary().max(), abs=0.03)
    assert table[SHUFFLED]["role"] == "control" and table[FREQUENCY]["role"] == table[LEFT.name]["role"] == "cue"


def answering(sharpness: float):
    """The best answers from both neighbours, as logits that are too sharp by a factor."""
    chain = np.ones((len(SPECIAL) + 5,) * 2)  # after or before what is no word, all is possible
    chain[5:9, 5:9] = CHAIN / stationary()
    base = torch.full((9,), -30.0)
    base[5:] = torch.from_numpy(stationary()).log()

    def answer(asked, input_ids, attention_mask):
        left, right = (tokens_at(input_ids, place, 9)[positions_of(asked)].numpy() for place in (-1, 1))
        scores = np.log(chain[left][:, :9]) + np.log(chain[:, right].T[:, :9])
        return base + sharpness * torch.from_numpy(scores).float()

    return answer


@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_bits_of_a_model_that_knows_the_chain(chain_set, sharpness):
    """One temperature on validation makes up for answers that are too sure."""
    model = masked_lm(4, mask_ratio=RATIO)
    model.answer = answering(sharpness)
    answers = task_audit(model, chain_set).answers()
    assert answers["bits"] == pytest.approx(expected()[1], abs=0.05)
    assert answers["entropy"] == pytest.approx(information()[0], abs=0.02)
    assert abs(answers["overfitting"]) < 0.05 and answers["accuracy"] > 0.5


def test_a_model_with_random_weights_has_no_bits(chain_set):
    model = masked_lm(4, mask_ratio=RATIO).train()
    answers = task_audit(model, chain_set).answers()
    assert 0 <= answers["bits"] < 0.02 and model.training


def test_random_texts_reveal_nothing():
    random = np.random.default_rng(0)
    texts = {
        split: random.integers(0, 6, (rows, 30))
        for split, rows in (("train", 1500), ("validation", 600), ("test", 600))
    }
    table = task_audit(masked_lm(6, mask_ratio=RATIO), labelled(texts, words(6))).sufficiency()
    assert all(abs(bits(table, cue)) < 0.01 for cue in table)
    assert all(accuracy(table, cue) == pytest.approx(1 / 6, abs=0.03) for cue in table)


def test_a_token_that_is_left_in_its_place_is_a_cue(chain_set):
    """Half of the masked tokens stay: the reader knows them by their place."""
    table = task_audit(masked_lm(4, mask_ratio=RATIO, replaced_by_mask=0.5), chain_set).sufficiency()
    assert bits(table, IN_PLACE) == pytest.approx(information()[0] / 2, abs=0.05)


def test_a_token_in_a_fixed_place_is_found():
    """One word is always third, one is always sixth; only these two are asked."""
    random, texts = np.random.default_rng(0), {}
    for split, rows in (("train", 600), ("validation", 200), ("test", 200)):
        texts[split] = random.integers(2, 2 + NOISE, (rows, SHORT))
        texts[split][:, 2], texts[split][:, 5] = 0, 1
    never = [*range(5), *range(7, 7 + NOISE)]
    model = masked_lm(2 + NOISE, mask_ratio=0.9, special_token_ids=never)
    table = task_audit(model, labelled(texts, words(2 + NOISE))).sufficiency()
    assert accuracy(table, POSITION) == 1 and bits(table, POSITION) == pytest.approx(1, abs=0.02)
    for cue in (NEIGHBOURS, *CONTROLS):
        assert abs(bits(table, cue)) < 0.02 and accuracy(table, cue) < 0.65


def planted() -> dict[str, np.ndarray]:
    """Noise with one marker, and right after it the word that belongs to the marker."""
    random, texts = np.random.default_rng(0), {}
    for split, rows in (("train", 2000), ("validation", 300), ("test", 600)):
        some = random.integers(2 * KINDS, 2 * KINDS + NOISE, (rows, SHORT))
        kind, column = random.integers(0, KINDS, rows), random.integers(0, SHORT - 1, rows)
        some[np.arange(rows), column], some[np.arange(rows), column + 1] = KINDS + kind, kind
        texts[split] = some
    return texts


def test_a_planted_marker_is_found_and_used():
    some = labelled(planted(), words(2 * KINDS + NOISE))
    never = [*range(5), *range(5 + KINDS, 5 + 2 * KINDS + NOISE)]
    model = trained(masked_lm(2 * KINDS + NOISE, special_token_ids=never), some)
    audit = task_audit(model, some)
    assert isinstance(audit, TokenCues)
    table, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    assert accuracy(table, LEFT) == accuracy(table, NEIGHBOURS) == 1 and bits(table, LEFT) > 2.9
    assert all(accuracy(table, cue) < 0.2 and abs(bits(table, cue)) < 0.02 for cue in (RIGHT, POSITION, *CONTROLS))
    assert answers["accuracy"] > 0.99 and answers["bits"] > 2.9
    for cue in (LEFT, NEIGHBOURS):
        assert reliance[cue.name]["without"] < 0.2 and reliance[cue.name]["conflict"] > 0.95
    assert reliance[RIGHT.name]["without"] > 0.95 and reliance[RIGHT.name]["conflict"] < 0.05
    assert POSITION.name not in reliance
    again = task_audit(model, some)
    assert (again.sufficiency(), again.answers(), again.reliance()) == (table, answers, reliance)


def test_next_tokens_are_audited(chain_set):
    """The token before the next one says all that a Markov chain has of it."""
    shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = CausalLMForPreTraining.from_encoder(LlamaConfig(vocab_size=9, pad_token_id=0, **shape))
    audit = task_audit(model, chain_set)
    table, reliance = audit.sufficiency(), audit.reliance()
    asked, followed = LENGTH + 1, LENGTH - 1  # with the end of the text; words after a word
    least = information()[1] * followed / asked
    assert least - 0.05 < bits(table, LEFT) < least + 0.15
    assert bits(table, "two tokens before") == pytest.approx(bits(table, LEFT), abs=0.02)
    assert reliance.keys() == {LEFT.name, "two tokens before"} and bits(table, FREQUENCY) == 0
    assert abs(bits(table, SHUFFLED)) < 0.01


def test_the_tokens_of_a_rebuilt_text_are_audited(chain_set):
    """TSDAE: next tokens, given the vector of a text without some of its words."""
    shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=0)
    config = BertConfig(vocab_size=9, max_position_embeddings=64, **shape)
    tokens = dict(start_token_id=2, end_token_id=3, pad_token_id=0)
    model = SentenceForPreTraining.from_encoder(config, method="tsdae", **tokens)
    audit = task_audit(model, chain_set)
    table, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    least = information()[1] * (LENGTH - 1) / (LENGTH + 1)
    assert least - 0.05 < bits(table, LEFT) < least + 0.15 and abs(bits(table, SHUFFLED)) < 0.01
    assert reliance.keys() == {LEFT.name, "two tokens before"} and 0 <= answers["bits"] < 0.02
    assert task_audit(model, chain_set).reliance() == reliance
    assert task_audit(SentenceForPreTraining.from_encoder(config), chain_set) is None  # simcse


def test_few_tokens_far_apart_are_drawn():
    asked = torch.rand(70, 150, generator=torch.Generator().manual_seed(0)) < 0.3
    asked[0] = False
    drawn = sparse(asked, torch.Generator().manual_seed(1))
    assert drawn.shape == asked.shape and not (drawn & ~asked).any()
    assert [row.sum().item() for row in drawn] == [0, *[3] * 69]
    assert (drawn.nonzero()[:, 1] % SPACING).max() < SPACING - WIDEST
    assert torch.equal(drawn, sparse(asked, torch.Generator().manual_seed(1)))


def test_buckets_of_positions_are_exact_at_the_start_and_grow():
    found = buckets(np.arange(256))
    assert found[:9].tolist() == [*range(9)] and (np.diff(found) >= 0).all() and len(set(found)) == found.max() + 1
    assert found[128] - found[64] == 4
