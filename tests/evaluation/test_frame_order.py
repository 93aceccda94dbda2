"""Order of frames: a model that needs the order, one that reads the last frame alone, and one without embeddings."""

import logging

import pytest
import torch
from filmed import CLASSES, FRAMES, PAIRS, Watching, filmed, with_capabilities

from hf_pretext.evaluation.frame_order import MEASURE, SEED, WORDS, FrameOrderArguments, chance_of, check, compute
from hf_pretext.evaluation.measure import Subject, chance_levels, measure_model, measures

CHOSEN = {FrameOrderArguments: FrameOrderArguments(order_classes=["order"])}
ORDERED = [place for place, name in enumerate(CLASSES) if name == "order"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, cache):
    return filmed(tmp_path_factory.mktemp("films"))


def shuffled_pairs() -> list[tuple[int, int]]:
    """Tones of the first and last frame of each film in the random order of the measure, batch by batch."""
    random, pairs = torch.Generator().manual_seed(SEED), []
    for first in range(0, len(PAIRS), 5):
        for (a, b), places in zip(
            PAIRS[first : first + 5],
            torch.rand(min(5, len(PAIRS) - first), FRAMES, generator=random).argsort(1),
            strict=True,
        ):
            tones = torch.tensor([a, a, b, b])[places].tolist()
            pairs.append((tones[0], tones[-1]))
    return pairs


def shares(right: list[bool]) -> tuple[float, float]:
    """Over all films, and over those of the class whose films need the order."""
    return sum(right) / len(right), sum(right[i] for i in ORDERED) / len(ORDERED)


def test_a_model_that_knows_the_order_is_wrong_where_it_is_lost(labelled):
    metrics = compute(Subject(Watching(labelled), labelled, options=CHOSEN))
    everything, chosen = shares([a == b for a, b in zip(shuffled_pairs(), PAIRS, strict=True)])
    assert 0 < chosen < 1
    assert metrics == pytest.approx({
        "frames_in_order_r1": 1.0, "frames_shuffled_r1": everything, "frames_last_r1": 3 / 9,
        "frames_in_order_r1_chosen": 1.0, "frames_shuffled_r1_chosen": chosen, "frames_last_r1_chosen": 0.0,
    })  # fmt: skip
    assert set(metrics) == set(chance_of(labelled, Watching, CHOSEN)) and set(metrics) < set(WORDS)
    assert chance_of(labelled, Watching, CHOSEN)["frames_last_r1_chosen"] == pytest.approx(1 / 9)


def test_a_model_of_the_last_frame_needs_no_other(labelled):
    metrics = compute(Subject(Watching(labelled, last_alone=True), labelled, options=CHOSEN))
    assert metrics["frames_in_order_r1"] == metrics["frames_last_r1"] == pytest.approx(3 / 9)
    assert metrics["frames_in_order_r1_chosen"] == metrics["frames_last_r1_chosen"] == 0.0


@pytest.mark.parametrize("capabilities", [("match",), ("match", "condense")])
def test_without_embeddings_it_is_the_better_of_two_captions(labelled, capabilities):
    kind = with_capabilities(*capabilities)
    model = kind(labelled)
    metrics = compute(Subject(model, labelled, options=CHOSEN))
    everything, chosen = shares([a == b for a, b in zip(shuffled_pairs(), PAIRS, strict=True)])
    assert metrics == pytest.approx({
        "frames_in_order_match": 1.0, "frames_shuffled_match": everything, "frames_last_match": 3 / 9,
        "frames_in_order_match_chosen": 1.0, "frames_shuffled_match_chosen": chosen, "frames_last_match_chosen": 0.0,
    })  # fmt: skip
    assert chance_of(labelled, kind, CHOSEN) == dict.fromkeys(metrics, 0.5)
    assert model.read == len(PAIRS) * (1 if "condense" in capabilities else 6)


def test_films_are_read_once_for_all_measures_of_a_model_that_condenses(labelled):
    model = with_capabilities("match", "predict_tokens", "condense")(labelled)
    metrics = measure_model(model, labelled, options=CHOSEN)
    assert model.read == 2 * len(PAIRS)  # validation and test
    assert list(metrics) == list(chance_levels(model, labelled, CHOSEN))
    assert metrics["matching_hard"] == metrics["masked_text_own_video"] == 1.0


def test_retrieval_of_films_and_sentences_is_among_the_different_ones_of_the_set(labelled):
    metrics, chance = measure_model(Watching(labelled), labelled), chance_levels(Watching, labelled)
    for direction in ("video_to_text", "text_to_video"):
        assert metrics[f"{direction}_r1"] == metrics[f"{direction}_r5"] == 1.0
        assert chance[f"{direction}_r1"] == pytest.approx(1 / 9) and chance[f"{direction}_r5"] == pytest.approx(5 / 9)
        assert {f"{direction}_r1", f"{direction}_r5"} <= {name for each in measures() for name in each.headlines}


def test_classes_are_optional_and_must_have_rows(labelled):
    assert set(compute(Subject(Watching(labelled), labelled))) == {
        f"frames_{name}_r1" for name in ("in_order", "shuffled", "last")
    }
    wrong = {FrameOrderArguments: FrameOrderArguments(order_classes=["order", "ordre"])}
    with pytest.raises(
        ValueError, match=r"--order_classes ordre: no row of the test split of .* \(kind\) are one, order"
    ):
        check(labelled, wrong)
    check(labelled, CHOSEN)
    only = {FrameOrderArguments: FrameOrderArguments(order_classes=["of another set"])}  # a held-out set may lack them
    assert set(chance_of(labelled, Watching, only)) == set(compute(Subject(Watching(labelled), labelled, options=only)))


def test_one_frame_has_no_order(tmp_path, caplog):
    labelled = filmed(tmp_path, frames=1)
    with caplog.at_level(logging.WARNING):
        logging.getLogger("hf_pretext").propagate = True
        assert chance_of(labelled, Watching, {}) == {} == compute(Subject(Watching(labelled), labelled))


def test_the_protocol_names_the_classes_and_how_it_is_measured():
    results = {"measures": {"trained": {"frames_last_r1": 0}}, "eval_order_classes": ["first", "second"]}
    assert "Chosen classes are `first`, `second`." in MEASURE.protocol(results)
    assert "R@1 of video to caption" in MEASURE.protocol(results)
    text = MEASURE.protocol({"measures": {"trained": {"frames_last_match": 0}}})
    assert "matching score" in text and "Chosen" not in text
