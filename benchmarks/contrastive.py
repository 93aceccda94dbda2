"""Pairs per second of image-text contrastive training, ours beside open_clip's own `open_clip_train`, on emoji.

    python benchmarks/contrastive.py                          # both picture towers
    python benchmarks/contrastive.py --towers vit --epochs 2

Both have the same towers (a ViT of 4 layers, width 192, patches of 8, or timm's resnet10t, for pictures of 64 pixels;
a text tower of 4 layers, width 192), start from the same weights, see the same pictures and captions in batches of the
same size, with the same optimizer, schedule and precision. open_clip pads texts to 77 tokens, as its users run it. Each
run is a process of its own; they take turns, and rates are medians. After the same number of pairs, R@10 on the test
split is told: speed must not be bought with learning.
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
from hf_pretext.evaluation.labelled_pairs import LabelledPairs, pair_figures
from hf_pretext.legacy.pairs import PairProcessing
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
from hf_pretext.interop.open_clip import from_open_clip
from hf_pretext.interop.open_clip_names import clip_text_names, renamed
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.utils.machine import cores, default_workers, describe, has_bf16, keep_freed_memory

EMOJI = Path(__file__).parent.parent / "recipes" / "data" / "emoji"
SIDE, WIDTH, LAYERS, WORDS, LENGTH, WARM = 64, 192, 4, 49_408, 77, 3
RATE, BETAS, EPSILON, DECAY = 1e-3, (0.9, 0.98), 1e-6, 0.2
TEXT = {"context_length": LENGTH, "vocab_size": WORDS, "width": WIDTH, "heads": 3, "layers": LAYERS}
TOWERS = {
    "vit": {"image_size": SIDE, "patch_size": 8, "width": WIDTH, "layers": LAYERS, "head_width": 64},
    "resnet": {"image_size": SIDE, "timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"},
}
CONTENDERS = ("ours", "open_clip")


class Both:
    """Tokenizer and image processor, as one."""

    def __init__(self):
        self.tokenizer, self.image_processor = tokenizer_of("ViT-B-32"), default_processor(SIDE)

    def save_pretrained(self, folder, **options):
        self.tokenizer.save_pretrained(folder)


def fresh(tower: str, seed: int):
    """The open_clip model that both start from."""
    set_seed(seed)
    return open_clip.model.CLIP(WIDTH, dict(TOWERS[tower]), dict(TEXT))


def in_our_words(tower: str, theirs) -> ContrastiveForPreTraining:
    """The same model, with the same weights."""
    if tower == "vit":
        return ContrastiveForPreTraining.from_encoder(from_open_clip(theirs))
    vision = TimmWrapperConfig(architecture="resnet10t", hidden_size=theirs.visual.trunk.num_features)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    ends = {"eos_token_id": WORDS - 1, "bos_token_id": WORDS - 2, "pad_token_id": WORDS - 1}
    text = CLIPTextConfig(
        vocab_size=WORDS, max_position_embeddings=LENGTH, num_attention_heads=3, hidden_act="gelu", **sizes, **ends
    )
    ours = ContrastiveForPreTraining.from_encoders(vision, text, WIDTH)
    whole, state = ours.whole, theirs.state_dict()
    whole.vision_model.timm_model.load_state_dict(theirs.visual.trunk.state_dict())
    whole.visual_projection.load_state_dict({"weight": state["visual.head.proj.weight"]})
    names = [same.back() for same in clip_text_names(LAYERS)]
    of_text = {name: value for name, value in whole.state_dict().items() if name.startswith("text_")}
    state = {name: state[name] for same in names for name in same.ours}
    whole.load_state_dict(renamed(state, of_text, names, "open_clip's text tower"), strict=False)
    return ours


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def ours(tower: str, steps: int, batch: int, seed: int) -> dict:
    keep_freed_memory()  # as a recipe does
    processor, clock = Both(), Clock()
    images = Image(processor.image_processor, Augmentation(0.9, horizontal_flip=0.0, color_jitter=0.0))
    processing = Inputs(images, Text(processor.tokenizer, LENGTH), pair_label="text")
    source = open_source(str(EMOJI), needed=("image", "text"), columns={"text": "text"})
    model = in_our_words(tower, fresh(tower, seed)).train()
    model.freeze_unused({"pixel_values": torch.zeros(2, 3, SIDE, SIDE), **processing.noise(["text"])[1]})
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
            use_cpu=not torch.accelerator.is_available(),  # or bf16 would be refused on a CPU
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
    import open_clip_train.train as loop
    from open_clip_train.main import main as train

    ends, step = [], loop.backward

    def clocked(*arguments):
        step(*arguments)
        ends.append(time.perf_counter())  # the optimizer's share of the last step is the next one's

    loop.backward = clocked
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench.json").write_text(
            json.dumps({"embed_dim": WIDTH, "vision_cfg": TOWERS[tower], "text_cfg": TEXT})
        )
        open_clip.add_model_config(folder)
        torch.save(fresh(tower, seed).state_dict(), folder / "start.pt")
        rows = write_pictures(folder)
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
    """An open_clip model, asked as ours are: texts at the full 77 tokens."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def embed_images(self, pixel_values):
        return self.model.encode_image(pixel_values, normalize=True)

    def embed_texts(self, input_ids, attention_mask):
        ids = torch.zeros(len(input_ids), LENGTH, dtype=torch.long)
        ids[:, : input_ids.shape[1]] = input_ids * attention_mask
        return self.model.encode_text(ids, normalize=True)


def write_pictures(folder: Path) -> int:
    """The train split as files, as `open_clip_train` reads them. Returns how many."""
    data = datasets.load_dataset(str(EMOJI), split="train")
    (folder / "pictures").mkdir()
    with open(folder / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "text"])
        for i, row in enumerate(data):
            path = folder / "pictures" / f"{i}.png"
            to_rgb(row["image"]).save(path)
            writer.writerow([path, row["text"]])
    return len(data)


def rate(ends: list[float], batch: int) -> float:
    """Pairs per second after the first few steps."""
    return batch * (len(ends) - 1 - WARM) / (ends[-1] - ends[WARM])


def worth(model) -> dict[str, float]:
    """R@10 on test, from a picture to its name among all of the split's."""
    processing = PairProcessing(Image(default_processor(SIDE)), Both(), LENGTH)
    found = pair_figures(model, LabelledPairs(str(EMOJI), processing, "group"), ["{}"])
    return {"r10": found["image_to_text_r10"]}


def apart(contender: str, tower: str, epochs: int, batch: int, seed: int = 0) -> dict:
    """One contender in a process of its own."""
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
    found = {}
    for tower in options.towers:
        turns = [
            {name: apart(name, tower, options.epochs, options.batch, turn) for name in CONTENDERS}
            for turn in range(options.turns)
        ]
        found[tower] = turns
        print(f"{tower}, batches of {options.batch}, {options.steps} steps")
        ours_rate = statistics.median(turn["ours"]["rate"] for turn in turns)
        for name in CONTENDERS:
            speed = statistics.median(turn[name]["rate"] for turn in turns)
            worths = ", ".join(f"{turn[name]['r10']:.3f}" for turn in turns)
            print(f"  {name:9s} {speed:6.0f} pairs/s; ours has {ours_rate / speed:.2f} of its speed; R@10 {worths}")
    print(
        json.dumps(
            {
                **found,
                "machine": describe(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")),
            }
        )
    )


if __name__ == "__main__":
    main()
