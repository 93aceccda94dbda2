"""Ablations of the recipes on emoji images: changes one setting at a time and measures pretext task and transfer.

    python benchmarks/image_ablation.py shortcuts                    # jigsaw with and without its shortcuts: see below
    python benchmarks/image_ablation.py jigsaw_emoji                 # settings of a recipe
    python benchmarks/image_ablation.py shortcuts --variants "without gap" --seeds 0 1 2 --jobs 2
    python benchmarks/image_ablation.py shortcuts --options --max_steps 300    # options for all runs

One seed each. Transfer: linear probe and kNN, top-1 on the test split, at the layer with the best top-1 on validation,
as in the recipes. The random encoder has three seeds. The table is written to benchmarks/image_ablation_<name>.md
(--output). Each run is a separate process; --jobs sets how many run at a time.

Shortcuts: a network can solve a jigsaw puzzle without understanding the image, by edges and colours that continue from
tile to tile, by their brightness, and by chromatic aberration, which grows from the centre of a lens. "a lens": the
images that it trains on, and those of the pretext task on test, have their red channel enlarged by 2 % about the
centre. Transfer is always measured on the images as they are.
"""

import argparse
import io
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path

from ablation import QUIET, recipe_of, run_all, where

HERE = Path(__file__).parent
MAGNIFIED = 1.02  # of the red channel, by a lens
LENS = "lens"  # key of a variant: its images are seen through a lens
RANDOM, RANDOM_SEEDS = "random encoder", (0, 1, 2)
COLORS_KEPT = ["--gray_share", "0", "--standardize", "False", "--color_jitter", "0.4"]
SETTINGS = {  # of a recipe: what is changed -> options
    "shortcuts": {
        "as it is": [],
        "without gap": ["--gap", "0"],
        "without standardisation": ["--standardize", "False"],
        "without gap and standardisation": ["--gap", "0", "--standardize", "False"],
        "a lens": [LENS],
        "a lens, channels moved by up to 2 pixels": [LENS, "--channel_shift", "2"],
        "a lens, all images grey": [LENS, "--gray_share", "1"],
    },
    "jigsaw_emoji": {
        "as it is": [],
        "2 x 2 tiles": ["--grid", "2", "--num_permutations", "24"],
        "colours kept: no grey images, no standardisation, more jitter": COLORS_KEPT,
        "whole emoji (crops of 0.7 or more)": ["--crop_scale", "0.7"],
        "colours kept, whole emoji": [*COLORS_KEPT, "--crop_scale", "0.7"],
        "colours kept, whole emoji, 200 permutations": [
            *COLORS_KEPT,
            "--crop_scale",
            "0.7",
            "--num_permutations",
            "200",
        ],
        "small crops (0.1 or more)": ["--crop_scale", "0.1"],
        "200 permutations": ["--num_permutations", "200"],
        "images of 128 pixels": ["--image_size", "128"],
    },
    "relative_position_emoji": {
        "as it is": [],
        "two channels dropped": ["--color", "drop", "--standardize", "False"],
        "colours kept": ["--color", "keep", "--standardize", "False"],
        "whole emoji (crops of 0.7 or more)": ["--crop_scale", "0.7"],
        "small crops (0.1 or more)": ["--crop_scale", "0.1"],
        "half of the tiles pixelated": ["--pixelated_share", "0.5"],
        "images of 128 pixels": ["--image_size", "128"],
    },
}
RECIPE_OF = {"shortcuts": "jigsaw_emoji"}  # other tables have the name of their recipe


def data_of(recipe) -> str:
    """Returns the folder of a recipe's data."""
    return recipe.settings.get("eval_dataset") or recipe.fetch["eval_dataset"]()


def through_lens(folder: str, out: Path) -> str:
    """Writes the data of a folder of Parquet files as a lens shows it. Returns the new folder."""
    import pyarrow.parquet as pq

    out.mkdir()
    for path in sorted(Path(folder).glob("*.parquet")):
        table = pq.read_table(path)
        images = [{**image, "bytes": magnified(image["bytes"])} for image in table["image"].to_pylist()]
        column = table.schema.get_field_index("image")
        pq.write_table(table.set_column(column, table.schema.field(column), [images]), out / path.name)
    return str(out)


