"""Runs of MIL-NCE on narrated films: killed and resumed, on two processes, with bad and missing subtitles."""

import signal
from functools import partial

import film_run
import pytest
from film_run import SENTENCES, found
from media import film

FILMS, STEPS = 20, 6
BAD = {3: "no subtitles", 9: "00:00:01,000 --> 00:00:02,000\n\n", 15: None}  # None: a film without narration
OPTIONS = dict(
    max_steps=STEPS, per_device_train_batch_size=8, logging_steps=1, save_steps=1, save_total_limit=2, seed=3,
    learning_rate=1e-3, use_cpu=True, disable_tqdm=True, report_to="none",
)  # fmt: skip
run = partial(film_run.run, **OPTIONS)
MEASURED = ("loss", "accuracy", "narrations", "samples_seen", "learning_rate")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Films of three sentences, half a second each; some have fewer, so that bags are not full."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(FILMS):
        (folder / f"{i:02}.mp4").write_bytes(film(seconds=1.5, size=(32, 32)))
        cues = [
            f"00:00:0{0.5 * k:.3f} --> 00:00:0{0.5 * k + 0.5:.3f}\n{SENTENCES[(3 * i + k) % 25]}"
            for k in range(3 - (i % 4 == 0))
        ]
        content = BAD.get(i, "\n\n".join(cues))
        if content is not None:
            (folder / f"{i:02}.srt").write_text(content)
    return folder


@pytest.fixture(scope="module")
def unbroken(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    run(folder, narrated=films)
    assert len(found(folder)["logs"]) == STEPS
    return folder


def test_films_whose_narration_is_bad_or_missing_are_replaced_and_counted(unbroken):
    """48 clips are of two epochs and 8 films more: each of the three is met two or three times."""
    logs, counts = found(unbroken)["logs"], {}
    for reason, count in found(unbroken)["bad_samples"].items():
        name = reason.partition(":")[0]
        counts[name] = counts.get(name, 0) + count
    assert counts.keys() == {"not subtitles", "no narration"}
    assert 2 <= counts["not subtitles"] <= 3 and 4 <= counts["no narration"] <= 6
    assert [entry["samples_seen"] for entry in logs] == [8 * step for step in range(1, STEPS + 1)]
    assert all(2 < entry["narrations"] <= 3 for entry in logs) and any(entry["narrations"] < 3 for entry in logs)


def test_a_killed_run_resumes_exactly(films, unbroken, tmp_path):
    folder = tmp_path / "run"
    run(folder, narrated=films, die_at=3, dataloader_num_workers=2, expect=-signal.SIGKILL)
    assert not (folder / "found-rank0.json").exists()
    run(folder, narrated=films, last=True)
    film_run.same(folder, unbroken, MEASURED)


def test_two_processes_are_one_with_the_same_global_batch(films, unbroken, tmp_path):
    run(tmp_path / "run", narrated=films, ranks=2, per_device_train_batch_size=4)
    ours, theirs = found(tmp_path / "run"), found(unbroken)
    assert ours["digest"] == theirs["digest"] and ours["bad_samples"] == theirs["bad_samples"]
    for name in ("loss", "narrations"):
        values = [[entry[name] for entry in each["logs"]] for each in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=1e-5), name
