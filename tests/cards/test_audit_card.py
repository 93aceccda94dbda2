"""The audit in words: verdicts with three seeds, the rows that differ with one, cues, artefacts, limits."""

import copy

import pytest

from hf_pretext.cards import audit
from hf_pretext.evaluation.transfer import mean_and_spread


def of(*values: float) -> dict:
    return mean_and_spread(list(values))


@pytest.fixture
def entry():
    """Of three seeds: the encoder knows more of the group, less of the style, and is less invariant to rotation."""
    return {
        "dataset": "emoji",
        "rows": {"train": 30, "validation": 10, "test": 10},
        "encoders": {
            "image": {
                "label": "group",
                "entropy": {"group": 2.8, "style": 1.5},
                "trained": {
                    "bits_group": of(1.0, 1.1, 1.05),
                    "bits_style": of(0.3, 0.31, 0.32),
                    "code_saved_group": of(0.5, 0.51, 0.52),
                    "invariance_rotation": of(-0.7, -0.69, -0.68),
                    "parameter_bits_rotation": of(1.4, 1.5, 1.45),
                    "equivariance_rotation": of(0.2, 0.3, 0.25),
                },
                "random": {
                    "bits_group": of(0.5, 0.55, 0.6),
                    "bits_style": of(0.5, 0.52, 0.51),
                    "code_saved_group": of(0.4, 0.6, 0.5),
                    "invariance_rotation": of(0.04, 0.05, 0.03),
                    "parameter_bits_rotation": of(0.1, 0.2, 0.15),
                    "equivariance_rotation": of(0.2, 0.31, 0.24),
                },
                "on_these_rows": {
                    "bits_group": {"difference": 0.5, "error": 0.01},
                    "bits_style": {"difference": -0.01, "error": 0.01},
                },
            }
        },
        "task": {
            "unit": "image",
            "trained": {"bits": of(1.2), "accuracy": of(0.8), "entropy": of(2.0), "overfitting": of(0.1)},
            "random": {"bits": of(0.0), "accuracy": of(0.25), "entropy": of(2.0), "overfitting": of(0.0)},
        },
        "cues": {
            "corners": {"role": "artefact", "bits": of(0.05), "accuracy": of(0.3), "without": of(0.7)},
            "silhouette": {"role": "cue", "bits": of(0.4), "accuracy": of(0.5)},
            "thumbnail": {"role": "cue", "bits": of(0.9), "accuracy": of(0.6), "without": of(0.3), "conflict": of(0.4)},
            "colours": {"role": "control", "bits": of(0.0), "accuracy": of(0.25)},
        },
        "warnings": [],
    }  # fmt: skip


def one_seed(entry: dict) -> dict:
    entry = copy.deepcopy(entry)
    for metrics in (entry["encoders"]["image"][who] for who in ("trained", "random")):
        metrics.update({name: of(value["mean"]) for name, value in metrics.items()})
    return entry


def test_three_seeds_have_verdicts_in_both_directions(entry):
    above, below = audit.sentences(entry)[-2:]
    start = "Above random encoders by more than twice the spread over seeds: "
    assert above == f"{start}bits of group, bits of the rotation in one view"
    assert below.endswith(": bits of style, invariance to rotation")


def test_what_is_below_random_encoders_is_a_limit(entry):
    changed = (
        "Features of the image encoder change more than those of random encoders if an input is changed by: rotation."
    )
    assert audit.limits(entry)[1:] == [changed]
    image = entry["encoders"]["image"]
    image["trained"], image["random"] = image["random"], image["trained"]
    assert audit.limits(entry)[1:] == ["The image encoder knows less of the label group than random encoders do."]
    assert not any("random encoders" in limit for limit in audit.limits(one_seed(entry)))


def test_of_several_encoders_each_is_named(entry):
    entry["encoders"]["text"] = entry["encoders"]["image"]
    begins = [sentence.partition(" random")[0] for sentence in audit.sentences(entry)[-4:]]
    assert begins == [f"{kind} encoder. {word}" for kind in ("Image", "Text") for word in ("Above", "Below")]


def test_noise_and_equivariance_of_other_layers_have_no_verdict(entry):
    image = entry["encoders"]["image"]
    image["trained"]["invariance_rotation"] = of(1.0, 1.0, 1.0)
    image["random"]["invariance_rotation"] = of(1 - 1e-14, 1 - 1e-14, 1 - 1e-14)
    image["random"]["equivariance_rotation"] = of(0.8, 0.81, 0.82)
    text = " ".join(audit.sentences(entry))
    assert "invariance to rotation" not in text and "equivariance to rotation" in text
    image["layers"] = {"trained": [-1, -1, -1], "random": [-2, -2, -2]}
    assert "equivariance" not in " ".join(audit.sentences(entry))


def test_one_seed_differs_on_these_rows_and_beats_nothing(entry):
    text = " ".join(audit.sentences(one_seed(entry)))
    assert "Bits of group differ on these rows from one random encoder, by +0.500 ± 0.010" in text
    assert "twice the spread" not in text and "beat" not in text
    assert "style" not in text  # within twice the standard error


