"""Callbacks of the trainer: progress bar, pushes of checkpoints to the Hub, hooks of the objective.

logs -> "step 40/1404  epoch 0.37  loss 1.281  accuracy 0.402  209 samples/s, waiting for data 3%"
optimizer step -> model.progress, model.after_step(progress); first step of a round -> model.before_round(batches)
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

from huggingface_hub import HfApi
from tqdm.std import tqdm
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils import logging
from transformers.utils.hub import hf_api

from .cards import CARD, unfinished
from .cards.push import commit
from .cards.staging import stage
from .modeling import PretextModel
from .stream.schedule import progress
from .utils.files import write_text
from .utils.hub import explained
from .utils.progress import shows_bars

log = logging.get_logger(__name__)


class Progress(ProgressCallback):
    """Trainer's progress bar (steps, rate, time left), with one readable line for each log. Where no bar is shown
    (`shows_bars`), only the lines, with the time left."""

    _began: float | None = None  # time at which training began, while it lasts
    SHOWN_LAST = ("samples_per_second", "data_wait")
    LEFT_OUT = ("samples_seen", "learning_rate", "grad_norm", "epoch", "total_flos", "epoch_of_source")

    def on_train_begin(self, args, state, control, **kwargs):
        """Shows the bar, if any."""
        self._began, self._first = time.monotonic(), state.global_step
        self._shown = shows_bars()
        if self._shown:
            super().on_train_begin(args, state, control, **kwargs)
        else:
            logging.disable_progress_bar()  # of saving, too

    def on_step_end(self, args, state, control, **kwargs):
        """Moves the bar, if any."""
        if self._shown:
            super().on_step_end(args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        """Closes the bar, if any."""
        self._began = None
        if self._shown:
            super().on_train_end(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Prints the logs as one line, above the bar if there is one."""
        if not state.is_world_process_zero or self._began is None or not logs or "train_runtime" in logs:
            return
        parts = [f"step {state.global_step}/{state.max_steps}", f"epoch {state.epoch or 0:.2f}"]
        left_out = (*self.SHOWN_LAST, *self.LEFT_OUT)
        parts += [f"{k} {v:.3f}" for k, v in logs.items() if k.partition("/")[0] not in left_out]
        if "samples_per_second" in logs:
            parts.append(f"{logs['samples_per_second']:.0f} samples/s, waiting for data {logs['data_wait']:.0%}")
        if self.training_bar is not None:
            self.training_bar.write("  ".join(parts))
        else:
            print("  ".join([*parts, *self._left(state)]), flush=True)

    def _left(self, state) -> list[str]:
        """Returns the time left as text, e.g. `["left 01:12:40"]`; `[]` before the first step."""
        steps = state.global_step - self._first
        if steps <= 0:
            return []
        seconds = (time.monotonic() - self._began) / steps * (state.max_steps - state.global_step)
        return [f"left {tqdm.format_interval(seconds)}"]


class Publisher(TrainerCallback):
    """Pushes checkpoints to the Hub in the background, according to `--hub_strategy`.

    A push that fails logs a warning, and training continues.

    objective: name of the objective, for the card. repository: full name of the Hub repository; None until
    `create_repository` is called. stopped: returns True after a signal that stops the run; nothing is pushed then.
    """

    def __init__(
        self, objective: str, repository: str | None = None, stopped: Callable[[], bool | int] = lambda: False
    ):
        self.objective, self.repository, self.stopped = objective, repository, stopped
        self._pushes: list[Future] = []

    def create_repository(self, args: TrainingArguments, token: str | None = None, private: bool | None = None) -> str:
        """Creates the Hub repository if it does not exist, and returns its full name.

        Raises `ValueError` with the fix if the Hub refuses."""
        name = args.hub_model_id or Path(args.output_dir).absolute().name
        private = args.hub_private_repo if private is None else private
        with explained(name):
            created = hf_api().create_repo(name, token=token or args.hub_token, private=private, exist_ok=True)
        self.repository = created.repo_id
        return self.repository

    def on_save(self, args, state, control, **kwargs):
        """Pushes the checkpoint that was just saved.

        Skips it while an earlier push is still running, unless `--hub_always_push` is set."""
        if not args.push_to_hub or not state.is_world_process_zero or args.hub_strategy == HubStrategy.END:
            return
        if self.stopped():
            return
        if not args.hub_always_push and not all(push.done() for push in self._pushes):
            return
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        folders = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: checkpoint.name}
        self.push(
            checkpoint,
            f"Training in progress, step {state.global_step:,}",
            f"step {state.global_step:,} of an unfinished run",
            folders.get(args.hub_strategy),
            args.hub_token,
            args.hub_revision,
        )

    def on_train_end(self, args, state, control, **kwargs):
        """Waits for all pushes."""
        self.wait()

    def wait(self) -> None:
        """Waits for all pushes."""
        wait(self._pushes)
        self._pushes = []

    def push(
        self,
        folder: str | Path,
        message: str,
        when: str,
        state_folder: str | None = None,
        token: str | None = None,
        revision: str | None = None,
    ) -> Future:
        """Pushes the encoder of a checkpoint and a card in one commit, after all earlier pushes. Returns its future.

        message: commit message. when: which checkpoint this is, for the card. state_folder: folder in the repository
        for the complete checkpoint with its training state, so that the run can be resumed from it; None pushes no
        training state. revision: branch; None is "main"."""
        temporary = tempfile.TemporaryDirectory()
        staged = self._stage(Path(folder), Path(temporary.name), when, state_folder)

        def upload() -> None:
            with temporary:
                try:
                    with explained(self.repository):
                        if staged:
                            api = HfApi(token=token)
                            commit(api, self.repository, Path(temporary.name), revision or "main", message)
                except Exception as error:
                    log.warning(f"{error} Training continues.")

        self._pushes.append(hf_api().run_as_future(upload))  # in order: each commit is based on the previous one
        return self._pushes[-1]

    def _stage(self, folder: Path, into: Path, when: str, state_folder: str | None) -> bool:
        """Links the files to push, as the run may delete the checkpoint before the upload. Returns True on success."""
        try:
            stage(folder, into)
            write_text(into / CARD, unfinished(self.repository, self.objective, when))
            if state_folder:
                stage(folder, into / state_folder, training_state=True)
        except Exception as error:
            log.warning(f"{folder} is not pushed: {error} Training continues.")
            return False
        return True


class Hooks(TrainerCallback):
    """Calls the hooks of an objective between steps, never from `forward`.

    The calls depend only on the samples seen, so a resumed run makes the same calls as an uninterrupted run. If its
    global batch size has changed, the progress follows the samples seen, like the learning rate."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    @property
    def model(self) -> PretextModel:
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def on_train_begin(self, args, state, control, **kwargs):
        self.model.progress = progress(state, self.trainer.schedule)
        if type(self.model).before_training is not PretextModel.before_training:
            self.trainer.before_training()

    def on_step_begin(self, args, state, control, **kwargs):
        if type(self.model).before_round is not PretextModel.before_round:
            self.trainer.before_round()

    def on_step_end(self, args, state, control, **kwargs):
        model = self.model
        model.progress = progress(state, self.trainer.schedule)
        model.after_step(model.progress)
