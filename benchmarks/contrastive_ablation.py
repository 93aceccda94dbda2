"""What helps contrastive_emoji: its recipe with one thing changed at a time, and what pictures then find.

    python benchmarks/contrastive_ablation.py                               # each change, one seed each
    python benchmarks/contrastive_ablation.py --variants "as it is" "names alone" --seeds 0 1 2
    python benchmarks/contrastive_ablation.py --options --max_steps 100     # options for all of them

R@k from a picture to its name, on validation (167 names, which choices may go by) and on test (248 names).
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from transformers import BertConfig

RECIPES = Path(__file__).parent.parent / "recipes"
sys.path.insert(0, str(RECIPES))
SHOWN = {"R@1": "image_to_text_r1", "R@5": "image_to_text_r5", "R@10": "image_to_text_r10"}
VARIANTS = {
    "as it is": [],
    "names alone": ["--caption_weights", "1", "0"],
    "translations too": ["--other_captions", "keywords", "translations", "--caption_weights", "0.5", "0.3", "0.2"],
    "no augmentation": ["--crop_scale", "1", "--color_jitter", "0", "--horizontal_flip", "0"],
    "stronger augmentation": ["--crop_scale", "0.5", "--color_jitter", "0.4"],
    "never mirrored": ["--horizontal_flip", "0"],
    "label smoothing 0.1": ["--label_smoothing", "0.1"],
    "equal names are right": ["--positives", "label"],
    "sigmoid": ["--loss", "sigmoid"],
    "weight decay 0.1": ["--weight_decay", "0.1"],
    "twice the learning rate": ["--learning_rate", "2e-3"],
}
TOWERS = {
    "a BERT for the captions": {"text": "bert"},
    "4 text layers": {"text_layers": 4},
    "1 text layer": {"text_layers": 1},
    "half the picture widths": {"widths": (16, 32, 64, 128)},
}


def with_towers(encoder: Callable, towers: dict) -> Callable:
    """The recipe's encoder with some of its towers' sizes changed, or a BERT (without dropout) for the captions."""
    sizes = {name: value for name, value in towers.items() if name != "text"}

    def changed(*shape: int):
        config = encoder(*shape, **sizes)
        if towers.get("text") == "bert":
            own = config.text_config
            bert = BertConfig(
                vocab_size=own.vocab_size,
                hidden_size=own.hidden_size,
                num_hidden_layers=own.num_hidden_layers,
                num_attention_heads=own.num_attention_heads,
                intermediate_size=own.intermediate_size,
                max_position_embeddings=own.max_position_embeddings,
                pad_token_id=own.pad_token_id,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
            config = type(config).from_vision_text_configs(
                config.vision_config, bert, projection_dim=config.projection_dim
            )
        return config

    return changed


def run(options: list[str], towers: dict, seed: int) -> dict:
    """The recipe with some options and towers: its speed, and what pictures find on validation and test."""
    spec = importlib.util.spec_from_file_location("contrastive_emoji", RECIPES / "contrastive_emoji.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["--output_dir", folder, "--eval_dataset", "none", "--save_strategy", "no", "--disable_tqdm", "True"]
        changed = dataclasses.replace(module.recipe, encoder=with_towers(module.recipe.encoder, towers))
        done = changed.main([*quiet, "--seeds", str(seed), *options])

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
