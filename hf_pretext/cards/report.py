"""report.png: how training went, and what the encoder holds to be alike.

history of each seed, query pictures, their neighbours by the trained and by a random encoder -> one picture
"""

import os
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..files import whole

TRAINED, RANDOM = "#1f6feb", "#8b949e"
COMMON = ("loss", "samples_seen", "samples_per_second", "data_wait", "grad_norm", "learning_rate", "epoch", "step")


@dataclass
class Neighbours:
    """Query pictures (`(q, 3, H, W)` uint8) with, by each encoder, their nearest ones (`(q, k, 3, H, W)` uint8) and
    whether those have the query's label (`(q, k)`)."""

    queries: Tensor
    found: dict[str, tuple[Tensor, np.ndarray]]


def draw(path: str | os.PathLike, results: dict, neighbours: Neighbours | None = None) -> None:
    """Writes the picture, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = 0 if neighbours is None else len(neighbours.queries)
    figure = Figure(figsize=(12, 3.6 + 0.82 * rows), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    parts = figure.subfigures(2, 1, height_ratios=[3.6, 0.82 * rows]) if rows else [figure]
    curves(parts[0], results)
    if rows:
        panel(parts[1], neighbours)
    with whole(path) as temporary:
        figure.savefig(temporary)


def curves(figure, results: dict) -> None:
    """Loss and the objective's logs over the samples seen, a line for each seed; on test, where measured, dashed."""
    histories = {run["seed"]: run["history"] for run in results["seeds"]}
    logged = sorted({name for history in histories.values() for entry in history for name in entry})
    names = ["loss", *(name for name in logged if name not in COMMON)]
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for seed, history in histories.items():
            points = [(entry["samples_seen"], entry[name]) for entry in history if name in entry]
            axes.plot(*np.array(points).reshape(-1, 2).T, color=TRAINED, alpha=0.8, linewidth=1.3, label=f"seed {seed}")
        if name in results.get("pretext", {}):
            axes.axhline(results["pretext"][name]["mean"], color="black", linestyle="--", linewidth=1, label="test")
        axes.set(title=f"{results['objective']['name']}: {name}", xlabel="samples seen")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)


def panel(figure, neighbours: Neighbours) -> None:
    """Queries at the left; their nearest neighbours by each encoder, framed where the label is the query's."""
    k = next(iter(neighbours.found.values()))[0].shape[1]
    grid = figure.subplots(len(neighbours.queries), 2 + 2 * k + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, query in enumerate(neighbours.queries):
        picture(grid[row, 0], query)
        for at, (pictures, same) in enumerate(neighbours.found.values()):
            first = 2 + at * (k + 1)
            for j in range(k):
                picture(grid[row, first + j], pictures[row, j], TRAINED if same[row, j] else None)
    titles = {
        0: "query",
        **{2 + at * (k + 1): f"nearest by the {who} encoder" for at, who in enumerate(neighbours.found)},
    }
    for column, title in titles.items():
        grid[0, column].set_title(title, fontsize=9, loc="left").set_in_layout(False)  # or its column would grow
    figure.supxlabel("a blue frame: the neighbour has the query's label, which training never saw", fontsize=8)


def picture(axes, pixels: Tensor, frame: str | None = None) -> None:
    """One picture (`(3, H, W)` uint8), framed in a colour where one is given."""
    axes.imshow(pixels.permute(1, 2, 0).numpy())
    if frame is not None:
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=frame, linewidth=2)
