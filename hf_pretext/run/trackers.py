"""Trackers of --report_to: TensorBoard, wandb and trackio get the results of a run, next to the curves of training.

transformers' callbacks -> curves; results.json, report.png, README.md -> metrics, settings, image and card in the same
run of the tracker
"""

import html
import json
import math
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from transformers import PreTrainedConfig, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from ..cards import CARD, REPORT
from ..cards.results import transfers
from ..utils.paths import relative

SETTINGS = ("recipe", "objective", "encoder", "data", "settings", "seeds", "versions")  # of results.json
NO_TRACKER = ([], ["none"], "none", None)
TEST = "test_"  # transformers' callbacks turn it into the group "test/"


class LoggedArguments(TrainingArguments):
    """`TrainingArguments` that trackers log without folders of the machine. transformers hides tokens."""

    def to_dict(self) -> dict:
        """Returns all arguments, paths as in `utils.paths.relative`."""
        return {name: relative(value) for name, value in super().to_dict().items()}


def named_run(values: dict, folder: str, seed: int, seeds: list[int]) -> dict:
    """Returns the option `run_name` of a seed, so that each seed has a run of its own in a tracker.

    Default: name of the output folder and time. values: options of the run. folder: the output folder of all seeds.
    Empty without a tracker."""
    if values.get("report_to") in NO_TRACKER:
        return {}
    default = f"{Path(folder).name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return {"run_name": (values.get("run_name") or default) + f"-seed-{seed}" * (len(seeds) > 1)}


class Trackers:
    """The active trackers of the seed that is trained, or was trained last."""

    def __init__(self):
        self.active: list[TrainerCallback] = []
        self._began_wandb = False  # False for a run of wandb that existed before training

    def follow(self, trainer: Trainer) -> None:
        """Replaces the trackers by those of a trainer, before it trains. Ends the run of wandb of the seed before,
        which transformers would continue."""
        if self._began_wandb:
            import_module("wandb").finish()
        self.active = [one for one in trainer.callback_handler.callbacks if isinstance(one, tuple(ENDS))]
        self._trainer_state = trainer.args, trainer.state, trainer.control
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self.active:
            hide_folders(model.config)
        self._config, self._parameters = model.config.to_dict(), model.num_parameters()
        with_wandb = any(isinstance(one, WandbCallback) for one in self.active)
        self._began_wandb = with_wandb and import_module("wandb").run is None

    def log_results(self, tracker: TrainerCallback, folder: Path, results: dict) -> None:
        """Logs the metrics on test, the settings, the report and the card of a run in one of the `active` trackers.

        folder: the run's, with report.png and README.md; a file that is missing is left out. results: content of
        results.json."""
        args, state, control = self._trainer_state
        settings = {name: results[name] for name in SETTINGS if name in results}
        # a run of trackio has ended: on_log opens it with this config, which replaces the one of training
        config = {**self._config, "hf_pretext": settings}
        model = SimpleNamespace(config=config, num_parameters=lambda: self._parameters)
        tracker.on_log(args, state, control, model=model, logs=dict(metrics(results)))
        report, card = folder / REPORT, folder / CARD
        text = card.read_text(encoding="utf-8").partition("\n---\n")[2] if card.exists() else None  # without YAML
        kind = next(kind for kind in ENDS if isinstance(tracker, kind))
        ENDS[kind](tracker, state.global_step, settings, report if report.exists() else None, text)
        if kind is not WandbCallback:  # wandb ends with the process
            tracker.on_train_end(args, state, control)


def hide_folders(config: PreTrainedConfig) -> None:
    """Shortens the folders from which a config and the configs inside it were loaded, since trackers log them."""
    config._name_or_path = relative(config._name_or_path)
    for part in vars(config).values():
        if isinstance(part, PreTrainedConfig):
            hide_folders(part)


def metrics(results: dict) -> Iterator[tuple[str, float]]:
    """Yields the means over seeds on the test split, e.g. `("test_trained/linear_probe_top1", 0.57)`.

    Of several encoders, names have the kind of data: "test_trained/text/linear_probe_top1"."""
    parts = transfers(results)
    of_parts = [(part["figures"], f"{part['kind']}/" if len(parts) > 1 and "kind" in part else "") for part in parts]
    for by_who, kind in (*of_parts, (results.get("measures", {}), "")):
        for who, values in by_who.items():
            for name, value in values.items():
                mean = value["mean"] if isinstance(value, dict) else value
                if isinstance(mean, (int, float)) and math.isfinite(mean):
                    yield f"{TEST}{who.replace(' ', '_')}/{kind}{name}", mean


def to_tensorboard(
    tracker: TensorBoardCallback, step: int, settings: dict, report: Path | None, card: str | None
) -> None:
    """Adds settings and card as texts, and the report as an image. Arguments as of all functions of `ENDS`."""
    import numpy as np
    from PIL import Image

    writer = tracker.tb_writer
    writer.add_text("settings", f"```json\n{json.dumps(settings, indent=2)}\n```", step)
    if report is not None:
        with Image.open(report) as image:
            writer.add_image("report", np.asarray(image.convert("RGB")), step, dataformats="HWC")
    if card is not None:
        writer.add_text("card", card, step)


def to_wandb(tracker: WandbCallback, step: int, settings: dict, report: Path | None, card: str | None) -> None:
    """Adds the settings to the config, and logs report and card as media."""
    wandb = import_module("wandb")
    wandb.config.update({"hf_pretext": settings}, allow_val_change=True)
    media = {} if report is None else {"report": wandb.Image(str(report))}
    if card is not None:
        media["card"] = wandb.Html(f"<pre>{html.escape(card)}</pre>")
    wandb.log({**media, "train/global_step": step})


def to_trackio(tracker: TrackioCallback, step: int, settings: dict, report: Path | None, card: str | None) -> None:
    """Logs report and card as media. `on_log` has set the config."""
    trackio = import_module("trackio")
    media = {} if report is None else {"report": trackio.Image(str(report))}
    if card is not None:
        media["card"] = trackio.Markdown(card)
    trackio.log({**media, "train/global_step": step})


ENDS: dict[type[TrainerCallback], Callable[..., None]] = {
    TensorBoardCallback: to_tensorboard,
    WandbCallback: to_wandb,
    TrackioCallback: to_trackio,
}
