"""Which objective for which data: the rows of docs/which_task.md, and what `hf-pretext objectives` shows.

recorded results -> presets/measured.json, a page
"""

import json
import re
from pathlib import Path

from ..presets import CONTINUED_RATE, LARGE_EPOCHS, LARGE_ROWS, MOST_EPOCHS, Encoder, Preset
from ..registry import OBJECTIVES, described, modality_class, names, objective_class, preset
from .compare import Row, compared, differing_rows, labelled, markdown
from .results import device
from .summary import BOLD, listed, notes, probe, rankings
from .tables import figure

SAME = 0.02  # relative difference of numbers of samples
CRITERIA_IMAGE = "which_task.png"  # in docs/
FETCHED = "$HF_HOME/hf_pretext/"  # where recipes keep data that they download
MEASURED = Path(__file__).parent.parent / "presets" / "measured.json"
PAGE = """# Which task for which data?

Made by `make cards` from the recorded results in `model_cards/`: each number comes from a recorded run. `hf-pretext \
train OBJECTIVE --dataset path/to/data` starts from these settings for small data, with one seed \
([presets](presets.md)). {needs}

- Training samples: rows of the training data; seen: samples in all epochs. Parameters: of all encoders. Minutes: of \
one seed, on {processors}.
- Each number is of one encoder, whose kind of data stands before the label: a linear probe on its frozen features, \
with the most labels that were measured. Accuracies are on the test split; mean ± standard deviation over seeds.
- {bold} Best baseline: the best without an encoder, among raw pixels, TF-IDF, log-mel and the majority class.
- Rows with different labels can't be compared. Each recipe trained on {least:,} to {most:,} samples{devices}.
- `json.game`: the Atari game of a video. `json.level`: the kind of mission in a BabyAI video. `group`: the group of \
an emoji. `sentiment`: that of a film review.

"""
RANKED = """## On the same data and label

Top-1 accuracy of the best recipe of each objective, with the gain over random in parentheses; bold as above. \
Encoders, training data and samples seen differ, so small differences say nothing. Start with an objective near \
the front, and compare on labels of your own (`hf-pretext evaluate`). A verdict needs three seeds (`--seeds 0 1 2`).

"""
CRITERIA = """## By five criteria

Audited recipes ([audit](audit.md)), those with one label together: what the best single cue reveals, in % of the bits \
of the model's answers; what the first encoder knows more than random ones, of the label and of all other properties \
together; how many bits of the task one answer holds, and how many more on train; the linear probe over random; and \
what that cost. They are never one grade. [results.md](results.md) has the spreads, and what beats a random \
encoder. A dash is what was not measured. `hf-pretext compare` prints this table for runs of yours, and trains \
several objectives on your data. In the image, the number of the table stands after the name.

![Bars of each criterion for each audited recipe]({image})

"""
PRESETS = """# Defaults of `hf-pretext train`

Made by `make cards` from `PRESET` in the file of each objective and from the recorded results.

- **Small data** (below {rows:,} samples, or without an accelerator): encoder, batch size, learning rate and number of \
samples are those of the recorded recipes that are named. How other settings did is in `benchmarks/*_ablation.md`, \
where a recipe has one. Training takes as many epochs as give the number of samples, at most {epochs}.
- **Large data** on an accelerator: a larger encoder and {large} epochs, with settings that follow the papers. No run \
of this size was recorded: start with a short one (`--max_steps`).
- **From a pretrained encoder** (`--encoder`): learning rate {rate:g}, if no encoder of the model begins fresh. The \
sizes of images, frames and log-mel and the tokenizer are the encoder's; texts have at most 128 tokens (`--max_length`).
- Pixels: the side of the images (`--image_size`) or frames (`--video_size`), for small and for large data.
- One seed (`--seeds 0`). Three seeds (`--seeds 0 1 2`) give a verdict on whether the encoder beats a random one.

"""
PRESETS_HEAD = "| objective | small encoder | pixels | batch | learning rate | samples | found by | large encoder |"
HEAD = (
    "| data | objective | recipe | encoder, parameters | training samples | seen | minutes | encoder: label | trained "
    "| random | best baseline |"
)


def measured(results: dict) -> dict:
    """Returns the entry of one recorded recipe: JSON types."""
    of, runs = probe(results), results["seeds"]
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    return {
        "recipe": of.recipe,
        "objective": of.objective,
        "inputs": results["inputs"],
        "encoder": " + ".join(sorted({each["class"] for each in results["encoders"].values()})),
        "parameters": results["encoder"]["parameters"],
        "samples": results["data"]["rows"],
        "seen": runs[0]["samples_seen"],
        "minutes": round(seconds / 60, 1),
        "device": device(results["machine"]),
        "label": of.label,
        "trained": figure(of.trained),
        "random": figure(of.random),
        "baseline": of.shown_baseline,
        "beats_random": of.beats_random,
    }


def write_measured(all_results: list[dict]) -> None:
    """Writes `MEASURED`, which is part of the package."""
    entries = sorted(map(measured, all_results), key=lambda entry: (entry["objective"], entry["recipe"]))
    MEASURED.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def tasks(kind: str | None = None) -> list[dict]:
    """Returns a description of each objective: name, summary, inputs, and the entries of its recipes (`measured`).

    kind: only objectives of this kind of data. Raises `ValueError` for an unknown kind."""
    if kind is not None:
        modality_class(kind)
    recorded = json.loads(MEASURED.read_text(encoding="utf-8"))
    return [
        {
            "name": name,
            "summary": described(name)["summary"],
            "inputs": list(objective_class(name).inputs),
            "measured": [entry for entry in recorded if entry["objective"] == name],
        }
        for name in names(OBJECTIVES)
        if kind is None or kind in objective_class(name).inputs
    ]


