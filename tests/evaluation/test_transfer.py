"""The transfer protocol: what is chosen on validation, for all seeds alike, and what a verdict takes."""

import numpy as np
import pytest
import torch
from blobs import split_blobs
from conftest import CONFIGS
from transformers import ResNetConfig

from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.transfer import (
    DRAWS,
    METHODS,
    Labels,
    accuracies,
    beats,
    chosen_together,
    label_fractions,
    linear_probe,
    mean_and_spread,
    methods_of,
    recompute_batch_norm,
    some_of_each,
    transfer,
)


def test_accuracies():
    assert accuracies(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])) == {"top1": 0.75, "mean_class": 0.5}


def test_layer_is_chosen_on_validation_not_on_test():
    good, labels = split_blobs(noise=0.1)
    poor = {split: torch.randn_like(value) for split, value in good.items()}
    mixed = {**good, "validation": poor["validation"]}  # right on test, wrong on validation: must not be taken
    slightly = {split: value + 0.3 * torch.randn_like(value) for split, value in good.items()}
    measured = transfer({-1: mixed, -2: slightly, -3: poor}, labels, METHODS)
    for method in ("linear_probe", "knn"):
        assert measured[method]["layer"] == -2
        assert set(measured[method]["layers"]) == {"-1", "-2", "-3"}
        assert measured[method]["test"] == measured[method]["layers"]["-2"]["test"]
        assert measured[method]["layers"]["-1"]["test"]["top1"] > 0.85


def test_without_a_test_split_metrics_are_of_validation():
    splits, labels = split_blobs()
    del splits["test"]
    assert set(transfer({-1: splits}, labels, {"knn": METHODS["knn"]})["knn"]["layers"]["-1"]) == {"validation"}


def test_one_layer_and_variant_are_chosen_for_all_seeds_by_their_mean_on_validation():
    def of(**validation):
        layers = {str(layer): {"validation": {"top1": v}, "test": {"top1": v + 0.1}} for layer, v in validation.items()}
        return {"knn": {"layers": {name.replace("m", "-"): metrics for name, metrics in layers.items()}}}

    chosen = chosen_together(
        [
            {"a": of(m1=0.50, m2=0.59), "b": of(m1=0.60, m2=0.1)},  # alone, this seed would take b's -1
            {"a": of(m1=0.50, m2=0.57), "b": of(m1=0.40, m2=0.1)},
        ]
    )
    assert [(seed["knn"]["variant"], seed["knn"]["layer"]) for seed in chosen] == [("a", -2), ("a", -2)]
    assert [seed["knn"]["test"]["top1"] for seed in chosen] == [0.59 + 0.1, 0.57 + 0.1]


def test_spread_and_verdict():
    ours, other = mean_and_spread([0.6, 0.62, 0.64]), mean_and_spread([0.5, 0.5, 0.5])
    assert ours["mean"] == pytest.approx(0.62) and ours["std"] == pytest.approx(0.02)
    assert beats(ours, other) is True
    assert beats(mean_and_spread([0.52, 0.54, 0.5]), other) is False
    assert beats(other, ours) is False
    assert beats(mean_and_spread([0.9, 0.9]), other) is None  # two seeds are no evidence
    assert mean_and_spread([0.5])["std"] is None


def test_majority_is_the_commonest_of_train():
    labels = Labels({"train": np.array([1, 1, 0]), "test": np.array([1, 0, 0, 0])}, ["a", "b"])
    assert labels.majority() == {"top1": 0.25, "mean_class": 0.5}


def test_features_of_a_diverged_encoder_are_refused():
    features, labels = split_blobs()
    features["test"][3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinity.*--learning_rate"):
        transfer({-1: features}, labels, METHODS)


def test_recomputed_statistics_are_those_of_the_data():
    encoder = build_encoder(CONFIGS["resnet"]()).eval()
    norm = encoder.embedder.embedder.normalization
    batches = [{"pixel_values": torch.randn(8, 3, 32, 32) * 3 + 1} for _ in range(4)]
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    momentum = norm.momentum
    assert recompute_batch_norm(encoder, batches)
    torch.testing.assert_close(norm.running_mean, torch.cat(seen).mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert norm.momentum == momentum and not encoder.training
    assert not recompute_batch_norm(build_encoder(CONFIGS["vit"]()), batches)


def test_a_last_batch_of_one_image_has_no_part_in_the_statistics():
    """Its last map is 1 x 1, which has no variance. Batches that are all of one image count."""
    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[16] * 4, depths=[1] * 4, layer_type="basic", downsample_in_first_stage=True
    )
    encoder, images = build_encoder(config), torch.randn(9, 3, 64, 64)
    statistics = []
    for batches in (images.split(4), images[:8].split(4)):
        assert recompute_batch_norm(encoder, [{"pixel_values": batch} for batch in batches])
        statistics.append({name: value.clone() for name, value in encoder.named_buffers()})
    assert all(torch.equal(value, statistics[1][name]) for name, value in statistics[0].items())
    assert recompute_batch_norm(encoder, [{"pixel_values": image} for image in torch.randn(3, 1, 3, 96, 96)])
    assert encoder.embedder.embedder.normalization.num_batches_tracked == 3


# shares of the labels


def test_some_of_each_class():
    labels = np.array([0] * 1000 + [1] * 100 + [2] * 3)
    rows = some_of_each(labels, 0.1, draw=0)
    assert np.bincount(labels[rows]).tolist() == [100, 10, 1] and len(set(rows)) == 111
    assert np.array_equal(rows, some_of_each(labels, 0.1, draw=0))
    assert not np.array_equal(rows, some_of_each(labels, 0.1, draw=1))


def test_fewer_labels_are_means_over_draws():
    random = np.random.default_rng(0)
    labels = {split: random.integers(0, 2, 300) for split in ("train", "validation", "test")}
    features = {split: torch.randn(300, 6) + torch.tensor(y)[:, None] for split, y in labels.items()}
    labels = Labels(labels, ["a", "b"])
    few, all_ = (linear_probe(features, labels, fraction) for fraction in (0.02, 1.0))
    assert few["labels"] == 6 and len(few["C"]) == DRAWS
    assert 0.5 < few["test"]["top1"] < all_["test"]["top1"]


def test_methods_of_shares_of_the_labels():
    assert list(methods_of(None)) == ["linear_probe", "knn"]
    assert list(methods_of([0.01, 0.1, 1.0])) == ["linear_probe_1%", "linear_probe_10%", "linear_probe_100%", "knn"]
    assert list(label_fractions(0.5)) == ["linear_probe_50%"]


def test_a_tie_beats_nothing():
    ours, other = (
        {"values": hits, "mean": sum(hits) / 3, "std": std}
        for hits, std in (([317, 310, 303], 7), ([255, 291, 264], 351**0.5))
    )
    assert ours["mean"] - other["mean"] == 40 and not beats(ours, other)
    assert beats({**ours, "mean": 310.001}, other)
