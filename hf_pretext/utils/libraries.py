"""Checks that the libraries behind --report_to and --optim are installed, before any data is opened."""

import torch
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations


def check_libraries(args: TrainingArguments) -> None:
    """Raises `ValueError` for trackers and optimizers that are unknown or not installed, with the fix."""
    available = get_available_reporting_integrations()
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(f"--report_to {name} is unknown. Give some of {', '.join(INTEGRATION_TO_CALLBACK)}.")
        if name not in available:
            try:
                INTEGRATION_TO_CALLBACK[name]()  # raises the error of a library that is missing
            except (ImportError, RuntimeError) as error:
                raise ValueError(f"--report_to {name}: {one_line(error)} Or give --report_to none.") from error
    try:
        Trainer.get_optimizer_cls_and_kwargs(args, torch.nn.Linear(1, 1))
    except (ImportError, RuntimeError, ValueError) as error:
        if "No target modules" not in str(error):  # Trainer checks the layers of the real model
            raise ValueError(f"--optim {args.optim.value}: {one_line(error)} Or give a different --optim.") from error


def one_line(error: Exception) -> str:
    """Returns the message of an error as one line that ends with a full stop."""
    return " ".join(str(error).split()).rstrip(".") + "."
