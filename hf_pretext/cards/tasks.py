"""Which objective for which data: the rows of docs/which_task.md, and what `hf-pretext objectives` shows.

recorded results -> presets/measured.json, a page
"""

import json
import re
from pathlib import Path

from ..evaluation.comparison import GRAY
from ..presets import CONTINUED_RATE, LARGE_EPOCHS, LARGE_ROWS, MOST_EPOCHS, Encoder
from ..registry import OBJECTIVES, described, modality_class, names, objective_class, preset
from .results import hardware
from .tables import figure, words

SAME = 0.02  # relative difference of numbers of samples
MEASURED = Path(__file__).parent.parent / "presets" / "measured.json"
PAGE = """# Which task for which data?

Made by `make cards` from the recorded results in `model_cards/`: each number comes from a recorded run, and what was \
not measured is empty. `hf-pretext train OBJECTIVE --dataset path/to/data` trains with the settings of these recipes.

- Samples: of the training data, and how many the run saw in all epochs. Minutes: of one seed on the machine named.
- Linear probe: of the frozen encoder, with the most labels that were measured; mean ± standard deviation over seeds. \
Bold: better than a random encoder by more than twice the spread over seeds.
- Rows with different labels or data can't be compared. No recipe here has more than 40,000 samples, and no one \
trained on GPUs: larger data is unknown.

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
- One seed (`--seeds 0`). Three seeds (`--seeds 0 1 2`) give a verdict on whether the encoder beats a random one.

"""
PRESETS_HEAD = "| objective | small encoder | batch | learning rate | samples | found by | large encoder |"
HEAD = "| data | objective | recipe | encoder | samples | seen | minutes | label | trained | random |"


def measured(results: dict) -> dict:
    """Returns the entry of one recorded recipe: JSON types."""
    transfer, runs = results["transfer"], results["seeds"]
    probes = [name for name in transfer["methods"] if name.startswith("linear_probe") and not name.endswith(GRAY)]
    figures, name = transfer["figures"], f"{probes[-1]}_top1"
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    return {
        "recipe": results["recipe"],
        "objective": results["objective"]["name"],
        "inputs": results["inputs"],
        "encoder": " + ".join(sorted({each["class"] for each in results["encoders"].values()})),
        "parameters": results["encoder"]["parameters"],
        "samples": results["data"]["rows"],
        "seen": runs[0]["samples_seen"],
        "minutes": round(seconds / 60, 1),
        "machine": hardware(results["machine"]),
        "label": f"{transfer['label']}, {len(transfer['classes'])} classes",
        "method": words(probes[-1], transfer),
        "trained": figure(figures["trained"][name]),
        "random": figure(figures["random"][name]),
        "beats_random": transfer["beats_random"][name],
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
            f"{defaults.settings['per_device_train_batch_size']}",
            f"{defaults.settings['learning_rate']:g}",
            f"{defaults.samples:,}",
            ", ".join(f"[{recipe}](../model_cards/{recipe}/README.md)" for recipe in near),
            model_of(defaults.large),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    facts = {"rows": LARGE_ROWS, "epochs": MOST_EPOCHS, "large": LARGE_EPOCHS, "rate": CONTINUED_RATE}
    return PRESETS.format(**facts) + "\n".join(lines) + "\n"


def model_of(encoder: Encoder) -> str:
    """Returns what the docstring of an encoder function says of the model: its first sentence."""
    first = re.split(r"[.:](?: |$)", " ".join(encoder.__doc__.split()))[0]
    return first.removeprefix("Returns the config of ")


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
            f"{entry['minutes']} on {entry['machine']}",
            f"{entry['label']}; {entry['method']}",
            trained,
            entry["random"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return PAGE + "\n".join(lines) + "\n"
