"""What a model of hidden pixels answers by, on images whose pixels are known."""

import numpy as np
import pytest
import torch
from cells import ROWS, SIDE, of_arrays
from conftest import EMOJI
from trained_on_images import trained

from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.entry import Audit, AuditOptions
from hf_pretext.audit.patch_cues import PatchCues, factor_of, gained, known_pixels
from hf_pretext.audit.task import task_audit
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modules.patch_cues import MIRROR, NEAR_MEAN, SMOOTH, VISIBLE_MEAN
from hf_pretext.objectives.masked_image import MaskedImageForPreTraining
from hf_pretext.presets import images

CUES = (SMOOTH, NEAR_MEAN, VISIBLE_MEAN, MIRROR)


def masked_image(seed: int = 0, **settings) -> MaskedImageForPreTraining:
    torch.manual_seed(seed)
    given = {"visible_only": True, "decoder_dim": 32, "decoder_layers": 1, "mask_ratio": 0.25, **settings}
    return MaskedImageForPreTraining.from_encoder(images.vit(SIDE, 32, 2, patch_size=4), **given)


def of(table: dict, cue, metric: str = "explained") -> float:
    return table[cue if isinstance(cue, str) else cue.name][metric][0]


def gradients() -> LabelledSet:
    """Images whose brightness changes linearly, in any direction."""
    random, arrays = np.random.default_rng(0), {}
    down, right = np.indices((SIDE, SIDE)) / SIDE - 0.5
    for split, rows in ROWS.items():
        angle = random.uniform(0, 2 * np.pi, (rows, 1, 1))
        values = 127 + 150 * (np.cos(angle) * down + np.sin(angle) * right)
        arrays[split] = values.round().astype(np.uint8)[..., None].repeat(3, 3)
    return of_arrays(arrays)


