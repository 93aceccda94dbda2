"""What is in a data set, before a long run: kinds of data, sizes, copies, rows that can't be read, classes, speed.

--dataset -> opened as for training -> some rows of each split, decoded -> report, contact sheet
"""

import os
from collections import Counter
from pathlib import Path

from ..data.lines import Reading
from ..utils.files import without_nan, write_json
from ..utils.foreign import read_json
from ..utils.machine import cores
from . import clips, images, sheet, texts
from .duplicates import copies_of, place_of
from .next_steps import next_steps
from .opening import KINDS, LABEL, DataSet, open_data_set
from .survey import Survey, look_at_rows

__all__ = ["look", "report_of"]
SHEET = "look.png"
WRITER = "written_by"  # key of a report, so that only own files are replaced
SUMMARIES = {"image": images.summary, "video": clips.summary, "audio": clips.summary}
FIRST = 5  # bad rows of a reason, and classes, in a report
EXAMPLES = 8  # texts


def look(
    dataset: str,
    split: str | None = None,
    column: str | None = None,
    text_column: str | None = None,
    label: str | None = None,
    rows: int | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    output: str | os.PathLike | None = None,
    json_file: str | os.PathLike | None = None,
) -> dict:
    """Looks at rows of each split of a data set. Returns the report, and writes a contact sheet of its images.

    dataset: like `--dataset` of a run. split: of one split; default: train, validation and test. column: of the images,
    videos or sounds, or of the texts of data without them; text_column: of the texts; label: of the classes; default:
    detected. rows: largest number of rows of each split, evenly spaced; default: `survey.MOST_ROWS`. encoding,
    separator: of text files. output: PNG of the sheet; default: look.png in the current folder. json_file: gets the
    report.

    Raises `ValueError` for data that can't be opened, and for an output that this command did not write."""
    reading = Reading(encoding=encoding, separator=separator, max_bad_fraction=1.0)  # bad rows are counted, not refused
    if output is not None:
        sheet.check_free(output)
    if json_file is not None:
        check_report_free(json_file)
    data = open_data_set(dataset, split, {"text": text_column, "label": label}, reading, column)
    if sheet.has_images(data.columns):
        output = SHEET if output is None else output
        sheet.check_free(output)
    elif output is not None:
        raise ValueError(f"--output {output}: {data.name} has no images for a sheet. Leave it out.")
    seen = look_at_rows(data, rows)
    report = report_of(data, seen)
    report["next"] = next_steps(dataset, kinds_of(report), run_options(dataset, data, report, label, reading))
    if output is not None:
        sheet.draw(output, seen, data.name, report["duplicates"])
        report["sheet"] = str(output)
    report = without_nan(report)
    if json_file is not None:
        write_json(json_file, {WRITER: sheet.WRITER, **report})
    return report


def check_report_free(path: str | os.PathLike) -> None:
    """Raises `ValueError` if a report can't be written to a path, or another file is there."""
    path = Path(path)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"--json {path} can't be written. Give a file in an existing, writable folder.")
    if path.exists():
        try:
            content = read_json(path)
        except ValueError:
            content = None
        if not isinstance(content, dict) or content.get(WRITER) != sheet.WRITER:
            raise ValueError(f"--json {path} exists and was not written by {sheet.WRITER}. Give another name.")


def run_options(
    dataset: str, data: DataSet, report: dict, label: str | None, reading: Reading
) -> dict[str, str | None]:
    """Returns the options of a run on this data, None for those that are not needed. label: as it was given."""
    columns = {f"{kind}_column": column for kind, column in data.columns.items() if kind in data.asked - {LABEL}}
    options = {**columns, "encoding": reading.encoding, "separator": reading.separator}
    if report["classes"] is None or report["classes"]["classes"] < 2:
        return options
    of_set = {f"eval_{name}": column for name, column in columns.items()}
    return {**options, "eval_dataset": dataset, **of_set, "eval_label": label}


def kinds_of(report: dict) -> set[str]:
    """Returns the kinds of data of which values could be read; "audio", too, for films with sound."""
    kinds = {kind for kind in KINDS if report.get(kind)}
    return kinds | ({"audio"} if (report.get("video") or {}).get("with_sound") else set())


