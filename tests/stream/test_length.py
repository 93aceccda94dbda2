"""How long a resumed run trains: what was asked for, what is left, and a changed length."""

import pytest
from transformers import TrainerState, TrainingArguments

from hf_pretext.stream.length import Lengthening, length_left, length_of


def asked(**length):
    return TrainingArguments("run", use_cpu=True, **length)


def test_a_length_is_of_steps_where_they_are_given():
    assert length_of(asked(max_steps=8, num_train_epochs=2)) == {"steps": 8}
    assert length_of(asked(num_train_epochs=2)) == {"epochs": 2}


@pytest.mark.parametrize(("steps", "epochs"), [(20, 3), (25, 3), (26, 2), (30, 2)])
def test_a_run_that_has_done_all_steps_does_no_more(steps, epochs):
    values = length_left((3, 13, 101, 202, 8, 13, 26), steps)
    assert values == (epochs, 13, 101, 202, 8, 13, 26)
    assert len(range(steps // 13, epochs)) > 0 or steps >= 26  # Trainer starts in epoch steps // 13


def stream(**length):
    return {"length": length, "lengthened": [], "samples_seen": 160, "global_batch": 8}


BEFORE = TrainerState(global_step=20, max_steps=26)


def test_fewer_steps_or_epochs_than_done_are_refused():
    resume = Lengthening().resume
    resume("run/checkpoint-20", asked(max_steps=20), stream(steps=26), BEFORE, 8, None)
    resume("run/checkpoint-20", asked(num_train_epochs=2), stream(epochs=2), BEFORE, 8, 70)  # rounded up to steps
    for args, before, words in (
        (asked(max_steps=19), stream(steps=26), r"--max_steps 19 would end before .* done 20 steps \(160 samples\)"),
        (asked(num_train_epochs=1.5), stream(epochs=2), "--num_train_epochs 1.5 would end before"),
        (asked(num_train_epochs=1.5), stream(steps=26), "--num_train_epochs 1.5 would end before"),
    ):
        with pytest.raises(ValueError, match=words):
            resume("run/checkpoint-20", args, before, BEFORE, 8, 101)


@pytest.mark.parametrize(
    ("args", "before", "batch", "steps", "change"),
    [
        (asked(max_steps=40), stream(steps=26), 8, 40, {"step": 20, "from": 208, "to": 320}),
        (
            asked(max_steps=26),
            stream(steps=26),
            4,
            26,
            None,
        ),  # the option has not changed: the run says what that means
        (asked(max_steps=32), stream(steps=26), 4, 32, None),  # as many samples as before
        (asked(num_train_epochs=4), stream(epochs=2), 16, 36, {"step": 20, "from": 208, "to": 416}),
        (asked(num_train_epochs=3), stream(epochs=2), 16, 26, {"step": 20, "from": 208, "to": 256}),  # steps are equal
        (asked(max_steps=22), stream(steps=26), 8, 22, {"step": 20, "from": 208, "to": 176}),
    ],
)
def test_a_changed_length_is_counted_in_samples(args, before, batch, steps, change):
    lengthening = Lengthening()
    lengthening.resume("run/checkpoint-20", args, before, BEFORE, batch, 101)
    lengthening.on_train_begin(args, TrainerState(global_step=20, max_steps=steps), None)
    assert lengthening.history == ([change] if change else [])
