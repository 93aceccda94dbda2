"""Numbers in words: sizes, shares, lengths of time."""

from collections.abc import Mapping

from ..utils.units import in_seconds


def count_of(count: int, noun: str) -> str:
    """Returns a number and a noun in its plural: "1 row", "1,200 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """Returns a number with at most two decimals: "1,200", "0.36"."""
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def ends(spread: Mapping[str, float]) -> str:
    """Returns minimum, maximum and median: "2 to 43 (median 12)"; one number where they are equal."""
    low, middle, high = (number(spread[name]) for name in ("min", "median", "max"))
    return low if low == high else f"{low} to {high} (median {middle})"


def percent(share: float) -> str:
    """Returns a share in percent: "8.3 %"; "<0.1 %" for a very small one."""
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %".replace(".0 %", " %")


def part(count: int, total: int) -> str:
    """Returns a number with its share of all: "21 (0.5 %)", or "none"."""
    return f"{count:,} ({percent(count / total)})" if count else "none"


def shares(counts: Mapping[str, int], total: int) -> str:
    """Returns names with their shares: "JPEG (90.5 %), PNG (9.5 %)"; a single name alone."""
    if list(counts.values()) == [total]:
        return next(iter(counts))
    return ", ".join(f"{name} ({percent(count / total)})" for name, count in counts.items())


def in_bytes(size: float) -> str:
    """Returns a size in bytes in the unit that fits: "5.5 MB"."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= length:
            return f"{size / length:,.1f} {unit}"
    return count_of(round(size), "byte")


def in_words(seconds: float) -> str:
    """Returns a length of time in the unit that fits: "3.5 hours", "2 seconds"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.1f} {unit}"
    if seconds < 0.1:
        return "less than 0.1 seconds"
    return in_seconds(round(seconds, 0 if seconds >= 10 else 1))
