"""Options that need a library are refused by name before a run begins."""

import pytest
from transformers import TrainingArguments

from hf_pretext.utils.libraries import check_libraries


def arguments(tmp_path, **options) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{"report_to": "none", **options})


@pytest.fixture
def nothing_installed(monkeypatch):
    for name in ("tensorboard", "wandb", "trackio"):
        monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{name}_available", lambda: False)
    monkeypatch.setattr("hf_pretext.utils.libraries.get_available_reporting_integrations", list)
    for name in ("bitsandbytes", "lomo", "grokadamw"):
        monkeypatch.setattr(f"transformers.trainer_optimizer.is_{name}_available", lambda: False)


MISSING = {
    "report_to": {"tensorboard": "tensorboard", "wandb": "pip install wandb", "trackio": "pip install trackio"},
    "optim": {"adamw_bnb_8bit": "pip install -U bitsandbytes", "lomo": "lomo-optim", "grokadamw": "install grokadamw"},
}


@pytest.mark.parametrize("option, value", [(option, value) for option, values in MISSING.items() for value in values])
def test_a_library_that_is_missing_is_named_with_its_option(nothing_installed, tmp_path, option, value):
    with pytest.raises(ValueError) as refused:
        check_libraries(arguments(tmp_path, **{option: value}))
    message = str(refused.value)
    assert f"--{option} {value}" in message and MISSING[option][value] in message and "\n" not in message


def test_an_unknown_tracker_is_refused_and_optimizers_of_torch_are_not(tmp_path):
    with pytest.raises(ValueError, match="--report_to nonsense is unknown. Give some of .*wandb"):
        check_libraries(arguments(tmp_path, report_to="nonsense"))
    for optim in ("adamw_torch", "adafactor", "sgd"):
        check_libraries(arguments(tmp_path, optim=optim))
