"""Measures images per second of captioning on emoji: hf_pretext and `VisionEncoderDecoderModel` in plain `Trainer`.

    python benchmarks/captioning.py                 # at least 1.2 times the images per second is wanted
    python benchmarks/captioning.py --epochs 2 --turns 1

Both train the model of recipes/captioning_emoji with the same initial weights, images, captions (the name or a part of
the keywords), augmentation (random crops and flips), batch size, optimizer, schedule, precision and number of workers.
`Trainer` is used as usual: a dataset decodes and augments with Pillow and torchvision, and a collator tokenizes and
pads to the longest caption of a batch. Ours keeps freed memory and decoded images, as all recipes do. Each run is a
separate process. The runs alternate, and the rates are medians. The loss on the test split, after the same number of
images, shows whether the faster run learns as much.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from ablation import recipe_of
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_pretext import PretextTrainer
from hf_pretext.data.captions import Captions, distinct_captions
from hf_pretext.data.decoding import to_rgb
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.comparison import pretext_metrics
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.modeling import PretextModel
from hf_pretext.registry import objective_class
from hf_pretext.utils.machine import default_workers, describe, has_bf16, keep_freed_memory

EMOJI = Path(__file__).parent.parent / "hf_pretext" / "samples" / "emoji"
SIDE, LENGTH, WORDS, CROP, FLIP, WARM, WANTED = 64, 32, 4000, 0.5, 0.5, 3, 1.2
OTHERS = ("keywords",)  # columns of captions besides the names, drawn as often
COLUMNS = {"text": "text", **dict.fromkeys(OTHERS, "keywords")}
CONTENDERS = ("ours", "trainer")


def device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def source():
    """Returns the train split of emoji."""
    return open_source(str(EMOJI), needed=("image", *COLUMNS), columns=COLUMNS)


def inputs(augmentation: Augmentation | None = None) -> Inputs:
    """Returns the processing of images and captions, with a tokenizer that is trained on the captions."""
    tokenizer = train_tokenizer(distinct_captions([(source(), [*COLUMNS])]), size=WORDS)
    return Inputs(Image(default_processor(SIDE), augmentation), Text(tokenizer, LENGTH, Captions(OTHERS)))


def fresh(texts: Text, seed: int) -> PretextModel:
    """Returns the model with the initial weights of both runs."""
    set_seed(seed)
    objective, config = objective_class("captioning"), recipe_of("captioning_emoji").encoder(SIDE, **texts.shape())
    task = objective.complete(objective.task_class(), {"text": texts.tokenizer})
    return objective.from_encoder(config, **dataclasses.asdict(task))


class Clock(TrainerCallback):
    """Records the time at the end of each step, in seconds."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def arguments(output: str, steps: int, batch: int, seed: int, **more) -> TrainingArguments:
    """Returns the options of both runs. more: options of one of them."""
    return TrainingArguments(
        output_dir=output,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-3,
        weight_decay=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=max(steps // 20, 1),
        bf16=has_bf16(),
        dataloader_num_workers=default_workers(),
        use_cpu=not torch.accelerator.is_available(),  # without it, TrainingArguments refuses bf16 on a CPU
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        **more,
    )


def ours(steps: int, batch: int, seed: int) -> dict:
    """Trains with `PretextTrainer`. Returns images per second and the loss on test."""
    keep_freed_memory()  # recipes do the same
    clock, processing = Clock(), inputs(Augmentation(CROP, FLIP, color_jitter=0.0))
    model = fresh(processing.by_name["text"], seed).train()
    texts = processing.by_name["text"].batch(["a", "b"])
    model.freeze_unused({"pixel_values": torch.zeros(2, 3, SIDE, SIDE), **texts})
    with tempfile.TemporaryDirectory() as output:
        options = arguments(output, steps, batch, seed)
        trainer = PretextTrainer(model, options, source(), processing, callbacks=[clock])
        trainer.pop_callback(PrinterCallback)
        trainer.train()
    return {"rate": rate(clock.ends, batch), "loss": loss_of(model)}


class Emoji(torch.utils.data.Dataset):
    """Decoded and augmented images, each with one of its captions."""

    def __init__(self, seed: int):
        from torchvision import transforms

        self.rows = datasets.load_dataset(str(EMOJI), split="train").select_columns(["image", *COLUMNS])
        self.captions, self.random = Captions(OTHERS), np.random.default_rng(seed)
        self.augmented = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE, scale=(CROP, 1.0)),
                transforms.RandomHorizontalFlip(FLIP),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        return {"pixel_values": self.augmented(to_rgb(row["image"])), "text": self.captions(row, self.random)}