def noise(symmetric: bool = False) -> LabelledSet:
    random, arrays = np.random.default_rng(0), {}
    for split, rows in ROWS.items():
        values = random.integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8)
        arrays[split] = (
            np.concatenate([half := values[:, :, : SIDE // 2], half[:, :, ::-1]], 2) if symmetric else values
        )
    return of_arrays(arrays)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_gradient_is_read_from_a_smooth_fill(normalize):
    table = task_audit(masked_image(normalize_patches=normalize), gradients()).sufficiency()
    assert of(table, SMOOTH) > 0.9 and of(table, SMOOTH, "bits") > 1.6
    near = of(table, NEAR_MEAN)
    assert (
        abs(near) < 0.02 if normalize else 0.5 < near < of(table, SMOOTH) - 0.02
    )  # patches of one colour say nothing of it
    assert abs(of(table, VISIBLE_MEAN)) < 0.1
    assert abs(of(table, SHUFFLED)) < 0.02 and table[SHUFFLED]["role"] == "control"


def test_noise_is_read_from_nothing():
    table = task_audit(masked_image(), noise()).sufficiency()
    assert table.keys() == {*(cue.name for cue in CUES), SHUFFLED}
    assert all(abs(of(table, cue)) < 0.005 and abs(of(table, cue, "bits")) < 0.005 for cue in table)


def test_symmetry_is_read_from_the_other_side():
    """Of 64 patches, 32 are hidden, so that 32 of the 63 others of a hidden one are in sight."""
    table = task_audit(masked_image(mask_ratio=0.5), noise(symmetric=True)).sufficiency()
    assert of(table, MIRROR) == pytest.approx(32 / 63, abs=0.02) and abs(of(table, SMOOTH)) < 0.02


def test_bits_are_those_of_a_gaussian():
    """Of predictions with a known share of noise that are too large by a factor."""
    random = np.random.default_rng(0)
    right = random.normal(size=(4000, 50))
    given = 3 * (right + random.normal(size=right.shape))  # half of the variance is explained at best
    moments = np.stack([(right * right).sum(1), (right * given).sum(1), (given * given).sum(1)], 1)
    bits, explained, error = gained(moments, factor_of(moments))
    assert factor_of(moments) == pytest.approx(1 / 6, abs=0.002)
    assert explained == pytest.approx(0.5, abs=0.005) and bits == pytest.approx(0.5, abs=0.005)
    assert 0 < error < 0.005
    assert factor_of(moments * [1, -1, 1]) == 0 and gained(moments * [1, -1, 1], 0.0)[:2] == (0, 0)
    assert gained(np.ones((3, 3)), 1.0)[0] == 10  # at most
    assert np.isnan(gained(np.zeros((3, 3)), 0.0)[0])


@pytest.mark.parametrize("visible_only", [True, False])
def test_questions_are_those_of_training(visible_only):
    """Hidden patches are blank, and what `answer` says is what `forward` computes."""
    given = {} if visible_only else {"decoder_layers": 4}
    model = masked_image(visible_only=visible_only, **given).eval()
    batch = {"pixel_values": torch.rand(4, 3, SIDE, SIDE) + 1}
    with torch.no_grad():
        question, output = model.ask(**batch), model(**batch)
        answers = model.answer(**question.inputs)
    torch.testing.assert_close(answers, output.logits)
    assert torch.equal(question.labels, output.labels) and question.classes == 0
    known, side = known_pixels(question)
    assert side == SIDE // model.patch
    assert torch.equal(question.inputs["pixel_values"], batch["pixel_values"] * known)


def plain() -> LabelledSet:
    """Images of one colour each: the mean of the visible pixels says all."""
    random = np.random.default_rng(0)
    return of_arrays(
        {
            split: random.integers(60, 200, (rows, 1, 1, 3), dtype=np.uint8).repeat(SIDE, 1).repeat(SIDE, 2)
            for split, rows in ROWS.items()
        }
    )


def test_a_model_relies_on_the_mean():
    some = plain()
    model = trained(masked_image(normalize_patches=False), some, 150)
    audit = task_audit(model, some)
    assert isinstance(audit, PatchCues)
    table, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    assert all(of(table, cue) > 0.999 for cue in CUES) and abs(of(table, SHUFFLED)) < 0.02
    assert answers["explained"] > 0.8 and answers["bits"] > 1.1 and abs(answers["overfitting"]) < 0.5
    assert reliance.keys() == {VISIBLE_MEAN.name}
    assert reliance[VISIBLE_MEAN.name]["explained_without"] < 0
    state = torch.get_rng_state()
    again = task_audit(model, some)
    assert (again.sufficiency(), again.answers(), again.reliance()) == (table, answers, reliance)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.eval_seed == MaskedImageForPreTraining.eval_seed


def test_masks_are_the_same_for_all_models():
    some = gradients()
    asked = [
        [q.inputs["hidden"] for q in PatchCues(masked_image(seed).eval(), some)._questions("test")] for seed in (0, 1)
    ]
    assert all(torch.equal(*pair) for pair in zip(*asked, strict=True))


def test_codes_are_not_asked(tmp_path):
    model = masked_image(target="codes", codebook_size=8)
    assert "ask" not in model.capabilities and "ask" in masked_image().capabilities
    assert task_audit(model, plain()) is None


@pytest.fixture(scope="module")
def emoji():
    return LabelledSet(str(EMOJI), Inputs(Image(default_processor(SIDE))), "group", limit=60)


def test_the_entry_of_masked_images(emoji):
    by_who = {"trained": [lambda: masked_image(0)], "random": [lambda: masked_image(1)]}
    entry = Audit(emoji, AuditOptions(only=("cues",), trained_on=True)).entry(by_who)
    assert not entry["warnings"] and entry["task"]["unit"] == "value"
    assert entry["task"]["trained"].keys() == {"bits", "explained", "overfitting"}
    assert entry["cues"].keys() == {*(cue.name for cue in CUES), SHUFFLED}
    assert entry["cues"][MIRROR.name]["explained"]["mean"] > 0.05
    assert all("accuracy" not in each for each in entry["cues"].values())
    assert "explained_without" in entry["cues"][VISIBLE_MEAN.name]
