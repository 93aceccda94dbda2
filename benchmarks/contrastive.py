"""Measures pairs per second of image-text contrastive training on emoji: hf_pretext and `open_clip_train`.

    python benchmarks/contrastive.py                          # with each image encoder
    python benchmarks/contrastive.py --towers vit --epochs 2

Both use the same encoders: for images of 64x64 pixels a ViT (4 layers, width 192, patches of 8x8 pixels) or timm's
resnet10t, and a text encoder (4 layers, width 192). Both use the same initial weights, data, batch size, optimizer,
schedule and precision. open_clip pads texts to 77 tokens, which is its default. Each run is a separate process. The
runs alternate, and the rates are medians. R@10 on the test split, after the same number of pairs, shows whether the
faster run learns as much.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import open_clip
import torch
from transformers import (
    CLIPTextConfig,
    PrinterCallback,
    TimmWrapperConfig,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_pretext import ContrastiveForPreTraining, PretextTrainer
from hf_pretext.data.decoding import to_rgb
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import tokenizer_of
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import measure_model
from hf_pretext.interop.open_clip import from_open_clip
from hf_pretext.interop.open_clip_names import clip_text_names, renamed
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.utils.machine import cores, default_workers, describe, has_bf16, keep_freed_memory

EMOJI = Path(__file__).parent.parent / "hf_pretext" / "samples" / "emoji"
SIDE, WIDTH, LAYERS, WORDS, LENGTH, WARM = 64, 192, 4, 49_408, 77, 3
RATE, BETAS, EPSILON, DECAY = 1e-3, (0.9, 0.98), 1e-6, 0.2
TEXT = {"context_length": LENGTH, "vocab_size": WORDS, "width": WIDTH, "heads": 3, "layers": LAYERS}
TOWERS = {
    "vit": {"image_size": SIDE, "patch_size": 8, "width": WIDTH, "layers": LAYERS, "head_width": 64},
    "resnet": {"image_size": SIDE, "timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"},
}
CONTENDERS = ("ours", "open_clip")


def inputs(augmentation: Augmentation | None = None) -> Inputs:
    """Returns the processing of images and captions, with CLIP's tokenizer."""
    texts = Text(tokenizer_of("ViT-B-32"), LENGTH)
    return Inputs(Image(default_processor(SIDE), augmentation), texts, pair_label="text")


def device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def fresh(tower: str, seed: int):
    """Returns the open_clip model with the initial weights of both runs."""
    set_seed(seed)
    return open_clip.model.CLIP(WIDTH, dict(TOWERS[tower]), dict(TEXT))


def in_our_words(tower: str, theirs) -> ContrastiveForPreTraining:
    """Converts an open_clip model to `ContrastiveForPreTraining` with the same weights."""
    if tower == "vit":
        return ContrastiveForPreTraining.from_encoder(from_open_clip(theirs))
    vision = TimmWrapperConfig(architecture="resnet10t", hidden_size=theirs.visual.trunk.num_features)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    ends = {"eos_token_id": WORDS - 1, "bos_token_id": WORDS - 2, "pad_token_id": WORDS - 1}
    text = CLIPTextConfig(
        vocab_size=WORDS, max_position_embeddings=LENGTH, num_attention_heads=3, hidden_act="gelu", **sizes, **ends
    )
    ours = ContrastiveForPreTraining.from_encoders(vision, text, WIDTH)
    full_model, state = ours.full_model, theirs.state_dict()
    full_model.vision_model.timm_model.load_state_dict(theirs.visual.trunk.state_dict())
    full_model.visual_projection.load_state_dict({"weight": state["visual.head.proj.weight"]})
    names = [same.back() for same in clip_text_names(LAYERS)]
    text_state = {name: value for name, value in full_model.state_dict().items() if name.startswith("text_")}
    state = {name: state[name] for same in names for name in same.ours}
    full_model.load_state_dict(renamed(state, text_state, names, "open_clip's text tower"), strict=False)
    return ours


