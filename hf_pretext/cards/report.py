"""report.png: training curves, and a panel with the model's outputs on test examples.

history of each seed, panel (see `panels`) -> one image
"""

import math
import os
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ..utils.files import atomic_path

TRAINED, RANDOM, OTHER = "#1f6feb", "#8b949e", "#bf8700"
COMMON = ("loss", "samples_seen", "samples_per_second", "data_wait", "grad_norm", "learning_rate", "epoch",
          "epoch_of_source", "step")  # fmt: skip
CURVES, ABREAST = 3.6, 5  # height of a row in inches, and curves in a row
NAMED = 20  # maximum number of labels in a legend
PER_ROW, BROAD, LINES = 10, 17, 3  # captioned images in a row; letters of a line and lines of a caption
LINE = 9.0  # height of a line of a caption in points
SAME = "blue frame: the neighbour has the query's label; training did not use labels"


def draw(path: str | os.PathLike, results: dict, panels: Sequence[tuple[Callable, float]] = ()) -> None:
    """Writes the image atomically: a failure leaves an earlier file unchanged.

    panels: functions that draw the lower parts, and the heights of these parts in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = curve_names(results)
    rows = math.ceil(len(names) / ABREAST)
    heights = [CURVES * (1 + 0.7 * (rows - 1)), *(height for _, height in panels)]
    figure = Figure(figsize=(12, sum(heights)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    parts = np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights))
    curves(parts[0], results, names)
    for (draw_panel, _), part in zip(panels, parts[1:], strict=True):
        draw_panel(part)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def curve_names(results: dict) -> list[str]:
    """Returns the names of the curves: the loss, then the objective's logs that change during training."""
    entries = [entry for run in results["seeds"] for entry in run["history"]]
    values = {name: {entry[name] for entry in entries if name in entry} for entry in entries for name in entry}
    return ["loss", *sorted(n for n in values if n.partition("/")[0] not in COMMON and len(values[n]) > 1)]