def presets_page(all_results: list[dict]) -> str:
    """Returns docs/presets.md."""
    lines = [PRESETS_HEAD, "|" + "---|" * PRESETS_HEAD.count(" | ") + "---|"]
    for name in names(OBJECTIVES):
        defaults = preset(name)
        near = [
            results["recipe"]
            for results in all_results
            if results["objective"]["name"] == name
            and results["settings"]["learning_rate"] == defaults.settings["learning_rate"]
            and abs(results["seeds"][0]["samples_seen"] / defaults.samples - 1) < SAME
        ]
        cells = [
            name,
            model_of(defaults.encoder),
            sides(defaults),
            f"{defaults.settings['per_device_train_batch_size']}",
            f"{defaults.settings['learning_rate']:g}",
            f"{defaults.samples:,}",
            ", ".join(f"[{recipe}](../model_cards/{recipe}/README.md)" for recipe in near),
            model_of(defaults.large),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    values = {"rows": LARGE_ROWS, "epochs": MOST_EPOCHS, "large": LARGE_EPOCHS, "rate": CONTINUED_RATE}
    return PRESETS.format(**values) + "\n".join(lines) + "\n"


def model_of(encoder: Encoder) -> str:
    """Returns what the docstring of an encoder function says of the model: its first sentence."""
    first = re.split(r"[.:](?: |$)", " ".join(encoder.__doc__.split()))[0]
    return first.removeprefix("Returns the config of ")


def sides(defaults: Preset) -> str:
    """Returns the side of images or frames in pixels, as "64, 224": of small and of large data. Empty for others."""
    small, large = defaults.settings, {**defaults.settings, **defaults.for_large}
    name = "image_size" if "image_size" in small else "video_size"
    return ", ".join(dict.fromkeys(f"{each[name]}" for each in (small, large) if name in each))


def needs() -> str:
    """Returns a sentence on the objectives that need another option, as Markdown."""
    asked = [(name, preset(name).needs) for name in names(OBJECTIVES) if preset(name).needs]
    return f"{'; '.join(f'`{name}` also needs `{option}`' for name, option in asked)}." if asked else ""


def facts(all_results: list[dict]) -> dict:
    """Returns what the page says of all recipes together: values of `PAGE`."""
    rows = [results["data"]["rows"] for results in all_results]
    accelerated = any(results["machine"].get("accelerator") for results in all_results)
    return {
        "needs": needs(),
        "bold": BOLD,
        "processors": listed(sorted({results["machine"]["processor"] for results in all_results})),
        "least": min(rows),
        "most": max(rows),
        "devices": "" if accelerated else "; none was trained on a GPU, and larger data was not measured",
    }


def page(all_results: list[dict]) -> str:
    """Returns docs/which_task.md."""
    entries = sorted(map(measured, all_results), key=lambda entry: (entry["inputs"], entry["objective"]))
    lines = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
    for entry in entries:
        trained = f"**{entry['trained']}**" if entry["beats_random"] else entry["trained"]
        cells = [
            " + ".join(entry["inputs"]),
            entry["objective"],
            f"[{entry['recipe']}](../model_cards/{entry['recipe']}/README.md)",
            f"{entry['encoder']}, {entry['parameters'] / 1e6:.1f} million",
            f"{entry['samples']:,}",
            f"{entry['seen']:,}",
            f"{entry['minutes']}, {entry['device']}",
            entry["label"],
            trained,
            entry["random"],
            entry["baseline"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    probes = [probe(results) for results in all_results]
    doubts, ranked = notes(probes), [f"- {line}" for line in rankings(probes)]
    parts = [PAGE.format(**facts(all_results)) + "\n".join(lines), doubts, RANKED + "\n".join(ranked) if ranked else ""]
    if groups := audited(all_results):
        parts.append(CRITERIA.format(image=CRITERIA_IMAGE).strip())
        parts += [criteria_table(f"{number}. {label}", rows) for number, (label, rows) in enumerate(groups.items(), 1)]
    return "\n\n".join(filter(None, parts)) + "\n"


def audited(all_results: list[dict]) -> dict[str, list[Row]]:
    """Returns the rows of the audited recipes by five criteria (see `compare`), by the label."""
    by_label: dict[str, dict[str, dict]] = {}
    for results in all_results:
        if "audit" in results:
            by_label.setdefault(labelled(results).replace(FETCHED, ""), {})[results["recipe"]] = results
    return {label: compared(some) for label, some in sorted(by_label.items())}


def criteria_table(label: str, rows: list[Row]) -> str:
    """Returns the table of recipes of one label, with links to their cards, and on which rows they were audited."""
    rows_in_words = differing_rows(rows) or f"Audited on {rows[0]['rows']} rows."
    linked = [{**row, "run": f"[{row['run']}](../model_cards/{row['run']}/README.md)"} for row in rows]
    return f"{label}:\n\n{markdown(linked)}\n\n{rows_in_words}"


def named_apart(groups: dict[str, list[Row]]) -> list[Row]:
    """Returns the rows of all groups; if there are several, the number of the group is in the name of a run."""
    several = len(groups) > 1
    return [
        {**row, "run": f"{row['run']} ({number})" if several else row["run"]}
        for number, rows in enumerate(groups.values(), 1)
        for row in rows
    ]