class Padded:
    """Collates images, and captions that it pads to the longest of the batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end: int):
        self.tokenizer, self.end = tokenizer, end

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        texts = self.tokenizer([row["text"] for row in rows], truncation=True, max_length=LENGTH - 1,
                               add_special_tokens=False)["input_ids"]  # fmt: skip
        longest = max(map(len, texts)) + 1
        labels = [ids + [self.end] + [-100] * (longest - 1 - len(ids)) for ids in texts]
        images = torch.stack([row["pixel_values"] for row in rows])
        return {"pixel_values": images, "labels": torch.tensor(labels)}


def trainer(steps: int, batch: int, seed: int) -> dict:
    """Trains `VisionEncoderDecoderModel` with `Trainer`. Returns images per second and the loss on test."""
    clock, texts = Clock(), inputs().by_name["text"]
    model = fresh(texts, seed)
    with tempfile.TemporaryDirectory() as output:
        padded = Padded(texts.tokenizer, model.full_model.config.eos_token_id)
        options = arguments(output, steps, batch, seed, dataloader_drop_last=True, remove_unused_columns=False)
        plain = Trainer(model.full_model.train(), options, padded, Emoji(seed), callbacks=[clock])
        plain.pop_callback(PrinterCallback)
        plain.train()
    return {"rate": rate(clock.ends, batch), "loss": loss_of(model)}


def rate(ends: list[float], batch: int) -> float:
    """Returns images per second, without the first `WARM` steps."""
    return batch * (len(ends) - 1 - WARM) / (ends[-1] - ends[WARM])


def loss_of(model: PretextModel) -> float:
    """Returns the loss on the test split."""
    labelled = LabelledSet(str(EMOJI), inputs(), "group", {"text": "text"})
    return pretext_metrics(model, labelled.pretext_batches("test"), device())["loss"]


def apart(contender: str, options: argparse.Namespace, seed: int) -> dict:
    """Runs one contender in a new process. Returns its results."""
    command = [sys.executable, __file__, "--contender", contender, "--seed", str(seed)]
    command += ["--epochs", str(options.epochs), "--batch", str(options.batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = options.epochs * (len(datasets.load_dataset(str(EMOJI), split="train")) // options.batch)
    if options.contender:
        run = ours if options.contender == "ours" else trainer
        print(json.dumps(run(steps, options.batch, options.seed)))
        return
    turns = []
    for turn in range(options.turns):
        order = CONTENDERS if turn % 2 == 0 else CONTENDERS[::-1]
        turns.append({name: apart(name, options, turn) for name in order})
    size = sum(p.numel() for p in fresh(inputs().by_name["text"], 0).parameters())
    precision, machine = "bfloat16" if has_bf16() else "float32", describe(device())
    print(f"{size:,} parameters, {device().type}, {precision}, batches of {options.batch}, {steps} steps")
    ratio = statistics.median(turn["ours"]["rate"] / turn["trainer"]["rate"] for turn in turns)
    for name in CONTENDERS:
        speed = statistics.median(turn[name]["rate"] for turn in turns)
        print(f"  {name:8s} {speed:6.0f} images/s; loss on test " + ", ".join(f"{t[name]['loss']:.3f}" for t in turns))
    print(
        f"ours / trainer: {ratio:.2f} ({WANTED} or more is wanted: {'reached' if ratio >= WANTED else 'NOT reached'})"
    )
    print(json.dumps({"turns": turns, "ratio": ratio, "parameters": size, "machine": machine}))


if __name__ == "__main__":
    main()
