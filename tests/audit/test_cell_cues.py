"""What a model of colours answers by, on images whose colours are known."""

import numpy as np
import pytest
import torch
from cells import CELL, COLOURS, EQUAL, GRID, ROWS, SIDE, STEPS, of_arrays, of_cells, random_numbers
from conftest import EMOJI
from trained_on_images import trained

from hf_pretext.audit.cell_cues import EXCHANGED, FREQUENCY, CellCues, drawn
from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.entry import Audit, AuditOptions
from hf_pretext.audit.task import task_audit
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modules.cell_cues import CORNER_GRAY, GRAY, GRAY_AND_PLACE, MEAN_GRAY, PLACE, gray_of_cells
from hf_pretext.modules.lab import rgb_of
from hf_pretext.objectives.colorization import ColorizationForPreTraining
from hf_pretext.presets import images

MOST = np.log2(COLOURS)
MARK = SIDE // 16


def colorization(seed: int = 0, **settings) -> ColorizationForPreTraining:
    torch.manual_seed(seed)
    given = {"color_grid": GRID, "head_dim": 16, **settings}
    return ColorizationForPreTraining.from_encoder(images.tiny_resnet(SIDE), **given)


def bits(table: dict, cue) -> float:
    return table[cue if isinstance(cue, str) else cue.name]["bits"][0]


def test_a_hue_that_is_a_function_of_grey_is_read_from_it():
    table = task_audit(colorization(), of_cells(STEPS, random_numbers())).sufficiency()
    assert bits(table, GRAY) > 0.97 * MOST and table[GRAY.name]["accuracy"][0] == 1
    assert bits(table, GRAY_AND_PLACE) > 0.95 * MOST
    for cue in (PLACE, CORNER_GRAY, FREQUENCY, SHUFFLED):
        assert abs(bits(table, cue)) < 0.02, cue
        assert table[cue if isinstance(cue, str) else cue.name]["accuracy"][0] < 0.3
    assert table[SHUFFLED]["role"] == "control" and table[CORNER_GRAY.name]["role"] == "artefact"


def test_random_hues_of_one_grey_are_read_from_nothing():
    table = task_audit(colorization(), of_cells(EQUAL, random_numbers())).sufficiency()
    assert {cue.name for cue in (*ColorizationForPreTraining.cues, CORNER_GRAY)} < table.keys()
    assert all(abs(bits(table, cue)) < 0.02 for cue in table)


def test_a_hue_by_place_is_read_from_the_place():
    places = np.arange(GRID * GRID).reshape(GRID, GRID) % COLOURS
    numbers = {split: np.stack([places] * rows) for split, rows in ROWS.items()}
    table = task_audit(colorization(), of_cells(EQUAL, numbers)).sufficiency()
    assert bits(table, PLACE) > 0.95 * MOST and abs(bits(table, GRAY)) < 0.02


def test_answers_are_at_the_shares_of_the_data():
    """`answer` has the logits of `forward` without the weights of rare colours."""
    some = of_cells(STEPS, random_numbers())
    batch, model = next(iter(some.pretext_batches("test"))), colorization().eval()
    model.pretext_head.weights.copy_(torch.rand(len(model.pretext_head.bins)) + 0.5)
    with torch.no_grad():
        question, output = model.ask(**batch), model(**batch)
        asked = torch.zeros_like(question.labels, dtype=torch.bool)
        asked[0, 1, 2] = asked[2] = True
        answers = model.answer(asked=asked, **question.inputs)
    assert torch.equal(question.labels, output.labels) and question.classes == len(model.pretext_head.bins)
    expected = output.logits.movedim(1, -1)[asked] - model.pretext_head.weights.log()
    torch.testing.assert_close(answers, expected)
    gray, _ = model.split(batch["pixel_values"])
    torch.testing.assert_close(question.inputs["pixel_values"], gray)


