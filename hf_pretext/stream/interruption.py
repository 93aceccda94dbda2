"""Stops a run after a signal: the step ends, a checkpoint is saved, the process exits with 128 + signal.

SIGINT (Ctrl-C), SIGTERM, SIGUSR1 (preempted jobs) -> agreed on by all ranks -> checkpoint -> exit 130, 143, 138
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..utils.ranks import leave_group, rank_and_ranks

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
TWICE = 1.0  # seconds in which a signal counts once: a terminal and a launcher may both send it
AGREED = 5.0  # seconds between two agreements of several ranks


class Interruption(TrainerCallback):
    """Callback that saves a checkpoint and stops after a signal. Nothing is evaluated after it.

    A single process stops after the step in which the signal arrives. Several ranks stop at the same step: about every
    `AGREED` seconds, in the same steps on all ranks, an all-reduce of two numbers shares the signal. Steps between them
    cost nothing.

    resume: how to resume, for the message. stopped: the signal that stopped the run, on all ranks; else 0.
    """

    def __init__(self, resume: str = 'trainer.train(resume_from_checkpoint="last")'):
        self.resume, self.stopped = resume, 0
        self._process, self._signal, self._received = os.getpid(), 0, 0.0  # the first signal, and when
        self._agreed, self._step, self._next = 0.0, 0, 0  # time and step of the last agreement, step of the next
        self._device = torch.device("cpu")
        self._saved: str | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handles the signals while the context lasts, in the main thread. After a signal, exits at its end.

        Raises `SystemExit` with 128 + signal."""
        self.stopped, self._process, self._signal, self._saved = 0, os.getpid(), 0, None
        watched = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, self._receive) for number in watched}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not of Python
        if self.stopped:
            self._exit()
        if self._signal:  # after the last agreement
            os.kill(os.getpid(), self._signal)

    def on_train_begin(self, args, state, control, **kwargs):
        """Starts to count steps and seconds."""
        self._agreed, self._step, self._next = time.monotonic(), state.global_step, state.global_step + 1
        self._device = args.device

    def on_step_end(self, args, state, control, **kwargs):
        """Stops all ranks with a checkpoint if one of them has received a signal."""
        if state.global_step >= self._next or rank_and_ranks()[1] == 1:
            self._agree(state.global_step)
        if self.stopped:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_epoch_end(self, args, state, control, **kwargs):
        """Prevents an evaluation at the end of the epoch, and a second checkpoint."""
        if self.stopped:
            control.should_evaluate = control.should_save = False

    def on_save(self, args, state, control, **kwargs):
        """Keeps the folder of the checkpoint, for the message."""
        self._saved = os.path.join(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")

    def after_last_step(self, step: int) -> bool:
        """Agrees for the last time. Returns True if the run stops and has no checkpoint of its last step."""
        self._agree(self._step + 1)
        return bool(self.stopped) and (self._saved is None or not self._saved.endswith(f"-{step}"))

    def _receive(self, number: int, frame) -> None:
        """Keeps the first signal. A second one ends the process at once."""
        if os.getpid() != self._process:  # a process that this one has forked, e.g. to read an evaluation set
            return
        if not self._signal:
            self._signal, self._received = number, time.monotonic()
            if rank_and_ranks()[0] == 0:
                name = signal.Signals(number).name
                # print() may be what the signal interrupts
                os.write(2, f"\n{name}: ends after this step, with a checkpoint. Once more: ends at once.\n".encode())
        elif time.monotonic() - self._received > TWICE:
            os._exit(128 + number)

    def _agree(self, step: int) -> None:
        """Sets `stopped` from the signals of all ranks, and the step of the next agreement."""
        if rank_and_ranks()[1] == 1:
            self.stopped = self._signal
            return
        now, steps = time.monotonic(), step - self._step
        values = torch.tensor([self._signal, now - self._agreed], dtype=torch.float32, device=self._device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        number, seconds = values.tolist()
        self.stopped = int(number)
        # at most doubled, since the first steps may be fast
        self._next = step + max(1, min(int(AGREED * steps / max(seconds, 1e-3)), 2 * steps))
        self._agreed, self._step = now, step

    def _exit(self) -> None:
        if rank_and_ranks()[0] == 0:
            saved = f"The last checkpoint is {self._saved}." if self._saved else "There is no checkpoint yet."
            name = signal.Signals(self.stopped).name
            print(f"Stopped by {name}. {saved} Resume with:\n  {self.resume}", file=sys.stderr, flush=True)
        leave_group()
        sys.exit(128 + self.stopped)
