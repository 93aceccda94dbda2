"""Several processes with a part of the batch each are one with all of it: loss, and every gradient, of each objective.

All objectives share a run of each number of processes, because starting them takes longer than what they compute.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS
from rank_cases import CASES
from rank_runs import TESTS, same_values, start
from safetensors.torch import load_file

from hf_pretext.encoders import build_encoder

SCRIPT = TESTS / "objectives" / "rank_cases.py"
Values = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """(case, ranks) -> the values of a case on the last of the ranks, by `kind: name`."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(0)
    build_encoder(CONFIGS["resnet"]()).save_pretrained(folder / "frozen")  # for videobert

    @cache
    def of_all(ranks: int, *cases: str) -> Values:
        file = folder / f"{'-'.join((str(ranks), *cases))}.safetensors"
        start(SCRIPT, file, ranks, *cases, ranks=ranks)
        return load_file(file)

    def computed(case: str, ranks: int = 1) -> Values:
        values = of_all(ranks, *(() if ranks < 3 else (case,)))
        return {name.partition("/")[2]: value for name, value in values.items() if name.startswith(f"{case}/")}

    return computed


@pytest.mark.parametrize(
    ("case", "ranks", "least"),
    [
        ("images", 2, 100),
        ("pairs", 2, 100),
        ("joined", 2, 100),
        ("audio_visual", 2, 150),
        ("sentence", 2, 100),
        *(
            pytest.param(case, ranks, 100, marks=pytest.mark.slow)
            for case, ranks in (("images", 3), ("pairs", 3), ("joined", 3), ("audio_visual", 4))
        ),
    ],
)
def test_processes_equal_one_with_the_whole_batch(computed, case, ranks, least):
    one = computed(case)
    assert len(one) > least and {name.partition(":")[0] for name in one} == {*CASES[case][0]}
    same_values(computed(case, ranks), one)


def test_what_the_settings_of_clips_change(computed):
    one = computed("audio_visual")
    assert "fixed temperature: pretext_head.score.logit_scale" not in one
    assert one["shifted: loss"] > one["shifted, none yet: loss"]  # more candidates


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_narrated_clips(computed, ranks):
    """Texts of the last rank are shorter."""
    values, expected = computed("mil_nce", ranks), computed("mil_nce")
    assert "nearest: pretext_head.score.logit_scale" not in expected
    assert "bag: pretext_head.score.logit_scale" in expected
    lengths = [each.pop(name) for each in (expected, values) for name in list(each) if name.endswith(": length")]
    assert len(lengths) == 6 and max(lengths[3:]) < min(lengths[:3])
    assert len(expected) > 150
    same_values(values, expected)


def test_captions(computed):
    """Captions of the second process are shorter."""
    one, two = computed("captioning"), computed("captioning", 2)
    assert two.pop(": predicted") != one.pop(": predicted") / 2
    assert len(one) > 60
    same_values(two, one)


def test_next_tokens(computed):
    """The sequences of the second process have fewer tokens to predict."""
    one, two = computed("causal_lm"), computed("causal_lm", 2)
    assert one.pop(": predicted") == 10 + 11 + 5 + 3 and two.pop(": predicted") == 5 + 3
    assert len(one) > 10
    same_values(two, one)


def test_masked_tokens(computed):
    """The texts of the second process are shorter and have fewer masked tokens, and fewer pairs."""
    one, two = computed("masked_lm"), computed("masked_lm", 2)
    for kind in CASES["masked_lm"][0]:
        assert 0 < two.pop(f"{kind}: predicted") < one.pop(f"{kind}: predicted") / 2
    assert len(one) > 80
    same_values(two, one)


def test_replaced_tokens(computed):
    """The texts of the second process are shorter and have fewer masked tokens."""
    one, two = computed("replaced_token"), computed("replaced_token", 2)
    for kind in CASES["replaced_token"][0]:
        all_tokens, of_last = one.pop(f"{kind}: count"), two.pop(f"{kind}: count")
        assert (of_last < all_tokens / 2).all() and (of_last > 0).all()
    assert len(one) > 120 and all(torch.isfinite(value).all() for value in one.values())
    same_values(two, one)


def test_visual_words(computed):
    """Also the visual words and their cache are the same."""
    one, two = computed("videobert"), computed("videobert", 2)
    assert one[": counts"].sum() == 43 and one[": cached"].unique().numel() > 4
    assert (one[": cached"] < 0).all(1).nonzero().flatten().tolist() == [5, 6]
    for name in (": cached", ": counts"):
        assert torch.equal(one.pop(name), two.pop(name)), name
    centres = [name for name in one if name.startswith(": centres")]
    assert centres
    for name in centres:  # features are float32
        torch.testing.assert_close(two.pop(name), one.pop(name), atol=1e-5, rtol=1e-5)
    assert len(one) > 30
    same_values(two, one)
