"""The audit as an image: bits of each cue next to those of the model, bits of properties, invariance to changes, and
the curve of the online code of the label.

results["audit"] -> a panel of report.png
"""

from collections.abc import Mapping, Sequence

from ..audit.encoder import BITS
from ..audit.entry import RANDOM, TRAINED
from ..audit.task import CONTROL, QUESTION
from ..audit.transformations import INVARIANCE
from .audit import mean_of, parts_of
from .report import RANDOM as GREY
from .report import TRAINED as BLUE

LINE, LEAST = 0.24, 2.4  # height of a bar and of the panel, in inches
APART = 0.38  # height of each of two bars


def audit_panel(audit: Mapping) -> tuple | None:
    """Returns the function that draws the panel, and its height in inches; None if there is nothing to draw."""
    image = next(iter(audit.get("encoders", {}).values()), {TRAINED: {}})
    known = [name for name in image[TRAINED] if parts_of(name)[0] == BITS]
    changes = [name for name in image[TRAINED] if parts_of(name)[0] == INVARIANCE]
    cues, curves = audit.get("cues", {}), image.get("code_curve", {})
    longest = max(len(cues), len(known), len(changes))
    if not longest:
        return None

    def draw_panel(figure) -> None:
        left, middle, right, *further = figure.subplots(1, 4 if curves else 3)
        draw_cues(left, cues, audit.get("task", {}).get(TRAINED, {}).get(BITS))
        for axes in further:
            draw_curves(axes, curves, image["label"])
        pairs = f"{BITS} of a property of the input", f"{INVARIANCE} to a change of the input"
        for axes, names, title in zip((middle, right), (known, changes), pairs, strict=True):
            draw_pairs_of_bars(axes, image, names, title)

    return draw_panel, max(LEAST, 1 + LINE * longest)


def draw_cues(axes, cues: Mapping[str, Mapping], model: Mapping | None) -> None:
    """Draws a bar of the bits of each cue, and a line for those of the trained models."""
    axes.set_title("bits that a cue alone reveals", fontsize=10)
    names = sorted(cues, key=lambda name: mean_of(cues[name], BITS))
    if not names:
        axes.set_axis_off()
        return
    controls = [cues[name]["role"] == CONTROL for name in names]
    colours = [GREY if control else BLUE for control in controls]
    axes.barh(names, [mean_of(cues[name], BITS) for name in names], color=colours, height=2 * APART)
    several = any(QUESTION in each for each in cues.values())  # whose bits differ
    if model and model["mean"] is not None and not several:
        axes.axvline(model["mean"], color="black", linestyle="--", linewidth=1, label="trained model")
        axes.legend(fontsize=8, loc="lower center", framealpha=0.9)
    axes.set_xlabel("bits per answer", fontsize=8)
    style(axes)


def draw_pairs_of_bars(axes, encoder: Mapping, names: Sequence[str], title: str) -> None:
    """Draws two bars for each metric of an encoder: trained and random, with the spread over seeds."""
    axes.set_title(title, fontsize=10)
    if not names:
        axes.set_axis_off()
        return
    places = range(len(names))
    for who, colour, shift in ((TRAINED, BLUE, -APART / 2), (RANDOM, GREY, APART / 2)):
        metrics = [encoder[who][name] for name in names]
        axes.barh(
            [place + shift for place in places],
            [metric["mean"] or 0.0 for metric in metrics],
            xerr=[metric["std"] or 0.0 for metric in metrics],
            color=colour,
            height=APART,
            label=who,
            error_kw={"linewidth": 0.8},
        )
    axes.set_yticks(places, [parts_of(name)[1].replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.legend(fontsize=8, framealpha=0.9, loc="lower right")
    style(axes)


def draw_curves(axes, curves: Mapping[str, Sequence], label: str) -> None:
    """Draws the online codes of the label, trained and random: bits of a label, by the number of labels before it."""
    axes.set_title(f"online code of {label}", fontsize=10)
    for who, colour in ((TRAINED, BLUE), (RANDOM, GREY)):
        points = curves.get(who, [])
        axes.plot([seen for seen, _ in points], [bits for _, bits in points], color=colour, marker=".", label=who)
    axes.set_xscale("log")
    axes.set_xlabel("labels seen", fontsize=8)
    axes.set_ylabel("bits per label", fontsize=8)
    axes.legend(frameon=False, fontsize=8)
    style(axes)


def style(axes) -> None:
    """Styles axes with horizontal bars."""
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
