"""What masked_lm.py and causal_lm.py have in common: three contenders, each a process of its own, in turns.

ours      `PretextTrainer` on packed sequences, with attention inside each document
chunked   `Trainer` on texts that are concatenated and cut into chunks, so that tokens see other texts
padded    `Trainer` on texts that are truncated, and padded to the longest of the batch
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from torch import Tensor
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_pretext import PretextModel, PretextTrainer
from hf_pretext.data.corpus import PackedTexts, source_of, tokenised
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.modalities.text import Corpus
from hf_pretext.utils.machine import describe, has_bf16, keep_freed_memory

REVIEWS = Path(__file__).parent.parent / "recipes" / "data" / "reviews.py"
VOCABULARY, LENGTH, WARM, HELD_OUT, SEEDS = 30_522, 128, 3, 128, 3
CONTENDERS = ("ours", "chunked", "padded")
METRICS = ("rate", "peak_mb", "taken_mb")  # taken_mb: peak_mb without the memory before the model is built
DEEP = 12  # layers of a large model, which runs fewer steps


@dataclass(frozen=True)
class Comparison:
    """What differs between the benchmarks of two objectives.

    model_of: (width, layers, tokenizer) -> a fresh model with its head. pretext: (model, tokenizer) -> the same model
    as an objective of hf_pretext. collator: tokenizer -> collator of `Trainer`. encoded: (tokenizer, texts) -> tokens
    of each whole text, by the names that the collator needs. labelled: (ids, attention_mask, tokenizer, generator) ->
    input_ids and labels of held-out texts. tokenizer: options of `train_tokenizer`."""

    script: str
    doc: str
    architecture: str
    sizes: tuple[str, ...]
    model_of: Callable[[int, int, PreTrainedTokenizerBase], PreTrainedModel]
    pretext: Callable[[PreTrainedModel, PreTrainedTokenizerBase], PretextModel]
    collator: Callable[[PreTrainedTokenizerBase], DataCollatorForLanguageModeling]
    encoded: Callable[[PreTrainedTokenizerBase, list[str]], dict[str, list[list[int]]]]
    labelled: Callable[[Tensor, Tensor, PreTrainedTokenizerBase, torch.Generator], tuple[Tensor, Tensor]]
    tokenizer: dict

    def main(self) -> None:
        """Runs the benchmark, or one contender of it, and prints the results."""
        parser = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--sizes", nargs="+", default=list(self.sizes), help="hidden size x layers")
        parser.add_argument("--turns", type=int, default=2)
        parser.add_argument("--steps", type=int, default=30)
        parser.add_argument("--batch", type=int, default=32, help=f"sequences per batch, each of {LENGTH} tokens")
        parser.add_argument("--learn", type=int, default=300_000, help="compare losses after so many tokens; 0: skip")
        parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
        parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
        options = parser.parse_args()
        if options.contender:
            print(json.dumps(run(self, options)))
            return
        results = {}
        for size in options.sizes:
            deep = int(size.split("x")[1]) >= DEEP
            steps = max(options.steps // 4, 2 * WARM) if deep else options.steps
            results[size] = [
                {name: apart(self, name, size, steps, options.batch) for name in CONTENDERS}
                for _ in range(options.turns)
            ]
            title = f"{self.architecture} of {size}, {VOCABULARY:,} tokens, batches of {options.batch} x {LENGTH}"
            print(f"{title}, {steps} steps", *rows(results[size]), sep="\n", flush=True)
        if options.learn:
            results["learning"] = learning(self, options, results[options.sizes[0]][0])
        print(json.dumps({**results, "machine": describe(torch.device("cpu"))}))


class Clock(TrainerCallback):
    """Measures the seconds of the steps after the first `WARM`."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == WARM:
            self.begun = time.perf_counter()
        self.seconds = time.perf_counter() - self.begun if state.global_step > WARM else 0.0


class Counting:
    """Counts the real tokens of each batch and returns the batch unchanged.

    find: returns the number of real tokens of a batch.
    """

    def __init__(self, find: Callable[[dict], Tensor]):
        self.find, self.by_step = find, []

    def __call__(self, batch: dict) -> dict:
        self.by_step.append(int(self.find(batch)))
        return batch


def reviews() -> Path:
    """Returns the folder of the reviews. Downloads them on the first call."""
    spec = importlib.util.spec_from_file_location("reviews", REVIEWS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.reviews())


def run(comparison: Comparison, options: argparse.Namespace) -> dict:
    """Runs one contender in this process. Returns its results."""
    datasets.disable_progress_bars()
    source = open_source(str(reviews() / "train.parquet"), needed=("text",))
    tokens = train_tokenizer(source, size=VOCABULARY, max_length=LENGTH, **comparison.tokenizer)
    before = peak_mb()  # memory of Python, the libraries and the tokenizer
    set_seed(options.seed)  # the same seed gives the same weights
    model, clock = comparison.model_of(*map(int, options.sizes[0].split("x")), tokens), Clock()
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            max_steps=options.steps,
            per_device_train_batch_size=options.batch,
            learning_rate=5e-4,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=10,
            bf16=has_bf16(),
            use_cpu=not torch.accelerator.is_available(),  # without it, TrainingArguments refuses bf16 on a CPU
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=options.seed,
        )
        if options.contender == "ours":
            count = ours(comparison, model, tokens, source, arguments, clock)
        else:
            count = usual(comparison, model, tokens, arguments, clock, padded=options.contender == "padded")
    return {
        "rate": sum(count.by_step[WARM : options.steps]) / clock.seconds,
        "tokens": sum(count.by_step[: options.steps]),
        "peak_mb": peak_mb(),
        "taken_mb": peak_mb() - before,
        "losses": held_out_losses(comparison, model, tokens),
    }


