"""The sentences of a card."""

import pytest
from conftest import REPOSITORY
from recorded import RECORDED, recorded_results

from hf_pretext.cards import read_results, wording

results = pytest.fixture(recorded_results)
MASKED_LM = REPOSITORY / "model_cards" / "masked_lm_reviews"


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_every_sentence_ends_and_holds_no_empty_place(folder):
    results = read_results(folder)
    texts = [wording.limits(results), wording.prepared(results), wording.protocol(results, results["transfer"])]
    for text in [*texts, wording.measured(results)]:
        assert "None" not in text and "  " not in text and (not text or text.endswith("."))


def test_the_first_paragraph_names_parameters_classes_and_packages(results):
    text = wording.about(results, "`pip install it`")
    assert f"{results['encoder']['parameters']:,} parameters in total" in text
    assert all(f"({encoder['class']})" in text for encoder in results["encoders"].values())
    assert "*contrastive*" in text and text.endswith("(`pip install it`):")
    assert "images alone" not in text and "images alone" in wording.about({**results, "alone": {"images": ["a"]}}, "")


def test_limits_name_the_language_where_it_is_known_and_transfer_where_it_was_measured(results):
    results["card"], results["data"]["dataset"] = {"language": ["en", "de"]}, "somebody/birds"
    assert "Trained only on `somebody/birds` (en, de): " in wording.limits(results)
    assert wording.limits(results).endswith(
        "It was evaluated only on the data under Transfer. Results on other data are unknown."
    )
    del results["transfer"], results["card"]
    text = wording.limits(results)
    assert "birds`: " in text and text.endswith(". Results on other data are unknown.")


def test_the_protocol_speaks_of_what_was_measured_alone(results):
    transfer = results["transfer"]
    assert "kNN: cosine, k = 20, temperature 0.07." in wording.protocol(results, transfer)
    assert wording.FEW_LABELS not in wording.protocol(results, transfer)
    assert "kNN" not in wording.protocol(results, {**transfer, "methods": ["linear_probe"]})
    without = {**transfer, "figures": {"trained": {}}}
    assert "pixels" in wording.protocol(results, transfer) and "pixels" not in wording.protocol(results, without)
    few = read_results(MASKED_LM)
    assert wording.FEW_LABELS in wording.protocol(few, few["transfer"])


def test_metrics_have_names_in_words_and_unknown_ones_their_own():
    assert wording.measure_words("image_to_text_r10") == "image to caption, R@10"
    assert wording.measure_words("of_nobody") == "of nobody"


def test_headlines_are_those_that_were_measured(results):
    names = wording.headlines(results)
    assert names and set(names) < set(results["measures"]["trained"])
    del results["measures"]["trained"][names[0]]
    assert wording.headlines(results) == names[1:]
    del results["measures"]
    assert wording.headlines(results) == [] == wording.fitting_measures(results) and wording.measured(results) == ""


def test_a_held_out_set_is_described_and_its_headlines_are_shown_if_it_is_of_captions(results):
    name = wording.headlines(results)[0]
    results["measures"]["trained"][f"heldout_{name}"] = {}
    results["heldout"] = {"dataset": "others", "rows": {"test": 30}, "classes": ["a", "b"]}
    assert "of `others`, whose 2 classes are not in the train split" in wording.measured(results)
    assert wording.measure_words(f"heldout_{name}") == f"{wording.measure_words(name)}, held out"
    assert f"heldout_{name}" not in wording.headlines(results)
    counts = {"test": 20, "train_of_labelled": 400}
    results["heldout"] |= {"held_out_by": "captions", "captions": counts}
    assert "whose 20 different captions are not among the 400 of the train split" in wording.measured(results)
    assert wording.headlines(results)[:2] == [name, f"heldout_{name}"]


def test_how_the_task_was_measured_is_said_of_several_kinds_alone(results):
    assert "batches of 256 rows, no augmentation)" in wording.tested(results)
    alone = wording.tested({**results, "alone": {"images": ["a"], "texts": None}})
    assert alone.endswith("is on images with texts only, the loss in the training curves also on images alone)")
    assert wording.tested(read_results(MASKED_LM)) == ""
