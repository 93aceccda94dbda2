"""Measures images per second of the recipe rotation_emoji: `PretextTrainer` and a bare loop on images in memory.

    python benchmarks/rotation.py                 # about 3 minutes on 2 cores

The bare loop is plain PyTorch. Its images are decoded, cropped, normalised and put in memory before it starts. It does
not read, augment or log. The speed of a machine varies, so the bare loop runs in a second process and alternates with
the training run every few steps (one turn). The ratio is the median over the turns. On a CPU, recipes set the C library
to keep freed memory; a second bare loop does the same, which shows the effect. The first epoch decodes the images and
is reported separately. First of all, the time of one bare step is measured by its parts.
"""

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modeling import PretextModel
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.trainer import PretextTrainer
from hf_pretext.utils.machine import default_workers, describe, has_bf16, keep_freed_memory
from hf_pretext.utils.settings import make_settings

OURS = "PretextTrainer"
RECIPE = Path(__file__).parent.parent / "recipes" / "rotation_emoji.py"


def recipe():
    """Returns the recipe rotation_emoji, so that the benchmark measures exactly what users run."""
    spec = importlib.util.spec_from_file_location("rotation_emoji", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(RECIPE.parent))  # the recipe imports emoji_pairs from this folder
    spec.loader.exec_module(module)
    return module.recipe


def fresh_model(it) -> PretextModel:
    """Returns an untrained model of the recipe `it`."""
    set_seed(0)
    model = RotationForPreTraining.from_encoder(it.encoder(it.settings["image_size"]))
    model.freeze_unused({"pixel_values": torch.zeros(2, 3, it.settings["image_size"], it.settings["image_size"])})
    return model.to(memory_format=torch.channels_last)


class TakingTurns(TrainerCallback):
    """Measures the trainer every `turn` steps. Then it runs and measures the same number of steps of each bare loop."""

    def __init__(self, loops: dict[str, "Neighbour"], turn: int, batch_size: int):
        self.loops, self.turn, self.batch_size, self.turns = loops, turn, batch_size, []
        self.trainer: PretextTrainer | None = None  # set later, because the trainer is made with its callbacks

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.turn:
            return
        now = clock()
        rates = {name: loop.rate(self.turn) for name, loop in self.loops.items()}
        if state.global_step > self.turn:  # the first turn is a warm-up
            seconds = now - self.begun
            waited = (self.trainer.pace.waited - self.waited) / seconds
            self.turns.append({OURS: self.turn * self.batch_size / seconds, "data wait": waited, **rates})
        self.waited, self.begun = self.trainer.pace.waited, clock()


