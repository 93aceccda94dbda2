"""The lines that load a checkpoint, and what they print: a card shows both, and a run ends with them.

results + where the checkpoint lies -> lines of Python -> run, as they stand -> what they print
"""

import contextlib
import io
import json
import os

from transformers.utils import logging

from ..registry import modality_class, objective_class
from .results import transfers
from .template import environment

log = logging.get_logger(__name__)
OUTPUT_LAYER = -1


def lines(results: dict, where: str | os.PathLike) -> str:
    """Python that loads the checkpoint of these results from a folder or Hub repository with plain transformers.

    They are the objective's own (`PretextModel.usage`), else those of its kind of data (`Modality.usage`): a Jinja
    template, which sees the results, the `folder`, and how hidden states are read and pooled. Nothing of it is code
    out of the results, which may be anybody's."""
    folder = json.dumps(str(where), ensure_ascii=False)[1:-1]  # whatever it is called, it stays a name
    first = results["inputs"][0]

    def rendered(template: str, kind: str, subfolder: str) -> str:
        how = {"hidden_of": hidden_of(results, kind), "pooled": pooled(results, kind)}
        seen = {**results, **how, "folder": folder, "subfolder": subfolder, "usage_of": usage_of}
        return environment().from_string(template).render(seen).strip()

    def usage_of(kind: str) -> str:
        return rendered(modality_class(kind).usage, kind, f', subfolder="{kind}"')

    template = objective_class(results["objective"]["name"]).usage or modality_class(first).usage
    return rendered(template, first, "")


def hidden_of(results: dict, kind: str) -> str:
    """How the hidden states of a kind's encoder are read, of the layer that the first method of its transfer chose."""
    transfer = next((each for each in transfers(results) if each.get("kind", results["inputs"][0]) == kind), None)
    layer = int(transfer["details"]["trained"][0][transfer["methods"][0]]["layer"]) if transfer else OUTPUT_LAYER
    return ").last_hidden_state" if layer == OUTPUT_LAYER else f", output_hidden_states=True).hidden_states[{layer}]"


def pooled(results: dict, kind: str) -> str:
    """How hidden states of a kind's encoder are pooled."""
    first = kind == results["inputs"][0]
    if first and results["layout"] == "channels_last":
        return ".mean((2, 3))"
    encoder = results["encoder"] if first else results["encoders"][kind]
    return ".flatten(1, -2).mean(1)" if encoder["class"] == "TimmWrapperModel" else ".mean(1)"


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
