"""What importing costs, and that the names in `__init__.py` lead somewhere."""

import json
import subprocess
import sys

import pytest

import hf_pretext
from hf_pretext.registry import objective_class

IMPORT = """
import json, sys, time
import torch
start = time.perf_counter()
import hf_pretext
seconds = time.perf_counter() - start
heavy = [name for name in ("evaluate", "matplotlib", "sklearn", "transformers", "datasets") if name in sys.modules]
print(json.dumps({"seconds": seconds, "heavy": heavy}))
"""


def test_import_is_cheap_and_lazy():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    outcome = json.loads(done.stdout)
    assert outcome["heavy"] == []
    assert outcome["seconds"] < 1


COMPOSITE_ORDERS = {
    "hf_pretext first": "import hf_pretext; from transformers import AutoConfig, AutoModel",
    "transformers first": "from transformers import AutoConfig, AutoModel; import hf_pretext",
    "amid an import of hf_pretext": "import hf_pretext.encoders; from transformers import AutoConfig, AutoModel",
}


@pytest.mark.parametrize("order", COMPOSITE_ORDERS)
def test_composites_are_known_once_hf_pretext_is_imported(order):
    code = (
        f"{COMPOSITE_ORDERS[order]}; "
        "part = AutoConfig.for_model('vit', hidden_size=8, num_hidden_layers=1, num_attention_heads=1).to_diff_dict(); "
        "config = AutoConfig.for_model('hf_pretext_composite', encoders={'image': part, 'audio': part}); "
        "print(type(AutoModel.from_config(config)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "CompositeModel", done.stderr


def test_training_needs_neither_plots_nor_scikit_learn_to_import():
    code = (
        "import sys, hf_pretext.trainer, hf_pretext.features; "
        "print([m for m in ('evaluate', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [*hf_pretext._HOMES, "RotationForPreTraining"])
def test_every_name_leads_somewhere(name):
    assert getattr(hf_pretext, name).__name__ == name


def test_unknown_names_are_attribute_errors():
    for name in ("Nonsense", "NonsenseForPreTraining", "../etcForPreTraining"):
        with pytest.raises(AttributeError, match="has no attribute"):
            getattr(hf_pretext, name)


def test_unknown_objective():
    with pytest.raises(ValueError, match="No objective 'os' in this version of hf_pretext. Known: .*rotation"):
        objective_class("os")
