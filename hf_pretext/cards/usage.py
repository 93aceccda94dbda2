"""The lines that load a checkpoint, and what they print: a card shows both, and a run ends with them.

results + where the checkpoint lies -> lines of Python -> run, as they stand -> what they print
"""

import contextlib
import io
import json
import os

from transformers.utils import logging

from ..registry import modality_class, objective_class
from .template import environment

log = logging.get_logger(__name__)
OUTPUT_LAYER = -1


def lines(results: dict, where: str | os.PathLike) -> str:
    """Python that loads the checkpoint of these results from a folder or Hub repository with plain transformers.

    They are the objective's own (`PretextModel.usage`), else those of its kind of data (`Modality.usage`): a Jinja
    template, which sees the results, the `folder`, and how hidden states are read and pooled. Nothing of it is code
    out of the results, which may be anybody's."""
    folder = json.dumps(str(where), ensure_ascii=False)[1:-1]  # whatever it is called, it stays a name
    template = objective_class(results["objective"]["name"]).usage or modality_class(results["inputs"][0]).usage
    seen = {**results, "folder": folder, "hidden_of": hidden_of(results), "pooled": pooled(results)}
    return environment().from_string(template).render(seen).strip()


def hidden_of(results: dict) -> str:
    """How the hidden states are read of the layer that the first method of the first transfer chose."""
    layer = OUTPUT_LAYER
    if "transfer" in results:
        transfer = results["transfer"]
        layer = int(transfer["details"]["trained"][0][transfer["methods"][0]]["layer"])
    return ").last_hidden_state" if layer == OUTPUT_LAYER else f", output_hidden_states=True).hidden_states[{layer}]"


def pooled(results: dict) -> str:
    """How hidden states are pooled."""
    if results["layout"] == "channels_last":
        return ".mean((2, 3))"
    return ".flatten(1, -2).mean(1)" if results["encoder"]["class"] == "TimmWrapperModel" else ".mean(1)"


def packages(results: dict) -> str:
    """What the lines take, as a command."""
    extra = [package for kind in results["inputs"] for package in modality_class(kind).packages]
    timm = ["timm"] if results["encoder"]["class"] == "TimmWrapperModel" else []
    return f'`pip install "transformers>=5.22" torch{"".join(f" {each}" for each in dict.fromkeys(extra + timm))}`'


def tried(results: dict, where: str | os.PathLike) -> dict:
    """The lines as a card says them, and what they print where the checkpoint lies: `{"lines", "output"}`."""
    return {"lines": lines(results, results["folder"]), "output": printed_by(lines(results, where))}


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
