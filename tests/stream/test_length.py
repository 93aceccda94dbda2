"""How long a resumed run trains: what was asked for, what is left, and a changed length."""

import json

import pytest
from streamed import numbered
from transformers import TrainingArguments

from hf_pretext.stream.length import Lengthening, length_left, length_of
from hf_pretext.stream.mixture import Mixture


def asked(**length):
    return TrainingArguments("run", use_cpu=True, **length)


def test_a_length_is_of_steps_where_they_are_given():
    assert length_of(asked(max_steps=8, num_train_epochs=2)) == {"steps": 8}
    assert length_of(asked(num_train_epochs=2)) == {"epochs": 2}


@pytest.mark.parametrize(
    ("length", "steps", "seen", "left"),
    [
        ({"max_steps": 30}, 20, 160, 10),
        ({"max_steps": 20}, 20, 160, 0),
        ({"num_train_epochs": 2}, 20, 160, 6),  # 101 rows in steps of 8
        ({"num_train_epochs": 2}, 26, 208, 0),
        ({"num_train_epochs": 2}, 20, 40, 21),  # all steps were of 2 samples
        ({"num_train_epochs": 2}, 20, 120, 11),  # after steps of 4 and of 8 samples
        ({"num_train_epochs": 2}, 20, 999, 0),
    ],
)
def test_a_resumed_run_does_the_steps_that_are_left(length, steps, seen, left):
    epoch, total = 13, length.get("max_steps", 26)
    epochs = -(-total // epoch)  # as Trainer counts them
    values = length_left((epochs, epoch, 101, 202, 8, 13, total), asked(**length), {"samples_seen": seen}, steps,
                         Mixture(numbered()))  # fmt: skip
    assert values[-1] == steps + left or (left == 0 and values[-1] <= steps)
    assert len(range(steps // epoch, values[0])) * epoch >= left and (left or values[0] <= steps // epoch)


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 20, "max_steps": 26}))
    return str(tmp_path)


def stream(**length):
    return {"length": length, "lengthened": [], "samples_seen": 160}


def test_fewer_steps_or_epochs_than_done_are_refused(checkpoint):
    resume = Lengthening().resume
    assert resume(checkpoint, asked(max_steps=20), stream(steps=26), None) == 20
    assert resume(checkpoint, asked(num_train_epochs=2), stream(epochs=2), 70) == 20  # rounded up to steps
    for args, before, words in (
        (asked(max_steps=19), stream(steps=26), r"--max_steps 19 would end before .* done 20 steps \(160 samples\)"),
        (asked(num_train_epochs=1.5), stream(epochs=2), "--num_train_epochs 1.5 would end before"),
        (asked(num_train_epochs=1.5), stream(steps=26), "--num_train_epochs 1.5 would end before"),
    ):
        with pytest.raises(ValueError, match=words):
            resume(checkpoint, args, before, 101)
