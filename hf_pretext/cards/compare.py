"""Compares runs by five criteria, one column each and never as one grade: `hf-pretext compare RUN...`

results.json of each run -> rows -> table, image

Is the task more than its cues? Does the encoder know the label and not the nuisances? What does an answer hold,
and does the model over-fit? Does the encoder transfer? What does it cost?
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from ..audit.encoder import BITS
from ..audit.entry import RANDOM, TRAINED, best_cue
from ..audit.task import ENTROPY, OVERFITTING
from ..utils.paths import relative
from .results import read_results
from .summary import probe
from .tables import MISSING

COLUMNS = {  # name: (words, format); metrics that were not measured are None
    "cue_share": ("best cue's bits, % of the model's", "{:.0%}"),
    "label_bits": ("bits of the label over random", "{:+.3f}"),
    "nuisance_bits": ("bits of other properties over random, sum", "{:+.3f}"),
    "task_bits": ("bits of the task answered", "{:.3f}"),
    "overfitting": ("bits more on train", "{:+.3f}"),
    "transfer": ("linear probe over random", "{:+.3f}"),
    "points_per_core_minute": ("points per core-minute", "{:.3f}"),
    "points_per_kwh": ("points per kWh", "{:.1f}"),
}
LOWER_IS_BETTER = ("cue_share", "overfitting")
Row = dict[str, Any]


def compare(folders: Sequence[str | os.PathLike], sort: str | None = None) -> list[Row]:
    """Returns a row of each run: `run`, its folder; `objective`; `cue`, the most revealing one; `unit`, what one answer
    of the task is about, and `most_bits`, the bits that it has at most; `rows`, on which it was audited; and the
    `COLUMNS`.

    folders: of finished runs. sort: a column, the best first; default: the order of the folders. Points are hundredths
    of the accuracy of the linear probe over random. Raises `ValueError` for an unknown column, for folders without
    results, and for runs that were evaluated on different labels or audited on different data."""
    check_sorted(sort)
    rows = compared({os.fspath(folder): read_results(folder) for folder in folders})
    if sort is None:
        return rows
    units = sorted({row["unit"] for row in rows if row["unit"]})
    if sort == "task_bits" and len(units) > 1:
        raise ValueError(f"--sort task_bits: the bits are per {' and per '.join(units)}. Sort by another column.")
    sign = 1 if sort in LOWER_IS_BETTER else -1
    return sorted(rows, key=lambda row: (row[sort] is None, sign * (row[sort] or 0)))


def compared(results: Mapping[str, Mapping]) -> list[Row]:
    """Returns a row of each run, see `compare`. results: of runs, by name. Raises `ValueError` for runs that were
    evaluated on different labels or audited on different data."""
    labels = {name: labelled(each) for name, each in results.items()}
    if len(set(labels.values())) > 1:
        apart = "; ".join(f"{name}: {label}" for name, label in labels.items())
        raise ValueError(f"The runs were evaluated on different labels: {apart}. Compare runs of one labelled set.")
    audits = {name: each["audit"] for name, each in results.items() if "audit" in each}
    if len({audit["dataset"] for audit in audits.values()}) > 1:
        apart = "; ".join(f"{name}: {audit['dataset']}" for name, audit in audits.items())
        raise ValueError(f"The audits are of different data: {apart}. Audit the runs on one labelled set.")
    common = set.intersection(*map(properties, audits.values())) if audits else set()
    return [{"run": name, **criteria(each, common)} for name, each in results.items()]


def check_sorted(sort: str | None) -> None:
    """Raises `ValueError` for a column to sort by that is not one of `COLUMNS`."""
    if sort is not None and sort not in COLUMNS:
        raise ValueError(f"--sort {sort}: there is no such column. Give one of {', '.join(COLUMNS)}.")


def labelled(results: Mapping) -> str:
    """Returns on which label of which data a run was evaluated, in words."""
    transfer = results.get("transfer")
    return f"{transfer['label']} of {transfer['dataset']}" if transfer else "no labels"


def properties(audit: Mapping) -> set[str]:
    """Returns the names of the properties whose bits were measured of the first encoder, without the label."""
    encoder = next(iter(audit["encoders"].values()), {"label": None, TRAINED: {}})
    names = {name.removeprefix(f"{BITS}_") for name in encoder[TRAINED] if name.startswith(f"{BITS}_")}
    return names - {encoder["label"]}


def criteria(results: Mapping, common: Set[str]) -> Row:
    """Returns the objective of a run and its metrics, see `compare`. common: properties that all runs have."""
    audit = results.get("audit", {})
    answers, best = audit.get("task", {}).get(TRAINED, {}), best_cue(audit) if audit else None
    gain = transfer_gain(results)
    minutes = sum(run["seconds"] for run in results["seeds"]) / len(results["seeds"]) / 60
    cores = results["machine"].get("cores") if results["machine"].get("device") == "cpu" else None
    kwh = [run["kwh"] for run in results["seeds"] if run.get("kwh")]
    return {
        "objective": results["objective"]["name"],
        "cue": best[0] if best else None,
        "cue_share": best[1] if best else None,
        **dict(zip(("label_bits", "nuisance_bits"), information_gains(audit, common), strict=True)),
        "task_bits": mean(answers.get(BITS)),
        "unit": audit.get("task", {}).get("unit"),
        "most_bits": mean(answers.get(ENTROPY)),
        "rows": rows_of(audit) if audit else None,
        "overfitting": mean(answers.get(OVERFITTING)),
        "transfer": gain,
        "points_per_core_minute": 100 * gain / minutes / cores if gain is not None and cores and minutes else None,
        "points_per_kwh": 100 * gain * len(kwh) / sum(kwh) if gain is not None and kwh else None,
    }


def rows_of(audit: Mapping) -> str:
    """Returns the number of rows of an audit in words."""
    return ", ".join(f"{count:,} {split}" for split, count in audit["rows"].items())


def differing_rows(rows: Iterable[Row]) -> str:
    """Returns a sentence on which rows the runs were audited; an empty one if all were on as many.

    Objectives of one data set leave out different rows: those of pairs need captions."""
    by_rows: dict[str, list[str]] = {}
    for row in rows:
        if row["rows"]:
            by_rows.setdefault(row["rows"], []).append(relative(row["run"]))
    if len(by_rows) < 2:
        return ""
    each = "; ".join(f"{', '.join(runs)}: {words}" for words, runs in by_rows.items())
    return f"Audited on different rows, as some lack what an objective needs: {each}."


def transfer_gain(results: Mapping) -> float | None:
    """Returns the accuracy of the linear probe over that of random encoders; None if it was not measured."""
    if "transfer" not in results:
        return None
    of = probe(results)
    known = of.trained["mean"] is not None and of.random["mean"] is not None
    return of.trained["mean"] - of.random["mean"] if known else None


def information_gains(audit: Mapping, common: Set[str]) -> tuple[float | None, float | None]:
    """Returns the bits of the label over random, and the sum of those of other properties, of the first encoder."""
    encoder = next(iter(audit.get("encoders", {}).values()), None)
    if encoder is None:
        return None, None
    gains = {
        name.removeprefix(f"{BITS}_"): difference(encoder[TRAINED][name], encoder[RANDOM].get(name))
        for name in encoder[TRAINED]
        if name.startswith(f"{BITS}_")
    }
    others = [gains[name] for name in sorted(common)]
    return gains.get(encoder["label"]), sum(others) if others and None not in others else None


def difference(one: Mapping, other: Mapping | None) -> float | None:
    """Returns the difference of two means; None if one is missing or undefined."""
    return None if mean(one) is None or mean(other) is None else one["mean"] - other["mean"]


def mean(metric: Mapping | None) -> float | None:
    """Returns the mean of a metric; None if it is missing or undefined."""
    return None if metric is None else metric["mean"]


def cells(row: Row) -> list[str]:
    """Returns the cells of a row of the table: run, objective, and the columns, with a dash for what has no metric."""
    numbers = [MISSING if row[name] is None else form.format(row[name]) for name, (_, form) in COLUMNS.items()]
    numbers[0] += f" ({row['cue']})" if row["cue"] else ""
    most = f" of {row['most_bits']:.2f}" if row["most_bits"] is not None else ""
    numbers[list(COLUMNS).index("task_bits")] += f"{most} per {row['unit']}" if row["unit"] else ""
    return [row["run"], row["objective"], *numbers]


def head() -> list[str]:
    """Returns the head of the table."""
    return ["run", "objective", *(words for words, _ in COLUMNS.values())]


def markdown(rows: Iterable[Row]) -> str:
    """Returns the table in Markdown."""
    lines = [head(), ["---"] * len(head()), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(path: str | os.PathLike, rows: Sequence[Row]) -> None:
    """Writes an image (PNG): for each column that was measured a bar of each run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ..utils.files import atomic_path
    from .audit_panel import LINE, style
    from .report import TRAINED as BLUE

    measured = [name for name in COLUMNS if any(row[name] is not None for row in rows)]
    figure = Figure(figsize=(2.6 * max(len(measured), 1), 1.2 + 2 * LINE * len(rows)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, max(len(measured), 1), squeeze=False)[0]
    for axes, name in zip(grid, measured, strict=False):
        axes.barh(range(len(rows)), [math.nan if row[name] is None else row[name] for row in rows], color=BLUE)
        for place, row in enumerate(rows):
            if row[name] is None:
                axes.text(0.02, place, MISSING, transform=axes.get_yaxis_transform(), va="center")
        names = [relative(row["run"]) for row in rows] if axes is grid[0] else [""] * len(rows)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)  # a bar without a value has no place of its own
        axes.locator_params(axis="x", nbins=3)
        better = "less is better" if name in LOWER_IS_BETTER else ""
        axes.set_title("\n".join(filter(None, (COLUMNS[name][0], better))), fontsize=8)
        style(axes)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
