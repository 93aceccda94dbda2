"""The lines of Python that load a checkpoint, and their output. Cards and the end of a run show them.

results + folder or repository of the checkpoint -> lines of Python -> executed unchanged -> output
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
    """Returns the Python lines that load a checkpoint from a folder or Hub repository with plain transformers.

    They are rendered from the objective's Jinja template (`PretextModel.usage`); default: the template of its first
    modality (`Modality.usage`). The template's variables are the results, `folder`, `subfolder`, `usage_of`,
    `hidden_of` and `pooled`. Results may be untrusted: none of their values is used as code."""
    folder = json.dumps(str(where), ensure_ascii=False)[1:-1]  # escaped: any name stays inside its string
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
    """Returns the code that reads the hidden states of a modality's encoder, at the layer of the first method."""
    transfer = next((each for each in transfers(results) if each.get("kind", results["inputs"][0]) == kind), None)
    layer = int(transfer["details"]["trained"][0][transfer["methods"][0]]["layer"]) if transfer else OUTPUT_LAYER
    return ").last_hidden_state" if layer == OUTPUT_LAYER else f", output_hidden_states=True).hidden_states[{layer}]"


def pooled(results: dict, kind: str) -> str:
    """Returns the code that pools the hidden states of a modality's encoder."""
    first = kind == results["inputs"][0]
    if first and results["layout"] == "channels_last":
        return ".mean((2, 3))"
    encoder = results["encoder"] if first else results["encoders"][kind]
    return ".flatten(1, -2).mean(1)" if encoder["class"] == "TimmWrapperModel" else ".mean(1)"


def packages(results: dict) -> str:
    """Returns the `pip` command that installs the packages that the lines need."""
    extra = [package for kind in results["inputs"] for package in modality_class(kind).packages]
    timm = ["timm"] if results["encoder"]["class"] == "TimmWrapperModel" else []
    return f'`pip install "transformers>=5.22" torch{"".join(f" {each}" for each in dict.fromkeys(extra + timm))}`'


def tried(results: dict, where: str | os.PathLike) -> dict:
    """Returns `{"lines", "output"}`: the lines as in the card, and their output on the checkpoint in `where`."""
    return {"lines": lines(results, results["folder"]), "output": printed_by(lines(results, where))}


def printed_by(code: str) -> str | None:
    """Runs code and returns what it prints. Returns None and warns if it fails: a card must never end a run."""
    caught, verbosity = io.StringIO(), logging.get_verbosity()
    try:
        logging.set_verbosity(logging.CRITICAL)  # pipelines log errors about classes that they support
        with contextlib.redirect_stdout(caught), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(code, "<usage>", "exec"), {"__name__": "usage"})
    except Exception as error:
        log.warning(
            f"The lines that load the model failed: {type(error).__name__}: {error}. The card omits their output."
        )
        return None
    finally:
        logging.set_verbosity(verbosity)
    return caught.getvalue().strip()
