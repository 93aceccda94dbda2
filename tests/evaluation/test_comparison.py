"""Trained encoders next to random ones and to what needs none."""

from functools import partial

import pytest
import torch
from conftest import CONFIGS, EMOJI

from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.comparison import (
    UNMEASURED,
    compare,
    compare_measures,
    encoder_transfer,
    pretext_metrics,
    random_transfer,
    trained_transfer,
    with_gray,
)
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.pixels import pixel_transfer
from hf_pretext.evaluation.transfer import METHODS, chosen_together, methods_of
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modules.lab import lab_of
from hf_pretext.objectives.rotation import RotationForPreTraining


def labelled_at(size: int, limit: int) -> LabelledSet:
    return LabelledSet(str(EMOJI), Inputs(Image(default_processor(size))), "group", limit=limit)


@pytest.fixture(scope="module")
def labelled():
    return labelled_at(16, 60)


def test_random_encoders_and_baselines(labelled):
    random = random_transfer(lambda: build_encoder(CONFIGS["resnet"]()), labelled, "image")
    assert set(random) == {"initial statistics", "recomputed statistics"}
    assert set(random["recomputed statistics"]["knn"]["layers"]) == {"-1", "-2", "-3"}
    fresh_vit = partial(build_encoder, CONFIGS["vit"]())
    assert set(random_transfer(fresh_vit, labelled_at(32, 30), "image")) == {"initial statistics"}  # no batch norm
    (random,) = chosen_together([random])
    pixels = pixel_transfer(labelled, METHODS)
    compared = compare([random] * 3, [random] * 3, {"pixels": pixels}, labelled.labels.majority())
    assert set(compared["figures"]) == {"trained", "random", "pixels", "majority"}
    assert compared["beats_random"] == {"knn_top1": False, "linear_probe_top1": False}
    assert compared["figures"]["pixels"]["knn_top1"]["mean"] == pixels["knn"]["test"]["top1"]


def test_images_in_grey_are_measured_next_to_those_in_colour(labelled):
    seen = {}

    def measure(labelled, **options):
        seen[options["methods"] is METHODS] = next(iter(labelled.batches("test", "image")))["pixel_values"]
        return trained_transfer(encoder, labelled, "image", **options)

    encoder, methods = build_encoder(CONFIGS["resnet"]()), methods_of([0.5])
    measured = with_gray(measure, labelled, True, methods=methods)["as trained"]
    assert list(measured) == ["linear_probe_50%", "knn", "linear_probe_gray", "knn_gray"]
    colored, gray = seen[False], seen[True]
    assert torch.equal(gray[:, :1].expand_as(gray), gray) and not torch.equal(colored[:, :1], colored[:, 1:2])
    light, of_gray = (lab_of((pixels + 1) / 2)[:, 0] for pixels in (colored, gray))
    torch.testing.assert_close(of_gray, light, atol=0.05, rtol=0)  # the same lightness
    assert measured["knn_gray"]["test"] != measured["knn"]["test"]
    assert list(with_gray(measure, labelled, False, methods=methods)["as trained"]) == ["linear_probe_50%", "knn"]


def test_probes_of_images_that_know_a_share_of_the_labels(labelled):
    methods = methods_of([0.1, 1.0])
    encoder = build_encoder(CONFIGS["resnet"]())
    measured = encoder_transfer(encoder, labelled, "image", methods)
    assert list(measured) == list(methods) == ["linear_probe_10%", "linear_probe_100%", "knn"]
    few = measured["linear_probe_10%"]["layers"]["-1"]["labels"]
    assert 0 < few < len(labelled.labels.splits["train"]) / 4
    of_all = encoder_transfer(encoder, labelled, "image", METHODS)
    assert measured["linear_probe_100%"] == of_all["linear_probe"] and measured["knn"] == of_all["knn"]
    pixels = {"pixels": pixel_transfer(labelled, methods)}
    compared = compare([measured] * 3, [measured] * 3, pixels, labelled.labels.majority())
    assert compared["methods"] == list(methods)
    assert compared["figures"]["pixels"]["linear_probe_10%_top1"]["mean"] is not None


def test_a_method_that_a_baseline_has_no_answer_to_is_left_open():
    def of(value):
        return {"test": {"top1": value, "mean_class": value / 2}}

    ours = {"linear_probe": of(0.6), "knn": of(0.4)}
    compared = compare([ours], [ours], {"TF-IDF": {"linear_probe": of(0.7)}}, {"top1": 0.1, "mean_class": 0.2})
    baseline = compared["figures"]["TF-IDF"]
    assert baseline["knn_top1"] == baseline["knn_mean_class"] == UNMEASURED
    assert baseline["linear_probe_top1"]["mean"] == 0.7
    assert compared["figures"]["trained"]["knn_mean_class"]["values"] == [0.2]


@pytest.mark.parametrize(
    ("values", "answer"),
    [([0.9, 0.91, 0.92], True), ([0.5, 0.51, 0.52], False), ([0.4, 0.6, 0.8], False), ([0.9], None)],
)
def test_what_it_started_from_is_one_encoder_without_a_spread(values, answer):
    """The margin is twice the standard deviation over the trained seeds."""
    trained = [{"knn": {"test": {"top1": value, "mean_class": value}}} for value in values]
    start = {"knn": {"test": {"top1": 0.5, "mean_class": 0.5}}}
    compared = compare(trained, trained, {}, {"top1": 0.1, "mean_class": 0.1}, start)
    assert list(compared["figures"]) == ["trained", "start", "random", "majority"]
    assert compared["beats_start"] == {"knn_top1": answer}
    assert "beats_start" not in compare(trained, trained, {}, {"top1": 0.1, "mean_class": 0.1})
    measures = compare_measures([{"r1": 0.5}], [{"r1": 0.1}], {"r1": 0.0}, {"r1": 0.3})
    assert list(measures) == ["trained", "start", "random", "chance"] and measures["start"]["r1"]["mean"] == 0.3


def test_measures_are_compared_where_they_have_a_chance_level():
    trained, random = [{"r1": 0.5, "left_out": 3.0}, {"r1": 0.7, "left_out": 3.0}], [{"r1": 0.1, "left_out": 3.0}] * 3
    compared = compare_measures(trained, random, {"r1": 0.05})
    assert list(compared) == ["trained", "random", "chance"]
    assert all(set(metrics) == {"r1"} for metrics in compared.values())
    assert compared["trained"]["r1"]["mean"] == pytest.approx(0.6)
    assert len(compared["random"]["r1"]["values"]) == 3
    assert compared["chance"]["r1"]["values"] == [0.05]


def test_pretext_metrics_are_means_over_images(labelled):
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"]())
    batches = [
        {"pixel_values": b["pixel_values"][part]}
        for b in labelled.batches("test")
        for part in (slice(0, 50), slice(50, 60))
    ]
    metrics = pretext_metrics(model, batches)
    with torch.no_grad():
        outputs = [model.eval()(**batch) for batch in batches]
    accuracy = (5 * outputs[0].logs["accuracy"] + outputs[1].logs["accuracy"]).item() / 6
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert metrics["loss"] == pytest.approx((5 * outputs[0].loss + outputs[1].loss).item() / 6)
