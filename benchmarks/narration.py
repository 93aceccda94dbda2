"""MIL-NCE on narrations that are shifted in time: a bag of the nearest ones against the nearest one alone.

    python benchmarks/narration.py                            # 3 seeds of bag of 3, nearest and the random encoder
    python benchmarks/narration.py --variants nearest --seeds 0 1 2 3 4 --jobs 2
    python benchmarks/narration.py --options --num_train_epochs 10   # options for all runs
    python benchmarks/narration.py --smoke                    # a test of all steps on the bundled share

The recipe mil_nce_babyai trains on the narrated films of recipes/data/babyai.py: five missions joined, narrations
shifted by about the length of a mission, one in five replaced by words without a mission. A clip lasts as long as a
mission, and there are as many clips as in the recipe. Measured on test: retrieval of sentences and films among single
missions, which are aligned and shown in full, and temporal localization: the window of a narrated film that is nearest
to the true sentence of each of its missions. Next to it are chance, the random encoder, and the times of the narrations
themselves. The table is written to benchmarks/narration.md (--output). Each run is a separate process; --jobs sets how
many run at a time.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from ablation import QUIET, RECIPES, recipe_of, run_all, where

from hf_pretext.samples import SAMPLES

HERE = Path(__file__).parent
EMBEDDED = SAMPLES / "babyai_films"
CLIP = 6.0  # seconds: a mission lasts 2.5 to 16 s, half of them less than 6 s
MISSIONS = 5  # of a film: so many epochs more, to train on as many clips as the recipe
TRAINED = ["--text_column", "json.text", "--full_video", "False", "--seconds", f"{CLIP:g}"]
VARIANTS = {
    "bag of 3": ["--positives", "bag", "--bag_size", "3"],
    "bag of 5": ["--positives", "bag", "--bag_size", "5"],
    "nearest": ["--positives", "nearest"],
}
RANDOM, CHANCE, NARRATIONS = "random encoder", "chance", "times of the narrations"
TRUE = {"text": "json.mission", "true_start": "json.true_start", "true_end": "json.true_end"}
SHOWN = {  # column -> metric, and its format
    "sentence to film, R@1": ("text_to_video_r1", "{:.3f}"),
    "R@5": ("text_to_video_r5", "{:.3f}"),
    "film to sentence, R@1": ("video_to_text_r1", "{:.3f}"),
    "localization, R@1": ("localization_r1", "{:.3f}"),
    "median error (s)": ("localization_median_seconds", "{:.2f}"),
}
SMOKE = ["--smoke", "--save_steps", "1000"]


def data_of(name: str, smoke: bool) -> str:
    """Returns a folder of films by its name. Builds them on the first call; smoke: those of this repository."""
    if smoke:
        return str(EMBEDDED / name)
    sys.path.insert(0, str(RECIPES / "data"))
    import babyai

    return str(getattr(babyai, name)())


def run(name: str, seed: int, smoke: bool, given: list[str]) -> dict:
    """Trains one variant, or makes a random encoder. Returns its metrics, chance, and the metrics of the narrations'
    times."""
    import hf_pretext

    began, recipe = time.monotonic(), recipe_of("mil_nce_babyai")
    with tempfile.TemporaryDirectory() as folder:
        variant = VARIANTS["nearest" if name == RANDOM else name]
        length = ["--max_steps", "1"] if name == RANDOM else []  # its weights are drawn again
        epochs = ["--num_train_epochs", str(MISSIONS * recipe.settings["num_train_epochs"])]
        places = ["--dataset", data_of("babyai_narrated", smoke), "--output_dir", folder, "--seeds", str(seed)]
        done = recipe.main([*QUIET, *(SMOKE if smoke else []), *TRAINED, *epochs, *places, *given, *variant, *length])
        model = hf_pretext.load(folder).eval()
        model = with_random_weights(model, seed) if name == RANDOM else model
        metrics = measured(model, folder, smoke)
    steps = 0 if name == RANDOM else done["seeds"][0]["steps"]
    return {"steps": steps, "minutes": (time.monotonic() - began) / 60, **metrics}


def with_random_weights(model, seed: int):
    """Returns a model of the same settings with random weights."""
    import dataclasses

    from transformers import set_seed

    set_seed(seed)
    return type(model).from_encoder(model.full_model.config, **dataclasses.asdict(model.task)).eval()


def measured(model, folder: str, smoke: bool) -> dict:
    """Returns the metrics of a model on test, by who: "metrics", "chance", "narrations"."""
    from transformers import AutoTokenizer

    from hf_pretext.cards import read_results
    from hf_pretext.evaluation.labelled_set import LabelledSet
    from hf_pretext.evaluation.localization import described
    from hf_pretext.evaluation.measure import chance_levels, measure_model
    from hf_pretext.evaluation.timed_films import TimedFilms
    from hf_pretext.modalities import Inputs
    from hf_pretext.modalities.text import Text
    from hf_pretext.modalities.video import Video

    facts = read_results(folder)
    texts = Text(AutoTokenizer.from_pretrained(f"{folder}/text"), facts["max_length"])
    clips = Video.from_saved(f"{folder}/video", model.encoders["video"], folder)
    films = Video(clips.processor, clips.frames)  # frames spread over each film
    films.fit(model.encoders["video"])
    single = data_of("babyai", smoke)
    labelled = LabelledSet(single, Inputs(films, texts), "json.level", {"text": "json.text"})
    labelled.timed = TimedFilms(data_of("babyai_narrated", smoke), Inputs(clips, texts), TRUE)
    return {
        "metrics": measure_model(model, labelled),
        "chance": chance_levels(model, labelled),
        "narrations": described(labelled)["localization"]["subtitles"],
    }


def table(results: dict[str, list[dict]], smoke: bool, given: list[str]) -> str:
    """Returns the page in Markdown: mean and standard deviation over seeds."""
    options = " --smoke" * smoke + (f" --options {' '.join(given)}" if given else "")
    some = next(iter(results.values()))[0]
    lines = [
        "MIL-NCE (recipe mil_nce_babyai) on narrated films, whose narrations are shifted in time, measured with "
        f"`python benchmarks/narration.py{options}` on {where()}. Clips of {CLIP:g} s. Mean ± standard deviation over "
        "seeds, on test. Retrieval is among single missions and their distinct sentences; localization looks for the "
        "true sentence of each mission in its narrated film, by windows of one clip, one each second. R@1: the middle "
        "of the nearest window is within the mission. Minutes are of training and evaluation.",
        "",
        "| trained with | seeds | steps | minutes a seed | " + " | ".join(SHOWN) + " |",
        "|---|--:|--:|--:|" + "--:|" * len(SHOWN),
    ]
    for name, runs in results.items():
        minutes = statistics.mean(one["minutes"] for one in runs)
        cells = [shown([one["metrics"][metric] for one in runs], form) for metric, form in SHOWN.values()]
        trained = (f"{runs[0]['steps']:,}", f"{minutes:.1f}") if name != RANDOM else ("", "")
        lines.append(f"| {name} | {len(runs)} | {' | '.join([*trained, *cells])} |")
    for name, key in ((NARRATIONS, "narrations"), (CHANCE, "chance")):
        cells = [form.format(some[key][metric]) if metric in some[key] else "" for metric, form in SHOWN.values()]
        lines.append(f"| {name} | | | | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *verdicts(results)]) + "\n"


def shown(values: list[float], form: str) -> str:
    """Formats the mean and, of several values, the standard deviation."""
    spread = f" ± {form.format(statistics.stdev(values))}" if len(values) > 1 else ""
    return form.format(statistics.mean(values)) + spread


def verdicts(results: dict[str, list[dict]]) -> list[str]:
    """Returns sentences: in which metrics each variant beats the random encoder, and each bag and the nearest narration
    alone beat each other, by more than twice the spread over seeds. No verdict with fewer than 3 seeds of one."""
    trained, bags = [n for n in results if n != RANDOM], [n for n in results if n.startswith("bag")]
    pairs = [(name, RANDOM) for name in trained if RANDOM in results]
    pairs += [pair for bag in bags if "nearest" in results for pair in ((bag, "nearest"), ("nearest", bag))]
    lines = []
    for first, second in pairs:
        if min(len(results[first]), len(results[second])) < 3:
            lines.append(f"- {first} and {second}: no verdict, which needs 3 seeds of each.")
        else:
            columns = ", ".join(better_in(results[first], results[second])) or "no metric"
            lines.append(f"- {first} is better than {second} in {columns}.")
    return ["By more than twice the spread over seeds:", "", *lines] if lines else []


def better_in(first: list[dict], second: list[dict]) -> list[str]:
    """Returns the columns of the table in which runs are better than others, by more than twice the spread."""
    from hf_pretext.evaluation.transfer import beats, mean_and_spread

    columns = []
    for column, (metric, _) in SHOWN.items():
        pair = [mean_and_spread([one["metrics"][metric] for one in runs]) for runs in (first, second)]
        if beats(*(reversed(pair) if metric.endswith("seconds") else pair)):
            columns.append(column)
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--variants", nargs="+", choices=[*VARIANTS, RANDOM], help="default: bag of 3, nearest and the random encoder"
    )
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time limit (default: none)")
    parser.add_argument("--smoke", action="store_true", help="tiny encoders on the bundled share, one seed")
    parser.add_argument("--output", type=Path, help="default: benchmarks/narration.md; with --smoke: none")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="options for all runs; must be last")
    options = parser.parse_args()
    if options.one:
        name, seed = options.one
        print(json.dumps(run(name, int(seed), options.smoke, options.options)))
        return
    variants = options.variants or ["bag of 3", "nearest", RANDOM]
    seeds = options.seeds or ([0] if options.smoke else [0, 1, 2])
    script, given = [__file__, *(["--smoke"] if options.smoke else [])], ["--options", *options.options]
    for name in ("babyai", "babyai_narrated"):
        data_of(name, options.smoke)  # before several processes need it
    results = run_all(script, variants, seeds, options.jobs, options.seconds, given)
    if not results:
        sys.exit("error: no run finished.")
    page = table(results, options.smoke, options.options)
    output = options.output or (None if options.smoke else HERE / "narration.md")
    if output is not None:
        output.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
