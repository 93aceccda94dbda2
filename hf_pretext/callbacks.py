"""What happens between steps: a person sees how far a run is, and its objective is kept informed.

logs -> "step 40/1404  epoch 0.37  loss 1.281  accuracy 0.402  209 samples/s, waiting for data 3%"
optimizer step -> model.progress, model.after_step(progress); first step of an epoch -> model.before_round(batches)
"""

from transformers import ProgressCallback, Trainer, TrainerCallback

from .modeling import PretextModel


class Progress(ProgressCallback):
    """Trainer's bar (steps, rate, time left) with a line a person can read at each log."""

    SHOWN_LAST = ("samples_per_second", "data_wait")
    LEFT_OUT = ("samples_seen", "learning_rate", "grad_norm", "epoch", "total_flos", "epoch_of_source")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None or not logs or "train_runtime" in logs:
            return
        parts = [f"step {state.global_step}/{state.max_steps}", f"epoch {state.epoch or 0:.2f}"]
        left_out = (*self.SHOWN_LAST, *self.LEFT_OUT)
        parts += [f"{k} {v:.3f}" for k, v in logs.items() if k.partition("/")[0] not in left_out]
        if "samples_per_second" in logs:
            parts.append(f"{logs['samples_per_second']:.0f} samples/s, waiting for data {logs['data_wait']:.0%}")
        self.training_bar.write("  ".join(parts))


class Hooks(TrainerCallback):
    """Calls an objective's hooks between steps, never from `forward`. All depend on the step alone, so that a resumed
    run calls them as one that was never interrupted."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    @property
    def model(self) -> PretextModel:
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def on_train_begin(self, args, state, control, **kwargs):
        self.model.progress = state.global_step / state.max_steps

    def on_step_begin(self, args, state, control, **kwargs):
        if type(self.model).before_round is not PretextModel.before_round and self.trainer.begins_epoch():
            self.trainer.learn_from_data(self.model.before_round, once=not self.trainer.mixture.endless)

    def on_step_end(self, args, state, control, **kwargs):
        model = self.model
        model.progress = state.global_step / state.max_steps
        model.after_step(model.progress)
