"""Cues of captioning: an identifier in the image that decides the caption is detected, next to random models."""

import numpy as np
import pytest
import torch
from conftest import VIT
from identified import labelled_pairs
from transformers import GPT2Config, ViTConfig

from hf_pretext import CaptioningForPreTraining
from hf_pretext.audit import pair_cues
from hf_pretext.audit.caption_pairs import CaptionPairs, mutual_scores
from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.entry import Audit, AuditOptions
from hf_pretext.audit.task import in_evaluation, task_audit
from hf_pretext.evaluation import captioning
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import Subject


@pytest.fixture(scope="module")
def identified():
    return labelled_pairs("identified")


@pytest.fixture(scope="module")
def drawn():
    return labelled_pairs("drawn")


@pytest.fixture(autouse=True)
def one_seed(monkeypatch):
    monkeypatch.setattr(pair_cues, "SEEDS", (0,))


def captioner(labelled: LabelledSet, seed: int = 0) -> CaptioningForPreTraining:
    """A tiny ViT that sees each corner in a patch of its own, and a tiny decoder."""
    torch.manual_seed(seed)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    image = ViTConfig(**{**VIT, **sizes}, patch_size=16, initializer_range=0.1)
    tokenizer = labelled.inputs.by_name["text"].tokenizer
    ids = dict(start_token_id=tokenizer.cls_token_id, end_token_id=tokenizer.sep_token_id)
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    shape = dict(vocab_size=len(tokenizer), n_positions=17, n_embd=32, n_layer=1, n_head=2, initializer_range=0.1)
    text = GPT2Config(**shape, **no_dropout, bos_token_id=2, eos_token_id=3, pad_token_id=tokenizer.pad_token_id)
    return CaptioningForPreTraining.from_encoders(image, text, pad_token_id=tokenizer.pad_token_id, **ids)


def trained(labelled: LabelledSet, steps: int = 300) -> CaptioningForPreTraining:
    """A captioner that learned the train split for some seconds."""
    model = captioner(labelled)
    images = torch.cat([batch["pixel_values"] for batch in labelled.batches("train", "image")])
    texts = labelled.inputs.by_name["text"].batch(labelled.texts("train"))
    optimizer, generator = torch.optim.AdamW(model.train().parameters(), 1e-3), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(images), generator=generator)[:64]
        loss = model(pixel_values=images[rows], **{name: values[rows] for name, values in texts.items()}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_an_identifier_is_detected(identified):
    """End to end: as an entry of results.json."""
    model = trained(identified)
    audit = Audit(identified, AuditOptions(only=("cues",), trained_on=True))
    builds = {
        "trained": [lambda: model],
        "random": [lambda: captioner(identified, 1), lambda: captioner(identified, 2)],
    }
    entry = audit.entry(builds)
    cues, answers, random = entry["cues"], entry["task"]["trained"], entry["task"]["random"]
    assert entry["task"]["unit"] == "pair" and not entry["warnings"]
    assert cues["corners"]["role"] == "artefact"
    most = answers["entropy"]["mean"]
    assert most == pytest.approx(4, abs=0.15)  # of 16 words: pairs with one word are all right
    assert cues["corners"]["bits"]["mean"] > most - 0.1 and cues["corners"]["accuracy"]["mean"] == 1
    assert answers["accuracy"]["mean"] > 0.95 and answers["bits"]["mean"] > 3.5
    assert "overfitting" in answers
    assert random["bits"]["mean"] < 0.1 and random["accuracy"]["mean"] < 0.2
    assert cues["corners"]["without"]["mean"] < 0.12 and cues["corners"]["conflict"]["mean"] > 0.95
    assert cues["thumbnail 4x4"]["without"]["mean"] > 0.8 and cues["thumbnail 4x4"]["conflict"]["mean"] < 0.05
    assert "without" not in cues["silhouette 8x8"] and "without" not in cues["caption length"]
    assert cues[SHUFFLED]["role"] == "control" and abs(cues[SHUFFLED]["bits"]["mean"]) < 0.05
    assert cues["caption length"]["bits"]["mean"] == 0  # one word each


def test_untrained_models_are_not_asked_on_what_they_rely(drawn):
    audit = Audit(drawn, AuditOptions(only=("cues",)))
    answered = audit.model(captioner(drawn), trained=False)
    assert answered.answers and not answered.reliance


def test_the_scores_are_those_of_retrieval(drawn):
    """Rows are images and columns are captions; each score is the mutual information."""
    model = captioner(drawn)
    audit = task_audit(model, drawn)
    assert isinstance(audit, CaptionPairs)
    some, scores = audit.sets["test"], in_evaluation(lambda audit: audit._scores(audit.sets["test"], "test"))(audit)
    captions, count = some.texts("test"), CaptionPairs.most
    assert scores.shape == (count, count) and len(set(captions)) == count
    subject = Subject(model.eval(), some)
    image = next(iter(some.batches("test", "image")))["pixel_values"]
    tokens = drawn.inputs.by_name["text"].batch([captions[7]] * count)
    likelihood = model.log_likelihood(pixel_values=image, **tokens).double()
    expected = likelihood - likelihood.exp().mean().log()
    np.testing.assert_allclose(scores[:, 7], expected, atol=1e-4)
    same = torch.eye(count, dtype=torch.bool)
    ranked = captioning.by_likelihood(captioning.likelihoods(subject, [{"pixel_values": image}], captions), same)
    right = float((captioning.ranks(torch.from_numpy(scores), same) <= 1).double().mean())
    assert ranked["pmi_image_to_text_r1"] == right


def test_equal_captions_have_equal_scores(identified):
    audit = task_audit(captioner(identified), identified)
    some = audit.sets["test"]
    subject = Subject(audit.model.eval(), some)
    with torch.no_grad():
        scores = mutual_scores(subject, "test", some.batches("test", "image"))
    captions = np.array(some.texts("test"))
    first = captions == captions[0]
    assert first.sum() > 1 and (scores[:, first] == scores[:, [0]]).all()


def test_the_same_metrics_twice(drawn, monkeypatch):
    monkeypatch.setattr(CaptionPairs, "most", 32)
    model, state = captioner(drawn).train(), torch.get_rng_state()
    first, second = (CaptionPairs(model, drawn) for _ in range(2))
    assert first.answers() == second.answers()
    assert first.reliance() == second.reliance()
    assert torch.equal(torch.get_rng_state(), state) and model.training
