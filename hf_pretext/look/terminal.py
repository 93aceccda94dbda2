"""The report of `look` in the terminal: a table of the splits, then a line or more for each subject.

report -> text on the screen
"""

from collections.abc import Iterator, Mapping

from ..cards.terminal import console
from ..utils.paths import relative
from ..utils.units import in_seconds

SHOWN = 3  # examples of a list
MAX_BAD_FRACTION = 0.05  # default of training
WIDTH = 118
WHAT = {"image": "images", "video": "films", "audio": "sounds", "text": "texts", "subtitles": "subtitles"}
EXACT = {"exact": "are exact copies of another one"}
NEAR = {  # by kind: what is counted, in words
    "image": {**EXACT, "near": "look like another one, re-encoded or resized"},
    "text": {**EXACT, "near": "differ from another one only in case, spaces or punctuation"},
}


def show(report: dict) -> None:
    """Prints a report."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    screen = console()
    screen.print(Text(report["dataset"], style="bold"))
    screen.print(Padding(splits(report), (1, 0)))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold", max_width=WIDTH - 16)
    for subject, lines in subjects(report):
        for number, (line, alarm) in enumerate(lines):
            grid.add_row(Text("" if number else subject), Text(line, style="yellow" if alarm else ""))
    screen.print(grid)
    if report["next"]:
        screen.print("\nNext, train on it:\n", style="bold")
        for command in report["next"]:
            screen.print(f"  {command}", soft_wrap=True, markup=False)
    else:
        screen.print("\nNo objective trains on this kind of data alone.", soft_wrap=True)


def splits(report: dict):
    """Returns a table of the splits."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("split", "rows", "looked at", "unreadable", "files", "size on disk"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for name, split in report["splits"].items():
        size = "unknown" if split["bytes"] is None else in_bytes(split["bytes"])
        numbers = (split[each] for each in ("rows", "looked_at", "unreadable", "files"))
        table.add_row(Text(name), *(f"{number:,}" for number in numbers), size)
    return table


