"""What helps contrastive_emoji: its recipe with one thing changed at a time, and what pictures then find.

    python benchmarks/contrastive_ablation.py                               # each change, one seed each
    python benchmarks/contrastive_ablation.py --variants "as it is" "no keywords" --seeds 0 1 2
    python benchmarks/contrastive_ablation.py --options --max_steps 100     # options for all of them

R@k from a picture to its name, on validation (167 names, which choices may go by) and on test (248 names).
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "recipes"
sys.path.insert(0, str(RECIPES))
SHOWN = {"R@1": "image_to_text_r1", "R@5": "image_to_text_r5", "R@10": "image_to_text_r10"}
VARIANTS = {
    "as it is": [],
    "names alone": ["--other_captions", "keywords", "--caption_weights", "1", "0"],
    "no translations": ["--other_captions", "keywords"],
    "no keywords": ["--other_captions", "translations"],
    "no augmentation": ["--crop_scale", "1", "--color_jitter", "0", "--hue", "0",
                        "--grayscale", "0"],
    "never mirrored": ["--horizontal_flip", "0"],
    "stronger crops": ["--crop_scale", "0.3"],
    "label smoothing 0.1": ["--label_smoothing", "0.1"],
    "equal names are right": ["--positives", "label"],
    "sigmoid": ["--loss", "sigmoid"],
    "weight decay 0.5": ["--weight_decay", "0.5"],
    "half the learning rate": ["--learning_rate", "5e-4"],
}  # fmt: skip
TOWERS = {
    "4 text layers": {"text_layers": 4},
    "text width 128": {"text_width": 128},
    "half the picture widths": {"widths": (16, 32, 64, 128)},
    "deeper picture tower": {"depths": (3, 4, 6, 3)},
}


def run(options: list[str], towers: dict, seed: int) -> dict:
    """The recipe with some options and towers: its speed, and what pictures find on validation and test."""
    spec = importlib.util.spec_from_file_location("contrastive_emoji", RECIPES / "contrastive_emoji.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["--output_dir", folder, "--eval_dataset", "none", "--save_strategy", "no", "--disable_tqdm", "True"]
        encoder = functools.partial(module.recipe.encoder, **towers)
        done = dataclasses.replace(module.recipe, encoder=encoder).main([*quiet, "--seeds", str(seed), *options])

        from transformers import AutoProcessor

        import hf_pretext
        from hf_pretext.data.pairs import PairProcessing
        from hf_pretext.data.processing import ImageProcessing
        from hf_pretext.evaluation.labelled_pairs import LabelledPairs, pair_figures

        processor = AutoProcessor.from_pretrained(folder)
        processing = PairProcessing(ImageProcessing(processor.image_processor), processor, done["max_length"])
        labelled = LabelledPairs(module.recipe.settings["eval_dataset"], processing, "group")
        model = hf_pretext.load(folder)
        found = {split: pair_figures(model, labelled, split=split) for split in ("validation", "test")}
    figures = {f"{split} {name}": found[split][key] for split in found for name, key in SHOWN.items()}
    return {"pairs/s": done["seeds"][0]["samples_per_second"], **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS, *TOWERS], default=[*VARIANTS, *TOWERS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of the recipe, for all; comes last")
    options = parser.parse_args()
    table = {}
    for name in options.variants:
        runs = [run([*options.options, *VARIANTS.get(name, [])], TOWERS.get(name, {}), seed) for seed in options.seeds]
        table[name] = {key: statistics.mean(one[key] for one in runs) for key in runs[0]}
        print(f"{name:28s}" + "  ".join(f"{key} {value:.3f}" for key, value in table[name].items()), flush=True)
    print(json.dumps(table))


if __name__ == "__main__":
    main()