def ours(comparison, model, tokens, source, arguments: TrainingArguments, clock: Clock) -> Counting:
    """Trains with `PretextTrainer`. Returns the counts of real tokens."""
    keep_freed_memory()  # recipes do the same
    rows = source_of(PackedTexts(tokenised(source, tokens), tokens, LENGTH), source, tokens)
    count = Counting(lambda batch: (batch["document_ids"] > 0).sum())
    processing = Corpus(tokens, LENGTH)
    processing.finish = count
    trainer = PretextTrainer(comparison.pretext(model, tokens), arguments, rows, processing, callbacks=[clock])
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    return count


def usual(comparison, model, tokens, arguments: TrainingArguments, clock: Clock, padded: bool) -> Counting:
    """Trains like run_mlm.py and run_clm.py of transformers. Returns the counts of real tokens. padded: does not
    concatenate texts."""
    texts = datasets.load_dataset("parquet", data_files=str(reviews() / "train.parquet"), split="train")

    def truncated(batch):
        encoded = comparison.encoded(tokens, batch["text"])
        return {key: [row[:LENGTH] for row in rows] for key, rows in encoded.items()}

    def chunks(batch):
        encoded = comparison.encoded(tokens, batch["text"])
        joined = {key: [value for row in rows for value in row] for key, rows in encoded.items()}
        total = len(joined["input_ids"]) // LENGTH * LENGTH
        return {key: [all_[i : i + LENGTH] for i in range(0, total, LENGTH)] for key, all_ in joined.items()}

    data = texts.map(truncated if padded else chunks, batched=True, remove_columns=texts.column_names)
    collator, count = comparison.collator(tokens), Counting(lambda batch: batch["attention_mask"].sum())

    def collate(rows):
        return count(collator(rows))

    trainer = Trainer(model, arguments, train_dataset=data, data_collator=collate, callbacks=[clock])
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    return count


def peak_mb() -> float:
    """Returns the peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def held_out_losses(comparison: Comparison, model, tokens) -> dict[str, float]:
    """Returns the losses on validation, with the same labels for all contenders.

    documents: texts from their start, as hf_pretext trains. chunks: chunks of concatenated texts, as the usual script
    trains. Both are measured so that neither contender has an advantage.
    """
    texts = datasets.load_dataset("parquet", data_files=str(reviews() / "validation.parquet"), split="train")
    random = torch.Generator().manual_seed(0)
    texts = list(texts.select(torch.randperm(len(texts), generator=random)[:HELD_OUT].tolist())["text"])
    encoded = comparison.encoded(tokens, texts)["input_ids"]
    documents = tokens.pad({"input_ids": [ids[:LENGTH] for ids in encoded]}, padding_side="right", return_tensors="pt")
    joined = torch.tensor([token for ids in encoded for token in ids])
    chunks = joined[: len(joined) // LENGTH * LENGTH].view(-1, LENGTH)[:HELD_OUT]
    model.eval()
    losses = {}
    for name, ids, attention_mask in (
        ("documents", documents["input_ids"], documents["attention_mask"]),
        ("chunks", chunks, torch.ones_like(chunks)),
    ):
        ids, labels = comparison.labelled(ids, attention_mask, tokens, random)
        batch = {"input_ids": ids, "attention_mask": attention_mask, "labels": labels}
        losses[name] = model(**{key: value.to(model.device) for key, value in batch.items()}).loss.item()
    return losses


def apart(comparison: Comparison, contender: str, size: str, steps: int, batch: int, seed: int = 0) -> dict:
    """Runs one contender in a new process. Returns its results."""
    command = [sys.executable, comparison.script, "--contender", contender, "--sizes", size]
    command += ["--steps", str(steps), "--batch", str(batch), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def rows(turns: list[dict]) -> list[str]:
    """Returns a line for each contender, with medians over turns."""
    middle = {
        name: {key: statistics.median(turn[name][key] for turn in turns) for key in METRICS} for name in CONTENDERS
    }
    return [
        f"  {name:8s} {values['rate']:7.0f} real tokens/s, peak memory {values['peak_mb']:6.0f} MB, of which "
        f"{values['taken_mb']:6.0f} for training; ours / this: "
        f"speed {middle['ours']['rate'] / values['rate']:.2f}, "
        f"peak memory {middle['ours']['peak_mb'] / values['peak_mb']:.2f}, "
        f"memory for training {middle['ours']['taken_mb'] / values['taken_mb']:.2f}"
        for name, values in middle.items()
    ]


def learning(comparison: Comparison, options: argparse.Namespace, speeds: dict[str, dict]) -> dict[str, list[dict]]:
    """Returns held-out losses of the first size after the same number of real tokens, for `SEEDS` seeds."""
    size, results = options.sizes[0], {}
    for name in CONTENDERS:
        steps = round(options.learn / (speeds[name]["tokens"] / options.steps))
        results[name] = [apart(comparison, name, size, steps, options.batch, seed) for seed in range(SEEDS)]
        parts = []
        for kind in results[name][0]["losses"]:
            losses = [result["losses"][kind] for result in results[name]]
            parts.append(f"{statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f} on {kind}")
        tokens = statistics.mean(result["tokens"] for result in results[name])
        print(f"  {name}: held-out loss {', '.join(parts)} after {tokens:,.0f} real tokens, {SEEDS} seeds", flush=True)
    return results
