"""Measures tokens per second and peak memory of causal language modelling: hf_pretext and the usual script.

    python benchmarks/causal_lm.py                       # about half an hour on 2 cores
    python benchmarks/causal_lm.py --sizes 256x4 --steps 20

The usual script is `AutoModelForCausalLM` + `DataCollatorForLanguageModeling` + `Trainer`. It runs twice: with texts
concatenated and chunked, so that tokens see the end of other texts, and with texts padded to the longest of the batch
and truncated. All runs use the same architecture, initial weights, optimizer, precision and tokens per batch (with
padding), and an end token after each text. The rates count real tokens, without padding. Each run is a separate
process. The runs alternate, and the rates are medians. The losses on the same held-out texts, after the same number of
real tokens, show whether the faster run learns as much. The data are film reviews, downloaded once
(recipes/data/reviews.py).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import torch
from masked_lm import METRICS, WARM, Clock, Counting, peak_mb, reviews
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    LlamaConfig,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_pretext import CausalLMForPreTraining, PretextTrainer
from hf_pretext.data.corpus import PackedTexts, source_of, tokenised
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.modalities.text import Corpus
from hf_pretext.utils.machine import describe, has_bf16, keep_freed_memory

VOCABULARY, LENGTH, HELD_OUT, SEEDS = 30_522, 128, 128, 3
CONTENDERS = ("ours", "chunked", "padded")


def tokenizer(folder: Path):
    """Returns a WordPiece tokenizer trained on the reviews, which starts texts and does not end them."""
    source = open_source(str(folder / "train.parquet"), needed=("text",))
    return train_tokenizer(source, size=VOCABULARY, max_length=LENGTH, add_eos_token=False)


def model_of(size: str, tokens, seed: int):
    """Returns a fresh Llama. The same seed gives the same weights.

    size: hidden size and layers, for example "256x4".
    """
    width, depth = map(int, size.split("x"))
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokens.pad_token_id,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
    )
    return AutoModelForCausalLM.from_config(config)


def ours(model, tokens, folder: Path, arguments: dict, clock: Clock) -> Counting:
    """Trains with `PretextTrainer`. Returns the counts of real tokens."""
    keep_freed_memory()  # recipes do the same
    source = open_source(str(folder / "train.parquet"), needed=("text",))
    rows = source_of(PackedTexts(tokenised(source, tokens), tokens, LENGTH), source, tokens)
    pretext = CausalLMForPreTraining.from_encoder(model)
    count = Counting(lambda batch: (batch["document_ids"] > 0).sum())
    processing = Corpus(tokens, LENGTH)
    processing.finish = count
    trainer = PretextTrainer(pretext, TrainingArguments(**arguments), rows, processing, callbacks=[clock])
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    return count


def ended(tokens, texts: list[str]) -> list[list[int]]:
    """Returns the tokens of texts, each with its end token."""
    return [[*ids, tokens.eos_token_id] for ids in tokens(texts, verbose=False)["input_ids"]]


def usual(model, tokens, folder: Path, arguments: dict, clock: Clock, padded: bool) -> Counting:
    """Trains like run_clm.py of transformers. Returns the counts of real tokens. padded: does not concatenate texts."""
    texts = datasets.load_dataset("parquet", data_files=str(folder / "train.parquet"), split="train")

    def lines(batch):
        return {"input_ids": [ids[:LENGTH] for ids in ended(tokens, batch["text"])]}

    def chunks(batch):
        joined = [token for ids in ended(tokens, batch["text"]) for token in ids]
        total = len(joined) // LENGTH * LENGTH
        return {"input_ids": [joined[i : i + LENGTH] for i in range(0, total, LENGTH)]}

    data = texts.map(lines if padded else chunks, batched=True, remove_columns=texts.column_names)
    collator = DataCollatorForLanguageModeling(tokens, mlm=False)
    count = Counting(lambda batch: batch["attention_mask"].sum())
    trainer = Trainer(
        model,
        TrainingArguments(**arguments),
        train_dataset=data,
        data_collator=lambda rows: count(collator(rows)),
        callbacks=[clock],
    )
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    return count


def run(contender: str, size: str, steps: int, batch: int, seed: int) -> dict:
    """Runs one contender in this process. Returns its results."""
    datasets.disable_progress_bars()
    folder = reviews()
    tokens = tokenizer(folder)
    before = peak_mb()  # memory of Python, the libraries and the tokenizer
    model, clock = model_of(size, tokens, seed), Clock()
    with tempfile.TemporaryDirectory() as output:
        arguments = dict(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=5e-4,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=10,
            bf16=has_bf16(),
            use_cpu=not torch.accelerator.is_available(),  # without it, TrainingArguments refuses bf16 on a CPU
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        if contender == "ours":
            count = ours(model, tokens, folder, arguments, clock)
        else:
            count = usual(model, tokens, folder, arguments, clock, padded=contender == "padded")
    return {
        "rate": sum(count.by_step[WARM:steps]) / clock.seconds,
        "tokens": sum(count.by_step[:steps]),
        "peak_mb": peak_mb(),
        "taken_mb": peak_mb() - before,
        "losses": held_out_losses(model, tokens, folder),
    }


@torch.no_grad()
def held_out_losses(model, tokens, folder: Path) -> dict[str, float]:
    """Returns the losses on validation.

    documents: texts from their start, as hf_pretext trains. chunks: chunks of concatenated texts, as the usual script
    trains. Both are measured so that neither contender has an advantage.
    """
    texts = datasets.load_dataset("parquet", data_files=str(folder / "validation.parquet"), split="train")
    random = torch.Generator().manual_seed(0)
    texts = ended(tokens, list(texts.select(torch.randperm(len(texts), generator=random)[:HELD_OUT].tolist())["text"]))
    joined = torch.tensor([token for ids in texts for token in ids])
    chunks = joined[: len(joined) // LENGTH * LENGTH].view(-1, LENGTH)[:HELD_OUT]
    documents = tokens.pad({"input_ids": [ids[:LENGTH] for ids in texts]}, padding_side="right", return_tensors="pt")
    model.eval()
    losses = {}
    for name, ids, attention_mask in (
        ("documents", documents["input_ids"], documents["attention_mask"]),
        ("chunks", chunks, torch.ones_like(chunks)),
    ):
        labels = ids.masked_fill(attention_mask == 0, -100)
        ids, attention_mask = ids.to(model.device), attention_mask.to(model.device)
        losses[name] = model(input_ids=ids, attention_mask=attention_mask, labels=labels.to(model.device)).loss.item()
    return losses


def apart(contender: str, size: str, steps: int, batch: int, seed: int = 0) -> dict:
    """Runs one contender in a new process. Returns its results."""
    command = [sys.executable, __file__, "--contender", contender, "--sizes", size]
    command += ["--steps", str(steps), "--batch", str(batch), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x4", "768x12"], help="hidden size x layers")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32, help=f"sequences per batch, each of {LENGTH} tokens")
    parser.add_argument("--learn", type=int, default=300_000, help="compare losses after so many real tokens; 0: skip")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(run(options.contender, options.sizes[0], options.steps, options.batch, options.seed)))
        return
    results = {}
    for size in options.sizes:
        steps = options.steps if int(size.split("x")[1]) < 12 else max(options.steps // 4, 2 * WARM)
        turns = [{name: apart(name, size, steps, options.batch) for name in CONTENDERS} for _ in range(options.turns)]
        results[size] = turns
        middle = {
            name: {key: statistics.median(turn[name][key] for turn in turns) for key in METRICS} for name in CONTENDERS
        }
        print(f"Llama of {size}, {VOCABULARY:,} tokens, batches of {options.batch} x {LENGTH}, {steps} steps")
        for name, values in middle.items():
            print(
                f"  {name:8s} {values['rate']:7.0f} real tokens/s, peak memory {values['peak_mb']:6.0f} MB, of which "
                f"{values['taken_mb']:6.0f} for training; ours / this: "
                f"speed {middle['ours']['rate'] / values['rate']:.2f}, "
                f"peak memory {middle['ours']['peak_mb'] / values['peak_mb']:.2f}, "
                f"memory for training {middle['ours']['taken_mb'] / values['taken_mb']:.2f}"
            )
    if options.learn:
        results["learning"] = learning(options, results[options.sizes[0]][0])
    print(json.dumps({**results, "machine": describe(torch.device("cpu"))}))


def learning(options, speeds: dict[str, dict]) -> dict[str, list[dict]]:
    """Returns held-out losses of the first size after the same number of real tokens, for `SEEDS` seeds."""
    size, results = options.sizes[0], {}
    for name in CONTENDERS:
        steps = round(options.learn / (speeds[name]["tokens"] / options.steps))
        results[name] = [apart(name, size, steps, options.batch, seed) for seed in range(SEEDS)]
        parts = []
        for kind in results[name][0]["losses"]:
            losses = [result["losses"][kind] for result in results[name]]
            parts.append(f"{statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f} on {kind}")
        tokens = statistics.mean(result["tokens"] for result in results[name])
        print(f"  {name}: held-out loss {', '.join(parts)} after {tokens:,.0f} real tokens, {SEEDS} seeds")
    return results


if __name__ == "__main__":
    main()
