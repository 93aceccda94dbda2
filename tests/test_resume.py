"""Runs that are killed, resumed and spread over processes, as real processes: the same data, losses and weights."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_pretext.stream.sample_log import read_lines

SCRIPT = Path(__file__).parent / "train.py"
ROWS, STEPS, BATCH = 70, 16, 12
COMMON = dict(
    max_steps=STEPS, per_device_train_batch_size=BATCH, logging_steps=1, save_steps=1, save_total_limit=2, seed=3,
    learning_rate=1e-3, lr_scheduler_type="cosine", use_cpu=True, disable_tqdm=True, report_to="none",
    record_samples=True, parts=4, window=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Parquet files of different lengths, one of them empty, with two images that can't be read."""
    folder = tmp_path_factory.mktemp("data")
    draws = np.random.default_rng(0)
    images = [Image.fromarray(draws.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(ROWS)]
    table = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))
    rows = table.cast_column("image", datasets.Image(decode=False)).to_list()
    rows[11]["image"]["bytes"] = rows[11]["image"]["bytes"][:90]
    rows[40]["image"]["bytes"] = b"no picture"
    for i, (start, stop) in enumerate([(0, 33), (33, 33), (33, 40), (40, 70)]):
        part = datasets.Dataset.from_list(rows[start:stop], table.features) if stop > start else table.select([])
        part.to_parquet(folder / f"train-{i}.parquet", batch_size=10)
    return folder


def command(data, folder, ranks=1, **options) -> list[str]:
    options = {"dataset": data, "output_dir": folder, **COMMON, **options}
    launch = [
        "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d",
        "--rdzv_endpoint", "localhost:0",
    ]  # fmt: skip
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, *(launch if ranks > 1 else []), str(SCRIPT), *arguments]


