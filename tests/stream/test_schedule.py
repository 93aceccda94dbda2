"""A run that resumes with another global batch size has the learning rate of the samples seen."""

import itertools
import logging
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType

from hf_pretext.stream.schedule import Schedule, progress, schedule_after

FIRST, STEPS, WARMUP, AT = 12, 40, 10, 6  # the change comes in the warmup
LOWEST = {"min_lr_rate": 0.1}
SPECIFIC = {
    "cosine_with_restarts": {"num_cycles": 3}, "warmup_stable_decay": {"num_decay_steps": 10},
    "cosine_with_min_lr": LOWEST, "cosine_warmup_with_min_lr": LOWEST,
}  # fmt: skip
ADAPTIVE = ("reduce_lr_on_plateau", "greedy")
TYPES = [kind.value for kind in SchedulerType if kind.value not in ADAPTIVE]


def scheduler_of(kind: str, steps: int = STEPS):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    return get_scheduler(kind, optimizer, WARMUP, steps, SPECIFIC.get(kind))


def rates(scheduler, steps: int) -> list[float]:
    """The learning rates of the next steps, and the one after them."""
    outcome = [*scheduler.get_last_lr()]
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
        outcome += scheduler.get_last_lr()
    return outcome


def after(batch, max_steps=STEPS, before=STEPS, step=AT, samples=AT * FIRST, recorded=None, rows=100, **options):
    """The schedule of a run of steps of `FIRST` samples that resumes with another batch."""
    args = TrainingArguments("unused", max_steps=max_steps, warmup_steps=WARMUP, report_to="none", **options)
    state = {"global_batch": FIRST, "samples_seen": samples, "schedule": recorded}
    at = SimpleNamespace(global_step=step, max_steps=before)
    return schedule_after(state, at, args, batch, range(rows))


@pytest.mark.parametrize("kind", TYPES)
def test_the_learning_rate_is_the_same_function_of_the_samples_seen(kind):
    calm = scheduler_of(kind)
    expected = rates(calm, AT)
    resumed = after(FIRST // 2).follow(scheduler_of(kind))
    resumed.load_state_dict(calm.state_dict())
    expected, halves = rates(calm, STEPS - AT), rates(resumed, 2 * (STEPS - AT))
    assert halves[::2] == pytest.approx(expected, rel=1e-12, abs=1e-15)
    between = [(a + b) / 2 for a, b in itertools.pairwise(expected[:3])]
    if kind != "constant":
        assert halves[1:4:2] == pytest.approx(between)  # still in the linear warmup


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_learning_rate_that_follows_the_losses_is_refused_only_with_another_batch(kind):
    options = dict(lr_scheduler_type=kind, eval_strategy="steps", eval_steps=1)
    assert after(FIRST, **options) is None
    with pytest.raises(ValueError, match="was 12 and is now 6.*no function of the step.*has 12 samples"):
        after(6, **options)


def test_a_scheduler_of_the_user_is_refused_only_with_another_batch():
    args = TrainingArguments("unused", max_steps=STEPS, report_to="none")
    state, at = {"global_batch": 12, "samples_seen": 72}, SimpleNamespace(global_step=6, max_steps=STEPS)
    given = scheduler_of("linear")
    assert schedule_after(state, at, args, 12, range(100), given) is None
    with pytest.raises(ValueError, match=r"the scheduler in optimizers=\(...\) counts steps"):
        schedule_after(state, at, args, 6, range(100), given)


def test_the_schedule_has_the_length_that_it_had(caplog):
    logging.getLogger("transformers").addHandler(caplog.handler)
    assert after(6).steps == STEPS
    assert "after 480 samples, but --max_steps 40 ends the run after 276. Give --max_steps 74 to end" in caplog.text
    caplog.clear()
    assert after(6, max_steps=74).steps == STEPS
    assert after(7, max_steps=65).steps == STEPS  # 6 + 408 / 7, rounded up
    assert after(6, max_steps=100).steps == 53  # a new end: 72 + 94 * 6 samples
    assert after(6, max_steps=-1, num_train_epochs=2.5, before=23).steps == 23  # 9 steps an epoch
    assert not caplog.text
    logging.getLogger("transformers").removeHandler(caplog.handler)


def test_a_schedule_is_kept_over_further_resumes_also_with_the_first_batch():
    recorded = after(6).record()
    assert recorded == {"first": FIRST, "steps": STEPS}
    again = after(6, step=16, samples=132, recorded=recorded)
    assert again.at(16) == 11 and again.at(18) == 12
    back = after(FIRST, step=16, samples=132, recorded=recorded)
    assert back.at(16) == 11 and back.at(17) == 12


def test_a_run_ends_with_its_samples_and_the_schedule_stays_at_its_end():
    schedule = after(24)
    assert schedule.at(schedule.end()) == STEPS == schedule.at(100)
    assert progress(SimpleNamespace(global_step=AT), schedule) == AT / STEPS
    assert progress(SimpleNamespace(global_step=5, max_steps=20), None) == 0.25


@pytest.mark.parametrize(
    ("schedule", "max_steps", "steps", "epochs_left"),
    [
        (Schedule(12, 6, 17, 5, 60), -1, 29, 3),  # 140 more samples
        (Schedule(12, 20, 17, 7, 100), -1, 12, 2),  # after a change before: 100 more samples
        (Schedule(12, 20, 17, 12, 200), -1, 12, 0),  # finished
        (Schedule(12, 6, 17, 12, 132), 30, 30, 3),  # Trainer's count of epochs would end before
    ],
)
def test_another_batch_changes_steps_and_epochs_but_not_the_samples_of_the_run(schedule, max_steps, steps, epochs_left):
    args, steps_per_epoch = SimpleNamespace(max_steps=max_steps, num_train_epochs=2), -(-100 // schedule.batch)
    values = schedule.lengths((2, steps_per_epoch, 0, 0, 0, 0, max_steps), args, range(100))
    assert values[-1] == steps
    assert values[0] - schedule.step // steps_per_epoch == epochs_left