def report_of(data: DataSet, seen: Survey) -> dict:
    """Returns what the rows are, as JSON content without the sheet. seen: the rows that were looked at."""
    kinds = {kind: [row.facts[kind] for row in seen.of(kind)] for kind in data.columns if kind != "label"}
    report = {
        "dataset": data.name,
        "splits": {split: split_of(data, seen, split) for split in data.sources},
        "columns": data.columns,
        "other_columns": data.others,
        "notes": data.notes,
        "unreadable": unreadable(seen),
        "examples": examples(data, seen),
        "duplicates": copies_of(seen),
        "classes": classes(data, seen),
        "speed": speed(data, seen),
    }
    for kind, facts in kinds.items():
        if not facts:
            report[kind] = None
        elif kind in SUMMARIES:
            report[kind] = SUMMARIES[kind](facts)
        else:
            empty = sum(row.reasons.get(kind) in texts.EMPTY for row in seen.rows)
            report[kind] = texts.summary(facts, empty)
    return report


def split_of(data: DataSet, seen: Survey, split: str) -> dict:
    """Returns the number of rows of a split, of those that were looked at and are unreadable, and its size."""
    source, rows = data.sources[split], [row for row in seen.rows if row.split == split]
    return {
        "rows": len(source),
        "looked_at": len(rows),
        "unreadable": sum(bool(row.reasons) for row in rows),
        "bytes": sum(source.rows.files.values()) or None,
        "files": len(source.rows.files),
        "lost": [f"{where}: {why}" for where, why in source.rows.lost],
    }


def unreadable(seen: Survey) -> dict:
    """Returns the reasons why rows can't be used, most frequent first, each with its first rows."""
    places: dict[str, list[dict]] = {}
    several = len({kind for row in seen.rows for kind in (*row.facts, *row.reasons)} - {"row"}) > 1
    for row in seen.rows:
        for kind, reason in row.reasons.items():
            where = f"{kind}: " if several and kind != "row" else ""
            places.setdefault(f"{where}{reason}", []).append(place_of(row))
    reasons = [
        {"reason": reason, "rows": len(some), "first": some[:FIRST]}
        for reason, some in sorted(places.items(), key=lambda item: -len(item[1]))
    ]
    rows = sum(bool(row.reasons) for row in seen.rows)
    return {"rows": rows, "share": rows / len(seen.rows), "reasons": reasons}


def examples(data: DataSet, seen: Survey) -> list[dict]:
    """Returns the beginnings of some texts of data without images; `[]` for other data."""
    if sheet.has_images(data.columns):
        return []
    rows = seen.of("text")
    count = min(EXAMPLES, len(rows))
    some = [rows[i * len(rows) // count] for i in range(count)]
    return [{**place_of(row), "text": row.facts["text"].excerpt} for row in some]


def classes(data: DataSet, seen: Survey) -> dict | None:
    """Returns the number of rows of the largest and smallest classes; None without a column of labels."""
    if "label" not in data.columns:
        return None
    counts = Counter(str(row.label) for row in seen.rows if row.label is not None).most_common()
    ordered = [{"class": name, "rows": count} for name, count in counts]
    return {
        "column": data.columns["label"],
        "classes": len(counts),
        "rows_without": sum(row.label is None and "row" not in row.reasons for row in seen.rows),
        "largest": ordered[:FIRST],
        "smallest": ordered[FIRST:][-FIRST:],
        "single": sum(count == 1 for _, count in counts),
    }


def speed(data: DataSet, seen: Survey) -> dict:
    """Returns the time of reading and decoding an epoch of the first split in one process, from the rows looked at."""
    split, clock = next(iter(seen.clocks.items()))
    seconds = max(clock.seconds_of_a_row, 1e-9)
    return {
        "split": split,
        "rows_per_second": 1 / seconds,
        "seconds_of_an_epoch": seconds * len(data.sources[split]),
        "measured_on": clock.looked_at,
        "cores": cores(),
    }
