"""How fast a run goes through its data, and what is said where its steps wait for it."""

import logging
from types import SimpleNamespace

import pytest
from streamed import Counter, numbered

from hf_pretext.data.sources import open_source
from hf_pretext.stream import pace as module
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.pace import Pace, epochs_of_sources, how_to_wait_less
from hf_pretext.stream.reader import make_order
from hf_pretext.stream.settings import StreamSettings


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    return clock


def with_order(*sources, weights=None):
    data = Mixture(list(sources), weights)
    return data, make_order(data.sources, data.weights, StreamSettings(), 0)


def test_epochs_of_one_source_and_of_each_of_several():
    data, order = with_order(numbered())
    assert epochs_of_sources(data, order, 202) == {"epoch_of_source": 2.0}
    data, order = with_order(numbered(rows=60), numbered(0, 30, first=100), weights=[0.5, 0.5])
    several = epochs_of_sources(data, order, 16_000)  # a block of each lane, in which weights are met exactly
    assert len(several) == 2 and all(name.startswith("epoch_of_source/") for name in several)
    assert list(several.values()) == pytest.approx([8000 / 60, 8000 / 30])


def test_a_source_without_a_length_has_no_epochs():
    data, order = with_order(open_source(Counter()))
    assert epochs_of_sources(data, order, 202) == {}


def test_speed_and_waiting_are_those_since_the_last_log(clock):
    pace, (data, order) = Pace(), with_order(numbered())
    reader = SimpleNamespace(waited=0.0, order=order)
    assert set(pace.measure(0, data, reader)) == {"samples_seen", "epoch_of_source"}  # nothing to compare with
    with pace.waiting():
        clock.now += 2
    clock.now += 6
    logs = pace.measure(404, data, reader)
    assert logs["samples_per_second"] == 50.5 and logs["data_wait"] == 0.25 and logs["epoch_of_source"] == 4.0
    clock.now += 4
    assert pace.measure(604, data, reader)["data_wait"] == 0.0 and pace.waited == 2


def test_seconds_go_on_from_those_before_a_resume_and_stand_still_outside(clock):
    pace = Pace()
    with pace.running(seconds_before=50.0):
        clock.now += 3
        assert pace.seconds == 53
    clock.now += 100
    assert pace.seconds == 53
    with pytest.raises(KeyboardInterrupt), pace.running():
        clock.now += 1
        raise KeyboardInterrupt
    assert pace.seconds == 54


def test_a_warning_comes_once_at_the_second_long_wait_in_a_row(caplog):
    args, first = SimpleNamespace(dataloader_num_workers=0), SimpleNamespace(is_world_process_zero=True)
    pace, said = Pace(), []
    logging.getLogger("transformers").addHandler(caplog.handler)
    for wait in (0.9, 0.1, 0.9, None, 0.9, 0.9):
        pace.on_log(args, first, None, {} if wait is None else {"data_wait": wait})
        said.append(caplog.text.count("Steps wait 90% of the time for data"))
    other = Pace()
    for _ in range(2):
        other.on_log(args, SimpleNamespace(is_world_process_zero=False), None, {"data_wait": 0.9})
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert said == [0, 0, 0, 0, 1, 1] and caplog.text.count("Steps wait") == 1


def test_what_is_slow_tells_what_makes_it_faster(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 4)
    assert "reading is slow" in how_to_wait_less(True, 0)
    assert "--dataloader_num_workers 3" in how_to_wait_less(False, 0)
    assert "smaller images" in how_to_wait_less(False, 3)
