"""The lines that load a checkpoint, and what they print: a card shows both, and a run ends with them.

results + where the checkpoint lies -> lines of Python -> run, as they stand -> what they print
"""

import contextlib
import io
import json
import os

from transformers.utils import logging

from ..registry import objective_class

log = logging.get_logger(__name__)


def lines(results: dict, where: str | os.PathLike) -> str:
    """Python that loads the checkpoint of these results from a folder or Hub repository with plain transformers."""
    quoted = json.dumps(str(where), ensure_ascii=False)[1:-1]  # whatever it is called, it stays a name
    return wording({**results, "folder": quoted}).loading().strip()


def tried(results: dict, where: str | os.PathLike) -> dict:
    """The lines as a card says them, and what they print where the checkpoint lies: `{"lines", "output"}`."""
    return {"lines": lines(results, results["folder"]), "output": printed_by(lines(results, where))}


def wording(results: dict):
    """What a card says in the words of its kind of data: macros. Nothing of it is code out of the results, which may
    be anybody's."""
    from . import environment

    model_class = objective_class(results["objective"]["name"])
    modality = "_".join(model_class.inputs)
    words = {"modality": modality, "usage": model_class.usage}
    return environment().get_template(f"{modality}.jinja").make_module({**results, **words})


def printed_by(code: str) -> str | None:
    """What these lines print, or None where they fail, with a warning: a card must never end a run."""
    caught, verbosity = io.StringIO(), logging.get_verbosity()
    try:
        logging.set_verbosity(logging.CRITICAL)  # a pipeline complains of a class that it then works with
        with contextlib.redirect_stdout(caught), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(code, "<usage>", "exec"), {"__name__": "usage"})
    except Exception as error:
        log.warning(f"The lines that load the model failed, so the card has no output: {type(error).__name__}: {error}")
        return None
    finally:
        logging.set_verbosity(verbosity)
    return caught.getvalue().strip()
