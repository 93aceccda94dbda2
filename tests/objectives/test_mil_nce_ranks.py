"""MIL-NCE: two processes with half of the narrated clips each are one with all of them: loss, and every gradient."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import gc
import os
import sys
import torch
import torch.distributed as dist
from narrated import as_double, model_of, narrated_clips
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

KINDS = {
    "bag": {"learned_temperature": True},
    "nearest": {"positives": "nearest"},
    "word vectors": {"text": None},
}
ranks = int(sys.argv[2])
if ranks > 1:
    dist.init_process_group("gloo")
rank = dist.get_rank() if ranks > 1 else 0


def found(kind):
    torch.manual_seed(0)
    model = model_of("vit", **KINDS[kind])
    batch = as_double(model, narrated_clips(model, 8))
    batch["attention_mask"][4:, :, 6] = batch["attention_mask"][0, 1:, 6] = 0  # shorter texts on the last rank
    for name in ("input_ids", "attention_mask"):  # the last rank has two texts of the first
        batch[name][5, 2], batch[name][6, 0] = batch[name][0, 2], batch[name][0, 1]
    model.freeze_unused(batch)
    model.train()
    trained = DistributedDataParallel(model) if ranks > 1 else model
    part = {name: value.chunk(ranks)[rank] for name, value in batch.items()}
    longest = int(part["attention_mask"].sum(2).max())
    part |= {name: part[name][..., :longest] for name in ("input_ids", "attention_mask")}
    output = trained(**part)
    output.loss.backward()
    loss = output.loss.detach().clone()
    if ranks > 1:
        dist.all_reduce(loss)
    values = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    values |= {"loss": loss / ranks, "length": torch.tensor(longest)}
    return {f"{kind}: {name}": value for name, value in values.items()}


values = {name: value for kind in KINDS for name, value in found(kind).items()}
if rank == ranks - 1:
    save_file(values, sys.argv[1])
if ranks > 1:
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()
    os._exit(0)  # see test_distributed.py
"""


def run(folder: Path, ranks: int) -> dict[str, torch.Tensor]:
    script, file, tests = folder / "compare.py", folder / f"{ranks}.safetensors", Path(__file__).parents[1]
    script.write_text(SCRIPT)
    paths = [str(tests), str(tests / "objectives"), *sys.path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d"]
    done = subprocess.run(
        [sys.executable, *([*launch, "--rdzv_endpoint", "localhost:0"] if ranks > 1 else []), script, file, str(ranks)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return load_file(file)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return run(tmp_path_factory.mktemp("one"), 1)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one_with_all_narrated_clips(tmp_path, one, ranks):
    found = run(tmp_path, ranks)
    assert found.keys() == one.keys() and len(one) > 150
    assert "nearest: pretext_head.score.logit_scale" not in one and "bag: pretext_head.score.logit_scale" in one
    lengths = [values.pop("bag: length").item() for values in (one.copy(), found)]
    assert lengths[1] < lengths[0]  # of the last rank's texts
    for name, value in one.items():
        if not name.endswith("length"):
            torch.testing.assert_close(found[name], value, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
