"""Defaults of `hf-pretext train OBJECTIVE`: encoder, batch, learning rate and length of training, by objective.

objective.preset, rows of the data, device -> options

Small encoders and their settings are those of the recorded recipes (docs/presets.md names the run of each). Large ones
are for at least 50,000 samples and an accelerator; they follow the papers and were not measured by this project.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig

LARGE_ROWS = 50_000  # samples from which an accelerator trains the large encoder
MOST_EPOCHS, LARGE_EPOCHS = 100, 30
CONTINUED_RATE = 5e-5  # learning rate from a pretrained encoder
OF_FRESH = ("max_length", "visible_only", "decoder_layers")  # settings that a pretrained encoder may not support
COMMON = {
    "seeds": [0],
    "weight_decay": 0.05,
    "warmup_steps": 0.05,
    "lr_scheduler_type": "cosine",
    "save_total_limit": 2,
    "logging_steps": 0.02,  # of all steps
    "save_steps": 0.1,
}
SMOKE = {
    "seeds": [0],
    "max_steps": 4,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "eval_rows": 64,
    "vocab_size": 500,
    "max_length": 64,
    "logging_steps": 2,
    "save_steps": 2,
}
Encoder = Callable[..., PreTrainedConfig]


@dataclass(frozen=True)
class Preset:
    """Defaults of one objective.

    encoder, large, tiny: functions that return the config of a fresh full model, for small data, for large data and for
    `--smoke`. Their arguments are any of the sizes of `Modality.shape`. dataset: bundled data set, if none is given.
    samples: samples to train on, at most 100 epochs; large data: 30 epochs. settings: options. for_large: options that
    are different with the large encoder. smoke: options of `--smoke`. needs: an option that the objective needs, and
    that has no default, with an example.
    """

    encoder: Encoder
    large: Encoder
    tiny: Encoder
    dataset: str
    samples: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    for_large: Mapping[str, Any] = field(default_factory=dict)
    smoke: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""

    def options(self, rows: int | None, large: bool = False, continued: bool = False) -> dict[str, Any]:
        """Returns the options for data of this size. rows: number of samples; None if it is unknown. large: with the
        large encoder. continued: from a pretrained encoder, with a learning rate that keeps what it knows."""
        options = {**COMMON, **self.settings, **(self.for_large if large else {})}
        if continued:
            options["learning_rate"] = CONTINUED_RATE
            options = {name: value for name, value in options.items() if name not in OF_FRESH}
        if rows is None:
            return {**options, "max_steps": self.samples // options["per_device_train_batch_size"]}
        epochs = LARGE_EPOCHS if large else min(self.samples / rows, MOST_EPOCHS)
        return {**options, "num_train_epochs": max(round(epochs, 2), 0.01)}
