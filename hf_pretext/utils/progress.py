"""Progress bars, only in a terminal and in a notebook: a log file would get one endless line."""

import sys

from tqdm import std
from tqdm.auto import notebook_tqdm, tqdm


def shows_bars() -> bool:
    """Returns True if progress bars are shown: stderr is a terminal, or the code runs in a notebook."""
    return notebook_tqdm is not std.tqdm or (sys.stderr is not None and sys.stderr.isatty())


def progress(iterable=None, description: str | None = None, shown: bool = True, **options):
    """Returns a progress bar of tqdm that disappears at its end; one that shows nothing where `shows_bars` is False.

    iterable: counted while it is iterated over. shown: False shows nothing. options: of tqdm, e.g. `total`, `unit`."""
    disable = not shown or not shows_bars()
    return tqdm(iterable, desc=description, leave=False, disable=disable, **options)
