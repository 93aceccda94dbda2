"""A signal stops a run with a checkpoint, once all ranks agree."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl

from hf_pretext.stream import interruption as module
from hf_pretext.stream.interruption import Interruption

ARGS = SimpleNamespace(device=torch.device("cpu"), output_dir="run")


def step(interruption, number: int) -> TrainerControl:
    control = TrainerControl(should_evaluate=True)
    interruption.on_step_end(ARGS, SimpleNamespace(global_step=number), control)
    return control


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_saves_and_exits_with_its_number(number, status, capfd):
    before, interruption = signal.getsignal(number), Interruption(resume="resume it so")
    with pytest.raises(SystemExit) as stopped, interruption.watching():
        interruption.on_train_begin(ARGS, SimpleNamespace(global_step=0), None)
        assert not step(interruption, 1).should_save
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a terminal and a launcher both send it
        control = step(interruption, 2)
        assert control.should_save and control.should_training_stop and not control.should_evaluate
        interruption.on_save(ARGS, SimpleNamespace(global_step=2), control)
        control = TrainerControl(should_evaluate=True, should_save=True)  # as an evaluation after each epoch sets it
        interruption.on_epoch_end(ARGS, None, control)
        assert not control.should_evaluate and not control.should_save
    assert stopped.value.code == status and signal.getsignal(number) is before
    lines = capfd.readouterr().err
    assert lines.count("ends after this step") == 1 and "run/checkpoint-2. Resume with:\n  resume it so" in lines


def test_a_calm_run_and_a_run_in_a_thread_leave_the_handlers_alone():
    before = [signal.getsignal(number) for number in module.SIGNALS]
    with Interruption().watching():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    during = []

    def run():
        with Interruption().watching():
            during.extend(signal.getsignal(number) for number in module.SIGNALS)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == before == [signal.getsignal(number) for number in module.SIGNALS]


def test_ranks_agree_in_the_same_steps_however_long_their_steps_last(monkeypatch):
    """Two ranks in turn: what is reduced is the larger value of both."""
    monkeypatch.setattr(module, "rank_and_ranks", lambda: (0, 2))
    now, other = [0.0], torch.zeros(2)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.dist, "all_reduce", lambda values, op: values.copy_(torch.maximum(values, other)))
    interruption = Interruption()
    interruption.on_train_begin(ARGS, SimpleNamespace(global_step=0), None)
    agreed = []
    monkeypatch.setattr(interruption, "_agree", lambda at, agree=interruption._agree: (agreed.append(at), agree(at)))
    for number in range(1, 101):
        now[0] += 0.5
        assert not step(interruption, number).should_save
    assert agreed[:4] == [1, 3, 7, 15] and set(torch.tensor(agreed[4:]).diff().tolist()) == {10}  # each 5 s
    other[0] = float(signal.SIGTERM)  # the other rank has received it
    stopped = [number for number in range(101, 121) if step(interruption, number).should_training_stop]
    assert stopped[0] <= 111 and interruption.stopped == signal.SIGTERM
