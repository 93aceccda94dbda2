"""Pictures per second of the emoji recipe through PretextTrainer, beside a bare loop with everything in memory.

    python benchmarks/rotation.py                 # about 4 minutes on 2 cores

The bare loop is plain PyTorch on pictures that were decoded, cropped, normalised and put in memory beforehand: it
reads nothing, augments nothing and logs nothing. The two take turns in one process, since machines are noisy; the
ratio is that of the medians. Then a profile of the bare step says where its time goes.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from hf_pretext.data.processing import Augmentation, ImageProcessing, default_processor
from hf_pretext.data.sources import open_source
from hf_pretext.data.stream import StreamLoader
from hf_pretext.facts import machine
from hf_pretext.modeling import PretextModel, make_settings
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.run import has_bf16
from hf_pretext.trainer import PretextTrainer

RECIPE = Path(__file__).parent.parent / "recipes" / "rotation_emoji.py"


def recipe():
    """The emoji recipe itself, so that what is timed is what users run."""
    spec = importlib.util.spec_from_file_location("rotation_emoji", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe


def fresh_model(it) -> PretextModel:
    set_seed(0)
    model = RotationForPreTraining.from_encoder(it.encoder(it.settings["image_size"]))
    model.freeze_unused(pixel_values=torch.zeros(2, 3, it.settings["image_size"], it.settings["image_size"]))
    return model.to(memory_format=torch.channels_last)


def trainer_rate(it, steps: int, warmup: int, **options) -> tuple[float, float]:
    """Pictures per second of PretextTrainer after the warm-up, and the share of time that it waited for data."""
    settings = {name: it.settings[name] for name in it.settings if name in TrainingArguments.__dataclass_fields__}
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            **{**settings, "output_dir": folder, "max_steps": steps + warmup, "save_strategy": "no",
               "logging_steps": 20, "bf16": has_bf16(), "disable_tqdm": True, "log_level": "error", **options},
        )  # fmt: skip
        settings = {n: it.settings[n] for n in Augmentation.__dataclass_fields__ if n in it.settings}
        processing = ImageProcessing(
            default_processor(it.settings["image_size"]), make_settings(Augmentation, **settings)
        )
        trainer = PretextTrainer(fresh_model(it), args, open_source(it.settings["dataset"]), processing)
        trainer.log = lambda logs, start_time=None, log=trainer.log: quiet(log, logs, trainer)
        marks = {}
        step = trainer.training_step

        def timed(*a, **k):
            if trainer.state.global_step == warmup and "start" not in marks:
                marks["start"], marks["waited"] = time.perf_counter(), trainer.waited
            return step(*a, **k)

        trainer.training_step = timed
        trainer.train()
        seconds = time.perf_counter() - marks["start"]
        return steps * args.train_batch_size / seconds, (trainer.waited - marks["waited"]) / seconds


def quiet(log, logs, trainer):
    """As logging does, without the printing."""
    callbacks, trainer.callback_handler.callbacks = trainer.callback_handler.callbacks, []
    log(logs)
    trainer.callback_handler.callbacks = callbacks


class BareLoop:
    """The same model, optimizer and schedule on batches that lie ready in memory."""

    def __init__(self, it):
        self.model, self.batch_size = fresh_model(it), it.settings["per_device_train_batch_size"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device).train()
        processing = ImageProcessing(default_processor(it.settings["image_size"]))
        source = open_source(it.settings["dataset"])
        batches = StreamLoader(source, processing, self.batch_size)
        self.batches = [processing.finish(batch)["pixel_values"].to(self.device) for batch in batches]
        decay = [p for p in self.model.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in self.model.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": it.settings["weight_decay"]}, {"params": others, "weight_decay": 0}]
        self.optimizer = torch.optim.AdamW(groups, lr=it.settings["learning_rate"], fused=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 10_000)
        self.parameters = [*decay, *others]
        self.times = dict.fromkeys(("forward", "backward", "optimizer"), 0.0)

    def rate(self, steps: int, warmup: int) -> float:
        """Pictures per second after the warm-up."""
        for i in range(warmup + steps):
            if i == warmup:
                self.synchronize()
                begun = time.perf_counter()
            self.step(self.batches[i % len(self.batches)])
        self.synchronize()
        return steps * self.batch_size / (time.perf_counter() - begun)

    def step(self, pixels: torch.Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16()):
            loss = self.model(pixel_values=pixels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    def breakdown(self, steps: int) -> dict[str, float]:
        """Milliseconds of a step's parts."""
        times = dict.fromkeys(("turn the pictures, forward", "backward", "clip, optimizer"), 0.0)
        for i in range(steps):
            marks = [self.now()]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16()):
                loss = self.model(pixel_values=self.batches[i % len(self.batches)]).loss
            marks.append(self.now())
            loss.backward()
            marks.append(self.now())
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            marks.append(self.now())
            for name, start, end in zip(times, marks, marks[1:], strict=False):
                times[name] += 1000 * (end - start) / steps
        return times

    def now(self) -> float:
        self.synchronize()
        return time.perf_counter()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps of each turn")
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--workers", type=int, help="loader workers instead of the recipe's")
    options = parser.parse_args()
    it, ours, bare, waits = recipe(), [], [], []
    more = {} if options.workers is None else {"dataloader_num_workers": options.workers}
    loop = BareLoop(it)
    for turn in range(options.turns):
        bare.append(loop.rate(options.steps, options.warmup))
        rate, wait = trainer_rate(it, options.steps, options.warmup, **more)
        ours.append(rate)
        waits.append(wait)
        print(f"turn {turn + 1}: bare loop {bare[-1]:.1f}, PretextTrainer {rate:.1f} pictures/s", flush=True)
    parts = loop.breakdown(20)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"a step of {loop.batch_size} pictures: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in parts.items()))
    print(f"PretextTrainer waits for data {statistics.median(waits):.1%} of its time")
    print(f"PretextTrainer / bare loop = {ratio:.3f}")
    found = {
        "ratio": ratio, "pretext_trainer": ours, "bare_loop": bare, "data_wait": waits, "step_ms": parts,
        "machine": machine(loop.device), "bf16": has_bf16(),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
