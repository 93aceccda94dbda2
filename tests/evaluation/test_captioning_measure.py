"""Captioning: each number against a model whose probabilities and captions are known."""

import copy
import dataclasses
import math
import statistics

import pytest
import torch
from captioned import NAMES, captioned, rows_of, tokenizer_of_names
from describing import SURE, Describing
from transformers import GPT2Config, ViTConfig

from hf_pretext import CaptioningForPreTraining
from hf_pretext.data.captions import normalised
from hf_pretext.evaluation import captioning as module
from hf_pretext.evaluation.captioning import MEASURE, by_likelihood, chance_of, compute, ranks, without_image
from hf_pretext.evaluation.measure import Subject, chance_levels, fitting, measure_model
from hf_pretext.evaluation.retrieval import chance
from hf_pretext.objectives.captioning import CaptioningTask


@pytest.fixture(scope="module")
def tokenizer(cache):
    return tokenizer_of_names()


@pytest.fixture(scope="module")
def labelled(tokenizer):
    return captioned(tokenizer)


@pytest.fixture(scope="module")
def text(labelled):
    return labelled.inputs.by_name["text"]


def probability(tokenizer, caption: str, shown: str) -> float:
    """Of a caption given the image of `shown`, by `Describing`."""
    given, wanted = (tokenizer(each, add_special_tokens=False)["input_ids"] + [None] for each in (caption, shown))
    right = sum(a == b for a, b in zip(given, wanted, strict=False))
    return SURE**right * ((1 - SURE) / (len(tokenizer) - 1)) ** (len(given) - right)


def test_bits_are_those_of_the_tokens_and_the_end_for_each_character(labelled, tokenizer):
    metrics = compute(Subject(Describing(tokenizer), labelled))
    shown = [normalised(caption) for caption in labelled.captions("test")]
    characters = sum(map(len, shown))
    tokens = sum(len(tokenizer(name, add_special_tokens=False)["input_ids"]) + 1 for name in shown)
    assert metrics["caption_bits"] == pytest.approx(tokens * -math.log2(SURE) / characters)
    alone = [statistics.mean(probability(tokenizer, name, other) for other in shown if other != name) for name in shown]
    assert metrics["caption_bits_baseline"] == pytest.approx(sum(-math.log2(p) for p in alone) / characters)
    assert metrics["caption_bits_gain"] == metrics["caption_bits_baseline"] - metrics["caption_bits"] > 0


def test_a_model_that_knows_all_is_right_in_all(labelled, tokenizer):
    metrics = compute(Subject(Describing(tokenizer), labelled))
    assert metrics["caption_exact"] == 1.0 and metrics["caption_cider"] == pytest.approx(5.0)  # two words each
    assert {v for name, v in metrics.items() if name.startswith(("likelihood", "pmi"))} == {1.0}


def test_a_mistaken_image_is_wrong_and_no_other_is(labelled, tokenizer):
    metrics = compute(Subject(Describing(tokenizer, {5: 0}), labelled))
    rows = len(labelled.captions("test"))
    for name in ("caption_exact", "likelihood_image_to_text_r1", "pmi_image_to_text_r1"):
        assert metrics[name] == pytest.approx(1 - 1 / rows)
    assert metrics["likelihood_text_to_image_r1"] == pytest.approx(1 - 2 / 12)  # the caption of 0 has two images


def test_a_model_that_ignores_the_image_gains_nothing_and_ranks_nothing_first(labelled, tokenizer):
    metrics = compute(Subject(Describing(tokenizer, sure=1 / len(tokenizer)), labelled))
    assert metrics["caption_bits_gain"] == pytest.approx(0.0, abs=1e-6)
    assert {value for name, value in metrics.items() if name.startswith(("likelihood", "pmi"))} == {0.0}


def test_mutual_information_cancels_what_is_likely_for_every_image():
    scores = torch.tensor([[-2.0, -1.0, -9.0], [-9.0, -1.5, -8.0], [-9.0, -1.5, -3.0]])  # the second always leads
    same = torch.eye(3, dtype=torch.bool)
    metrics = by_likelihood(scores, same)
    assert metrics["likelihood_image_to_text_r1"] == pytest.approx(1 / 3)
    assert metrics["pmi_image_to_text_r1"] == 1.0
    assert metrics["likelihood_text_to_image_r1"] == pytest.approx(2 / 3)
    assert metrics["likelihood_image_to_text_r10"] == 1.0


def test_captions_without_an_image_are_candidates_and_no_queries():
    scores = torch.tensor([[-1.0, -3.0, -2.0], [-5.0, -1.0, -4.0]])
    same = torch.tensor([[True, False, False], [False, True, False]])
    assert by_likelihood(scores, same)["likelihood_text_to_image_r1"] == 1.0
    assert by_likelihood(scores - torch.tensor([0.0, 0.0, -9.0]), same)["likelihood_image_to_text_r1"] == 0.0