def compare(it, loops: dict[str, "Neighbour"], turn: int, epochs: int, **options) -> tuple[list, list]:
    """Returns the turns of the first epoch and those of the other epochs.

    Each turn has images per second of the trainer and of each loop, and the share of time (0 to 1) that the trainer
    waits for data.
    """
    settings = {name: it.settings[name] for name in it.settings if name in TrainingArguments.__dataclass_fields__}
    augmentation = {name: it.settings[name] for name in Augmentation.__dataclass_fields__ if name in it.settings}
    processing = Image(default_processor(it.settings["image_size"]), make_settings(Augmentation, **augmentation))
    source = open_source(*it.settings["dataset"])
    batch_size = it.settings["per_device_train_batch_size"]
    first = -(-len(source) // batch_size)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            **{**settings, "output_dir": folder, "num_train_epochs": epochs, "save_strategy": "no",
               "bf16": has_bf16(), "disable_tqdm": True, "use_cpu": device().type == "cpu", **options},
        )  # fmt: skip
        turns = TakingTurns(loops, turn, batch_size)
        turns.trainer = trainer = PretextTrainer(fresh_model(it), args, source, processing, callbacks=[turns])
        trainer.pop_callback(PrinterCallback)
        trainer.train()
    decoding = max(first // turn - 1, 0)  # turns within the first epoch
    return turns.turns[:decoding], turns.turns[decoding + 1 :]


class BareLoop:
    """Trains the same model with the same optimizer and schedule on batches in memory."""

    def __init__(self, it):
        self.model, self.batch_size = fresh_model(it), it.settings["per_device_train_batch_size"]
        self.device = device()
        self.model.to(self.device).train()
        processing = Image(default_processor(it.settings["image_size"]))
        source = open_source(*it.settings["dataset"])
        batches = StreamLoader(source, processing, self.batch_size)
        self.batches = [processing.finish(batch)["pixel_values"].to(self.device) for batch in batches]
        decay = [p for p in self.model.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in self.model.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": it.settings["weight_decay"]}, {"params": others, "weight_decay": 0}]
        self.optimizer = torch.optim.AdamW(groups, lr=it.settings["learning_rate"], fused=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 10_000)
        self.parameters = [*decay, *others]
        self.steps = 0

    def rate(self, steps: int) -> float:
        """Trains for `steps` steps. Returns images per second."""
        begun = clock()
        for _ in range(steps):
            self.step(self.batches[self.steps % len(self.batches)])
            self.steps += 1
        return steps * self.batch_size / (clock() - begun)

    def step(self, pixels: torch.Tensor) -> None:
        """Trains for one step on images `(B, 3, S, S)`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16()):
            loss = self.model(pixel_values=pixels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    def breakdown(self, steps: int) -> dict[str, float]:
        """Returns the milliseconds of each part of a step, as means over `steps` steps."""
        times = dict.fromkeys(("turn the images, forward", "backward", "clip, optimizer"), 0.0)
        for i in range(steps):
            marks = [clock()]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16()):
                loss = self.model(pixel_values=self.batches[i % len(self.batches)]).loss
            marks.append(clock())
            loss.backward()
            marks.append(clock())
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            marks.append(clock())
            for name, start, end in zip(times, marks, marks[1:], strict=False):
                times[name] += 1000 * (end - start) / steps
        return times


class Neighbour:
    """A bare loop in a second process. It runs only while `rate` is called."""

    def __init__(self, keep_memory: bool):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, keep_memory), daemon=True)  # ends with this process
        self.process.start()
        self.rate(4)  # warm-up

    def rate(self, steps: int) -> float:
        """Trains for `steps` steps. Returns images per second."""
        self.pipe.send(steps)
        return self.pipe.recv()

    def stop(self) -> None:
        """Ends the process."""
        self.pipe.send(None)
        self.process.join()


def serve(pipe, keep_memory: bool) -> None:
    """Runs a bare loop for each number of steps from the pipe and returns its rate, until it receives None."""
    if keep_memory:
        keep_freed_memory()
    loop = BareLoop(recipe())
    while (steps := pipe.recv()) is not None:
        pipe.send(loop.rate(steps))


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock() -> float:
    """Returns the time in seconds, after all work on the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def report(turns: list[dict], when: str) -> dict[str, float]:
    """Prints the median rates of the turns. Returns the median ratio of the trainer to each bare loop."""
    rates = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    wait = rates.pop("data wait")
    ratios = {name: statistics.median(turn[OURS] / turn[name] for turn in turns) for name in rates if name != OURS}
    print(f"{when}, median of {len(turns)} turns; waiting for data {wait:.1%}")
    for name, rate in rates.items():
        print(f"  {name:32s} {rate:8.1f} images/s" + (f"   ours / this: {ratios[name]:.3f}" if name in ratios else ""))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=default_workers(), help="loader workers that decode and augment")
    parser.add_argument("--turn", type=int, help="steps per turn; must be many more than workers prefetch")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    turn = options.turn or max(12, 20 * options.workers)
    it = recipe()
    parts = BareLoop(it).breakdown(20)
    keep_freed_memory()  # the recipe does the same
    loops = {"bare loop": Neighbour(False), "bare loop that keeps memory too": Neighbour(True)}
    first, later = compare(it, loops, turn, options.epochs, dataloader_num_workers=options.workers)
    for loop in loops.values():
        loop.stop()
    print("parts of a bare step: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in parts.items()))
    ratios = {
        "first epoch": report(first, "first epoch, with decoding") if first else None,
        "later epochs": report(later, "later epochs"),
    }
    if first:
        epochs = it.settings["num_train_epochs"]
        recipe_ratios = {
            name: epochs / (1 / ratios["first epoch"][name] + (epochs - 1) / later)
            for name, later in ratios["later epochs"].items()
        }
        print(
            f"over the recipe's {epochs} epochs: "
            + ", ".join(f"{ratio:.3f} of the {name}" for name, ratio in recipe_ratios.items())
        )
        ratios["whole recipe"] = recipe_ratios
    results = {
        "ratios": ratios,
        "turns": later, "step_ms": parts, "workers": options.workers,
        "machine": describe(device()), "bf16": has_bf16(),
    }  # fmt: skip
    print(json.dumps(results))


if __name__ == "__main__":
    main()
