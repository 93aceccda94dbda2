"""Ablation of the recipe contrastive_emoji: changes one setting at a time and measures retrieval.

    python benchmarks/contrastive_ablation.py                               # all variants, one seed: hours on 2 cores
    python benchmarks/contrastive_ablation.py --variants "names alone" --seeds 0 1 2 --jobs 4
    python benchmarks/contrastive_ablation.py --seconds 200 --options --max_steps 300   # options for all runs
    python benchmarks/contrastive_ablation.py --of runs/contrastive_emoji   # measures a trained model

The metric is R@k with images as queries and names as candidates: on validation (167 names, for choosing settings) and
on test (248 names). The results are written as one table to benchmarks/contrastive_ablation.md (--output). The last
columns are R@10 on test for three groups of names: all, some or none of the words occur in names of train. Names
without a known word are rarely retrieved. Each run is a separate process; --jobs sets how many run at a time.
"""

import argparse
import dataclasses
import json
import re
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ablation import QUIET, recipe_of, run_all, where

HERE = Path(__file__).parent
SHOWN = {"R@1": "image_to_text_r1", "R@5": "image_to_text_r5", "R@10": "image_to_text_r10"}
KNOWN = ("all words known", "some", "none")
COLUMNS = [*(f"{split} {name}" for split in ("validation", "test") for name in SHOWN), *KNOWN]
SMALL = frozenset(["a", "and", "for", "in", "of", "on", "the", "to", "with"])