def test_the_best_cue_is_named_with_its_share(entry):
    first, second, *_ = audit.sentences(entry)
    assert first.startswith("Of 2.00 bits of the pretext task per image, the model answers 1.200 on test")
    assert second == "One cue alone, thumbnail, reveals 75% as many bits as the model's answers"
    limit = "One cue alone, thumbnail, reveals 75% as many bits of the task as the model's answers."
    assert limit in audit.limits(entry)
    entry["cues"]["thumbnail"]["bits"] = of(0.41)
    assert not any("One cue alone" in each for each in audit.limits(entry))


def test_an_artefact_that_reveals_the_answer_is_a_limit(entry):
    assert not any("artefact" in sentence for sentence in audit.sentences(entry))
    entry["cues"]["corners"]["bits"] = of(1.9, 2.0, 1.95)
    assert "The artefact corners reveals 1.950 ± 0.050 of 2.00 bits of the pretext task." in audit.limits(entry)


def test_a_model_that_knows_nothing_has_no_share(entry):
    entry["task"]["trained"]["bits"] = of(0.0)
    assert not any("One cue alone" in sentence for sentence in audit.sentences(entry))
    assert {row[3] for row in audit.cue_rows(entry)} == {"—"}


def test_cues_are_sorted_by_role_and_bits(entry):
    rows = audit.cue_rows(entry)
    assert [row[0] for row in rows] == ["thumbnail", "silhouette", "corners", "colours"]
    assert rows[0] == ["thumbnail", "cue", "0.900", "75%", "0.300", "0.400"]
    assert rows[1][4:] == ["—", "—"]  # it can't be exchanged


def test_tables_have_the_encoder_as_it_was_and_undefined_metrics_as_a_dash(entry):
    image = entry["encoders"]["image"]
    image["start"] = {**image["random"], "bits_group": {"mean": None, "std": None, "values": [None]}}
    knows, changes = audit.encoder_tables(entry)
    assert knows["head"] == ["", "trained", "as it was", "random", "at most"]
    assert knows["rows"][0] == ["bits of group", "1.050 ± 0.050", "—", "0.550 ± 0.050", "2.800"]
    assert knows["rows"][-1][0] == "bits saved per label of group" and knows["rows"][-1][-1] == ""
    assert changes["head"][:4] == ["change", "invariance: trained", "invariance: as it was", "invariance: random"]
    assert [row[0] for row in changes["rows"]] == ["rotation"]


def test_only_cues_leave_the_tables_of_encoders_out(entry):
    entry["encoders"] = {}
    assert audit.encoder_tables(entry) == []
    assert len(audit.sentences(entry)) == 2


def test_values_have_a_share_of_the_variance_and_no_accuracy(entry):
    del entry["task"]["trained"]["accuracy"], entry["task"]["trained"]["entropy"]
    entry["task"] |= {"unit": "value"}
    entry["task"]["trained"]["explained"] = of(0.8)
    entry["cues"] = {
        "mean": {"role": "cue", "bits": of(0.3), "explained": of(0.34), "explained_without": of(-0.2)},
        "smooth": {"role": "artefact", "bits": of(0.6), "explained": of(0.56)},
    }
    first, *_ = audit.sentences(entry)
    assert first.startswith(
        "Of the pretext task, the model answers 1.200 bits per value on test (0.800 of the variance);"
    )
    assert audit.cue_head(entry) == [*audit.HEAD, "explained", "explained without it"]
    assert audit.cue_rows(entry) == [
        ["mean", "cue", "0.300", "25%", "0.340", "-0.200"],
        ["smooth", "artefact", "0.600", "50%", "0.560", "—"],
    ]
    limit = "One cue alone, smooth, reveals 50% as many bits of the task as the model's answers."
    assert audit.limits(entry)[0] == limit


def test_encoders_of_grey_images_are_named(entry):
    entry["encoders"]["image"]["gray"] = True
    titles = [table["title"] for table in audit.encoder_tables(entry)]
    assert titles == ["what the image encoder knows from grey images", "changed grey inputs of the image encoder"]


def test_the_protocol_is_of_the_kinds_and_answers_that_were_measured(entry):
    text = audit.protocol(entry)
    assert "gives the answer of the example" in text and "a thumbnail and the colours of images" in text
    assert not any(words in text for words in ("pairs", "Explained", "films", "length of texts"))
    assert "prefers that answer" in audit.protocol({**entry, "task": {**entry["task"], "unit": "pair"}})
    valued = {**entry, "cues": {"fill": {**entry["cues"]["corners"], "explained": of(0.1)}}}
    assert "Explained without it: of the model" in audit.protocol(valued) and "Follows it" not in audit.protocol(valued)
    assert audit.protocol({}) == ""
    assert "A cue" not in audit.protocol({name: value for name, value in entry.items() if name not in ("cues", "task")})
