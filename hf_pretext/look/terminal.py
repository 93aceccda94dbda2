"""The report of `look` in the terminal: a table of the splits, then lines of each subject.

report -> text on the screen
"""

from collections.abc import Iterator, Mapping

from ..cards.terminal import console
from ..utils.paths import relative
from .clips import SECONDS
from .images import ELONGATED, TINY
from .wording import count_of, ends, in_bytes, in_words, part, percent, shares

SHOWN = 3  # examples of a list
MAX_BAD_FRACTION = 0.05  # default of training
WIDTH = 100  # letters of a line
WHAT = {"image": "images", "video": "films", "audio": "sounds", "text": "texts", "subtitles": "subtitles"}
EXACT = {"exact": "that are exact copies of another one"}
COPIES = {  # by kind: what is counted, in words
    "image": {**EXACT, "near": "that look like another one, re-encoded or resized"},
    "text": {**EXACT, "near": "that differ from another one only in case, spaces or punctuation"},
}
Line = tuple[str, bool]  # a text, and whether it needs attention


def show(report: dict) -> None:
    """Prints a report."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    screen = console()
    screen.print(Text(relative(report["dataset"]), style="bold"))
    screen.print(Padding(splits(report), (1, 0)))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold", max_width=WIDTH)
    for subject, lines in subjects(report).items():
        for number, (line, needs_attention) in enumerate(lines):
            grid.add_row(Text("" if number else subject), Text(line, style="yellow" if needs_attention else ""))
    screen.print(grid)
    screen.print(f"\n{heading(report)}\n", style="bold", soft_wrap=True)
    for command in report["next"]:
        screen.print(f"  {command}", soft_wrap=True, markup=False)


def heading(report: dict) -> str:
    """Returns the line before the next commands, or why there are none."""
    if report["next"]:
        return "Next, train on it:"
    if not any(report.get(kind) for kind in WHAT):
        return "No row that was looked at can be used. Fix the data, or give other columns or options."
    return "No objective trains on this kind of data alone."


def splits(report: dict):
    """Returns a table of the splits."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("split", "rows", "looked at", "unreadable", "files", "size on disk"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for name, split in report["splits"].items():
        numbers = (f"{split[each]:,}" for each in ("rows", "looked_at", "unreadable"))
        known = split["bytes"] is not None
        size = (f"{split['files']:,}", in_bytes(split["bytes"])) if known else ("unknown", "unknown")
        table.add_row(Text(name), *numbers, *size)
    return table


def subjects(report: dict) -> dict[str, list[Line]]:
    """Returns the lines of each subject."""
    abouts = {"image": images, "video": clips, "audio": clips, "text": texts, "subtitles": texts}
    lost = [f"{name}: {line}" for name, split in report["splits"].items() for line in split["lost"]]
    copies = report["duplicates"]
    by_subject = {
        "sample": sample(report),
        "columns": columns(report),
        **{name: abouts[kind](report[kind]) for kind, name in WHAT.items() if report.get(kind)},
        "examples": [(each["text"], False) for each in report["examples"]],
        "unreadable": unreadable(report),
        "duplicates": [] if copies is None else duplicates(copies, is_sample(report)),
        "classes": classes(report["classes"]),
        "data time": speed(report["speed"]),
        "notes": [(note, True) for note in (*report["notes"], *lost)],
        "sheet": [(f"{report['sheet']}: open it to see the data", False)] if "sheet" in report else [],
    }
    return {subject: list(lines) for subject, lines in by_subject.items()}


def is_sample(report: dict) -> bool:
    """Returns True if not all rows were looked at."""
    return any(split["looked_at"] < split["rows"] for split in report["splits"].values())


def sample(report: dict) -> Iterator[Line]:
    """Yields how many rows were looked at."""
    rows, looked_at = (sum(split[name] for split in report["splits"].values()) for name in ("rows", "looked_at"))
    if not is_sample(report):
        yield f"looked at all rows: {rows:,}", False
        return
    largest = max(split["rows"] for split in report["splits"].values())
    yield f"looked at {looked_at:,} of {rows:,} rows, evenly spaced. What follows is about these rows.", False
    seconds = rows / report["speed"]["rows_per_second"]
    yield f"--rows {largest} looks at all of them. Reading and decoding them takes {in_words(seconds)}.", False


def columns(report: dict) -> Iterator[Line]:
    """Yields the columns that were looked at, and the others."""
    kinds = {**WHAT, "label": "classes"}
    yield ", ".join(f"{kinds[kind]} in {name!r}" for kind, name in report["columns"].items()), False
    if report["other_columns"]:
        yield "others: " + ", ".join(f"{name} ({kind})" for name, kind in report["other_columns"].items()), False


def images(facts: dict) -> Iterator[Line]:
    """Yields sizes, modes, formats and unusual shapes."""
    count = facts["count"]
    if len(facts["frequent_sizes"]) == 1:
        yield f"{count_of(count, 'image')} of {next(iter(facts['frequent_sizes']))} pixels", False
    else:
        yield f"{count_of(count, 'image')}. Width {ends(facts['width'])}, height {ends(facts['height'])} pixels", False
        yield f"most frequent sizes: {shares(facts['frequent_sizes'], count)}", False
    yield f"modes: {shares(facts['modes'], count)}", False
    size = in_bytes(facts["bytes"]["median"])
    yield f"formats: {shares(facts['formats'], count)}. Median size of a file: {size}", False
    if facts["tiny"]:
        yield f"tiny (a side below {TINY} pixels): {part(facts['tiny'], count)}", True
    if facts["elongated"]:
        yield f"elongated (one side at least {ELONGATED} times the other): {part(facts['elongated'], count)}", True
    if facts["animations"]:
        yield f"animations, of which only the first frame is used: {part(facts['animations'], count)}", True


