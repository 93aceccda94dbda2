"""Values that ranks share."""

import subprocess
import sys

ON_MAIN_PROCESS = r"""
import sys
from pathlib import Path

import torch.distributed as dist
from hf_pretext.utils.ranks import on_each_process, on_main_process

dist.init_process_group("gloo")
lines = [f"value {on_main_process(dist.get_rank)}"]

def fails():
    raise ValueError(f"damaged on {dist.get_rank()}")

try:
    on_main_process(fails)
except ValueError as error:
    lines.append(f"error {error}")

lines.append(f"each {on_each_process(dist.get_rank)}")

def fails_on_the_last():
    if dist.get_rank():
        raise ValueError("damaged on the last")

try:
    on_each_process(fails_on_the_last)
except ValueError as error:
    lines.append(f"each error {error}")
# A file for each rank: the ranks share one standard output, in which the lines of two of them can mix.
Path(sys.argv[1], f"{dist.get_rank()}.txt").write_text("\n".join(lines))
dist.destroy_process_group()
"""


def test_what_the_main_process_gives_or_raises_comes_to_all(tmp_path):
    (tmp_path / "script.py").write_text(ON_MAIN_PROCESS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    done = subprocess.run(
        [*launch, "--rdzv_endpoint", "localhost:0", str(tmp_path / "script.py"), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = ["value 0", "error damaged on 0", "each 0", "each error damaged on the last"]
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text().splitlines() == lines