def start(*args, **options) -> subprocess.Popen:
    return subprocess.Popen(
        command(*args, **options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run(*args, expect: int = 0, **options) -> str:
    process = start(*args, **options)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == expect, output
    return output


def outcome(folder) -> dict:
    return json.loads((folder / "found.json").read_text())


def steps(folder) -> dict[int, list[str]]:
    """The keys of each step, in the global order: rank r of R took every R-th from r on."""
    files = sorted(folder.glob("samples-rank*.jsonl"))
    by_step: dict[int, list[list[str]]] = {}
    for file in files:
        for line in read_lines(file):
            by_step.setdefault(line["step"], []).append(line["keys"])
    return {step: [key for group in zip(*ranks, strict=True) for key in group] for step, ranks in by_step.items()}


def same(folder, unbroken) -> None:
    """Asserts that a run saw, lost and learned bit for bit what another did."""
    assert steps(folder) == steps(unbroken)
    ours, theirs = outcome(folder), outcome(unbroken)
    for name in ("losses", "weights", "digest", "bad_samples", "samples_seen"):
        assert ours[name] == theirs[name], name
    for name in ("samples_seen", "epoch", "epoch_of_source", "accuracy", "learning_rate"):
        assert [entry[name] for entry in ours["logs"]] == [entry[name] for entry in theirs["logs"]], name
    assert not list(folder.glob(".saving*"))


def watched(folder) -> dict[str, float]:
    """Sums and counts of the collapse watch in the last checkpoint, of a window that is not full."""
    state = json.loads((folder / f"checkpoint-{STEPS}" / "stream.json").read_text())["collapse"]
    return {f"{name} {i}": value for name, pair in state["window"].items() for i, value in enumerate(pair)}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """One run never interrupted, with one process and no workers."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(data, folder)
    return folder


def test_a_full_run_saw_each_row_once_an_epoch(unbroken):
    keys = [key for step in range(1, STEPS + 1) for key in steps(unbroken)[step]]
    assert len(keys) == STEPS * BATCH
    bad = {(line["shard"], line["row"]) for line in read_lines(unbroken / "bad_samples.jsonl")}
    assert bad == {("train-0.parquet", 11), ("train-3.parquet", 0)}
    assert len(set(keys[:ROWS])) >= ROWS - 2 - 2  # two rows are bad, and their substitutes come twice
    assert not {f"{shard}:{row}" for shard, row in bad} & set(keys)
    logs = outcome(unbroken)["logs"]
    assert logs[-1]["epoch"] == logs[-1]["epoch_of_source"] == pytest.approx(STEPS * BATCH / ROWS)


def test_killed_while_writing_a_checkpoint_then_in_a_step_then_resumed_with_other_workers(data, unbroken, tmp_path):
    folder = tmp_path / "run"
    run(data, folder, die="_save_optimizer_and_scheduler:5", dataloader_num_workers=2, expect=-signal.SIGKILL)
    assert (folder / ".saving" / "checkpoint-5" / "model.safetensors").exists()  # half-written, under another name
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}
    run(data, folder, last=True, die="compute_loss:9", dataloader_num_workers=4, expect=-signal.SIGKILL)
    assert not (folder / ".saving" / "checkpoint-5").exists()
    assert max(steps(folder)) == 10  # it had begun
    run(data, folder, last=True)
    same(folder, unbroken)
    assert watched(folder) == watched(unbroken) and watched(folder)["spread 1"] == STEPS


@pytest.mark.slow
def test_killed_just_before_a_checkpoint_takes_its_name(data, unbroken, tmp_path):
    folder = tmp_path / "run"
    run(data, folder, die="_state_of_stream:7", expect=-signal.SIGKILL)  # all is written but for the stream's state
    assert not (folder / "checkpoint-7").exists() and (folder / "checkpoint-6").exists()
    run(data, folder, last=True)
    same(folder, unbroken)


def killed_anywhere(data, unbroken, folder, seed: int, **options) -> None:
    """Kills a run, with all its processes, at random times until it comes to its end."""
    draws = random.Random(seed)
    kills = 0
    while not (folder / "found.json").exists():
        last = {"last": True} if list(folder.glob("checkpoint-*")) else {}
        process = start(data, folder, step_seconds=0.05, **options, **last)
        begun = max(steps_of_any(folder), default=0)
        target = begun + draws.randint(1, 6)
        deadline = time.time() + 120
        while process.poll() is None and max(steps_of_any(folder), default=0) < target and time.time() < deadline:
            time.sleep(0.01)
        time.sleep(draws.random() * 0.15)
        if process.poll() is None and kills < 3:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        output, _ = process.communicate(timeout=240)
        assert process.returncode in (0, -signal.SIGKILL), output
    assert kills > 0
    same(folder, unbroken)


def steps_of_any(folder) -> list[int]:
    return [line["step"] for file in folder.glob("samples-rank*.jsonl") for line in read_lines(file)]


@pytest.mark.slow
def test_killed_anywhere(data, unbroken, tmp_path):
    with ThreadPoolExecutor() as pool:  # both at once: they mostly import
        runs = [
            pool.submit(killed_anywhere, data, unbroken, tmp_path / str(seed), seed, dataloader_num_workers=seed)
            for seed in range(2)
        ]
        assert [one.result() for one in runs] == [None, None]  # or it raises what it raised


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22))
def test_killed_anywhere_often(data, unbroken, tmp_path, seed):
    killed_anywhere(data, unbroken, tmp_path / "run", seed, dataloader_num_workers=(0, 2, 4)[seed % 3])


@pytest.fixture(scope="module")
def unbroken_of_two(data, tmp_path_factory):
    """The same on two processes, with two batches a step."""
    folder = tmp_path_factory.mktemp("two") / "run"
    run(data, folder, ranks=2, per_device_train_batch_size=3, gradient_accumulation_steps=2)
    return folder


def test_two_processes_killed_and_resumed(data, unbroken, unbroken_of_two, tmp_path):
    options = dict(ranks=2, per_device_train_batch_size=3, gradient_accumulation_steps=2)
    killed_anywhere(data, unbroken_of_two, tmp_path / "run", 7, dataloader_num_workers=2, **options)
    of_two = watched(unbroken_of_two)
    assert watched(tmp_path / "run") == pytest.approx(of_two, rel=1e-5)  # ranks are added in another order
    assert of_two["spread 1"] == 2 * 2 * STEPS
    assert (
        outcome(unbroken_of_two)["digest"] == outcome(unbroken)["digest"]
    )  # one process, one batch a step: the same samples


def signalled(process: subprocess.Popen, folder, step: int, send) -> str:
    """Waits for a step of a run, sends it a signal, and returns what it printed."""
    deadline = time.time() + 120
    while process.poll() is None and max(steps_of_any(folder), default=0) < step and time.time() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
    send()
    return process.communicate(timeout=240)[0]


def checkpoints(folder) -> list[str]:
    return [path.name for path in folder.glob("checkpoint-*")]


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_nobody_else_writes_until_then(data, unbroken, tmp_path):
    """The signal reaches the workers too, as in a terminal."""
    folder, options = tmp_path / "run", dict(save_steps=100, dataloader_num_workers=2)
    process = start(data, folder, step_seconds=5, **options)
    while process.poll() is None and not (folder / "run.lock").exists():
        time.sleep(0.01)
    assert f"process {process.pid} on" in run(data, folder, expect=1, **options)
    output = signalled(process, folder, 2, lambda: os.killpg(process.pid, signal.SIGINT))
    assert process.returncode == 130, output
    assert "Traceback" not in output and output.count("SIGINT: ends after this step") == 1
    (saved,) = checkpoints(folder)
    assert f"{saved}. Resume with:" in output and not (folder / "found.json").exists()
    run(data, folder, last=True)
    same(folder, unbroken)
    assert not (folder / "run.lock").exists()


@pytest.mark.slow
def test_a_job_scheduler_stops_all_ranks_at_the_same_step(data, unbroken_of_two, tmp_path):
    folder = tmp_path / "run"
    options = dict(ranks=2, per_device_train_batch_size=3, gradient_accumulation_steps=2)
    slow = dict(save_steps=100, step_seconds=0.3, dataloader_num_workers=2)
    process = start(data, folder, **slow, **options)
    output = signalled(process, folder, 2, process.terminate)  # torch.distributed.run passes it on
    (saved,) = checkpoints(folder)
    assert f"{saved}. Resume with:" in output and not (folder / "found.json").exists()
    run(data, folder, last=True, **options)
    same(folder, unbroken_of_two)


def test_a_second_signal_ends_a_run_at_once(data, tmp_path):
    process = start(data, tmp_path, step_seconds=60, dataloader_num_workers=1)

    def twice():
        process.terminate()
        time.sleep(1.5)
        process.terminate()

    began = time.time()
    signalled(process, tmp_path, 1, twice)
    assert process.returncode == 143 and time.time() - began < 60 and not checkpoints(tmp_path)


@pytest.mark.slow
def test_a_changed_bit_in_a_file_of_one_process_takes_all_processes_to_the_checkpoint_before(
    data, unbroken_of_two, tmp_path
):
    folder = tmp_path / "run"
    options = dict(ranks=2, per_device_train_batch_size=3, gradient_accumulation_steps=2)
    run(data, folder, stop_at=4, **options)
    manifest = json.loads((folder / "checkpoint-4" / "manifest.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth", "pretext.safetensors", "optimizer.pt"} <= manifest["files"].keys()
    changed = folder / "checkpoint-4" / "rng_state_1.pth"
    content = bytearray(changed.read_bytes())
    content[-500] ^= 1
    changed.write_bytes(content)
    output = run(data, folder, last=True, **options)
    assert output.count("checkpoint-4: the content of rng_state_1.pth has changed. Resuming from") == 1
    assert (folder / "abandoned" / "checkpoint-4").exists()
    same(folder, unbroken_of_two)


@pytest.mark.slow
def test_uneven_and_empty_shards_and_filtered_rows_give_two_processes_the_same_steps(data, tmp_path):
    """70 rows in shards of 33, 0, 7 and 30, a third of them left out by a filter."""
    options = dict(ranks=2, per_device_train_batch_size=BATCH // 2, max_steps=8, save_steps=100, parts=16)
    run(data, tmp_path, filtered=True, max_bad_fraction=1.0, **options)
    records = [read_lines(tmp_path / f"samples-rank{rank}.jsonl") for rank in range(2)]
    assert [line["step"] for line in records[0]] == [line["step"] for line in records[1]] == list(range(1, 9))
    keys = [key for step in range(1, 9) for key in steps(tmp_path)[step]]
    rows = round(len(keys) / outcome(tmp_path)["logs"][-1]["epoch"])
    assert 30 < rows < 60
    assert len(set(keys[:rows])) >= rows - 4  # each once an epoch, but for two bad rows and their substitutes
    assert len({key.rpartition(":")[0] for key in keys}) == 3


@pytest.mark.slow  # two processes are killed and resumed below, one process everywhere
def test_other_numbers_of_processes_in_the_middle_of_an_epoch(data, unbroken, tmp_path):
    folder, seen = tmp_path / "run", {}
    for ranks, until in ((2, 4), (3, 7), (4, 11), (1, STEPS)):
        last = {"last": True} if seen else {}
        output = run(data, folder, ranks, per_device_train_batch_size=BATCH // ranks, stop_at=until, **last)
        assert ("--parts 4 is not divisible by 3 processes: each row is read by 3 of them" in output) == (ranks == 3)
        new = steps_after(folder, ranks, max(seen, default=0))
        assert set(new) == set(range(max(seen, default=0) + 1, until + 1))
        seen.update(new)
    assert seen == steps(unbroken)
    assert outcome(folder)["digest"] == outcome(unbroken)["digest"]
    assert outcome(folder)["bad_samples"] == outcome(unbroken)["bad_samples"]


def steps_after(folder, ranks, step) -> dict[int, list[str]]:
    by_step: dict[int, list[list[str]]] = {}
    for rank in range(ranks):
        for line in read_lines(folder / f"samples-rank{rank}.jsonl"):
            if line["step"] > step:
                by_step.setdefault(line["step"], []).append(line["keys"])
    return {number: [key for group in zip(*keys, strict=True) for key in group] for number, keys in by_step.items()}


@pytest.mark.slow
def test_too_many_bad_samples_end_all_processes_together_also_after_a_resume(data, tmp_path):
    """A fifth is bad: less than that on each rank before it was stopped, and more than is allowed of all."""
    rows = datasets.load_dataset("parquet", data_files=str(data / "train-*.parquet"), split="train")
    rows = rows.cast_column("image", datasets.Image(decode=False)).to_list()
    for row in rows[::5]:
        row["image"]["bytes"] = b"no picture"
    broken, folder = tmp_path / "broken.parquet", tmp_path / "run"
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet(broken)
    options = dict(ranks=2, per_device_train_batch_size=BATCH // 2, max_bad_fraction=0.15)
    run(broken, folder, stop_at=3, **options)
    output = run(broken, folder, last=True, expect=1, **options)
    for rank in range(2):
        assert re.search(rf"rank{rank}\]:.*TooManyBadSamples: 1[1-5] of the last 70 samples are bad", output)
    assert ROWS // BATCH < max(steps(folder)) <= ROWS // BATCH + 2  # not before an epoch was seen, nor long after


def test_a_loss_that_is_not_finite_on_one_rank_ends_all_with_the_same_error_and_keeps_the_checkpoint(data, tmp_path):
    folder = tmp_path / "run"
    options = dict(ranks=2, per_device_train_batch_size=BATCH // 2, save_total_limit=1, logging_steps=4, save_steps=2)
    output = run(data, folder, nan_at=3, expect=1, **options)
    for rank in range(2):
        last = re.escape(f"The last good checkpoint is {folder / 'checkpoint-2'}")
        assert re.search(rf"rank{rank}\]:.*Diverged: Training diverged: the loss of step 3 is NaN.*{last}", output)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert max(steps(folder)) == 4 and not (folder / "found.json").exists()


@pytest.mark.slow
def test_different_global_batch_goes_on_with_the_same_order_and_ends_with_the_epochs(data, unbroken, tmp_path):
    folder = tmp_path / "run"
    epochs = dict(max_steps=-1, num_train_epochs=2)
    run(data, folder, stop_at=5, **epochs)
    first = [key for step in range(1, 6) for key in steps(folder)[step]]
    run(data, folder, last=True, per_device_train_batch_size=20, **epochs)
    then = [key for step in sorted(steps(folder)) if step > 5 for key in steps(folder)[step]]
    expected = [key for step in range(1, STEPS + 1) for key in steps(unbroken)[step]]
    together = first + then
    assert len(together) >= 2 * ROWS and len(together) - 20 < 2 * ROWS
    differing = sum(a != b for a, b in zip(together, expected, strict=False))
    assert differing <= 4  # substitutes may differ: what is in the batch already does


def test_a_mixture_resumes_exactly(data, tmp_path):
    options = dict(more=data / "train-3.parquet", max_steps=6)
    run(data / "train-0.parquet", tmp_path / "whole", **options)
    run(data / "train-0.parquet", tmp_path / "cut", stop_at=4, **options)
    run(data / "train-0.parquet", tmp_path / "cut", last=True, **options)
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole")
    ours, theirs = outcome(tmp_path / "cut"), outcome(tmp_path / "whole")
    assert ours["weights"] == theirs["weights"] and ours["losses"] == theirs["losses"]
    epochs = [name for name in ours["logs"][-1] if name.startswith("epoch_of_source/")]
    assert len(epochs) == 2
    assert all(ours["logs"][-1][name] == theirs["logs"][-1][name] for name in epochs)


def test_a_resume_that_would_see_other_data_is_refused(data, unbroken, tmp_path):
    options = dict(resume_from_checkpoint=unbroken / f"checkpoint-{STEPS}", max_steps=STEPS + 1)
    refused = [
        (data, dict(seed=4), ["was trained with seed 3, not 4"]),
        (data, dict(parts=5), ["was trained with parts 4, not 5"]),
        (data, dict(more=data / "train-3.parquet"), ["mixture_weights None, not"]),
        (data / "train-0.parquet", {}, ["train-1.parquet is missing", "--allow_changed_source"]),
    ]
    # All at once, as they mostly import; each in a folder of its own, which is locked while it looks.
    folders = [tmp_path / str(number) for number in range(len(refused))]
    runs = [
        start(source, folder, **{**options, **change})
        for folder, (source, change, _) in zip(folders, refused, strict=True)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in runs]
    for process, output, (_, _, words) in zip(runs, outputs, refused, strict=True):
        assert process.returncode == 1, output
        assert all(word in output for word in words), output
    assert not any(list(folder.iterdir()) for folder in folders)
