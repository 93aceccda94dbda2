"""Transfer of an image encoder by its pretext task: captioning, contrastive, rotation and random, at equal images seen.

    python benchmarks/captioning_transfer.py                           # one seed each
    python benchmarks/captioning_transfer.py --seeds 0 1 2 --jobs 2    # with verdicts
    python benchmarks/captioning_transfer.py --smoke                   # test run with a tiny encoder
    python benchmarks/captioning_transfer.py --options --max_steps 300   # options for all runs

All train the ViT of recipes/captioning_emoji with the settings of that recipe: number of images seen, batch size,
augmentation, optimizer. Nothing is tuned for the others. Linear probe and kNN on the labelled emoji, top-1 on the test
split, at the layer with the best top-1 on validation. The table is written to benchmarks/captioning_transfer.md
(--output). Each run is a separate process; --jobs sets how many run at a time.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

from ablation import QUIET, recipe_of, run_all, where
from image_ablation import images_of

HERE = Path(__file__).parent
RANDOM = "random"
NAMES = (RANDOM, "rotation", "contrastive", "captioning")
METHODS = ("linear_probe", "knn")
OF_TEXTS = ("text_column", "other_captions", "caption_weights", "prompts", "max_length", "vocab_size")
SMOKE_ROWS = 64  # of each split


def image_config(make, image_size: int):
    """Returns the config of the image encoder of a captioning model. make: function that returns the model's config."""
    return make(image_size=image_size, vocab_size=100, max_length=32, pad_token_id=0, eos_token_id=1).encoder


def two_towers(make, image_size: int, **text_sizes):
    """Returns the config of that image encoder, with the text encoder of the contrastive recipes on emoji."""
    from transformers import VisionTextDualEncoderConfig

    from hf_pretext.presets.pairs import resnet_and_transformer

    text = resnet_and_transformer(image_size, **text_sizes).text_config
    vision = image_config(make, image_size)
    return VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=text.hidden_size)


def recipe_for(name: str):
    """Returns a recipe that trains the ViT of captioning_emoji by an objective, with the settings of that recipe."""
    from hf_pretext import Recipe

    it = recipe_of("captioning_emoji")
    if name == "captioning":
        return it
    if name == "rotation":
        left_out, encoders = OF_TEXTS, [of_size(make) for make in (it.encoder, it.smoke_encoder)]
    else:
        left_out, encoders = (), [of_pair(make) for make in (it.encoder, it.smoke_encoder)]
    settings, smoke = ({k: v for k, v in some.items() if k not in left_out} for some in (it.settings, it.smoke))
    return Recipe(name, name, __doc__, *encoders, settings, smoke)


def of_size(make):
    """Returns a function for `Recipe` that makes the image encoder."""

    def vit(image_size: int):
        return image_config(make, image_size)

    return vit


def of_pair(make):
    """Returns a function for `Recipe` that makes both encoders."""

    def pair(image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int):
        sizes = {"vocab_size": vocab_size, "max_length": max_length, "pad_token_id": pad_token_id}
        return two_towers(make, image_size, eos_token_id=eos_token_id, **sizes)

    return pair


def run(name: str, seed: int, smoke: bool, given: list[str]) -> dict:
    """Trains one encoder, or makes a random one. Returns the images it saw, the minutes and top-1 by method."""
    import hf_pretext
    from hf_pretext.evaluation.comparison import encoder_transfer
    from hf_pretext.evaluation.labelled_set import LabelledSet
    from hf_pretext.modalities import Inputs

    begun, it = time.perf_counter(), recipe_for("rotation" if name == RANDOM else name)
    labelled = partial(LabelledSet, it.settings["eval_dataset"], label="group", limit=SMOKE_ROWS if smoke else None)
    if name == RANDOM:
        encoder, images, seen, seconds = *random_encoder(it, seed, smoke, given), 0, 0.0
    else:
        with tempfile.TemporaryDirectory() as folder:
            options = [*QUIET, "--output_dir", f"{folder}/run", *(["--smoke"] if smoke else []), *given]
            done = it.main([*options, "--seeds", str(seed)])
            encoder, images = hf_pretext.load(f"{folder}/run").eval().encoders["image"], images_of(f"{folder}/run")
        seen, seconds = done["seeds"][0]["samples_seen"], time.perf_counter() - begun
    transfer = encoder_transfer(encoder, labelled(inputs=Inputs(images)), "image")
    return {"seen": seen, "minutes": seconds / 60, **{name: transfer[name]["test"]["top1"] for name in METHODS}}


def random_encoder(it, seed: int, smoke: bool, given: list[str]):
    """Returns the encoder with random weights, and the modality of its images."""
    from transformers import AutoModel, set_seed

    from hf_pretext.modalities.image import Image, default_processor

    set_seed(seed)
    size = int(given[given.index("--image_size") + 1]) if "--image_size" in given else it.settings["image_size"]
    return AutoModel.from_config((it.smoke_encoder if smoke else it.encoder)(size)).eval(), Image(
        default_processor(size)
    )


def page(results: dict[str, list[dict]], command: str) -> str:
    """Returns the table in Markdown: means and standard deviations over seeds."""
    from hf_pretext.cards.tables import figure
    from hf_pretext.evaluation.transfer import beats, mean_and_spread

    lines = [
        f"Transfer of one ViT by its pretext task on emoji, measured with `{command}` on {where()}. All runs have the "
        "settings of recipes/captioning_emoji and see the same number of images; rotation encodes each of them in "
        "four orientations. Top-1 accuracy on the test split, mean ± standard deviation over seeds. Bold: above random "
        "by more than twice the spread, with at least 3 seeds.",
        "",
        "| pretraining | seeds | images seen | minutes | linear probe | kNN |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    values = {
        name: {method: mean_and_spread([one[method] for one in runs]) for method in METHODS}
        for name, runs in results.items()
    }
    for name, runs in results.items():
        cells = []
        for method in METHODS:
            ours, other = values[name][method], values.get(RANDOM, {}).get(method)
            better = name != RANDOM and other is not None and beats(ours, other)
            cells.append(f"**{figure(ours)}**" if better else figure(ours))
        minutes = sum(one["minutes"] for one in runs) / len(runs)
        lines.append(f"| {name} | {len(runs)} | {runs[0]['seen']:,} | {minutes:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretraining", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time limit (default: none)")
    parser.add_argument("--output", type=Path, default=HERE / "captioning_transfer.md")
    parser.add_argument("--smoke", action="store_true", help="test run with a tiny encoder; prints the table only")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="options for all runs; must be last")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one[0], int(options.one[1]), options.smoke, options.options)))
        return
    given = [*(["--smoke"] if options.smoke else []), "--options", *options.options]
    results = run_all([__file__], options.pretraining, options.seeds, options.jobs, options.seconds, given)
    changed = " ".join(
        ["--seeds", *map(str, options.seeds), *(["--options", *options.options] * bool(options.options))]
    )
    text = page(results, f"python benchmarks/captioning_transfer.py {changed}")
    if not options.smoke:  # metrics of a test run would replace measured ones
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
