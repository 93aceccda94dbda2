import datasets
import numpy as np
import pytest
import torch
from conftest import CONFIGS, EMOJI
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.comparison import averaged, compare, pixel_transfer, pretext_figures, random_transfer
from hf_pretext.evaluation.knn import knn_predict, neighbours
from hf_pretext.evaluation.labelled import LabelledImages, cut
from hf_pretext.evaluation.linear_probe import probe_path
from hf_pretext.evaluation.transfer import (
    METHODS,
    Labels,
    accuracies,
    beats,
    chosen_together,
    mean_and_spread,
    recompute_batch_norm,
    transfer,
)
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.objectives.rotation import RotationForPreTraining


def blobs(count: int, classes: int = 3, noise: float = 0.3, dim: int = 5, seed: int = 0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    return torch.tensor(centres[labels] + noise * random.normal(size=(count, dim))).float(), labels


def split_blobs(**options):
    found = {
        s: blobs(n, seed=i, **options) for i, (s, n) in enumerate({"train": 120, "validation": 60, "test": 80}.items())
    }
    names = ["a", "b", "c"]
    return {s: x for s, (x, _) in found.items()}, Labels({s: y for s, (_, y) in found.items()}, names)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learn(k):
    (train, labels), (queries, _) = blobs(200, noise=1.0), blobs(100, noise=1.0, seed=1)
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    peer.fit(train.numpy(), labels)
    assert (knn_predict(train, labels, queries, k) == peer.predict(queries.numpy())).all()


def test_knn_is_the_same_in_chunks_and_on_few_rows():
    (train, labels), (queries, _) = blobs(50, noise=1.0), blobs(33, noise=1.0, seed=1)
    assert (knn_predict(train, labels, queries, chunk=7) == knn_predict(train, labels, queries)).all()
    assert len(knn_predict(train[:3], labels[:3], queries, k=20)) == 33


def test_knn_refuses_nonsense():
    train, labels = blobs(10)
    with pytest.raises(ValueError, match="k must be at least 1"):
        knn_predict(train, labels, train, k=0)
    with pytest.raises(ValueError, match="NaN"):
        knn_predict(train * float("nan"), labels, train)


def test_neighbours_are_nearest_first():
    train = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    assert neighbours(train, torch.tensor([[2.0, 0.5]]), 3).tolist() == [[0, 2, 1]]


def test_linear_probe_equals_scikit_learn():
    (train, labels), (queries, truth) = blobs(200, noise=1.5), blobs(400, noise=1.5, seed=1)
    scaler = StandardScaler().fit(train.numpy())
    for strength, (predicted,) in probe_path(train.numpy(), labels, [queries.numpy()]):
        peer = LogisticRegression(C=strength, max_iter=2000).fit(scaler.transform(train.numpy()), labels)
        agreement = (predicted == peer.predict(scaler.transform(queries.numpy()))).mean()
        assert agreement > 0.98
    assert (predicted == truth).mean() > 0.5


def test_accuracies():
    found = accuracies(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    assert found == {"top1": 0.75, "mean_class": 0.5}


def test_layer_is_chosen_on_validation_not_on_test():
    good, labels = split_blobs(noise=0.1)
    poor = {split: torch.randn_like(value) for split, value in good.items()}
    mixed = {**good, "validation": poor["validation"]}  # right on test, wrong on validation: must not be taken
    slightly = {split: value + 0.3 * torch.randn_like(value) for split, value in good.items()}
    found = transfer({-1: mixed, -2: slightly, -3: poor}, labels, METHODS)
    for method in ("linear_probe", "knn"):
        assert found[method]["layer"] == -2
        assert set(found[method]["layers"]) == {"-1", "-2", "-3"}
        assert found[method]["test"] == found[method]["layers"]["-2"]["test"]
        assert found[method]["layers"]["-1"]["test"]["top1"] > 0.85


def test_without_a_test_split_there_are_figures_on_validation():
    splits, labels = split_blobs()
    del splits["test"]
    assert set(transfer({-1: splits}, labels, {"knn": METHODS["knn"]})["knn"]["layers"]["-1"]) == {"validation"}


def test_one_layer_and_variant_are_chosen_for_all_seeds_by_their_mean_on_validation():
    def of(**validation):
        layers = {str(layer): {"validation": {"top1": v}, "test": {"top1": v + 0.1}} for layer, v in validation.items()}
        return {"knn": {"layers": {name.replace("m", "-"): figures for name, figures in layers.items()}}}

    found = chosen_together(
        [
            {"a": of(m1=0.50, m2=0.59), "b": of(m1=0.60, m2=0.1)},  # alone, this seed would take b's -1
            {"a": of(m1=0.50, m2=0.57), "b": of(m1=0.40, m2=0.1)},
        ]
    )
    assert [(seed["knn"]["variant"], seed["knn"]["layer"]) for seed in found] == [("a", -2), ("a", -2)]
    assert [seed["knn"]["test"]["top1"] for seed in found] == [0.59 + 0.1, 0.57 + 0.1]


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


def evaluation_processing(size=16):
    return Image(default_processor(size))


@pytest.fixture(scope="module")
def labelled():
    return LabelledImages(str(EMOJI), evaluation_processing(), "group", limit=60)


def test_labelled_set_has_three_splits_and_classes_in_order(labelled):
    assert list(labelled.labels.splits) == ["train", "validation", "test"]
    assert all(50 < len(y) <= 60 for y in labelled.labels.splits.values())  # some rows have no group
    assert labelled.labels.names == sorted(labelled.labels.names)
    pixels = torch.cat([batch["pixel_values"] for batch in labelled.batches("test")])
    assert pixels.shape == (60, 3, 16, 16)


def test_a_set_too_large_for_memory_gives_the_same_batches(labelled, monkeypatch):
    from hf_pretext.evaluation import labelled as module

    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    streamed = LabelledImages(str(EMOJI), evaluation_processing(), "group", limit=60, batch_size=25)
    assert streamed.pixels is None
    batches = list(streamed.batches("test"))
    assert [len(b["pixel_values"]) for b in batches] == [25, 25, 10]
    kept = torch.cat([b["pixel_values"] for b in labelled.batches("test")])
    assert torch.equal(torch.cat([b["pixel_values"] for b in batches]), kept)


def test_bad_pictures_and_empty_labels_are_left_out_and_counted(emoji):
    rows = emoji(count=60).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:40]
    rows[7]["group"] = ""
    rows[8]["group"] = None
    features = emoji(count=1).features
    data = datasets.Dataset.from_list(rows, features)
    found = LabelledImages(data, evaluation_processing(), "group")
    assert found.left_out == {"rows without a label": 2, "pictures that can't be read": 1}
    assert len(found) == 57
    for split, labels in found.labels.splits.items():
        assert len(labels) == sum(len(b["pixel_values"]) for b in found.batches(split))


def test_missing_splits_are_cut_always_in_the_same_way():
    rows = list(range(100))
    found = cut({"train": rows})
    assert {split: len(part) for split, part in found.items()} == {"train": 72, "validation": 8, "test": 20}
    assert sorted(sum(found.values(), [])) == rows
    assert found == cut({"train": rows})
    assert cut({"train": rows, "validation": [1]})["test"] == [1]
    with pytest.raises(ValueError, match="no rows for validation.*--eval_dataset none"):
        cut({"train": rows[:3], "test": [1]})


def test_one_class_is_refused(emoji):
    data = emoji(count=40).map(lambda row: {"group": "same"})
    with pytest.raises(ValueError, match="'group' has 1 classes.*--eval_label"):
        LabelledImages(data, evaluation_processing(), "group")


def test_baselines(labelled):
    random = random_transfer(lambda: build_encoder(CONFIGS["resnet"]()), labelled)
    assert set(random) == {"initial statistics", "recomputed statistics"}
    assert set(random["recomputed statistics"]["knn"]["layers"]) == {"-1", "-2", "-3"}
    assert set(random_transfer(lambda: build_encoder(CONFIGS["vit"]()), labelled_at(32))) == {"initial statistics"}
    (random,) = chosen_together([random])
    pixels = pixel_transfer(labelled)
    figures = compare([random] * 3, [random] * 3, {"pixels": pixels}, labelled.labels.majority())
    assert set(figures["figures"]) == {"trained", "random", "pixels", "majority"}
    assert figures["beats_random"] == {"knn_top1": False, "linear_probe_top1": False}
    assert figures["figures"]["pixels"]["knn_top1"]["mean"] == pixels["knn"]["test"]["top1"]


def labelled_at(size):
    return LabelledImages(str(EMOJI), evaluation_processing(size), "group", limit=30)


def test_pretext_figures_are_means_over_pictures(labelled):
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"]())
    batches = [
        {"pixel_values": b["pixel_values"][part]}
        for b in labelled.batches("test")
        for part in (slice(0, 50), slice(50, 60))
    ]
    found = pretext_figures(model, batches)
    with torch.no_grad():
        outputs = [model.eval()(**batch) for batch in batches]
    assert found["accuracy"] == pytest.approx(
        (5 * outputs[0].logs["accuracy"] + outputs[1].logs["accuracy"]).item() / 6
    )
    assert found["loss"] == pytest.approx((5 * outputs[0].loss + outputs[1].loss).item() / 6)


def test_hidden_labels_and_columns_that_hold_none(emoji):
    rows = emoji(count=40)
    labels = datasets.ClassLabel(names=["a", "b"])
    numbers = [i % 2 for i in range(40)]
    train, hidden = (rows.add_column("kind", values).cast_column("kind", labels) for values in (numbers, [-1] * 40))
    found = LabelledImages(datasets.DatasetDict(train=train, test=hidden), evaluation_processing(), "kind")
    assert found.labels.names == ["a", "b"] and found.left_out == {"rows without a label": 40}
    assert found.split_by_us and len(found) == 40
    spoilt = rows.add_column("kind", [float("nan"), 1.0] * 20).add_column("many", [[1]] * 40)
    with pytest.raises(ValueError, match="'kind' has 1 classes"):
        LabelledImages(spoilt, evaluation_processing(), "kind")
    with pytest.raises(ValueError, match="column 'many' holds List values, not one label a row"):
        LabelledImages(spoilt, evaluation_processing(), "many")


def test_features_of_a_diverged_encoder_are_refused():
    features, labels = split_blobs()
    features["test"][3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinity.*--learning_rate"):
        transfer({-1: features}, labels, METHODS)


def test_large_pictures_are_compared_small():
    assert averaged(torch.rand(2, 3, 100, 80), 64).shape == (2, 3 * 64 * 64)
    small = torch.rand(2, 3, 16, 16)
    assert torch.equal(averaged(small, 64), small.flatten(1))
