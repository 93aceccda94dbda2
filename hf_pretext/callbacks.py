"""What a person sees of a run: steps, rate, time left, and a line at each log.

logs -> "step 40/1404  epoch 0.37  loss 1.281  accuracy 0.402  209 samples/s, waiting for data 3%"
"""

from transformers import ProgressCallback


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
