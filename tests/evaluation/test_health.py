"""Metrics of a model that need no labels: known answers, the same twice, and encoders that fail."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import CONFIGS, IMAGE, TEXT
from transformers import AutoModel, BertConfig

from hf_pretext import MaskedLMForPreTraining, RotationForPreTraining
from hf_pretext.data.hold_out import HeldOut
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.health import (
    agreement,
    chance_of,
    dead_channels,
    effective_rank,
    health,
    of_features,
    warnings,
)
from hf_pretext.evaluation.health_rows import HealthRows
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Corpus, halves
from hf_pretext.modeling import PretextOutput
from hf_pretext.samples import SAMPLES
from hf_pretext.stream.collapse import spread

pytestmark = pytest.mark.usefixtures("cache")
ROWS, CHANNELS = 512, 64


def shakespeare_tokenizer():
    return train_tokenizer(open_source(str(SAMPLES / "shakespeare"), needed=("text",)), size=300)


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def gaussian(random, rank: int, rows: int = ROWS) -> torch.Tensor:
    """Features of `CHANNELS` channels in a subspace."""
    directions, _ = torch.linalg.qr(torch.randn(CHANNELS, rank, generator=random))
    return torch.randn(rows, rank, generator=random) @ directions.T


# features


@pytest.mark.parametrize("rank", [1, 4, 16, 64])
def test_effective_rank_of_gaussian_features_is_near_the_rank_of_their_subspace(random, rank):
    assert 0.94 * rank <= effective_rank(gaussian(random, rank)) <= rank + 1e-4


def test_effective_rank_follows_its_formula():
    values = torch.tensor([3.0, 2.0, 1.0])
    shares = values / 6
    assert effective_rank(torch.diag(values)) == pytest.approx(math.exp(-(shares * shares.log()).sum()))


def test_spread_is_one_for_independent_features_and_falls_with_what_all_rows_share(random):
    features = gaussian(random, CHANNELS)
    assert float(spread(features)) == pytest.approx(1, abs=0.02)
    shifted = [float(spread(features + by)) for by in (0, 1, 10, 100)]
    assert shifted == sorted(shifted, reverse=True) and shifted[-1] < 0.02
    assert float(spread(features)) == pytest.approx(float(spread(7 * features)))


def test_channels_that_are_constant_over_rows_are_dead(random):
    features = gaussian(random, CHANNELS)
    features[:, 3], features[:, 9] = 0.0, 5.0
    assert dead_channels(features).nonzero().flatten().tolist() == [3, 9]
    assert of_features(features)["dead_channels"] == 2 / CHANNELS


def test_features_of_a_constant_encoder_have_spread_0_rank_1_and_neighbours_at_chance(random):
    features = gaussian(random, CHANNELS)[:1].expand(100, -1)
    measured = of_features(features)
    assert measured["spread"] == pytest.approx(0, abs=1e-6) and measured["dead_channels"] == 1
    assert measured["effective_rank"] == pytest.approx(1, abs=1e-5)
    assert agreement(features, features) == pytest.approx(1 / 100)
    assert agreement(torch.zeros(100, 8), torch.zeros(100, 8)) == pytest.approx(1 / 100)


def test_what_is_undefined_is_nan_and_no_error():
    assert math.isnan(effective_rank(torch.zeros(5, 3)))
    spoilt = torch.full((5, 3), math.inf)
    assert all(map(math.isnan, of_features(spoilt).values())) and math.isnan(agreement(spoilt, spoilt))
    sentences = warnings({f"{k}_image": v for k, v in of_features(spoilt).items()}, {}, ["image"])
    assert sentences == ["The features of the image encoder are NaN or infinite"]


def test_identical_views_agree_and_unrelated_views_are_at_chance(random):
    features = gaussian(random, CHANNELS)
    assert agreement(features, features) == agreement(features, 3 * features) == 1.0
    each = [agreement(features, gaussian(random, CHANNELS)) for _ in range(20)]
    assert np.mean(each) == pytest.approx(1 / ROWS, abs=0.002)
    moved = torch.cat([features[: ROWS // 2], features[ROWS // 2 :].roll(1, 0)])
    assert agreement(features, moved) == 0.5


def test_neighbours_of_the_same_distance_share_their_row():
    first = torch.eye(4)
    assert agreement(first, torch.eye(4)[[0, 0, 2, 3]]) == pytest.approx((0.5 + 0.25 + 1 + 1) / 4)


# warnings and chance


def test_a_healthy_model_has_no_warning_and_each_failure_has_one():
    healthy = {"loss": 1.0, "spread_image": 0.6, "effective_rank_image": 20.0, "dead_channels_image": 0.0}
    healthy["neighbours_image"] = 0.4
    chance = {"loss": 1.386, "neighbours_image": 0.01}
    assert warnings(healthy, chance, ["image"]) == []
    failures = {
        "spread_image": (0.0, "has collapsed"),
        "effective_rank_image": (1.2, "one direction"),
        "dead_channels_image": (0.75, "75% of the channels"),
        "neighbours_image": (0.015, "no better than by chance"),
        "loss": (1.39, "is not below that of a guess"),
    }
    for name, (value, words) in failures.items():
        (sentence,) = warnings({**healthy, name: value}, chance, ["image"])
        assert words in sentence
    at_chance = {**healthy, "neighbours_image": 0.015}
    assert warnings(at_chance, chance, ["image"], {"neighbours_image": 0.018}) == []


def test_chance_is_known_where_the_loss_is_a_cross_entropy(random):
    logits, labels = torch.randn(6, 4, generator=random), torch.tensor([0, 1, 2, 3, 0, 1])
    loss, logs = torch.nn.functional.cross_entropy(logits, labels), {"accuracy": torch.tensor(0.5)}
    known = {"chance_accuracy": 0.25, "chance_loss": math.log(4)}
    output = dict(loss=loss, losses={"a": loss}, logs=logs, logits=logits, labels=labels)
    assert chance_of(PretextOutput(**output)) == known
    assert chance_of(PretextOutput(**{**output, "loss": 2 * loss})) == {"chance_accuracy": 0.25}  # weighted
    assert chance_of(PretextOutput(**{**output, "losses": {"a": loss, "b": loss}})) == {}
    assert chance_of(PretextOutput(**{**output, "labels": logits[:, 0]})) == {}  # regression
    assert chance_of(PretextOutput(loss=loss, losses={"a": loss}, logs=logs, candidates=4)) == known


# rows and models


def images(emoji, count: int = 40, **augmentation) -> HealthRows:
    source = open_source(emoji(count=count))
    places = [(piece, i) for piece, n in enumerate(source.counts) for i in range(n)]
    inputs = Inputs(Image(default_processor(IMAGE), Augmentation(**augmentation)))
    return HealthRows([HeldOut(source, places, False)], inputs, batch_size=16)


def rotation():
    torch.manual_seed(0)
    return RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()), rotations_per_image=4)


def test_a_model_of_images_is_measured_and_the_same_twice(emoji):
    measured = health(rotation(), images(emoji))
    assert set(measured.metrics) == {
        "loss", "accuracy", "spread_image", "effective_rank_image", "dead_channels_image", "neighbours_image",
    }  # fmt: skip
    assert measured.chance == {"loss": math.log(4), "accuracy": 0.25, "neighbours_image": 1 / 40}
    assert measured.sizes == {"image": (40, 16)}
    again = images(emoji)
    assert health(rotation(), again) == measured and health(rotation(), again) == measured
    assert measured.metrics["neighbours_image"] > 4 / 40  # crops of an emoji share its colours


def test_measuring_changes_neither_the_model_nor_the_random_numbers_of_training(emoji):
    model, rows = rotation().train(), images(emoji)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    health(model, rows)
    assert model.training and model.encoder.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_constant_encoder_gives_a_warning_and_no_error(emoji):
    model = rotation()
    for parameter in model.encoder.parameters():
        parameter.data.zero_()
    measured = health(model, images(emoji))
    assert measured.metrics["spread_image"] == 0 and measured.metrics["dead_channels_image"] == 1
    assert measured.metrics["neighbours_image"] == pytest.approx(1 / 40)
    assert any("has collapsed" in each for each in warnings(*measured[:2], ["image"]))


def test_views_of_images_differ_also_if_training_has_no_augmentation(emoji):
    nothing = dict(crop_scale=1.0, horizontal_flip=0.0, color_jitter=0.0)
    for augmentation in ({}, nothing):
        rows = images(emoji, 8, **augmentation)
        first, second = (next(iter(view))["pixel_values"] for view in rows.views("image"))
        assert first.shape == second.shape == (8, 3, IMAGE, IMAGE)
        assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_rows_that_cannot_be_read_are_left_out(emoji):
    rows = [{"image": row["image"]} for row in emoji(count=5)]
    rows[2] = {"image": b"no image"}
    source = open_source(rows)
    held = [HeldOut(source, [(0, i) for i in range(5)], True)]
    inputs = Inputs(Image(default_processor(IMAGE), Augmentation()))
    assert len(HealthRows(held, inputs)) == 4 and HealthRows(held, inputs).trained_on
    with pytest.raises(ValueError, match="no row can be read to measure the model"):
        HealthRows([HeldOut(source, [(0, 2)], True)], inputs)


TEXTS = ["the cat sat on the mat", "a dog ran", "once", "all the world is a stage and all the men are players"]


def test_texts_are_measured_by_their_halves():
    source, tokenizer = open_source([{"text": text} for text in TEXTS], needed=("text",)), shakespeare_tokenizer()
    rows = HealthRows([HeldOut(source, [(0, i) for i in range(4)], False)], Inputs(Corpus(tokenizer, 32)))
    (first,), (second,) = (list(view) for view in rows.views("text"))
    ends = tokenizer("")["input_ids"]
    in_order = sorted((tokenizer(text)["input_ids"] for text in TEXTS), key=len)
    pairs = list(zip(first["input_ids"].tolist(), second["input_ids"].tolist(), strict=True))
    for ids, pair in zip(in_order[-len(pairs) :], pairs, strict=True):
        kept = [[i for i in half if i not in (*ends, tokenizer.pad_token_id)] for half in pair]
        assert sum(kept, []) == [i for i in ids if i not in ends] and all(kept)
    torch.manual_seed(0)
    config = BertConfig(**{**TEXT, "vocab_size": len(tokenizer)}, pad_token_id=tokenizer.pad_token_id)
    task = MaskedLMForPreTraining.complete(MaskedLMForPreTraining.task_class(), {"text": tokenizer})
    model = MaskedLMForPreTraining.from_encoder(config, **dataclasses.asdict(task))
    measured = health(model, rows)
    assert measured.chance["loss"] == pytest.approx(math.log(len(tokenizer)))
    assert measured.metrics["loss"] == pytest.approx(measured.chance["loss"], rel=0.05)


def test_halves_are_cut_at_a_word_and_keep_padding_and_mask():
    tokenizer = shakespeare_tokenizer()
    encoded = tokenizer("unquestionably yes", return_offsets_mapping=True)
    starts = [a is not None and (i == 0 or encoded.word_ids()[i - 1] != a) for i, a in enumerate(encoded.word_ids())]
    ids = torch.tensor(encoded["input_ids"])
    one, other = halves({"input_ids": ids, "word_starts": torch.tensor(starts)}, tokenizer)
    assert tokenizer.decode(one["input_ids"], skip_special_tokens=True) == "unquestionably"
    assert tokenizer.decode(other["input_ids"], skip_special_tokens=True) == "yes"
    padded = torch.nn.functional.pad(ids, (0, 3), value=tokenizer.pad_token_id)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 3))
    one, other = halves({"input_ids": padded, "attention_mask": mask}, tokenizer, padded=True)
    assert len(one["input_ids"]) == len(other["attention_mask"]) == len(padded)
    assert int(one["attention_mask"].sum() + other["attention_mask"].sum()) == len(ids) + 2