def test_ranks_are_counted_with_ties_against_the_query_and_the_best_of_several_answers():
    scores = torch.tensor([[3.0, 3.0 - 1e-6, 1.0], [0.0, 5.0, 4.0], [2.0, 1.0, 3.0]])
    same = torch.tensor([[True, False, False], [True, False, True], [True, True, False]])
    assert ranks(scores, same).tolist() == [2, 2, 2]


def test_without_its_image_a_caption_has_the_mean_probability_of_the_others():
    scores = torch.tensor([[0.5, 0.2], [0.1, 0.2], [0.3, 0.2]]).log()
    same = torch.tensor([[True, True], [False, True], [False, True]])
    alone = without_image(scores, same)
    assert alone[0].exp() == pytest.approx(0.2) and alone[1].isnan()  # no image has another caption than the second


def test_a_unigram_model_is_what_bits_are_compared_with(labelled, text, tokenizer):
    captions, train = ["red box", "red dot"], ["red box", "grey bar"]
    counted = [tokenizer(each, add_special_tokens=False)["input_ids"] for each in train]
    flat = sum(counted, [])
    total = len(flat) + len(train) + len(tokenizer)
    expected = [
        math.log(3 / total)  # the end is in each
        + sum(math.log((flat.count(one) + 1) / total) for one in tokenizer(each, add_special_tokens=False)["input_ids"])
        for each in captions
    ]
    assert module.unigram_likelihoods(text, train, captions).tolist() == pytest.approx(expected)
    chance_bits = chance_of(labelled, Describing)["caption_bits"]
    likelihood = module.unigram_likelihoods(text, labelled.captions("train"), labelled.captions("test"))
    characters = sum(len(normalised(each)) for each in labelled.captions("test"))
    assert chance_bits == pytest.approx(-likelihood.sum().item() / math.log(2) / characters)


def test_captions_that_are_cut_are_not_in_the_bits(text):
    long = "red " * 40
    both = module.bits_per_character(text, ["red box", long], torch.tensor([-7.0, -1.0]))
    assert both == pytest.approx(7 / math.log(2) / len("red box"))
    assert math.isnan(module.bits_per_character(text, [long], torch.tensor([-1.0])))


def test_generated_captions_are_compared_as_the_tokenizer_writes_them(text, tokenizer):
    assert module.correct(text, ["Red  box", "red", ""], ["RED BOX", "red box", "red"]) == [True, False, False]
    unknown = "ж"  # no caption has this letter: it can't be generated
    assert tokenizer.unk_token_id in tokenizer(unknown)["input_ids"]
    assert module.correct(text, ["", unknown], [unknown, unknown]) == [False, False]


def test_levels_have_the_names_of_the_metrics(labelled, tokenizer):
    model = Describing(tokenizer)
    assert [measure for measure in fitting(model) if measure is MEASURE] == fitting(model)
    levels, metrics = chance_levels(model, labelled), measure_model(model, labelled)
    assert list(levels) == list(metrics) and all(MEASURE.words(name) for name in metrics)
    assert set(MEASURE.headlines) <= set(metrics) and MEASURE.words("image_to_text_r1") is None
    shown = [normalised(caption) for caption in labelled.captions("test")]
    expected = chance(shown, [*dict.fromkeys(shown)], (1, 10))
    assert levels["likelihood_text_to_image_r10"] == expected["text_to_image_r10"]
    assert levels["pmi_image_to_text_r1"] == pytest.approx(1 / 12)
    assert 0 <= levels["caption_exact"] < 0.5 and 0 < levels["caption_cider"] < 5 and levels["caption_bits_gain"] == 0


def test_images_and_rows_are_limited_and_evenly_spaced(labelled, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 6)
    monkeypatch.setattr(module, "IMAGES", 4)
    model = Describing(tokenizer)
    metrics = compute(Subject(model, labelled))
    assert sum(model.calls) == 6 + 4 * 6  # each row with its image, and each of four images with six captions
    assert list(metrics) == list(chance_of(labelled, model)) and metrics["likelihood_text_to_image_r1"] == 1.0
    assert chance_of(labelled, model)["likelihood_text_to_image_r1"] == pytest.approx(1 / 4)


def test_pairs_are_scored_in_limited_batches_and_in_their_places(labelled, tokenizer, monkeypatch):
    expected = compute(Subject(Describing(tokenizer, {2: 9}), labelled))
    monkeypatch.setattr(module, "PAIRS", 10)
    model = Describing(tokenizer, {2: 9})
    assert compute(Subject(model, labelled)) == pytest.approx(expected)
    assert max(model.calls) <= 10 and len(model.calls) > 10