class Clock(TrainerCallback):
    """Records the time at the end of each step, in seconds."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def ours(tower: str, steps: int, batch: int, seed: int) -> dict:
    """Trains with `PretextTrainer`. Returns pairs per second and R@10."""
    keep_freed_memory()  # recipes do the same
    clock, processing = Clock(), inputs(Augmentation(0.9, horizontal_flip=0.0, color_jitter=0.0))
    source = open_source(str(EMOJI), needed=("image", "text"), columns={"text": "text"})
    model = in_our_words(tower, fresh(tower, seed)).train()
    texts = processing.by_name["text"].batch(["a", "b"])
    model.freeze_unused({"pixel_values": torch.zeros(2, 3, SIDE, SIDE), **texts})
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=RATE,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            adam_epsilon=EPSILON,
            weight_decay=DECAY,
            lr_scheduler_type="cosine",
            warmup_steps=max(steps // 20, 1),
            max_grad_norm=0.0,
            bf16=has_bf16(),
            dataloader_num_workers=default_workers(),
            use_cpu=not torch.accelerator.is_available(),  # without it, TrainingArguments refuses bf16 on a CPU
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trained = model.to(memory_format=torch.channels_last) if tower == "resnet" else model
        trainer = PretextTrainer(trained, arguments, source, processing, callbacks=[clock])
        trainer.pop_callback(PrinterCallback)
        trainer.train()
    return {"rate": rate(clock.ends, batch), **worth(model)}


def theirs(tower: str, steps: int, batch: int, seed: int) -> dict:
    """Trains with `open_clip_train`. Returns pairs per second and R@10."""
    import open_clip_train.train as loop
    from open_clip_train.main import main as train

    ends, step = [], loop.backward

    def clocked(*arguments):
        step(*arguments)
        ends.append(time.perf_counter())  # before the optimizer step, whose time counts for the next step

    loop.backward = clocked
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench.json").write_text(
            json.dumps({"embed_dim": WIDTH, "vision_cfg": TOWERS[tower], "text_cfg": TEXT})
        )
        open_clip.add_model_config(folder)
        torch.save(fresh(tower, seed).state_dict(), folder / "start.pt")
        rows = write_images(folder)
        epochs = steps // (rows // batch)
        precision = "amp_bf16" if has_bf16() else "fp32"
        # fmt: off
        train([
            "--train-data", str(folder / "train.csv"), "--dataset-type", "csv", "--csv-separator", ",",
            "--csv-img-key", "path", "--csv-caption-key", "text", "--model", "bench",
            "--pretrained", str(folder / "start.pt"), "--batch-size", str(batch), "--epochs", str(epochs),
            "--lr", str(RATE), "--beta1", str(BETAS[0]), "--beta2", str(BETAS[1]), "--eps", str(EPSILON),
            "--image-mean", "0.5", "0.5", "0.5", "--image-std", "0.5", "0.5", "0.5",
            "--wd", str(DECAY), "--warmup", str(max(steps // 20, 1)), "--workers", str(cores()),
            "--precision", precision,
            "--seed", str(seed), "--logs", str(folder / "logs"), "--name", "run", "--save-frequency", str(epochs),
        ])
        # fmt: on
        trained = open_clip.create_model("bench", pretrained=str(folder / f"logs/run/checkpoints/epoch_{epochs}.pt"))
    return {"rate": rate(ends, batch), **worth(Theirs(trained))}


class Theirs(torch.nn.Module):
    """Wraps an open_clip model for the evaluation of hf_pretext. Texts are padded to 77 tokens."""

    inputs, capabilities = ("image", "text"), ("embed",)

    def __init__(self, model):
        super().__init__()
        self.model = model

    def embed(self, kind, **batch):
        if kind == "image":
            return self.model.encode_image(batch["pixel_values"], normalize=True)
        ids = batch["input_ids"] * batch["attention_mask"]
        padded = torch.nn.functional.pad(ids, (0, LENGTH - ids.shape[1]))
        return self.model.encode_text(padded, normalize=True)


def write_images(folder: Path) -> int:
    """Writes the train split as PNG files and a CSV file for `open_clip_train`. Returns the number of images."""
    data = datasets.load_dataset(str(EMOJI), split="train")
    (folder / "images").mkdir()
    with open(folder / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "text"])
        for i, row in enumerate(data):
            path = folder / "images" / f"{i}.png"
            to_rgb(row["image"]).save(path)
            writer.writerow([path, row["text"]])
    return len(data)


def rate(ends: list[float], batch: int) -> float:
    """Returns pairs per second, without the first `WARM` steps."""
    return batch * (len(ends) - 1 - WARM) / (ends[-1] - ends[WARM])


def worth(model) -> dict[str, float]:
    """Returns R@10 on test: images as queries, all names of the split as candidates."""
    labelled = LabelledSet(str(EMOJI), inputs(), "group", {"text": "text"})
    return {"r10": measure_model(model, labelled, device())["image_to_text_r10"]}


def apart(contender: str, tower: str, epochs: int, batch: int, seed: int = 0) -> dict:
    """Runs one contender in a new process. Returns its results."""
    command = [sys.executable, __file__, "--contender", contender, "--towers", tower]
    command += ["--epochs", str(epochs), "--batch", str(batch), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=[*TOWERS])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.steps = options.epochs * (len(datasets.load_dataset(str(EMOJI), split="train")) // options.batch)
    if options.contender:
        run = ours if options.contender == "ours" else theirs
        print(json.dumps(run(options.towers[0], options.steps, options.batch, options.seed)))
        return
    results = {}
    for tower in options.towers:
        turns = [
            {name: apart(name, tower, options.epochs, options.batch, turn) for name in CONTENDERS}
            for turn in range(options.turns)
        ]
        results[tower] = turns
        print(f"{tower}, batches of {options.batch}, {options.steps} steps")
        ours_rate = statistics.median(turn["ours"]["rate"] for turn in turns)
        for name in CONTENDERS:
            speed = statistics.median(turn[name]["rate"] for turn in turns)
            worths = ", ".join(f"{turn[name]['r10']:.3f}" for turn in turns)
            print(f"  {name:9s} {speed:6.0f} pairs/s; ours / this: {ours_rate / speed:.2f}; R@10 {worths}")
    print(json.dumps({**results, "machine": describe(device())}))


if __name__ == "__main__":
    main()
