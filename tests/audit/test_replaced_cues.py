"""What a model detects replaced tokens by, on texts where the token before decides, and where nothing does."""

import numpy as np
import pytest
import torch
from markov import SPECIAL, labelled, trained, words
from transformers import BertConfig

from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.entry import Audit, AuditOptions
from hf_pretext.audit.task import task_audit
from hf_pretext.audit.token_cues import CLASS_FREQUENCY, TokenCues
from hf_pretext.modules.token_cues import LEFT_AND_TOKEN, NEIGHBOURS, POSITION, TOKEN, TOKEN_AND_RIGHT
from hf_pretext.objectives.replaced_token import ReplacedTokenForPreTraining

NEVER, PAIRS, ROWS = 4, 8, {"train": 1200, "validation": 300, "test": 300}  # two markers, two words of noise
FIRST = len(SPECIAL) + NEVER  # the word that the generator writes; the one after it is always replaced by it
LENGTH = 3 * PAIRS + 2  # a word of noise for each pair, and a token at both ends
SHARE = PAIRS / 2 / LENGTH  # of replaced tokens
ENTROPY = -SHARE * np.log2(SHARE) - (1 - SHARE) * np.log2(1 - SHARE)
OF_TOKEN = ENTROPY - PAIRS / LENGTH  # bits in the token: half of the words are replaced, and nothing else is


def texts(decides: bool) -> dict[str, np.ndarray]:
    """Pairs of a marker and a word, among words of noise. decides: whether the marker decides the word."""
    random, made = np.random.default_rng(0), {}

    def row() -> list[int]:
        markers, noise = random.integers(0, 2, PAIRS), random.integers(2, NEVER, PAIRS)
        after = NEVER + (markers if decides else random.integers(0, 2, PAIRS))
        units = [*zip(markers, after, strict=True), *zip(noise, strict=True)]
        return [token for place in random.permutation(2 * PAIRS) for token in units[place]]

    for split, rows in ROWS.items():
        made[split] = np.array([row() for _ in range(rows)])
    return made


def detector(seed: int = 0) -> ReplacedTokenForPreTraining:
    """All words are masked, and the generator writes the same one for each: half of them are not the original ones."""
    shape = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    config = BertConfig(vocab_size=len(SPECIAL) + NEVER + 2, max_position_embeddings=64, pad_token_id=0, **shape)
    torch.manual_seed(seed)
    special = [*range(len(SPECIAL) + NEVER)]
    settings = dict(mask_token_id=4, special_token_ids=special, mask_ratio=0.99, generator_size=0.5)
    model = ReplacedTokenForPreTraining.from_encoder(config, temperature=1e-6, **settings)
    with torch.no_grad():
        model.token_generator.get_output_embeddings().bias[FIRST] = 1e4
    return model


@pytest.fixture(scope="module")
def decided():
    return labelled(texts(decides=True), words(NEVER + 2))


def bits(table: dict, cue) -> float:
    return table[cue if isinstance(cue, str) else cue.name]["bits"][0]


def test_what_the_readers_get_is_known(decided):
    audit = task_audit(detector(), decided)
    assert isinstance(audit, TokenCues)
    table = audit.sufficiency()
    assert bits(table, LEFT_AND_TOKEN) == pytest.approx(ENTROPY, abs=0.02)
    assert table[LEFT_AND_TOKEN.name]["accuracy"] == table[NEIGHBOURS.name]["accuracy"] == [1.0]
    for cue in (TOKEN, TOKEN_AND_RIGHT):
        assert bits(table, cue) == pytest.approx(OF_TOKEN, abs=0.02)
    assert table[CLASS_FREQUENCY] == {
        "role": "cue",
        "bits": [0.0],
        "accuracy": [pytest.approx(1 - SHARE, abs=0.02)],
    }
    assert table[SHUFFLED]["role"] == "control" and abs(bits(table, SHUFFLED)) < 0.01


def test_where_nothing_decides_the_neighbours_add_nothing():
    table = task_audit(detector(), labelled(texts(decides=False), words(NEVER + 2))).sufficiency()
    for cue in (TOKEN, LEFT_AND_TOKEN, TOKEN_AND_RIGHT):
        assert bits(table, cue) == pytest.approx(OF_TOKEN, abs=0.02)
    assert abs(bits(table, SHUFFLED)) < 0.01 and bits(table, POSITION) < OF_TOKEN + 0.01


def test_a_marker_is_found_and_used(decided):
    """End to end: as an entry of results.json."""
    model = trained(detector(), decided, steps=300)
    audit = Audit(decided, AuditOptions(only=("cues",), trained_on=True))
    entry = audit.entry({"trained": [lambda: model], "random": [lambda: detector(1)]})
    cues, answers = entry["cues"], entry["task"]["trained"]
    assert entry["task"]["unit"] == "token" and not entry["warnings"]
    assert answers["entropy"]["mean"] == pytest.approx(ENTROPY, abs=0.02)
    assert answers["bits"]["mean"] > ENTROPY - 0.05 and answers["accuracy"]["mean"] > 0.99
    assert abs(answers["overfitting"]["mean"]) < 0.02 and entry["task"]["random"]["bits"]["mean"] < 0.1
    by_chance = SHARE**2 + (1 - SHARE) ** 2  # that another token has the same answer
    assert cues[LEFT_AND_TOKEN.name]["without"]["mean"] == pytest.approx(by_chance, abs=0.07)
    assert cues[LEFT_AND_TOKEN.name]["conflict"]["mean"] > 0.95
    assert "without" not in cues[POSITION.name] and "without" in cues[NEIGHBOURS.name]


def test_the_same_metrics_twice(decided):
    model, state = detector().train(), torch.get_rng_state()
    first, second = (task_audit(model, decided) for _ in range(2))
    assert first.answers() == second.answers()
    assert first.reliance() == second.reliance()
    assert first.sufficiency() == second.sufficiency()
    assert torch.equal(torch.get_rng_state(), state) and model.training and model.eval_seed == 0
