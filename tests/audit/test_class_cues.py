"""Cues of tasks that classify images: a planted mark is detected, and what can't reveal the answer reveals nothing."""

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from conftest import EMOJI
from trained_on_images import trained

from hf_pretext.audit.class_cues import SHUFFLED, ClassCues, partners
from hf_pretext.audit.task import CONTROL, task_audit
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.objectives.jigsaw import JigsawForPreTraining
from hf_pretext.objectives.masked_lm import MaskedLMForPreTraining
from hf_pretext.objectives.relative_position import RelativePositionForPreTraining
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.presets import images

SIDE, ROWS = 32, 240
OBJECTIVES = (RotationForPreTraining, JigsawForPreTraining, RelativePositionForPreTraining)


def labelled_images(planted: bool = False, side: int = SIDE, rows: int = ROWS) -> LabelledSet:
    """Real images in three splits; planted: with a black mark in the upper left corner."""
    splits = {}
    for split in ("train", "validation", "test"):
        data = datasets.load_dataset("parquet", data_files=str(next(EMOJI.glob(f"{split}*"))), split="train")
        some = data.select(range(0, len(data), max(1, len(data) // rows)))
        splits[split] = [{"image": marked(row["image"], planted, side), "group": row["group"]} for row in some]
    return LabelledSet(splits, Inputs(Image(default_processor(side))), "group")


def marked(image: PIL.Image.Image, planted: bool, side: int) -> PIL.Image.Image:
    flat = PIL.Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    pixels = np.array(flat.resize((side, side)))
    if planted:
        pixels[: side // 16, : side // 16] = 0
    return PIL.Image.fromarray(pixels)


@pytest.fixture(scope="module")
def plain():
    return labelled_images()


@pytest.fixture(scope="module")
def planted():
    return labelled_images(planted=True)


def of(objective: type, side: int = SIDE, **settings):
    torch.manual_seed(0)
    return objective.from_encoder(images.tiny_resnet(side), **settings)


def accuracy(sufficient: dict, name: str) -> float:
    return float(np.mean(sufficient[name]["accuracy"]))


def test_a_planted_mark_is_detected(planted):
    audit = ClassCues(trained(of(RotationForPreTraining), planted, 120), planted)
    sufficient, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    assert accuracy(sufficient, "corners") == 1.0
    assert np.mean(sufficient["corners"]["bits"]) > 1.98
    assert sufficient["corners"]["role"] == "artefact"
    assert answers["accuracy"] > 0.97
    assert answers["bits"] > 1.8
    assert abs(reliance["corners"]["without"] - 0.25) < 0.06  # chance: the mark of any other image
    assert reliance["corners"]["conflict"] > 0.95
    assert np.mean(sufficient["colour histogram"]["bits"]) < 0.01  # the mark turns with the image, colours stay


def test_without_a_mark_nothing_says_that_there_is_one(plain):
    sufficient = ClassCues(of(RotationForPreTraining), plain).sufficiency()
    assert np.mean(sufficient["corners"]["bits"]) < 0.3
    assert np.mean(sufficient["thumbnail 8x8"]["bits"]) > 0.1  # images have an upper side


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_controls_are_at_chance(objective):
    labelled = labelled_images(side=48, rows=120)
    audit = task_audit(of(objective, 48), labelled)
    sufficient, answers = audit.sufficiency(), audit.answers()
    controls = {name: each for name, each in sufficient.items() if each["role"] == CONTROL}
    assert {SHUFFLED, *(cue.name for cue in objective.controls)} == controls.keys()
    for name, each in controls.items():
        assert np.mean(each["bits"]) < 0.01, name
    assert answers["bits"] < 0.05  # of a random model
    assert answers["entropy"] > 1.9


def test_the_same_metrics_twice():
    plain = labelled_images(rows=40)
    model = of(RotationForPreTraining)
    state = torch.get_rng_state()
    first, second = (ClassCues(model, plain) for _ in range(2))
    assert first.sufficiency() == second.sufficiency()
    assert first.reliance() == second.reliance()
    assert first.answers() == second.answers()
    assert torch.equal(torch.get_rng_state(), state)


def test_questions_are_those_of_training(plain):
    """What `answer` says of `ask` is what `forward` computes."""
    batch = next(iter(plain.pretext_batches("test")))
    for objective in OBJECTIVES:
        model = of(objective, tile_size=16).eval() if objective is not RotationForPreTraining else of(objective).eval()
        with torch.no_grad():
            question, output = model.ask(**batch), model(**batch)
            logits = model.answer(**question.inputs)
        assert torch.equal(question.labels, output.labels)
        assert logits.shape == (len(output.labels), question.classes)
        torch.testing.assert_close(logits, output.logits)


def test_partners_are_others():
    labels = torch.tensor([0, 0, 1, 2, 2])
    anyone, differing = partners(labels, torch.Generator().manual_seed(0))
    assert (anyone != torch.arange(5)).all()
    assert (labels[differing] != labels).all()
    assert partners(torch.zeros(3, dtype=torch.long), torch.Generator())[1].tolist() == [-1, -1, -1]


def test_a_task_without_questions_has_no_audit(plain):
    assert not ClassCues.fits(MaskedLMForPreTraining)
