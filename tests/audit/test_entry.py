"""The entry of results.json: properties of images, pairs of models on the same rows, warnings."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import EMOJI

from hf_pretext.audit import encoder
from hf_pretext.audit.entry import PARTS, Audit, AuditOptions, best_cue, control_warnings, paired
from hf_pretext.audit.properties import IMAGE_PROPERTIES, of_images
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.transfer import SPLITS, mean_and_spread
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.presets import images


@pytest.fixture(scope="module")
def labelled():
    return LabelledSet(str(EMOJI), Inputs(Image(default_processor(32))), "group", limit=90)


def squares(side: int = 32) -> tuple[torch.Tensor, np.ndarray]:
    """White images with a red or blue square, small or large, left or right, each as often; and which of each."""
    kinds, count = np.tile(np.indices((2, 2, 2)).reshape(3, 8).T, (5, 1)), 40
    pixels = torch.full((count, 3, side, side), 255, dtype=torch.uint8)
    for image, (blue, large, right) in zip(pixels, kinds, strict=True):
        size, first = (8 if large else 4), (18 if right else 4)
        image[:, 12 : 12 + size, first : first + size] = 0
        image[2 if blue else 0, 12 : 12 + size, first : first + size] = 255
    return pixels, kinds


def test_properties_of_images_are_what_they_say():
    pixels, kinds = squares()
    properties = of_images(dict.fromkeys(SPLITS, pixels))
    assert {name: each.classes for name, each in properties.items()} == dict(
        zip(IMAGE_PROPERTIES, (8, 4, 4), strict=True)
    )
    large, right = kinds[:, 1], kinds[:, 2]
    scale, position = (properties[name].labels["test"] for name in ("object_size", "object_place"))
    assert scale[large == 1].min() > scale[large == 0].max()
    assert set(position[right == 1] % 2) == {1} and set(position[right == 0] % 2) == {0}
    assert all(np.isin(each.labels["test"], range(each.classes)).all() for each in properties.values())


def test_an_empty_image_has_no_foreground():
    blank = torch.full((3, 3, 16, 16), 200, dtype=torch.uint8)
    assert set(of_images(dict.fromkeys(SPLITS, blank))["object_size"].labels["test"]) == {0}


def test_the_column_of_a_nuisance_is_of_the_same_rows(labelled):
    style = labelled.column("style")
    assert {split: len(values) for split, values in style.splits.items()} == {s: len(labelled.rows(s)) for s in SPLITS}
    row = labelled.rows("test")[7]
    columns = {"image": "image", "label": "style"}
    from hf_pretext.data.sources import open_source

    read = open_source(str(EMOJI), "test", columns, ("label",)).take([row.place])
    assert style.names[style.splits["test"][7]] == next(iter(read))["label"]
    with pytest.raises(ValueError, match="nothing"):
        labelled.column("nothing")


def test_the_same_entry_twice_bit_for_bit(labelled):
    def models(seed: int):
        def build():
            torch.manual_seed(seed)
            return RotationForPreTraining.from_encoder(images.tiny_resnet(32))

        return build

    options = AuditOptions(nuisance=["style"], same="name", only=("information", "cues"))
    by_who = {"trained": [models(0)], "random": [models(1)]}
    first, second = (Audit(labelled, options).entry(by_who) for _ in range(2))
    assert first == second
    assert first["encoders"]["image"]["on_these_rows"]["bits_style"]["error"] > 0
    for curve in first["encoders"]["image"]["code_curve"].values():  # labels seen, bits of each after them
        seen, bits = zip(*curve, strict=True)
        assert sorted(seen) == [*seen] and len(seen) > 2 and 0 < min(bits) <= max(bits) < 5
    assert not first["warnings"]


def test_a_constant_encoder_is_undefined_with_a_warning(labelled):
    def constant():
        model = RotationForPreTraining.from_encoder(images.tiny_resnet(32))
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter.zero_()
        return model

    entry = Audit(labelled, AuditOptions(only=("information",))).entry({"trained": [constant], "random": [constant]})
    metrics = entry["encoders"]["image"]["trained"]
    for name in ("bits_group", "bits_mean_color", "code_saved_group"):
        assert metrics[name]["mean"] is None, name
    assert len(entry["warnings"]) == 1 and "collapsed" in entry["warnings"][0]
    assert entry["warnings"][0].startswith("Trained model 1: ") and not entry["warnings"][0].endswith(".")
    assert "task" not in entry and "cues" not in entry


def test_a_narrow_encoder_is_measured_with_a_warning(labelled, monkeypatch):
    features = np.random.default_rng(0).normal(size=(50, 8)) * [1.0, 0.05, *[0.0] * 6]
    narrow, dead = encoder.unhealthy(features, "image")
    assert narrow.startswith("The features of the image encoder are almost of one direction (effective rank 1.")
    assert dead == "75% of the channels of the image encoder are the same for all rows"
    assert encoder.unhealthy(np.random.default_rng(0).normal(size=(50, 8)), "image") == []
    monkeypatch.setattr(encoder, "unhealthy", lambda features, kind: [f"{len(features)} rows of {kind}"])
    build = partial(RotationForPreTraining.from_encoder, images.tiny_resnet(32))
    entry = Audit(labelled, AuditOptions(only=("information",))).entry({"trained": [build], "random": [build]})
    assert entry["encoders"]["image"]["trained"]["bits_group"]["mean"] is not None
    assert entry["warnings"] == [f"Trained model 1: {len(labelled.rows('test'))} rows of image"]


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_measured_alone(labelled, part):
    def build():
        torch.manual_seed(0)
        return RotationForPreTraining.from_encoder(images.tiny_resnet(32))

    entry = Audit(labelled, AuditOptions(only=(part,))).entry({"trained": [build], "random": [build]})
    metrics = entry["encoders"].get("image", {"trained": {}})["trained"]
    assert any(name.startswith("bits_") for name in metrics) == (part == "information")
    assert ("invariance_flip" in metrics) == (part == "transformations")
    assert ("cues" in entry) == (part == "cues")
    assert not entry["warnings"]


def test_a_collapsed_seed_next_to_a_healthy_one_is_named(labelled):
    def build(zero: bool):
        torch.manual_seed(0)
        model = RotationForPreTraining.from_encoder(images.tiny_resnet(32))
        with torch.no_grad():
            for parameter in model.encoder.parameters() if zero else ():
                parameter.zero_()
        return model

    trained = [lambda: build(False), lambda: build(True)]
    options = AuditOptions(only=("information",), same="name")
    entry = Audit(labelled, options).entry({"trained": trained, "random": [lambda: build(False)]})
    assert [each.partition(":")[0] for each in entry["warnings"]] == ["Trained model 2"]
    values = entry["encoders"]["image"]["trained"]["code_saved_group"]["values"]
    assert values[0] is not None and values[1] is None


@pytest.mark.parametrize("part", ["answers", "sufficiency"])
def test_what_cannot_be_audited_does_not_lose_the_rest(part, labelled, monkeypatch):
    def build():
        torch.manual_seed(0)
        return RotationForPreTraining.from_encoder(images.tiny_resnet(32))

    def fail(self):
        raise ValueError("no answers here.")

    monkeypatch.setattr(f"hf_pretext.audit.class_cues.ClassCues.{part}", fail)
    entry = Audit(labelled, AuditOptions(only=("information", "cues"))).entry({"trained": [build], "random": [build]})
    assert entry["warnings"] == ["No audit of the pretext task: no answers here"]
    assert "cues" not in entry and entry["encoders"]["image"]["trained"]["bits_group"]["mean"] is not None


def test_two_things_of_one_name_are_refused(labelled):
    with pytest.raises(ValueError, match="two things called 'group'. Leave this column out"):
        Audit(labelled, AuditOptions(nuisance=["group"]))


def test_over_fitting_needs_models_that_were_trained_on_train(labelled):
    def build():
        return RotationForPreTraining.from_encoder(images.tiny_resnet(32))

    for trained_on in (False, True):
        options = AuditOptions(only=("cues",), trained_on=trained_on)
        answers = Audit(labelled, options).entry({"trained": [build], "random": [build]})["task"]["trained"]
        assert ("overfitting" in answers) == trained_on


def test_two_models_are_compared_row_by_row():
    difference = paired({"bits": np.array([1.0, 3.0, 2.0, 2.0])}, {"bits": np.array([0.5, 2.5, 1.5, 1.5])})["bits"]
    assert difference == {"difference": 0.5, "error": 0.0}


def test_a_control_that_reveals_something_is_warned_of():
    cues = {
        "shuffled": {"role": "control", "error": 0.05, "bits": mean_and_spread([0.2])},
        "still": {"role": "control", "error": None, "bits": mean_and_spread([0.001])},
        "noisy": {"role": "control", "error": 0.1, "bits": mean_and_spread([0.2])},
        "corner": {"role": "cue", "error": None, "bits": mean_and_spread([0.7])},
        "all cues together": {"role": "all cues", "error": None, "bits": mean_and_spread([2.1])},
    }
    (warning,) = control_warnings(cues)
    assert warning.startswith("The control 'shuffled' reveals 0.200 bits")
    answers = {"trained": {"bits": mean_and_spread([1.4])}}
    assert best_cue({"cues": cues, "task": answers}) == ("corner", pytest.approx(0.5))
    assert best_cue({"cues": cues, "task": {"trained": {"bits": mean_and_spread([0.0])}}}) is None
    assert best_cue({}) is None
