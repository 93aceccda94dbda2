"""report.png: its curves, and that it holds nothing of the machine that drew it."""

import pytest
from matplotlib.figure import Figure
from PIL import Image
from recorded import recorded_results

from hf_pretext.cards import report

results = pytest.fixture(recorded_results)


def history(**logs) -> list[dict]:
    """Two entries of a run's history, of the values of each log."""
    return [
        {"samples_seen": 100 * (i + 1), "learning_rate": 0.1 * i, **{name: pair[i] for name, pair in logs.items()}}
        for i in range(2)
    ]


def with_curves(results, *histories) -> dict:
    return {**results, "seeds": [{"history": each} for each in histories], "pretext": {"loss": {"mean": 0.25}}}


def test_curves_are_the_loss_and_what_of_the_objectives_logs_changes(results):
    some = with_curves(results, history(loss=(2.0, 1.0), top1=(0.1, 0.2), scale=(3.0, 3.0)))
    assert report.curve_names(some) == ["loss", "top1"]


def test_each_seed_is_a_line_and_what_was_measured_on_test_is_dashed(results):
    figure, one = Figure(), history(loss=(2.0, 1.0), top1=(0.1, 0.2))
    report.curves(figure, with_curves(results, one, one, one), ["loss", "top1"])
    assert len(figure.axes) == 2
    loss, top1 = figure.axes
    assert [line.get_linestyle() for line in loss.lines] == ["-"] * 3 + ["--"] and len(top1.lines) == 3
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["each seed", "test"]
    assert list(loss.lines[0].get_xdata()) == [100, 200] and list(loss.lines[0].get_ydata()) == [2.0, 1.0]


def test_the_loss_of_rows_of_one_kind_is_not_compared_with_that_of_pairs(results):
    figure = Figure()
    report.curves(figure, {**with_curves(results, history(loss=(2.0, 1.0))), "alone": {}}, ["loss"])
    assert len(figure.axes[0].lines) == 1


def test_many_curves_are_in_several_rows_without_empty_frames(results):
    names = ["loss", *"abcdef"]
    figure = Figure()
    report.curves(figure, with_curves(results, history(**dict.fromkeys(names, (0.0, 1.0)))), names)
    assert [axes.axison for axes in figure.axes] == [True] * 7 + [False]
    assert [axes.get_title() for axes in figure.axes[:7]] == names


def test_a_panel_adds_its_height_to_the_image(results, tmp_path):
    some, sizes = with_curves(results, history(loss=(2.0, 1.0))), []
    for panels in ([], [(lambda figure: figure.subplots(), 2.0)]):
        report.draw(tmp_path / "report.png", some, panels)
        with Image.open(tmp_path / "report.png") as image:
            sizes.append(image.size)
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] - sizes[0][1] == pytest.approx(2 * 110, abs=1)


def test_the_file_holds_no_path_and_nothing_is_left_next_to_it(results, tmp_path):
    report.draw(tmp_path / "report.png", with_curves(results, history(loss=(2.0, 1.0))))
    content = (tmp_path / "report.png").read_bytes()
    assert str(tmp_path).encode() not in content and b"/home/" not in content
    with Image.open(tmp_path / "report.png") as image:
        assert image.text.keys() <= {"Software"}  # Matplotlib's own name and address
    assert [path.name for path in tmp_path.iterdir()] == ["report.png"]


def test_a_drawing_that_fails_leaves_the_old_image(results, tmp_path):
    (tmp_path / "report.png").write_bytes(b"as it was")
    with pytest.raises(ZeroDivisionError):
        report.draw(tmp_path / "report.png", with_curves(results, history(loss=(2.0, 1.0))), [(lambda _: 1 / 0, 2.0)])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"as it was"]


def test_captions_are_shortened_to_a_few_lines():
    assert report.lines_of("red box") == "red box"
    lines = report.lines_of("a very long caption of an image " * 4).split("\n")
    assert len(lines) == report.LINES and lines[-1].endswith("…") and max(map(len, lines)) <= report.BROAD


@pytest.mark.parametrize("count", [1, 20, 21, 100])
def test_colours_are_all_different(count):
    assert len({tuple(colour) for colour in report.colours(count)}) == count