def planted() -> LabelledSet:
    """Cells of random lightness and one hue of two, by the grey of a mark in the first corner, which has no colour."""
    random, arrays = np.random.default_rng(0), {}
    for split, rows in ROWS.items():
        dark = random.integers(0, 2, rows)
        lightness = torch.from_numpy(random.uniform(50, 65, (rows, 1, GRID, GRID))).float()
        hue = torch.tensor([[28.0, 0.0], [-28.0, 0.0]])[dark][:, :, None, None].expand(-1, -1, GRID, GRID)
        image = rgb_of(torch.cat([lightness, hue], 1)).mul(255).round().byte().movedim(1, -1).numpy()
        image = image.repeat(CELL, 1).repeat(CELL, 2)
        image[:, :MARK, :MARK] = np.where(dark, 10, 240)[:, None, None, None]
        arrays[split] = image
    return of_arrays(arrays)


def test_a_planted_mark_is_detected():
    some = planted()
    model = trained(colorization(bin_size=25), some, 200, 5e-3)
    audit = CellCues(model, some)
    table, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    assert bits(table, CORNER_GRAY) > 0.95 and table[CORNER_GRAY.name]["accuracy"][0] == 1
    assert all(abs(bits(table, cue)) < 0.03 for cue in (GRAY, PLACE, GRAY_AND_PLACE, MEAN_GRAY, SHUFFLED))
    assert answers["bits"] > 0.9 and answers["accuracy"] > 0.99 and abs(answers["overfitting"]) < 0.05
    marked = reliance[CORNER_GRAY.name]
    assert marked["without"] < 0.65 and marked["conflict"] > 0.95  # the marks of half of the other images differ
    for cue in (GRAY, MEAN_GRAY):
        assert reliance[cue.name]["without"] > 0.95 and reliance[cue.name]["conflict"] < 0.05
    assert reliance.keys() == {GRAY.name, MEAN_GRAY.name, CORNER_GRAY.name}
    state = torch.get_rng_state()
    again = CellCues(model, some)
    assert (again.sufficiency(), again.answers(), again.reliance()) == (table, answers, reliance)
    assert torch.equal(torch.get_rng_state(), state)


def test_cells_get_the_grey_of_others():
    first, second = torch.rand(2, 5, 1, SIDE, SIDE).expand(2, 5, 3, SIDE, SIDE)
    cells = drawn(torch.zeros(5, GRID, GRID), torch.Generator().manual_seed(0))
    assert cells.flatten(1).sum(1).tolist() == [EXCHANGED] * 5
    changed = gray_of_cells(GRAY.exchanged(first, second, cells), GRID)
    expected = torch.where(cells, gray_of_cells(second, GRID), gray_of_cells(first, GRID))
    torch.testing.assert_close(changed, expected)
    shifted = MEAN_GRAY.exchanged(first, second, cells)
    torch.testing.assert_close(shifted.mean((1, 2, 3)), second.mean((1, 2, 3)))


@pytest.fixture(scope="module")
def emoji():
    return LabelledSet(str(EMOJI), Inputs(Image(default_processor(SIDE))), "group", limit=60)


def test_the_entry_of_colorization(emoji):
    by_who = {"trained": [lambda: colorization(0)], "random": [lambda: colorization(1)]}
    entry = Audit(emoji, AuditOptions(only=("cues",), trained_on=True)).entry(by_who)
    assert not entry["warnings"] and entry["task"]["unit"] == "cell"
    assert entry["task"]["trained"].keys() == {"bits", "accuracy", "entropy", "overfitting"}
    names = {cue.name for cue in (*ColorizationForPreTraining.cues, CORNER_GRAY)}
    assert entry["cues"].keys() == names | {FREQUENCY, SHUFFLED}
    assert entry["cues"][GRAY.name]["bits"]["mean"] > 0.2
    assert "without" in entry["cues"][GRAY.name] and "without" not in entry["cues"][PLACE.name]


def test_an_encoder_that_saw_grey_is_measured_in_grey(emoji):
    """Its metrics are those of an encoder of grey images, whose colours are still to be read."""
    by_who = {"trained": [lambda: colorization(0)], "random": [lambda: colorization(1)]}
    only = AuditOptions(only=("information", "transformations"))
    of_colours, of_gray = (Audit(some, only).entry(by_who)["encoders"]["image"] for some in (emoji, emoji.in_gray()))
    assert of_colours == of_gray and of_colours["gray"] and "bits_mean_color" in of_colours["trained"]
    assert "invariance_flip" in of_colours["trained"] and "invariance_hue" not in of_colours["trained"]
