"""Which measures fit a model, in what order and words they are reported, and what they say of models that know."""

import json

import pytest
import torch
from captioned import NAMES, WIDTH, Knowing, captioned, rows_of, tokenizer_of_names
from conftest import REPOSITORY
from torch import nn

from hf_pretext import registry
from hf_pretext.evaluation.frame_order import FrameOrderArguments
from hf_pretext.evaluation.localization import LocalizationArguments
from hf_pretext.evaluation.measure import Subject, chance_levels, fitting, measure_model, measures
from hf_pretext.evaluation.zero_shot import ZeroShotArguments

NAMES_ALONE = {ZeroShotArguments: ZeroShotArguments(prompts=["{}"])}
CARDS = sorted((REPOSITORY / "model_cards").glob("*/results.json"))
WORDS = {
    "image_to_text_r1": "image to caption, R@1",
    "image_to_text_r5": "image to caption, R@5",
    "image_to_text_r10": "image to caption, R@10",
    "image_to_text_median_rank": "image to caption, median rank",
    "text_to_image_r1": "caption to image, R@1",
    "text_to_image_r5": "caption to image, R@5",
    "text_to_image_r10": "caption to image, R@10",
    "text_to_image_median_rank": "caption to image, median rank",
    "zero_shot_top1": "zero-shot, top-1",
    "zero_shot_top5": "zero-shot, top-5",
    "zero_shot_mean_class": "zero-shot, per class",
    "threshold_shuffled": "matching by cosine, any captions",
    "threshold_hard": "matching by cosine, captions of one class",
    "matching_shuffled": "matching, any captions",
    "matching_hard": "matching, captions of one class",
    "matching_gain_shuffled": "matching's gain over cosine, any captions",
    "matching_gain_hard": "matching's gain over cosine, captions of one class",
    "masked_text_own": "masked words, with the image",
    "masked_text_other": "masked words, with another image",
    "masked_text_none": "masked words, without an image",
    "masked_text_gain": "masked words, gain by the image",
    "text_probe": "linear probe of captions",
    "caption_bits": "captioning, bits per character",
    "caption_bits_baseline": "captioning, bits per character without the image",
    "caption_bits_gain": "captioning, bits per character saved by the image",
    "caption_exact": "generated captions, exact match",
    "caption_cider": "generated captions, CIDEr-D",
    "likelihood_image_to_text_r1": "image to caption by likelihood, R@1",
    "likelihood_image_to_text_r10": "image to caption by likelihood, R@10",
    "likelihood_text_to_image_r1": "caption to image by likelihood, R@1",
    "likelihood_text_to_image_r10": "caption to image by likelihood, R@10",
    "pmi_image_to_text_r1": "image to caption by mutual information, R@1",
    "pmi_image_to_text_r10": "image to caption by mutual information, R@10",
}

RANKS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "median_rank": "median rank"}
SOUNDS = {
    **{f"audio_to_video_{name}": f"audio to video, {words}" for name, words in RANKS.items()},
    **{f"video_to_audio_{name}": f"video to audio, {words}" for name, words in RANKS.items()},
    "correspondence_other_class": "correspondence, sound of another class",
    "correspondence_other_class_error": "correspondence, sound of another class, standard error",
    "correspondence_same_class": "correspondence, sound of the same class",
    "correspondence_same_class_error": "correspondence, sound of the same class, standard error",
    "correspondence_shifted": "correspondence, sound of another time",
    "correspondence_shifted_error": "correspondence, sound of another time, standard error",
}
HELD_OUT = [f"heldout_{name}" for name in SOUNDS]
ORDERS = {"in_order": "frames in order", "shuffled": "frames shuffled", "last": "last frame alone"}
ROWS = {"": "", "_chosen": ", chosen classes"}
EMBEDDED = {  # of films with texts, by embeddings
    **{f"video_to_text_{name}": f"video to caption, {words}" for name, words in RANKS.items()},
    **{f"text_to_video_{name}": f"caption to video, {words}" for name, words in RANKS.items()},
    **{f"frames_{k}_r1{e}": f"video to caption, R@1, {o}{row}" for e, row in ROWS.items() for k, o in ORDERS.items()},
    "threshold_shuffled": WORDS["threshold_shuffled"],
    "threshold_hard": WORDS["threshold_hard"],
}
TIMES = {
    "localization_r1": "temporal localization, R@1",
    "localization_median_seconds": "temporal localization, median error in seconds",
}
SCORED = {  # of films with texts, by scores
    **{
        f"frames_{k}_match{e}": f"better of two captions, {o}{row}"
        for e, row in ROWS.items()
        for k, o in ORDERS.items()
    },
    "matching_shuffled": WORDS["matching_shuffled"],
    "matching_hard": WORDS["matching_hard"],
    "masked_text_own_video": "masked words, with the video",
    "masked_text_other_video": "masked words, with another video",
    "masked_text_none_video": "masked words, without a video",
    "masked_text_gain_video": "masked words, gain by the video",
}
HALVES = {
    "halves_r1": "second half of a text, R@1",
    "halves_r10": "second half of a text, R@10",
    "halves_r1_baseline": "second half of a text, R@1, by TF-IDF",
    "halves_r10_baseline": "second half of a text, R@10, by TF-IDF",
}
NEXT = {
    "text_bits": "next token, bits per byte",
    "text_bigram_gain": "next token, bits per byte saved compared with bigrams",
    "text_xz_gain": "next token, bits per byte saved compared with xz",
}
TEXTS = {
    "causal_lm": [*HALVES, *NEXT],
    "masked_lm": [*HALVES],
    "replaced_token": [*HALVES],
    "sentence": [*HALVES],
}
FILMS = {"mil_nce": [*EMBEDDED, *TIMES], "videobert": [*SCORED]}  # metrics by objective
NEW_FILMS = {"mil_nce": [*EMBEDDED], "videobert": [*SCORED]}  # on held-out captions