def texts(facts: dict) -> Iterator[Line]:
    """Yields lengths, repetitions and empty texts."""
    yield (
        f"{count_of(facts['count'], 'text')}. Characters: {ends(facts['characters'])}. Words: {ends(facts['words'])}",
        False,
    )
    if facts["texts_in_a_row"]["max"] > 1:
        yield f"texts in a row: {ends(facts['texts_in_a_row'])}; only the first is looked at", False
    if facts["frequent"]:
        yield f"{facts['distinct']:,} are distinct. The most frequent:", False
        for each in facts["frequent"][:SHOWN]:
            yield f"  {each['count']:,} times: {each['text']}", False
    else:
        yield "all are distinct", False
    if facts["empty"]:
        yield f"rows without a text: {facts['empty']:,}", True


def clips(facts: dict) -> Iterator[Line]:
    """Yields lengths, frame rates and sampling rates."""
    count = facts["count"]
    yield f"{count:,} of {ends(facts['seconds'])} seconds, {in_words(3600 * facts['total_hours'])} in all", False
    if "fps" in facts:
        yield f"frames a second: {ends(facts['fps'])}. Frames: {ends(facts['frames'])}", False
        yield f"most frequent sizes: {shares(facts['frequent_sizes'], count)}", False
        silent = count - facts["with_sound"]
        some = 0 < silent < count
        yield f"without sound: {part(silent, count)}" if some else f"{'none' if silent else 'all'} have sound", some
    if facts["sampling_rates"]:
        rates = {f"{rate} Hz": number for rate, number in facts["sampling_rates"].items()}
        channels = {count_of(int(channels), "channel"): number for channels, number in facts["channels"].items()}
        yield f"sound: {shares(rates, facts['with_sound'])}; {shares(channels, facts['with_sound'])}", False
    if facts["shorter_than_a_clip"]:
        short = part(facts["shorter_than_a_clip"], count)
        yield f"shorter than a clip of {SECONDS:g} seconds (--seconds): {short}", True


def unreadable(report: dict) -> Iterator[Line]:
    """Yields the reasons why rows can't be used, and where the first of them are."""
    bad = report["unreadable"]
    if not bad["rows"]:
        yield "none: every row that was looked at can be decoded", False
        return
    only_texts = not {*report["columns"]} & {"image", "video", "audio"}
    what = "leaves them out" if only_texts else "takes other rows in their place"
    yield f"rows that can't be used: {bad['rows']:,} ({percent(bad['share'])}). Training {what}.", True
    if bad["share"] > MAX_BAD_FRACTION and not only_texts:
        yield f"These are more than {percent(MAX_BAD_FRACTION)}: training stops. --max_bad_fraction allows more.", True
    for each in bad["reasons"][: 2 * SHOWN]:
        more = ", ..." if each["rows"] > SHOWN else ""
        yield f"  {each['rows']:,}: {each['reason']} ({', '.join(map(place, each['first'][:SHOWN]))}{more})", False


def duplicates(copies: dict, of_sample: bool) -> Iterator[Line]:
    """Yields the number of copies, those across splits, and examples. of_sample: if not all rows were looked at."""
    what = WHAT[copies["kind"]]
    for name, description in COPIES.get(copies["kind"], EXACT).items():
        yield f"{what} {description}: {part(copies[name]['copies'], copies['rows'])}", False
        for each in copies[name]["across_splits"]:
            too_good = ". Metrics on them are too good" if each["also_in"] == "train" else ""
            count = f"{each['rows']:,} ({percent(each['share'])} of {each['split']}){too_good}"
            yield f"  {each['split']} and {each['also_in']}: {count}", True
        for pair in copies[name]["examples"][:SHOWN]:
            yield "  for example " + " = ".join(map(place, pair["rows"])), False
    if "near" not in copies:
        yield f"near copies of {what} are not looked for", False
    if copies.get("compared", copies["rows"]) < copies["rows"]:
        yield f"near copies were looked for among {copies['compared']:,} of the {what}", False
    if of_sample:
        yield "copies of rows that were not looked at are not counted", False


def place(row: Mapping) -> str:
    """Returns the split of a row, and its path or key."""
    return f"{row['split']} {relative(row['path']) if 'path' in row else row['key']}"


def classes(facts: dict | None) -> Iterator[Line]:
    """Yields the number of classes, and the largest and smallest ones."""
    if facts is None:
        yield "no column of classes was detected. Pretraining needs none; --label names one", False
        return
    if facts["classes"] < 2:
        many = "one class" if facts["classes"] else "no class"
        yield f"{facts['column']!r} has {many}: no evaluation can use it. Pretraining needs none", False
        return
    yield f"{facts['classes']:,} in {facts['column']!r}", False
    for name in ("largest", "smallest"):
        if facts[name]:
            yield f"{name}: " + ", ".join(f"{each['class']} ({each['rows']:,})" for each in facts[name]), False
    if facts["single"]:
        yield f"classes with a single row: {facts['single']:,}", True
    if facts["rows_without"]:
        yield f"rows without a class: {facts['rows_without']:,}", True


def speed(facts: dict) -> Iterator[Line]:
    """Yields the time that reading and decoding an epoch takes."""
    yield (
        f"an epoch of {facts['split']} takes {in_words(facts['seconds_of_an_epoch'])} to read and decode in one "
        f"process: {facts['rows_per_second']:,.0f} rows/s, measured on {count_of(facts['measured_on'], 'row')}",
        False,
    )
    yield (
        "It is the time of the data only, not of the model. --dataloader_num_workers divides it among processes, up to "
        f"the {count_of(facts['cores'], 'core')} here.",
        False,
    )