def subjects(report: dict) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Yields each subject with its lines. A line is a text, and whether it needs attention."""
    yield "sample", [(line, False) for line in sample(report)]
    yield "columns", columns(report)
    for kind, name in WHAT.items():
        if report.get(kind):
            about = {"image": images, "text": texts, "subtitles": texts}.get(kind, clips)
            yield name, list(about(report[kind]))
    if report["examples"]:
        yield "examples", [(each["text"], False) for each in report["examples"]]
    yield "unreadable", list(unreadable(report))
    if report["duplicates"] is not None:
        yield "duplicates", list(duplicates(report["duplicates"]))
    yield "classes", list(classes(report["classes"]))
    yield "data time", list(speed(report["speed"]))
    if report["notes"] or any(split["lost"] for split in report["splits"].values()):
        lost = [f"{name}: {line}" for name, split in report["splits"].items() for line in split["lost"]]
        yield "notes", [(note, True) for note in (*report["notes"], *lost)]
    if "sheet" in report:
        yield "sheet", [(f"{report['sheet']}: open it to see the data", False)]


def sample(report: dict) -> Iterator[str]:
    """Yields how many rows were looked at."""
    rows, looked_at = (sum(split[name] for split in report["splits"].values()) for name in ("rows", "looked_at"))
    if rows == looked_at:
        yield f"looked at all {rows:,} rows"
        return
    largest = max(split["rows"] for split in report["splits"].values())
    yield f"looked at {looked_at:,} of {rows:,} rows, evenly spaced. All that follows is of these rows."
    seconds = rows / report["speed"]["rows_per_second"]
    yield f"--rows {largest} looks at all of them, in about {in_words(seconds)}."


def columns(report: dict) -> list[tuple[str, bool]]:
    """Returns the columns that were looked at, and the others."""
    kinds = {**WHAT, "label": "classes"}
    used = ", ".join(f"{kinds[kind]} in {name!r}" for kind, name in report["columns"].items())
    others = ", ".join(f"{name} ({kind})" for name, kind in report["other_columns"].items())
    return [(used, False), *([(f"others: {others}", False)] if others else [])]


def images(facts: dict) -> Iterator[tuple[str, bool]]:
    """Yields sizes, modes, formats and unusual shapes."""
    count = facts["count"]
    if len(facts["frequent_sizes"]) == 1:
        yield f"{count:,} images, all of {next(iter(facts['frequent_sizes']))} pixels", False
    else:
        yield f"{count:,} images. Width {ends(facts['width'])}, height {ends(facts['height'])} pixels", False
        yield f"most frequent sizes: {shares(facts['frequent_sizes'], count)}", False
    sizes = facts["bytes"]
    yield f"modes: {shares(facts['modes'], count)}", False
    yield f"formats: {shares(facts['formats'], count)}, a file of {in_bytes(int(sizes['median']))} (median)", False
    if facts["tiny"]:
        yield f"{part(facts['tiny'], count)} are tiny: a side below 32 pixels", True
    if facts["elongated"]:
        yield f"{part(facts['elongated'], count)} are elongated: one side is 3 times the other or more", True
    if facts["animations"]:
        yield f"{part(facts['animations'], count)} are animations: only the first frame is used", True


def texts(facts: dict) -> Iterator[tuple[str, bool]]:
    """Yields lengths, repetitions and empty texts."""
    yield f"{facts['count']:,} texts. {ends(facts['characters'])} characters, {ends(facts['words'])} words", False
    if facts["texts_in_a_row"]["max"] > 1:
        yield f"a row has {ends(facts['texts_in_a_row'])} texts; only the first is looked at", False
    repeated = facts["distinct"] < facts["count"]
    yield f"{facts['distinct']:,} are distinct; the most frequent:" if repeated else "all are distinct", False
    for each in facts["frequent"][:SHOWN]:
        yield f"  {each['count']:,} times: {each['text']}", False
    if facts["empty"]:
        yield f"{facts['empty']:,} rows have an empty text", True


def clips(facts: dict) -> Iterator[tuple[str, bool]]:
    """Yields lengths, frame rates and sampling rates."""
    count = facts["count"]
    yield (
        f"{count:,}, {in_words(3600 * facts['total_hours'])} in all. Each lasts {ends(facts['seconds'])} seconds",
        False,
    )
    if "fps" in facts:
        yield f"{ends(facts['fps'])} frames a second, {ends(facts['frames'])} frames", False
        yield f"most frequent sizes: {shares(facts['frequent_sizes'], count)}", False
        silent = count - facts["with_sound"]
        yield (
            f"{part(silent, count)} have no sound" if silent else "all have sound",
            bool(silent and facts["with_sound"]),
        )
    if facts["sampling_rates"]:
        rates = {f"{rate} Hz": number for rate, number in facts["sampling_rates"].items()}
        channels = {f"{channels} channel{'s' * (channels != '1')}": n for channels, n in facts["channels"].items()}
        yield f"sound: {shares(rates, facts['with_sound'])}; {shares(channels, facts['with_sound'])}", False
    if facts["shorter_than_a_clip"]:
        yield f"{part(facts['shorter_than_a_clip'], count)} are shorter than a clip of 2 seconds (--seconds)", True


def unreadable(report: dict) -> Iterator[tuple[str, bool]]:
    """Yields the reasons why rows can't be used, and where the first of them are."""
    bad = report["unreadable"]
    if not bad["rows"]:
        yield "none: every row that was looked at can be decoded", False
        return
    only_texts = not {*report["columns"]} & {"image", "video", "audio"}
    what = "leaves them out" if only_texts else "takes other rows in their place"
    yield f"{part(bad['rows'], bad['rows'] / bad['share'])} of the rows can't be used. Training {what}.", True
    if bad["share"] > MAX_BAD_FRACTION and not only_texts:
        yield f"They are more than {percent(MAX_BAD_FRACTION)}: training stops, or give --max_bad_fraction.", True
    for each in bad["reasons"][: 2 * SHOWN]:
        more = ", ..." if each["rows"] > SHOWN else ""
        yield f"{each['rows']:,}: {each['reason']} ({', '.join(map(place, each['first'][:SHOWN]))}{more})", False


