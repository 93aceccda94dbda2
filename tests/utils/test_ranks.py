"""Values that ranks share."""

import subprocess
import sys

ON_MAIN_PROCESS = """
import torch.distributed as dist
from hf_pretext.utils.ranks import on_each_process, on_main_process

dist.init_process_group("gloo")
print("value", on_main_process(dist.get_rank))

def fails():
    raise ValueError(f"damaged on {dist.get_rank()}")

try:
    on_main_process(fails)
except ValueError as error:
    print("error", error)

print("each", on_each_process(dist.get_rank))

def fails_on_the_last():
    if dist.get_rank():
        raise ValueError("damaged on the last")

try:
    on_each_process(fails_on_the_last)
except ValueError as error:
    print("each error", error)
dist.destroy_process_group()
"""


def test_what_the_main_process_gives_or_raises_comes_to_all(tmp_path):
    (tmp_path / "script.py").write_text(ON_MAIN_PROCESS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    done = subprocess.run(
        [*launch, "--rdzv_endpoint", "localhost:0", str(tmp_path / "script.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = ["each 0", "each error damaged on the last", "error damaged on 0", "value 0"]
    assert sorted(done.stdout.splitlines()) == sorted(2 * lines)
