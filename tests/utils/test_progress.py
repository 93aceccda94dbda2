"""Progress bars appear in a terminal only; a log file gets a line for each log."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from hf_pretext.callbacks import Progress
from hf_pretext.utils.progress import progress, shows_bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, shown", [(Terminal, True), (io.StringIO, False)])
def test_a_bar_is_shown_in_a_terminal_only(monkeypatch, stream, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    assert shows_bars() == shown
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    with progress(total=3, description="reading", unit="rows") as bar:
        bar.update(3)
    assert ("counting" in sys.stderr.getvalue() and "reading" in sys.stderr.getvalue()) == shown
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(progress(range(3), shown=False)) == [0, 1, 2] and sys.stderr.getvalue() == ""


@pytest.mark.parametrize("stream, shown", [(Terminal, True), (io.StringIO, False)])
def test_training_prints_a_plain_line_for_each_log(monkeypatch, capsys, stream, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    state = SimpleNamespace(global_step=10, max_steps=40, epoch=0.5, is_world_process_zero=True)
    callback = Progress()
    callback.on_log(None, state, None, {"loss": 1.0})  # of an evaluation without training
    callback.on_train_begin(None, state, None)
    callback._began -= 60
    state.global_step = 20
    callback.on_step_end(None, state, None)
    callback.on_log(None, state, None, {"loss": 1.25, "samples_per_second": 100.0, "data_wait": 0.03})
    callback.on_train_end(None, state, None)
    line = r"step 20/40  epoch 0.50  loss 1.250  100 samples/s, waiting for data 3%"
    output = capsys.readouterr().out
    assert re.search(line + ("$" if shown else "  left 02:00$"), output, re.MULTILINE), output
    assert "loss 1.000" not in output
    assert ("%|" in sys.stderr.getvalue()) == shown and ("\r" in output + sys.stderr.getvalue()) == shown
