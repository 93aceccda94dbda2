"""The results that are recorded in the repository, for the tests of cards."""

import copy
import importlib.util

from conftest import REPOSITORY

from hf_pretext.cards import read_results

RECORDED = sorted(path.parent for path in (REPOSITORY / "model_cards").glob("*/results.json"))


def recorded_results() -> dict:
    """Those of the first recorded run, to change at will."""
    return copy.deepcopy(read_results(RECORDED[0]))


def recipe_of(name: str, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "recipes"))
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe
