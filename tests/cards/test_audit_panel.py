"""The audit as an image."""

import pytest
from matplotlib.figure import Figure
from test_audit_card import entry as audit_entry

from hf_pretext.cards.audit_panel import audit_panel

entry = audit_entry
CURVES = {"trained": [(8, 2.5), (12, 2.0), (18, 1.5)], "random": [(8, 2.8), (12, 2.5), (18, 2.4)]}


def drawn(entry: dict) -> Figure:
    draw, height = audit_panel(entry)
    figure = Figure(figsize=(12, height))
    draw(figure)
    return figure


def test_cues_properties_and_changes_are_bars_with_the_bits_of_the_model_as_a_line(entry):
    cues, known, changes = drawn(entry).axes
    assert [text.get_text() for text in cues.get_yticklabels()] == ["colours", "corners", "silhouette", "thumbnail"]
    assert [bar.get_width() for bar in cues.patches] == pytest.approx([0.0, 0.05, 0.4, 0.9])
    (line,) = cues.lines
    assert list(line.get_xdata()) == pytest.approx([1.2, 1.2])
    assert [text.get_text() for text in known.get_yticklabels()] == ["group", "style"]
    trained, random = [bar.get_width() for bar in known.patches][:2], [bar.get_width() for bar in known.patches][2:]
    assert trained == pytest.approx([1.05, 0.31]) and random == pytest.approx([0.55, 0.51])
    assert [text.get_text() for text in changes.get_yticklabels()] == ["rotation"]


def test_the_curve_of_the_code_is_drawn(entry):
    entry["encoders"]["image"]["code_curve"] = CURVES
    *_, axes = drawn(entry).axes
    trained, random = axes.lines
    assert [*zip(trained.get_xdata(), trained.get_ydata(), strict=True)] == CURVES["trained"]
    assert [*zip(random.get_xdata(), random.get_ydata(), strict=True)] == CURVES["random"]
    assert axes.get_title() == "online code of group" and axes.get_xlabel() == "labels seen"


def test_nothing_measured_gives_no_panel(entry):
    assert audit_panel({"encoders": {}, "warnings": []}) is None
