"""Runs of audio-visual correspondence on real films, killed before and after the shifted sounds begin, are unbroken."""

import signal
from functools import partial

import film_run
import pytest
from film_run import found

STEPS, EASY = 12, 6  # steps of a run, and those without shifted sounds
OPTIONS = dict(
    max_steps=STEPS, per_device_train_batch_size=8, logging_steps=1, save_steps=1, save_total_limit=2, seed=3,
    learning_rate=3e-3, use_cpu=True, disable_tqdm=True, report_to="none", easy_until=EASY / STEPS,
)  # fmt: skip
run = partial(film_run.run, **OPTIONS)
MEASURED = ("loss", "accuracy", "shifted", "samples_seen", "learning_rate")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    run(folder)
    shares = [entry["shifted"] for entry in found(folder)["logs"]]
    assert len(shares) == STEPS and not any(shares[:EASY]) and all(0 < share <= 0.5 for share in shares[EASY:])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(0, 2, 0), (2, 0, 2)])
def test_killed_before_and_after_shifted_sounds_begin(unbroken, tmp_path, workers):
    folder, (first, second, third) = tmp_path / "run", workers
    run(folder, die_at=EASY - 2, dataloader_num_workers=first, expect=-signal.SIGKILL)
    run(folder, die_at=EASY + 3, dataloader_num_workers=second, last=True, expect=-signal.SIGKILL)
    run(folder, dataloader_num_workers=third, last=True)
    film_run.same(folder, unbroken, MEASURED)


@pytest.mark.slow
def test_two_processes_killed_and_resumed(tmp_path):
    options = dict(ranks=2, per_device_train_batch_size=4)
    run(tmp_path / "unbroken", **options)
    folder = tmp_path / "run"
    run(folder, die_at=EASY - 1, dataloader_num_workers=2, expect=1, **options)
    assert not (folder / "found-rank0.json").exists()
    run(folder, last=True, **options)
    film_run.same(folder, tmp_path / "unbroken", MEASURED, ranks=2)
    shares = [entry["shifted"] for entry in found(folder)["logs"]]
    assert not any(shares[:EASY]) and all(shares[EASY:])
