"""Scripts on one or several processes, whose losses and gradients are compared.

`start` runs a script; rank_cases.py calls `compare`.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

TESTS = Path(__file__).parent


def start(script: Path, *arguments, ranks: int = 1, expect: int = 0) -> str:
    """Runs a script on some processes of one thread each, and returns what it writes to stderr."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d"]
    launch = [*launch, "--rdzv_endpoint", "localhost:0"] if ranks > 1 else []
    paths = [str(TESTS), str(TESTS / "objectives"), *sys.path]
    done = subprocess.run(
        [sys.executable, *launch, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done.stderr


def same_values(values: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


# in the script


def compare(cases: Mapping[str, tuple[Iterable[str], Callable[[str, int, int], dict[str, torch.Tensor]]]]) -> None:
    """Saves what `compute(kind, rank, ranks)` of each case returns on the last rank, as `case/kind: name`, and ends the
    process. cases: kinds and compute, by name."""
    file, ranks = sys.argv[1], int(sys.argv[2])
    if ranks > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if ranks > 1 else 0
    # compute is a function: no model outlives the group, whose threads must have ended before the interpreter does
    values = {
        f"{case}/{kind}: {name}": value
        for case, (kinds, compute) in cases.items()
        for kind in kinds
        for name, value in compute(kind, rank, ranks).items()
    }
    if rank == ranks - 1:
        save_file(values, file)
    if ranks > 1:
        dist.barrier()
        gc.collect()
        dist.destroy_process_group()
        os._exit(0)  # an interpreter that ends while a thread of gloo's still frees a tensor is aborted, once in many


def trained(model, batch: dict[str, torch.Tensor], ranks: int, counted: bool = False) -> dict[str, torch.Tensor]:
    """Loss and logged negatives as the mean over ranks, and all gradients. counted: also its number of labels."""
    wrapped = DistributedDataParallel(model) if ranks > 1 else model  # must outlive the backward pass
    output = wrapped(**batch)
    output.loss.backward()
    values = {"loss": output.loss.detach().clone()}
    if "negatives" in output.logs:
        values["negatives"] = output.logs["negatives"].double()
    if ranks > 1:
        for value in values.values():
            dist.all_reduce(value)
            value /= ranks
    if counted:
        values["predicted"] = torch.tensor(len(output.labels))
    return values | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