def bert(vocab_size: int, max_length: int, pad_token_id: int, width: int, layers: int):
    """Returns the config of a BERT without dropout, with the width and the layers of the recipe."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 4,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def vit(image_size: int):
    """Returns the config of the ViT of benchmarks/contrastive.py. It takes about 3 times the work of the ResNet."""
    from transformers import ViTConfig

    return ViTConfig(
        image_size=image_size,
        patch_size=8,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=768,
    )


VARIANTS = {  # options: of the recipe. sizes: of its encoders. vision, text: other encoders. start: pretrains one
    "as it is": {},
    "equal names are right (UniCL)": {"options": ["--positives", "label"]},
    "label smoothing 0.1": {"options": ["--label_smoothing", "0.1"]},
    "translations too": {
        "options": ["--other_captions", "keywords", "translations", "--caption_weights", "0.4", "0.4", "0.2"]
    },
    "names alone": {"options": ["--caption_weights", "1", "0"]},
    "weaker crops (0.75)": {"options": ["--crop_scale", "0.75"]},
    "no augmentation": {"options": ["--crop_scale", "1", "--color_jitter", "0", "--horizontal_flip", "0"]},
    "stronger colours (0.4)": {"options": ["--color_jitter", "0.4"]},
    "never mirrored": {"options": ["--horizontal_flip", "0"]},
    "4,000 tokens": {"options": ["--vocab_size", "4000"]},
    "1,000 tokens": {"options": ["--vocab_size", "1000"]},
    "sigmoid": {"options": ["--loss", "sigmoid"]},
    "weight decay 0.1": {"options": ["--weight_decay", "0.1"]},
    "twice the learning rate": {"options": ["--learning_rate", "2e-3"]},
    "half the learning rate": {"options": ["--learning_rate", "5e-4"]},
    "1 text layer": {"sizes": {"text_layers": 1}},
    "4 text layers": {"sizes": {"text_layers": 4}},
    "half the image widths": {"sizes": {"widths": (16, 32, 64, 128)}},
    "one and a half times the image widths": {"sizes": {"widths": (48, 96, 192, 384)}},
    "a ViT for the images": {"vision": vit},
    "BERT for the captions": {"text": bert},
    "images start from rotation": {"start": "rotation_emoji"},
    "BERT starts from masked LM on reviews": {"text": bert, "start": "masked_lm_reviews"},
}


def with_towers(encoder: Callable, variant: dict) -> Callable:
    """Returns the encoder function of a recipe with the sizes or encoders of a variant."""

    def changed(image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int):
        sizes = variant.get("sizes", {})
        config = encoder(image_size, vocab_size, max_length, pad_token_id, eos_token_id, **sizes)
        vision, text = config.vision_config, config.text_config
        if "vision" in variant:
            vision = variant["vision"](image_size)
        if "text" in variant:
            text = variant["text"](vocab_size, max_length, pad_token_id, text.hidden_size, 2)
        return type(config).from_vision_text_configs(vision, text, projection_dim=config.projection_dim)

    return changed


def started(name: str, recipe, folder: str) -> list[str]:
    """Pretrains one encoder with another recipe, with 4 times its batch size. Returns the options that load it."""
    first = recipe_of(name)
    if name == "rotation_emoji":
        vision = recipe.encoder(64, 100, 32, 0, 1).vision_config
        encoder, option = (lambda image_size: vision), "--image_encoder"
    else:
        encoder, option = partial(bert, width=192, layers=2), "--text_encoder"
    batch = str(4 * first.settings["per_device_train_batch_size"])
    given = [*QUIET, "--output_dir", folder, "--seeds", "0", "--per_device_train_batch_size", batch]
    dataclasses.replace(first, encoder=encoder).main(given)
    return [option, folder]


def run(name: str, seed: int, options: list[str]) -> dict:
    """Trains one variant. Returns the number of steps and the retrieval metrics."""
    variant, recipe = VARIANTS[name], recipe_of("contrastive_emoji")
    with tempfile.TemporaryDirectory() as folder:
        start = started(variant["start"], recipe, f"{folder}/start") if "start" in variant else []
        changed = dataclasses.replace(recipe, encoder=with_towers(recipe.encoder, variant))
        given = [*options, *variant.get("options", []), *start]
        done = changed.main([*QUIET, "--output_dir", f"{folder}/run", "--seeds", str(seed), *given])
        return {"steps": done["seeds"][0]["steps"], **measured(f"{folder}/run")}


def measured(folder: str) -> dict:
    """Returns R@k of a trained model on validation and test, and R@10 on test by known words of the name."""
    import datasets
    import torch
    from transformers import AutoProcessor

    import hf_pretext
    from hf_pretext.cards import read_results
    from hf_pretext.evaluation.labelled_set import LabelledSet
    from hf_pretext.evaluation.measure import Subject
    from hf_pretext.evaluation.retrieval import ids, numbered, ranks, retrieval
    from hf_pretext.modalities import Inputs
    from hf_pretext.modalities.image import Image
    from hf_pretext.modalities.text import Text

    processor, data = AutoProcessor.from_pretrained(folder), recipe_of("contrastive_emoji").settings["eval_dataset"]
    texts = Text(processor.tokenizer, read_results(folder)["max_length"])
    labelled = LabelledSet(data, Inputs(Image(processor.image_processor), texts, pair_label="text"), "group")
    subject, recalls = Subject(hf_pretext.load(folder).eval(), labelled), {}
    for split in ("validation", "test"):
        with torch.no_grad():
            images, texts = subject.embeddings("image", split), subject.caption_embeddings(split)[1]
        pair_ids, names = ids(labelled, split)
        metrics = retrieval(images, texts, pair_ids, names)
        recalls |= {f"{split} {name}": metrics[key] for name, key in SHOWN.items()}
    hits = ranks(images, texts, *numbered(pair_ids, names)) <= 10
    known = set().union(*map(words_of, datasets.load_dataset(data, split="train")["text"]))
    known_share = torch.tensor([len(words_of(name) & known) / len(words_of(name)) for name in pair_ids])
    which = {
        "all words known": known_share == 1,
        "some": (known_share > 0) & (known_share < 1),
        "none": known_share == 0,
    }
    return recalls | {name: hits[mask].float().mean().item() for name, mask in which.items()}


def words_of(name: str) -> set[str]:
    """Returns the words of a name, without those of `SMALL` if others remain."""
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    return words - SMALL or words or {name}


def table(results: dict[str, list[dict]], options: list[str]) -> str:
    """Returns the page in Markdown, with means over seeds."""
    lines = [
        "Image-to-name retrieval, measured with `python benchmarks/contrastive_ablation.py"
        + (f" --options {' '.join(options)}" if options else "")
        + f'` on {where()}. Each row changes one setting of the recipe; "as it is" is the recipe without a change. The '
        "last three columns are R@10 on test for names whose words all, partly or never occur in names of train.",
        "",
        "| changed | seeds | steps | " + " | ".join(COLUMNS) + " |",
        "|---|--:|--:|" + "--:|" * len(COLUMNS),
    ]
    for name, runs in results.items():
        means = [statistics.mean(one[column] for one in runs) for column in COLUMNS]
        lines.append(f"| {name} | {len(runs)} | {runs[0]['steps']} | " + " | ".join(f"{m:.3f}" for m in means) + " |")
    return "\n".join([*lines, "", noise()]) + "\n"


def noise() -> str:
    """Returns a sentence with the differences that are within the spread over the seeds of the recipe."""
    from hf_pretext.cards import read_results

    trained = read_results(HERE.parent / "model_cards" / "contrastive_emoji")["measures"]["trained"]
    spreads = {name: trained[key]["std"] for name, key in SHOWN.items()}
    limits = ", ".join(f"{name} {2 * 2**0.5 * spread:.3f}" for name, spread in spreads.items())
    return (
        "Differences on test between two runs of one seed each are not significant if they are below twice the "
        f"standard deviation of such a difference: {limits}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="time limit; unfinished runs are left out (default: none)"
    )
    parser.add_argument("--output", type=Path, default=HERE / "contrastive_ablation.md")
    parser.add_argument("--of", help="folder of a trained model; only measures it")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="options of the recipe for all runs; must be last"
    )
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one[0], int(options.one[1]), options.options)))
        return
    if options.of:
        print("\n".join(f"{name}: {value:.3f}" for name, value in measured(options.of).items()))
        return
    longest_first = sorted(options.variants, key=lambda name: "start" not in VARIANTS[name])
    given = ["--options", *options.options]
    results = run_all([__file__], longest_first, options.seeds, options.jobs, options.seconds, given)
    options.output.write_text(table(results, options.options))
    print(options.output.read_text())


if __name__ == "__main__":
    main()