@pytest.fixture(scope="module")
def tokenizer(cache):
    return tokenizer_of_names()


@pytest.fixture(scope="module")
def labelled(tokenizer):
    return captioned(tokenizer)


def files_of(model) -> list[str]:
    """The measures that fit a model, by the names of their files."""
    return [measure.compute.__module__.rpartition(".")[2] for measure in fitting(model)]


def model_of(inputs, capabilities):
    return type("Model", (nn.Module,), {"inputs": inputs, "capabilities": capabilities})


# which measures fit


@pytest.mark.parametrize(
    ("inputs", "capabilities", "expected"),
    [
        (("image", "text"), ("embed",), ["retrieval", "zero_shot", "matching"]),
        (("text", "image"), ("embed",), ["retrieval", "zero_shot", "matching"]),
        (("image", "text"), ("predict_tokens",), ["masked_words", "text_probe"]),
        (("image", "text"), ("match",), ["matching"]),
        (("video", "text"), ("embed", "match"), ["retrieval", "frame_order", "matching", "localization"]),
        (("text", "video"), ("match", "predict_tokens"), ["frame_order", "matching", "masked_words"]),
        (("image", "text"), ("generate",), []),
        (("audio", "video"), ("embed",), ["retrieval"]),
        (("audio", "video"), ("match",), ["correspondence"]),
        (("video", "audio"), ("embed", "match"), ["retrieval", "correspondence"]),
        (("audio", "text"), ("embed", "match"), ["retrieval"]),
        (("image",), ("embed",), []),
        (("text",), ("predict_tokens",), ["halves"]),
        (("text",), (), ["halves"]),
        (("video", "audio"), (), []),
    ],
)
def test_measures_fit_by_kinds_and_capabilities(inputs, capabilities, expected):
    kind = model_of(inputs, capabilities)
    assert files_of(kind) == files_of(kind()) == expected


def test_what_a_model_has_no_capability_for_is_not_asked(labelled, tokenizer):
    class Refusing(Knowing):
        capabilities = ()

        def embed(self, kind, **batch):
            raise NotImplementedError("embeds nothing")

        def match(self, **batch):
            raise NotImplementedError("matches nothing")

    assert measure_model(Refusing(tokenizer), labelled) == chance_levels(Refusing, labelled) == {}

    class Embedding(Refusing):
        capabilities = ("embed",)
        embed = Knowing.embed

    metrics = measure_model(Embedding(tokenizer), labelled)
    assert "threshold_hard" in metrics
    assert not any(name.startswith(("matching", "masked", "text_probe")) for name in metrics)


def test_a_model_is_measured_in_eval_and_without_a_gradient_and_its_mode_is_restored(labelled, tokenizer):
    modes = []

    class Watched(Knowing):
        def embed(self, kind, **batch):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().embed(kind, **batch)

    model = Watched(tokenizer).train()
    measure_model(model, labelled)
    assert set(modes) == {(False, False)} and model.training


