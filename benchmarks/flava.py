"""Pairs per second of FLAVA's six losses, ours beside transformers' `FlavaForPreTraining` in plain `Trainer`, on emoji.

    python benchmarks/flava.py                     # about ten minutes on 2 cores
    python benchmarks/flava.py --steps 10 --turns 1

Both have the same sizes (4, 3 and 2 layers of width 192, pictures of 64 pixels in patches of 8), see the same
pictures and captions in batches of the same size, are told the same visual tokens, made beforehand, and hide as many
patches and tokens; half of the pairs are mismatched. Texts of theirs are padded to 77 tokens, as its users run it, and
once more to the longest of a batch, as ours are. Each run is a process of its own; they take turns, and rates are
medians. At the end is told where a forward pass of ours spends its time.
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
    VisionTextDualEncoderProcessor,
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

EMOJI = Path(__file__).parent.parent / "recipes" / "data" / "emoji"
SIDE, PATCH, WIDTH, LAYERS, CODES, LENGTH, VOCABULARY, WARM = 64, 8, 192, (4, 3, 2), 512, 77, 8000, 3
IMAGE_RATIO, TEXT_RATIO, MISMATCHED = 0.4, 0.15, 0.5
CONTENDERS = ("ours", "theirs, 77 tokens", "theirs, the longest")


class FlavaWithCodes(hf_pretext.FlavaForPreTraining):
    """Ours, given each batch's visual tokens."""

    def forward(self, codes: torch.Tensor, **batch: torch.Tensor):
        self.codes = codes
        return super().forward(**batch)

    def hide_patches(self, pixel_values):
        hidden = random_patches(*self.codes.shape, self.task.image_mask_ratio, self.codes.device, self.generator())
        return hidden, self.codes.masked_fill(~hidden, IGNORED)


class WithCodes(Inputs):
    def __call__(self, row, random):
        return {**super().__call__(row, random), "codes": torch.tensor(row["codes"])}


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def config_of(vocabulary: int) -> FlavaConfig:
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
    """Trained on the captions, once."""
    return train_tokenizer(open_source(str(EMOJI), needed=("text",)), size=VOCABULARY, max_length=LENGTH)


def rows_with_codes(folder: Path) -> datasets.Dataset:
    """The train split with the visual tokens of each picture as it is, made once for all runs."""
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
    keep_freed_memory()  # as a recipe does
    tokens, clock = tokenizer(), Clock()
    processor = VisionTextDualEncoderProcessor(default_processor(SIDE), tokens)
    as_they_are = Augmentation(crop_scale=1.0, horizontal_flip=0.0, color_jitter=0.0)
    images = Image(processor.image_processor, as_they_are)
    processing = WithCodes(images, Text(tokens, LENGTH), pair_label="text")
    source = open_source(data, columns={"codes": "codes"}, needed=("image", "text", "codes"))
    ids = dict(mask_token_id=tokens.mask_token_id, special_token_ids=tokens.all_special_ids)
    shares = dict(image_mask_ratio=IMAGE_RATIO, text_mask_ratio=TEXT_RATIO, mismatch_ratio=MISMATCHED)
    set_seed(0)
    model = FlavaWithCodes.from_encoder(config_of(len(tokens)), codebook_size=CODES, **ids, **shares)
    model.codebook.counts.fill_(1)  # it is never asked
    model.prepare = lambda batches: None
    texts = processing.by_name["text"].batch(["a b", "c"])
    codes = torch.zeros(2, (SIDE // PATCH) ** 2, dtype=torch.long)
    model.freeze_unused({"pixel_values": torch.zeros(2, 3, SIDE, SIDE), "codes": codes, **texts})
    with tempfile.TemporaryDirectory() as output:
        trainer = PretextTrainer(model, arguments(output, steps, batch), source, processing, callbacks=[clock])
        trainer.pop_callback(PrinterCallback)
        trainer.train()
        sample = trainer.processing.finish(next(iter(trainer.get_train_dataloader())))
    return {"rate": rate(clock.ends, batch), "shares": shares_of_time(model.train(), sample)}


def theirs(data: datasets.Dataset, steps: int, batch: int, longest: bool) -> dict:
    tokens, clock, images = tokenizer(), Clock(), Image(default_processor(SIDE))

    def collate(rows: list[dict]) -> dict:
        """What FlavaProcessor and a masking collator make of pairs."""
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
    """Pairs per second after the first few steps."""
    return batch * (len(ends) - 1 - WARM) / (ends[-1] - ends[WARM])


def shares_of_time(model: FlavaWithCodes, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """What part of a forward pass each part of the model takes."""
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
    """One contender in a process of its own."""
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
        print(f"  {name:20s} {speed:6.1f} pairs/s; ours has {ours_rate / speed:.2f} of its speed")
    print("  a forward pass of ours: " + ", ".join(f"{k} {v:.0%}" for k, v in turns[0]["ours"]["shares"].items()))
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    print(json.dumps({"turns": turns, "machine": describe(device)}))


if __name__ == "__main__":
    main()
