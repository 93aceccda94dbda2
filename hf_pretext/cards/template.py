"""The Jinja environment of cards.

template + results -> text
"""

from functools import cache

from . import tables, wording


@cache
def environment():
    """Returns the environment with the templates of this package and the filters that format metrics and names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("hf_pretext", "cards"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"figure": tables.figure, "measure_words": wording.measure_words}
    made.filters |= {"left_out": wording.left_out}
    made.filters |= {"hours": tables.hours, "epochs": tables.epochs, "code": tables.code_span, "shown": tables.shown}
    return made