def test_embeddings_are_computed_once(labelled, tokenizer):
    kinds = []

    class Counting(Knowing):
        def embed(self, kind, **batch):
            kinds.append(kind)
            return super().embed(kind, **batch)

    subject = Subject(Counting(tokenizer), labelled)
    assert subject.embeddings("image", "test") is subject.embeddings("image", "test")
    captions, embeddings = subject.caption_embeddings("test")
    assert subject.caption_embeddings("test")[1] is embeddings
    assert captions[:3] == NAMES[:3] and len(captions) == len(embeddings) == len(NAMES)  # "Green  BOX" is one of them
    assert kinds == ["image"] * 3 + ["text"]


# order, words, chance


def test_measures_and_their_words_are_those_of_the_recorded_cards():
    recorded = {card: json.loads(card.read_text()) for card in CARDS}
    names = {card: list(results.get("measures", {}).get("trained", {})) for card, results in recorded.items()}
    new_films = [f"heldout_{name}" for name in (*EMBEDDED, *SCORED)]
    assert set(sum(names.values(), [])) == {
        *WORDS, *SOUNDS, *HELD_OUT, *HALVES, *NEXT, *EMBEDDED, *TIMES, *SCORED, *new_films,
    }  # fmt: skip
    for name, words in {**WORDS, **SOUNDS, **EMBEDDED, **TIMES, **SCORED, **HALVES, **NEXT}.items():
        assert [each for each in (measure.words(name) for measure in measures()) if each] == [words]
    for card, results in recorded.items():
        model = registry.objective_class(results["objective"]["name"])
        of_kinds = SOUNDS if "audio" in model.inputs else WORDS
        asked = [name for name in of_kinds if any(measure.words(name) for measure in fitting(model))]
        expected = [name for name in asked if not name.startswith("matching") or "match" in model.capabilities]
        expected += HELD_OUT if expected and of_kinds is SOUNDS else []
        expected = TEXTS.get(model.objective, expected)
        if model.objective in FILMS:
            new = [f"heldout_{name}" for name in NEW_FILMS[model.objective]]
            expected = [*FILMS[model.objective], *new]
        assert names[card] == expected, card  # in this order, which is that of the measures


def test_headlines_and_settings_belong_to_a_measure():
    films = {"dataset": "films", "films": 1, "sentences": 2, "left_out": {}, "seconds": 1, "step": 1, "subtitles": None}
    results = {
        "inputs": ["audio", "video"],
        "measures": {"trained": {}},
        "eval_prompts": ["{}"],
        "localization": films,
    }
    for measure in measures():
        assert measure.headlines and all(measure.words(name) for name in measure.headlines)
        assert isinstance(measure.protocol(results), str)
    options = [options for measure in measures() for options in measure.options]
    assert {ZeroShotArguments, FrameOrderArguments, LocalizationArguments} <= {*options}
    assert len({*options}) == len(options)


def test_chance_has_the_same_names(labelled, tokenizer):
    chance, metrics = chance_levels(Knowing, labelled), measure_model(Knowing(tokenizer), labelled, options=NAMES_ALONE)
    assert list(chance) == [name for name in metrics if not name.endswith("left_out")]
    assert chance["image_to_text_r1"] == pytest.approx(1 / 12)
    assert chance["zero_shot_top1"] == 0.25


# models that know all, and nothing


def test_a_model_that_knows_all_is_always_right(labelled, tokenizer):
    metrics = measure_model(Knowing(tokenizer), labelled, options=NAMES_ALONE)
    assert metrics["image_to_text_r1"] == metrics["text_to_image_r1"] == 1.0
    assert metrics["zero_shot_top1"] == metrics["zero_shot_mean_class"] == 1.0
    assert metrics["image_to_text_median_rank"] == 1.0


def test_a_model_that_embeds_all_alike_is_always_wrong(labelled, tokenizer):
    class Same(Knowing):
        def vector(self, ids):
            return torch.ones(WIDTH)

    metrics = measure_model(Same(tokenizer), labelled, options=NAMES_ALONE)
    assert metrics["image_to_text_r1"] == metrics["image_to_text_r10"] == metrics["zero_shot_top1"] == 0.0


def test_rows_without_a_label_are_searched_but_not_classified(tokenizer):
    some = captioned(tokenizer, rows_of([None if i in (2, 7, 9) else "ab"[i % 2] for i in range(len(NAMES))]))
    metrics = measure_model(Knowing(tokenizer), some, options=NAMES_ALONE)
    assert metrics["image_to_text_r1"] == metrics["text_to_image_r1"] == 1.0
    assert chance_levels(Knowing, some)["image_to_text_r1"] == pytest.approx(1 / 12)  # among all names
