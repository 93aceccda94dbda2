"""Two processes with half of the clips each are one with all of them: loss, and every gradient."""

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
from clips import clips, model_of
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

KINDS = {
    "contrastive": {},
    "fixed temperature": {"learned_temperature": False},
    "shifted": {"negatives": "shifted", "easy_until": 0.0, "shifted_share": 1.0},  # all, so that no draw matters
    "shifted, none yet": {"negatives": "shifted"},
}
ranks = int(sys.argv[2])
if ranks > 1:
    dist.init_process_group("gloo")
rank = dist.get_rank() if ranks > 1 else 0


def found(kind):
    torch.manual_seed(0)
    model = model_of("wav2vec2", "vit", **KINDS[kind]).double().train()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in clips(model, 8).items()}
    if "shifted" in kind:
        for name in ("input_values", "attention_mask", "sound_start"):
            batch[name][5, 1] = batch[name][5, 0]  # without another time
    model.freeze_unused(batch)
    model.train()
    trained = DistributedDataParallel(model) if ranks > 1 else model
    loss = trained(**{name: value.chunk(ranks)[rank] for name, value in batch.items()}).loss
    loss.backward()
    loss = loss.detach().clone()
    if ranks > 1:
        dist.all_reduce(loss)
    values = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {f"{kind}: {name}": value for name, value in {"loss": loss / ranks, **values}.items()}


values = {name: value for kind in KINDS for name, value in found(kind).items()}
if rank == 0:
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


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_equal_one_with_all_clips(tmp_path, one, ranks):
    found = run(tmp_path, ranks)
    assert found.keys() == one.keys() and len(one) > 150
    assert "fixed temperature: pretext_head.score.logit_scale" not in one
    assert one["shifted: loss"] > one["shifted, none yet: loss"]  # more candidates
    for name, value in one.items():
        torch.testing.assert_close(found[name], value, atol=1e-10, rtol=1e-8, msg=lambda m, name=name: f"{name}: {m}")
