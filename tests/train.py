"""A tiny training run that the tests start, kill and resume: `python tests/train.py --output_dir run [options]`.

Options are those of `TrainingArguments`, of `StreamSettings`, and `Options` below. Leaves `found.json` at its end.
"""

import hashlib
import json
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from transformers import HfArgumentParser, TrainerCallback, TrainingArguments, ViTConfig, set_seed

from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer

FULL = 2_000  # bytes of a file on a full disk
SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16)


@dataclass
class Options:
    """filtered: leave out about a third of the rows, in a stream whose length is not known beforehand.
    die: `method:step`: kill this process, as by SIGKILL, when the trainer's method begins at that step.
    stop_at: end after this step, with a checkpoint. step_seconds: make each step last. nan_at: a step at which the loss
    of the last rank is NaN. full_at: from this step on, no file may grow beyond some bytes, as on a full disk. clock:
    seconds that the clock is wrong by."""

    dataset: str = ""
    more: str | None = None
    filtered: bool = False
    last: bool = False
    die: str | None = None
    stop_at: int | None = None
    step_seconds: float = 0.0
    full_at: int | None = None
    clock: float = 0.0
    nan_at: int | None = None


def filtered(folder: str) -> datasets.IterableDataset:
    files = sorted(str(file) for file in Path(folder).glob("*.parquet"))
    data = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    return data.cast_column("image", datasets.Image(decode=False)).filter(lambda row: sum(row["image"]["bytes"]) % 3)


class Steps(TrainerCallback):
    def __init__(self, options: Options):
        self.options = options

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(self.options.step_seconds)
        if state.global_step == self.options.full_at:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails, instead of ending the process
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))
        if state.global_step == self.options.stop_at:
            control.should_save = control.should_training_stop = True


def die_at(trainer: PretextTrainer, method: str, step: int) -> None:
    original = getattr(trainer, method)

    def dying(*args, **kwargs):
        if trainer.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(trainer, method, dying)


def spoil_loss(trainer: PretextTrainer, step: int) -> None:
    original = trainer.compute_loss

    def spoilt(*args, **kwargs):
        return original(*args, **kwargs) * (float("nan") if trainer.state.global_step + 1 == step else 1)

    trainer.compute_loss = spoilt


def main() -> None:
    options, stream, args = HfArgumentParser((Options, StreamSettings, TrainingArguments)).parse_args_into_dataclasses()
    now = time.time
    time.time = lambda: now() + options.clock
    torch.set_num_threads(1)
    set_seed(args.seed)
    config = ViTConfig(**SMALL, patch_size=8, hidden_dropout_prob=0.1)  # dropout draws from the global generator
    model = RotationForPreTraining.from_encoder(config, rotations_per_image=2, head_dim=8)
    model.freeze_unused({"pixel_values": torch.zeros(2, 3, 16, 16)})
    opened = filtered(options.dataset) if options.filtered else options.dataset
    sources = [open_source(data) for data in (opened, options.more) if data]
    data = Mixture(sources, [0.7, 0.3] if options.more else None)
    images = Image(default_processor(16), Augmentation())
    trainer = PretextTrainer(model, args, data, images, stream=stream, callbacks=[Steps(options)])
    if options.die:
        method, _, step = options.die.partition(":")
        die_at(trainer, method, int(step))
    if options.nan_at and args.process_index == args.world_size - 1:
        spoil_loss(trainer, options.nan_at)
    trainer.train(resume_from_checkpoint="last" if options.last else args.resume_from_checkpoint)
    account = trainer.account()
    if trainer.is_world_process_zero():
        weights = b"".join(
            value.numpy().tobytes() for value in trainer.accelerator.unwrap_model(model).state_dict().values()
        )
        outcome = {
            "losses": {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry},
            "logs": [entry for entry in trainer.state.log_history if "loss" in entry],
            "weights": hashlib.sha256(weights).hexdigest(),
            "samples_seen": trainer.samples_seen,
            **account,
        }
        (Path(args.output_dir) / "found.json").write_text(json.dumps(outcome))
    trainer.end()


if __name__ == "__main__":
    main()