def curves(figure, results: dict, names: list[str]) -> None:
    """Draws logs over the samples seen: one line for each seed, and a dashed line for the value on the test split."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    histories = [run["history"] for run in results["seeds"]]
    rows = math.ceil(len(names) / ABREAST)
    grid = figure.subplots(rows, math.ceil(len(names) / rows), squeeze=False).ravel()
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid[: len(names)], names, strict=True):
        for number, history in enumerate(histories):
            points = [(entry["samples_seen"], entry[name]) for entry in history if name in entry]
            label = None if number else "each seed" if len(histories) > 1 else "training"
            axes.plot(*np.array(points).reshape(-1, 2).T, color=TRAINED, alpha=0.8, linewidth=1.3, label=label)
        other = name == "loss" and "alone" in results  # the test loss is on image-text pairs only
        if name in results.get("pretext", {}) and not other:
            axes.axhline(results["pretext"][name]["mean"], color="black", linestyle="--", linewidth=1, label="test")
        axes.set_title(name if rows > 1 else f"{results['objective']['name']}: {name}", fontsize=10)
        axes.set(xlabel="samples seen")
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)


def draw_rows(figure, rows: dict[str, Tensor]) -> None:
    """Draws one row of images for each title. rows: images `(n, 3, H, W)` uint8 by title."""
    count = len(next(iter(rows.values())))
    grid = figure.subplots(len(rows), 1 + count, squeeze=False, width_ratios=[1.4] + [1] * count)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (title, images) in zip(grid, rows.items(), strict=True):
        line[0].text(0, 0.5, title, fontsize=9, va="center", transform=line[0].transAxes).set_in_layout(False)
        for axes, image in zip(line[1:], images, strict=True):
            show_image(axes, image)
    figure.suptitle("of test: what the model sees, and what it predicts", fontsize=10)


def draw_captions(figure, images: Tensor, captions: Sequence[tuple[str, str, bool]]) -> None:
    """Draws images, each with the generated caption below it, and the reference below that.

    images: `(n, 3, H, W)` uint8. captions: reference, generated caption, and whether this is correct, for each image.
    """
    rows = math.ceil(len(captions) / PER_ROW)
    grid = figure.subplots(2 * rows, PER_ROW, squeeze=False, height_ratios=[1, 0.8] * rows)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (image, (reference, proposed, is_correct)) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, PER_ROW)
        show_image(grid[2 * row, column], image)
        ours, down = lines_of(proposed or "(empty)"), 0.0
        for text, color in ((ours, TRAINED if is_correct else "black"), (lines_of(reference), RANDOM)):
            place = dict(xytext=(0, down), textcoords="offset points", ha="center", va="top", annotation_clip=False)
            written = grid[2 * row + 1, column].annotate(
                text, (0.5, 1), xycoords="axes fraction", color=color, fontsize=7, parse_math=False, **place
            )
            written.set_in_layout(False)
            down -= LINE * (1 + text.count("\n")) + 1
    figure.suptitle("first test images: generated captions (blue: correct) and, in grey, the correct ones", fontsize=10)


def lines_of(text: str) -> str:
    """Returns a text in lines, shortened if they are too many."""
    lines = textwrap.wrap(text, BROAD, max_lines=LINES, placeholder=" …")
    return "\n".join(lines)


def draw_neighbours(figure, queries: Tensor, nearest: dict[str, tuple[Tensor, np.ndarray]], note: str = SAME) -> None:
    """Draws query images at the left and their nearest neighbours next to them. A frame marks some neighbours.

    queries: `(q, 3, H, W)` uint8. nearest: by title, the nearest images, `(q, k, 3, H, W)` uint8, and which of them are
    framed, `(q, k)` bool. note: what a frame means."""
    k = next(iter(nearest.values()))[0].shape[1]
    grid = figure.subplots(len(queries), 2 + len(nearest) * (k + 1) - 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, query in enumerate(queries):
        show_image(grid[row, 0], query)
        for at, (images, framed) in enumerate(nearest.values()):
            first = 2 + at * (k + 1)
            for j in range(k):
                show_image(grid[row, first + j], images[row, j], TRAINED if framed[row, j] else None)
    titles = {0: "query", **{2 + at * (k + 1): title for at, title in enumerate(nearest)}}
    for column, title in titles.items():
        axes = grid[0, column]  # text and no axes title, which would widen the column
        axes.text(0, 1.15, title, fontsize=9, transform=axes.transAxes).set_in_layout(False)
    figure.suptitle(" ", fontsize=9)  # an empty title leaves room for the column titles
    figure.supxlabel(note, fontsize=8)


def draw_abreast(figure, panels: Sequence[Callable]) -> None:
    """Draws panels next to each other."""
    for draw_panel, part in zip(panels, figure.subfigures(1, len(panels)), strict=True):
        draw_panel(part)


def draw_fractions(
    figure, transfer: dict, predictions: list[tuple[str, str, dict[str, list[str]]]], title: str = ""
) -> None:
    """Draws top-1 accuracy by share of labels at the left, and predictions of words at the right, below a title.

    predictions: for each text, the text with ____ for a word, the word, and the most likely predictions by title."""
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    shares = [share for method in transfer["methods"] if (share := method.rpartition("_")[2]).endswith("%")]
    names = [f"linear_probe_{share}_top1" for share in shares]
    styles = {"trained": (TRAINED, "-"), "random": (RANDOM, "-"), "majority": (RANDOM, ":")}
    for who, figures in transfer["figures"].items():
        colour, line = styles.get(who, (OTHER, "--"))
        means, spreads = ([figures[name][kind] or 0 for name in names] for kind in ("mean", "std"))
        left.errorbar(shares, means, spreads, color=colour, linestyle=line, marker="o", markersize=4, label=who)
    left.set(title=f"linear probe of {transfer['label']}, top-1 on test", xlabel="share of the labels used")
    left.grid(alpha=0.25)
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    right.set_axis_off()
    right.set_title(title if predictions else "", loc="left")
    style = dict(fontsize=9, transform=right.transAxes, parse_math=False)  # texts may contain dollar signs
    for row, (text, word, by_title) in enumerate(predictions):
        y = 1 - (row + 0.3) / max(len(predictions), 1)
        right.text(0, y, text, **style)
        for line, (title, likely) in enumerate(by_title.items(), 1):
            right.text(0.02, y - 0.07 * line, f"{title}:", color=RANDOM, **style)
            for at, prediction in enumerate(likely):
                colour = TRAINED if prediction == word else "black"
                right.text(0.2 + 0.2 * at, y - 0.07 * line, prediction, color=colour, **style)


def draw_pairs(
    figure,
    ranked: dict[str, tuple[Tensor, list[bool]]],
    images: Tensor,
    labels,
    names: list[str],
    kind: str = "image",
) -> None:
    """Draws captions with their top-ranked images at the left, and a map of the labelled images at the right; or videos
    as strips of frames, for the kind "video".

    A frame marks correct images. The map is a t-SNE of the embeddings (van der Maaten and Hinton 2008), coloured by
    label.

    ranked: for each caption, images, `(k, 3, H, W)` uint8, and whether each is correct (`k` values). images:
    embeddings, `(n, d)`. labels: `(n,)`, indices into `names`."""
    from sklearn.manifold import TSNE

    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    grid = left.subplots(len(ranked), 1 + len(next(iter(ranked.values()))[1]), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (caption, (images_of_it, correct)) in zip(grid, ranked.items(), strict=True):
        row[0].text(0, 0.5, "\n".join(textwrap.wrap(caption, 16)), fontsize=8, va="center", parse_math=False)
        for axes, pixels, right_one in zip(row[1:], images_of_it, correct, strict=True):
            show_image(axes, pixels, TRAINED if right_one else None)
    shown = "images" if kind == "image" else "videos, by first, middle and last frame"
    left.suptitle(f"test captions and their top-ranked {shown} (framed: correct)", fontsize=10)
    axes = right.subplots()
    perplexity = min(30.0, (len(images) - 1) / 3)
    places = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0).fit_transform(images.numpy())
    palette = colours(len(names))
    for number, name in enumerate(names):
        mine = labels == number
        axes.scatter(*places[mine].T, s=9, color=palette[number], label=name.replace("$", r"\$"))
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"t-SNE of the embeddings of test {kind}s", fontsize=10)
    if len(names) <= NAMED:
        axes.legend(fontsize=7, frameon=False, markerscale=2, loc="upper left", bbox_to_anchor=(1, 1))


def colours(count: int) -> list:
    """Returns `count` different colours."""
    from matplotlib import colormaps

    apart = colormaps["tab20"].colors
    return list(apart[:count]) if count <= len(apart) else list(colormaps["turbo"](np.linspace(0, 1, count)))


def show_image(axes, pixels: Tensor, frame: str | None = None) -> None:
    """Draws one image, `(3, H, W)` uint8, with a frame in the colour `frame` if given."""
    axes.imshow(pixels.permute(1, 2, 0).numpy())
    if frame is not None:
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=frame, linewidth=2)