def duplicates(found: dict) -> Iterator[tuple[str, bool]]:
    """Yields the number of copies, those across splits, and examples."""
    what = WHAT[found["kind"]]
    for name, verb in NEAR.get(found["kind"], EXACT).items():
        copies = found[name]["copies"]
        yield f"{part(copies, found['rows'])} of the {what} {verb}", False
        for each in found[name]["across_splits"]:
            too_good = ": metrics on them are too good" if each["also_in"] == "train" else ""
            yield (
                f"  {each['split']}: {each['rows']:,} ({percent(each['share'])}) {verb} in {each['also_in']}{too_good}",
                True,
            )
        for pair in found[name]["examples"][:SHOWN]:
            yield "  for example " + " and ".join(map(place, pair["rows"])), False
    if "near" not in found:
        yield f"near copies of {what} are not looked for", False
    if found.get("compared", found["rows"]) < found["rows"]:
        yield f"near copies were looked for among {found['compared']:,} of the {what}", False


def place(row: Mapping) -> str:
    """Returns the split of a row, and its path or key."""
    return f"{row['split']} {relative(row['path']) if 'path' in row else row['key']}"


def classes(facts: dict | None) -> Iterator[tuple[str, bool]]:
    """Yields the number of classes, and the largest and smallest ones."""
    if facts is None:
        yield "no column of classes was detected. Pretraining needs none; --label names one", False
        return
    yield f"{facts['classes']:,} classes in {facts['column']!r}", False
    for name in ("largest", "smallest"):
        if facts[name]:
            listed = ", ".join(f"{each['class']} ({each['rows']:,})" for each in facts[name])
            yield f"{name}: {listed}", False
    if facts["single"]:
        yield f"{facts['single']:,} classes have a single row", True
    if facts["rows_without"]:
        yield f"{facts['rows_without']:,} rows have no class", True


def speed(facts: dict) -> Iterator[tuple[str, bool]]:
    """Yields the time that reading and decoding an epoch takes."""
    yield (
        f"an epoch of {facts['split']} takes about {in_words(facts['seconds_of_an_epoch'])} to read and decode in one "
        f"process: {facts['rows_per_second']:,.0f} rows/s, measured on {facts['measured_on']:,} rows",
        False,
    )
    yield (
        "It is the time of the data only, not of the model. --dataloader_num_workers divides it among processes, up to "
        f"the {facts['cores']} cores here.",
        False,
    )


def ends(spread: Mapping[str, float]) -> str:
    """Returns minimum, median and maximum, in words; one number where they are equal."""
    low, middle, high = (f"{spread[name]:,.5g}" if spread[name] < 1e5 else f"{spread[name]:,.0f}" for name in spread)
    return low if low == high else f"{low} to {high} (median {middle})"


def shares(counts: Mapping[str, int], total: int) -> str:
    """Returns names with their shares; without them if there is one name."""
    if list(counts.values()) == [total]:
        return next(iter(counts))
    return ", ".join(f"{name} ({percent(count / total)})" for name, count in counts.items())


def percent(share: float) -> str:
    """Returns a share in percent; "<0.1 %" for a very small one."""
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %".replace(".0 %", " %")


def part(count: int, total: int) -> str:
    """Returns a number with its share of all."""
    return f"{count:,} ({percent(count / total)})" if count else "none"


def in_bytes(size: int) -> str:
    """Returns a size in the unit that fits: "5.5 MB"."""
    unit = next(unit for unit in (1e9, 1e6, 1e3, 1) if size >= unit or unit == 1)
    return f"{size / unit:,.1f} {({1e9: 'GB', 1e6: 'MB', 1e3: 'KB'})[unit]}" if unit > 1 else f"{size} bytes"


def in_words(seconds: float) -> str:
    """Returns a length of time in the unit that fits: "3.5 hours", "2 seconds"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return in_seconds(round(seconds, 0 if seconds >= 10 else 1)) if seconds >= 0.1 else "less than 0.1 seconds"
