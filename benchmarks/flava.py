"""Measures pairs per second of FLAVA's six losses on emoji: hf_pretext, and transformers' `FlavaForPreTraining`.

    python benchmarks/flava.py                     # about ten minutes on 2 cores
    python benchmarks/flava.py --steps 10 --turns 1

transformers' model runs in `Trainer`. Both use the same sizes (4, 3 and 2 layers of width 192, images of 64x64 pixels
in patches of 8x8), the same images, captions and batch size, the same visual tokens (computed before the runs) and the
same mask ratios. Half of the pairs are mismatched. transformers' model runs twice: with texts padded to 77 tokens,
which is its default, and with texts padded to the longest of the batch, as in hf_pretext. Each run is a separate
process. The runs alternate, and the rates are medians. The last line reports the shares of time in our forward pass.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import torch
from transformers import (
    FlavaConfig,
    FlavaForPreTraining,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import hf_pretext
from hf_pretext import PretextTrainer
from hf_pretext.data.decoding import to_rgb
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.modules.codebook import PatchCodebook
from hf_pretext.modules.masking import IGNORED, draw_units, replaced, without_special
from hf_pretext.modules.patches import random_patches
from hf_pretext.utils.machine import default_workers, describe, has_bf16, keep_freed_memory

EMOJI = Path(__file__).parent.parent / "hf_pretext" / "samples" / "emoji"
SIDE, PATCH, WIDTH, LAYERS, CODES, LENGTH, VOCABULARY, WARM = 64, 8, 192, (4, 3, 2), 512, 77, 8000, 3
IMAGE_RATIO, TEXT_RATIO, MISMATCHED = 0.4, 0.15, 0.5
CONTENDERS = ("ours", "theirs, 77 tokens", "theirs, the longest")


class FlavaWithCodes(hf_pretext.FlavaForPreTraining):
    """FLAVA of hf_pretext. It takes the visual tokens from the batch, `codes` `(B, patches)`."""

    def forward(self, codes: torch.Tensor, **batch: torch.Tensor):
        self.codes = codes
        return super().forward(**batch)

    def hide_patches(self, pixel_values):
        hidden = random_patches(*self.codes.shape, self.task.image_mask_ratio, self.codes.device, self.generator())
        return hidden, self.codes.masked_fill(~hidden, IGNORED)


class WithCodes(Inputs):
    """Processing of images and captions. It adds the visual tokens of a row to the example."""

    def __call__(self, row, random):
        return {**super().__call__(row, random), "codes": torch.tensor(row["codes"])}


class Clock(TrainerCallback):
    """Records the time at the end of each step, in seconds."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def config_of(vocabulary: int) -> FlavaConfig:
    """Returns the config of both models."""
    sizes = {"hidden_size": WIDTH, "num_attention_heads": WIDTH // 64, "intermediate_size": 4 * WIDTH}
    image, text, multimodal = ({**sizes, "num_hidden_layers": count} for count in LAYERS)
    return FlavaConfig(
        image_config={**image, "image_size": SIDE, "patch_size": PATCH, "vocab_size": CODES},
        text_config={**text, "vocab_size": vocabulary, "max_position_embeddings": LENGTH},
        multimodal_config=multimodal,
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        init_codebook=False,
    )


def tokenizer():
    """Returns a tokenizer trained on the captions of the emoji."""
    return train_tokenizer(open_source(str(EMOJI), needed=("text",)), size=VOCABULARY, max_length=LENGTH)


def rows_with_codes(folder: Path) -> datasets.Dataset:
    """Returns the train split with the visual tokens of each image without augmentation. Saves it to `folder` once."""
    if not folder.exists():
        data = datasets.load_dataset(str(EMOJI), split="train").select_columns(["image", "text"])
        images = Image(default_processor(SIDE))
        pixels = torch.stack([images({"image": row["image"]}, None)["pixel_values"] for row in data])
        pixels = images.finish({"pixel_values": pixels})["pixel_values"]
        codebook = PatchCodebook(CODES, PATCH)
        codebook.fit([pixels])
        codes = torch.cat([codebook(part) for part in pixels.split(256)])
        data.add_column("codes", codes.tolist()).save_to_disk(folder)
    return datasets.load_from_disk(folder)


def arguments(output: str, steps: int, batch: int, **more) -> TrainingArguments:
    """Returns the training arguments of both runs."""
    return TrainingArguments(
        output_dir=output,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-3,
        bf16=has_bf16(),
        dataloader_num_workers=default_workers(),
        use_cpu=not torch.accelerator.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )


def ours(data: datasets.Dataset, steps: int, batch: int) -> dict:
    """Trains with `PretextTrainer`. Returns pairs per second and the shares of time of a forward pass."""
    keep_freed_memory()  # recipes do the same
    tokens, clock = tokenizer(), Clock()
    no_augmentation = Augmentation(crop_scale=1.0, horizontal_flip=0.0, color_jitter=0.0)
    images, texts = Image(default_processor(SIDE), no_augmentation), Text(tokens, LENGTH)
    processing = WithCodes(images, texts, pair_label="text")
    source = open_source(data, columns={"codes": "codes"}, needed=("image", "text", "codes"))
    ids = dict(mask_token_id=tokens.mask_token_id, special_token_ids=tokens.all_special_ids)
    shares = dict(image_mask_ratio=IMAGE_RATIO, text_mask_ratio=TEXT_RATIO, mismatch_ratio=MISMATCHED)
    set_seed(0)
    model = FlavaWithCodes.from_encoder(config_of(len(tokens)), codebook_size=CODES, **ids, **shares)
    model.codebook.counts.fill_(1)  # marks the codebook as fitted; the visual tokens come from the batch
    model.prepare = lambda batches: None
    codes = torch.zeros(2, (SIDE // PATCH) ** 2, dtype=torch.long)
    pairs = {"pixel_values": torch.zeros(2, 3, SIDE, SIDE), **texts.batch(["a b", "c"])}
    model.freeze_unused({"codes": codes, **pairs})
    with tempfile.TemporaryDirectory() as output:
        trainer = PretextTrainer(model, arguments(output, steps, batch), source, processing, callbacks=[clock])
        trainer.pop_callback(PrinterCallback)
        trainer.train()
        sample = trainer.inputs.finish(next(iter(trainer.get_train_dataloader())))
    return {"rate": rate(clock.ends, batch), "shares": shares_of_time(model.train(), sample)}


def theirs(data: datasets.Dataset, steps: int, batch: int, longest: bool) -> dict:
    """Trains with `Trainer`. Returns pairs per second. longest: pads texts to the longest of the batch."""
    tokens, clock, images = tokenizer(), Clock(), Image(default_processor(SIDE))

    def collate(rows: list[dict]) -> dict:
        """Returns the batch that FlavaProcessor and a masking collator make."""
        pixels = torch.stack(
            [images.processor(to_rgb(row["image"]), return_tensors="pt")["pixel_values"][0] for row in rows]
        )
        padding = {"padding": True} if longest else {"padding": "max_length", "max_length": LENGTH}
        texts = tokens([row["text"] for row in rows], return_tensors="pt", truncation=True, **padding)
        ids, attention_mask, codes = (
            texts["input_ids"],
            texts["attention_mask"],
            torch.tensor([row["codes"] for row in rows]),
        )
        mismatched = random_patches(1, len(rows), MISMATCHED, ids.device)[0]
        shown = torch.where(mismatched, torch.arange(len(rows)).roll(1), torch.arange(len(rows)))
        ids, attention_mask = ids[shown], attention_mask[shown]
        allowed = without_special(ids, attention_mask.bool(), tokens.all_special_ids)
        hidden = draw_units(allowed, torch.ones_like(allowed), TEXT_RATIO)
        return {
            "pixel_values": pixels,
            "input_ids": ids,
            "attention_mask": attention_mask,
            "input_ids_masked": replaced(ids, hidden, tokens.mask_token_id, len(tokens)),
            "mlm_labels": ids.masked_fill(~hidden, IGNORED),
            "bool_masked_pos": random_patches(*codes.shape, IMAGE_RATIO, codes.device),
            "mim_labels": codes,
            "itm_labels": (~mismatched).long(),
        }

    set_seed(0)
    options = arguments("", steps, batch, remove_unused_columns=False, ddp_find_unused_parameters=True)
    with tempfile.TemporaryDirectory() as output:
        options.output_dir = output
        model = FlavaForPreTraining(config_of(len(tokens)))
        trainer = Trainer(model, options, train_dataset=data, data_collator=collate, callbacks=[clock])
        trainer.pop_callback(PrinterCallback)
        trainer.train()
    return {"rate": rate(clock.ends, batch)}


def rate(ends: list[float], batch: int) -> float:
    """Returns pairs per second, without the first `WARM` steps."""
    return batch * (len(ends) - 1 - WARM) / (ends[-1] - ends[WARM])


def shares_of_time(model: FlavaWithCodes, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Returns the share of a forward pass (0 to 1) that each part of the model takes."""
    parts = {
        "image encoder": model.full_model.image_model,
        "text encoder": model.full_model.text_model,
        "multimodal encoder": model.full_model.multimodal_model,
        **{f"{name} head": model.pretext_head[name] for name in ("mmm_image", "mmm_text", "itm")},
    }
    device, spent, begun = model.device, dict.fromkeys(parts, 0.0), {}
    batch = {name: value.to(device) for name, value in batch.items()}

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    handles = []
    for name, part in parts.items():
        handles.append(part.register_forward_pre_hook(lambda *_, name=name: begun.update({name: now()})))
        handles.append(
            part.register_forward_hook(lambda *_, name=name: spent.update({name: spent[name] + now() - begun[name]}))
        )
    start = now()
    for _ in range(3):
        model(**batch)
    elapsed = now() - start
    for handle in handles:
        handle.remove()
    return {**{name: value / elapsed for name, value in spent.items()}, "all else": 1 - sum(spent.values()) / elapsed}


def apart(contender: str, options: argparse.Namespace) -> dict:
    """Runs one contender in a new process. Returns its results."""
    command = [sys.executable, __file__, "--contender", contender, "--data", options.data]
    command += ["--steps", str(options.steps), "--batch", str(options.batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        data, run = rows_with_codes(Path(options.data)), (options.steps, options.batch)
        longest = options.contender == CONTENDERS[2]
        print(json.dumps(ours(data, *run) if options.contender == "ours" else theirs(data, *run, longest)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.data = str(Path(folder) / "pairs")
        rows_with_codes(Path(options.data))
        turns = [{name: apart(name, options) for name in CONTENDERS} for _ in range(options.turns)]
    print(f"batches of {options.batch}, {options.steps} steps")
    ours_rate = statistics.median(turn["ours"]["rate"] for turn in turns)
    for name in CONTENDERS:
        speed = statistics.median(turn[name]["rate"] for turn in turns)
        print(f"  {name:20s} {speed:6.1f} pairs/s; ours / this: {ours_rate / speed:.2f}")
    print("  shares of our forward pass: " + ", ".join(f"{k} {v:.0%}" for k, v in turns[0]["ours"]["shares"].items()))
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    print(json.dumps({"turns": turns, "machine": describe(device)}))


if __name__ == "__main__":
    main()
