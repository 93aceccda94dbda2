"""VideoBERT: two processes with half of the films each are one with all of them: visual words, cache, gradients."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from conftest import CONFIGS
from safetensors.torch import load_file

from hf_pretext.encoders import build_encoder

SCRIPT = """
import gc
import os
import sys
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from test_videobert import model_of, pairs
from torch.nn.parallel import DistributedDataParallel
from hf_pretext.objectives import videobert

# the same draws on any number of ranks: one token of each row, and the film of the neighbour for every second pair
videobert.BY_MASK, videobert.BY_RANDOM = 1.0, 0.0
videobert.draw_units = lambda allowed, starts, ratio, generator: allowed & (allowed.cumsum(1) == 2)
videobert.half_wrong = lambda labels, generator: (labels % 2 == 1, torch.arange(len(labels)) ^ (labels % 2 == 1).long())

folder, file, ranks = sys.argv[1], sys.argv[2], int(sys.argv[3])
if ranks > 1:
    dist.init_process_group("gloo")
rank = dist.get_rank() if ranks > 1 else 0
torch.manual_seed(0)
model = model_of(folder, fitted=False, cache_words=True, word_pieces=43)
model.full_model.double()
films, batch = pairs(24)["pixel_values"], pairs(24)
mine = torch.arange(24)[rank::ranks]
model.set_rows(24)
model.prepare({"pixel_values": films[keys]} for keys in mine.split(8 // ranks))
good = mine[(mine != 5) & (mine != 6)]
model.before_training({"keys": keys, "pixel_values": films[keys]} for keys in good.split(3))

batch = {name: batch[name] for name in ("input_ids", "attention_mask")} | {"keys": torch.arange(24)}
batch = {name: value[8:] for name, value in batch.items()} | {"labels": torch.arange(16)}
model.freeze_unused(batch)
model.train()
trained = DistributedDataParallel(model) if ranks > 1 else model
output = trained(**{name: value.chunk(ranks)[rank] for name, value in batch.items()})
output.loss.backward()
loss = output.loss.detach().clone()
if ranks > 1:
    dist.all_reduce(loss)
values = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
values |= {name: value.clone() for name, value in model.visual_words.named_buffers() if "encoder" not in name}
values |= {"loss": loss / ranks, "cached": model.cached.clone()}
if rank == ranks - 1:
    save_file(values, file)
if ranks > 1:
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()
    os._exit(0)  # see test_distributed.py
"""


def run(folder: Path, encoder: Path, ranks: int) -> dict[str, torch.Tensor]:
    script, file, tests = folder / "compare.py", folder / f"{ranks}.safetensors", Path(__file__).parents[1]
    script.write_text(SCRIPT)
    paths = [str(tests), str(tests / "objectives"), *sys.path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d"]
    launch = [*launch, "--rdzv_endpoint", "localhost:0"] if ranks > 1 else []
    command = [sys.executable, *launch, script, encoder, file, str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return load_file(file)


def test_two_processes_equal_one_with_all_films(tmp_path):
    torch.manual_seed(0)
    build_encoder(CONFIGS["resnet"]()).save_pretrained(tmp_path / "frozen")
    one, two = (run(tmp_path, tmp_path / "frozen", ranks) for ranks in (1, 2))
    assert one.keys() == two.keys() and len(one) > 30
    assert one["counts"].sum() == 43 and one["cached"].unique().numel() > 4
    assert (one["cached"] < 0).all(1).nonzero().flatten().tolist() == [5, 6]
    for name in ("cached", "counts"):
        assert torch.equal(one[name], two[name]), name
    for name, value in one.items():
        least = 1e-5 if name.startswith("centres") else 1e-10  # features are float32
        torch.testing.assert_close(two[name], value, atol=least, rtol=least, msg=lambda m, n=name: f"{n}: {m}")