def magnified(encoded: bytes) -> bytes:
    """Returns an image as PNG, on white, with its red channel enlarged about the centre."""
    from PIL import Image

    image = Image.open(io.BytesIO(encoded)).convert("RGBA")
    red, green, blue, _ = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).split()
    scale, (width, height) = 1 / MAGNIFIED, image.size
    back = (scale, 0, width / 2 * (1 - scale), 0, scale, height / 2 * (1 - scale))  # from a new pixel to its source
    red = red.transform(image.size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    Image.merge("RGB", (red, green, blue)).save(file, "PNG")
    return file.getvalue()


def run(table: str, name: str, seed: int, given: list[str]) -> dict:
    """Trains one variant, or makes a random encoder. Returns the number of steps, the pretext metrics and transfer."""
    import hf_pretext

    recipe = recipe_of(RECIPE_OF.get(table, table))
    if name == RANDOM:
        return {"steps": 0, "pretext": {}, **random_transfers(recipe, given)}
    data, changed = data_of(recipe), SETTINGS[table][name]
    with tempfile.TemporaryDirectory() as folder:
        seen = through_lens(data, Path(folder) / "lens") if LENS in changed else data
        options = [option for option in changed if option != LENS]
        quiet = [*QUIET, *(["--fine_tune", "0"] if "fine_tune" in recipe.settings else [])]
        places = ["--dataset", seen, "--output_dir", f"{folder}/run", "--seeds", str(seed)]
        done = recipe.main([*quiet, *places, *given, *options])
        model, images = hf_pretext.load(f"{folder}/run").eval(), images_of(f"{folder}/run")
        return {"steps": done["seeds"][0]["steps"], **measured(recipe, model, images, data, seen)}


def images_of(folder: str):
    """Returns the modality with the processor of a checkpoint."""
    from transformers import AutoImageProcessor

    from hf_pretext.modalities.image import Image

    return Image(AutoImageProcessor.from_pretrained(folder))


def labelled_set(images, data: str):
    """Returns the labelled set of emoji."""
    from hf_pretext.evaluation.labelled_set import LabelledSet
    from hf_pretext.modalities import Inputs

    return LabelledSet(data, Inputs(images), "group")


def fine_tuning(recipe):
    """Returns the settings of fine-tuning of a recipe; None if it has none."""
    from hf_pretext.evaluation.fine_tune import FineTuning
    from hf_pretext.utils.machine import has_bf16

    return FineTuning(recipe.settings["fine_tune"], bf16=has_bf16(True)) if "fine_tune" in recipe.settings else None


def measured(recipe, model, images, data: str, seen: str) -> dict:
    """Returns the pretext metrics of a model on the images that it saw, and the transfer of its encoder."""
    from hf_pretext.evaluation.comparison import encoder_transfer, pretext_metrics

    labelled = labelled_set(images, data)
    pretext = pretext_metrics(model, (labelled if seen == data else labelled_set(images, seen)).pretext_batches("test"))
    transfer = encoder_transfer(model.encoder, labelled, "image", fine_tuning=fine_tuning(recipe))
    return {"pretext": pretext, **{name: each["test"]["top1"] for name, each in transfer.items()}}


def random_transfers(recipe, given: list[str]) -> dict:
    """Returns the mean transfer of the recipe's encoder with random weights, over `RANDOM_SEEDS`."""
    from transformers import AutoModel, set_seed

    from hf_pretext.evaluation.comparison import random_transfer
    from hf_pretext.evaluation.transfer import chosen_together
    from hf_pretext.modalities.image import Image, default_processor

    size = int(given[given.index("--image_size") + 1]) if "--image_size" in given else recipe.settings["image_size"]
    labelled, transfers = labelled_set(Image(default_processor(size)), data_of(recipe)), []
    for seed in RANDOM_SEEDS:
        set_seed(seed)
        build = partial(AutoModel.from_config, recipe.encoder(size))
        transfers.append(random_transfer(build, labelled, "image", fine_tuning=fine_tuning(recipe)))
    chosen = chosen_together(transfers)
    return {name: statistics.mean(each[name]["test"]["top1"] for each in chosen) for name in chosen[0]}


def page(table: str, results: dict[str, list[dict]], given: list[str]) -> str:
    """Returns the table in Markdown, with means over seeds."""
    every = [runs[0] for runs in results.values()]
    pretext = [name for name in max((one["pretext"] for one in every), key=len) if name != "loss"][:2]
    methods = [name for name in every[0] if name not in ("steps", "pretext")]
    command = f"python benchmarks/image_ablation.py {table}" + (f" --options {' '.join(given)}" if given else "")
    lines = [
        f"Recipe {RECIPE_OF.get(table, table)}, measured with `{command}` on {where()}. One seed for each trained "
        f"encoder; the random encoder is a mean over {len(RANDOM_SEEDS)}. Top-1 accuracy on the test split.",
        "",
        "| changed | steps | " + " | ".join([*(f"{name} (pretext)" for name in pretext), *methods]) + " |",
        "|---|--:|" + "--:|" * (len(pretext) + len(methods)),
    ]
    for name, runs in results.items():
        cells = [mean([one["pretext"].get(metric) for one in runs]) for metric in pretext]
        cells += [mean([one[method] for one in runs]) for method in methods]
        lines.append(f"| {name} | {runs[0]['steps']:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def mean(values: list) -> str:
    """Formats the mean of values, or a dash if they are None."""
    return "—" if None in values else f"{statistics.mean(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(SETTINGS))
    parser.add_argument("--variants", nargs="+", help="default: all of the table, and the random encoder")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time limit (default: none)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="options for all runs; must be last")
    options = parser.parse_args()
    known = [RANDOM, *SETTINGS[options.table]]
    if unknown := sorted({*(options.variants or [])} - {*known}):
        parser.error(f"no variant {', '.join(unknown)}. Known: {', '.join(known)}.")
    if options.one:
        print(json.dumps(run(options.table, options.one[0], int(options.one[1]), options.options)))
        return
    script, given = [__file__, options.table], ["--options", *options.options]
    results = run_all(script, options.variants or known, options.seeds, options.jobs, options.seconds, given)
    output = options.output or HERE / f"image_ablation_{options.table}.md"
    output.write_text(page(options.table, results, options.options))
    print(output.read_text())


if __name__ == "__main__":
    main()