def test_generated_captions_have_at_most_the_length_of_train_captions(labelled, tokenizer, text):
    asked = []

    class Endless(Describing):
        def describe(self, max_new_tokens, num_beams=1, pixel_values=None):
            asked.append(max_new_tokens)
            return super().describe(100, num_beams, pixel_values)

    compute(Subject(Endless(tokenizer), labelled))
    assert set(asked) == {1 + max(len(ids) for ids in module.content(text, NAMES))} and max(asked) < text.max_length


def test_generated_captions_are_in_the_language_of_the_main_captions(labelled, tokenizer):
    asked = []

    class Speaking(Describing):
        def describe(self, max_new_tokens, num_beams=1, suppress_tokens=(), pixel_values=None):
            asked.append(suppress_tokens)
            return super().describe(max_new_tokens, num_beams, pixel_values)

    module.generated(
        Subject(Speaking(tokenizer), labelled),
        module.image_batches(Subject(Speaking(tokenizer), labelled), "test", range(3)),
    )
    assert set(asked) == {()}
    several = copy.deepcopy(tokenizer)
    several.add_tokens(["[es]", "[fr]"], special_tokens=True)
    assert module.added_tokens(several) == several.convert_tokens_to_ids(["[es]", "[fr]"])
    assert module.added_tokens(tokenizer) == []
    model = CaptioningForPreTraining.from_encoders(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16),
        GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=6, n_positions=20),
        start_token_id=0, end_token_id=1, pad_token_id=2,
    ).eval()  # fmt: skip
    images = torch.rand(2, 3, 16, 16)
    model.full_model.decoder.lm_head.weight.data[4] = 0.0
    torch.nn.init.normal_(model.full_model.decoder.lm_head.weight[:4], std=3.0)
    first = model.describe(5, pixel_values=images)[0, 1].item()
    assert first not in model.describe(5, suppress_tokens=[first], pixel_values=images)[0].tolist()[1:]


def test_a_model_that_condenses_images_reads_each_once(labelled, tokenizer):
    read = []

    class Condensing(Describing):
        capabilities = ("describe", "condense")

        def condense(self, kind, pixel_values):
            read.append((kind, len(pixel_values)))
            return {"states": pixel_values}

        def log_likelihood(self, input_ids, attention_mask, states):
            return super().log_likelihood(input_ids, attention_mask, states)

        def describe(self, max_new_tokens, num_beams, states):
            return super().describe(max_new_tokens, num_beams, states)

    assert compute(Subject(Condensing(tokenizer), labelled)) == compute(Subject(Describing(tokenizer), labelled))
    assert sum(count for _, count in read) == 13 and {kind for kind, _ in read} == {"image"}


def test_a_captioning_model_is_measured_alike_with_and_without_condensed_images(labelled, text):
    torch.manual_seed(0)
    shape, ends = text.shape(), {"bos_token_id": None, "eos_token_id": None}
    vision = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    words, length = shape["vocab_size"], shape["max_length"] + 1
    decoder = GPT2Config(vocab_size=words, n_positions=length, n_embd=16, n_layer=1, n_head=2, **ends)
    task = CaptioningForPreTraining.complete(CaptioningTask(), {"text": text.tokenizer})
    model = CaptioningForPreTraining.from_encoders(vision, decoder, **dataclasses.asdict(task)).eval()
    metrics = measure_model(model, labelled)
    assert list(metrics) == list(chance_levels(model, labelled)) and all(map(math.isfinite, metrics.values()))
    assert abs(metrics["caption_bits_gain"]) < 0.1 < metrics["caption_bits"]  # it has learned nothing
    images, captions = (
        torch.cat([batch["pixel_values"] for batch in labelled.batches("test")]),
        labelled.captions("test"),
    )
    each = [
        model.log_likelihood(**text.batch([caption]), pixel_values=image[None])
        for image, caption in zip(images, captions, strict=True)
    ]
    bits = -torch.cat(each).sum().item() / math.log(2) / sum(len(normalised(caption)) for caption in captions)
    assert metrics["caption_bits"] == pytest.approx(bits, rel=1e-5)
    model.capabilities = ("describe",)
    assert measure_model(model, labelled) == pytest.approx(metrics, rel=1e-5, abs=1e-6)


def test_captions_that_are_all_the_same_give_no_baseline(tokenizer):
    rows = [{**row, "text": NAMES[0]} for row in rows_of()]
    metrics = compute(Subject(Describing(tokenizer), captioned(tokenizer, rows)))
    assert math.isnan(metrics["caption_bits_gain"]) and not math.isnan(metrics["caption_bits"])


def test_the_protocol_has_the_limits():
    sentence = MEASURE.protocol({})
    assert all(part in sentence for part in ("1,000", "200 images", "4 beams", "unigram"))
