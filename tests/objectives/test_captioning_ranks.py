"""Captioning: two processes with half of the captions each are one with all of them, and a killed run resumes."""

import os
import signal
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
from caption_models import batch_of, model_of
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

ranks = int(sys.argv[2])
if ranks > 1:
    dist.init_process_group("gloo")
rank = dist.get_rank() if ranks > 1 else 0
torch.manual_seed(0)
model = model_of(backward=True, label_smoothing=0.1).double()
batch = batch_of(8)
batch["pixel_values"] = batch["pixel_values"].double()
model.freeze_unused(batch)
model.eval().training = True  # without dropout, whose draws differ
trained = DistributedDataParallel(model) if ranks > 1 else model
part = {name: value.chunk(ranks)[rank] for name, value in batch.items()}
longest = int(part["attention_mask"].sum(1).max())
part |= {name: part[name][:, :longest] for name in ("input_ids", "attention_mask")}
output = trained(**part)
output.loss.backward()
losses = {name: value.detach().clone() for name, value in output.losses.items()}
tokens = torch.tensor(len(output.labels))
if ranks > 1:
    for value in losses.values():
        dist.all_reduce(value)
values = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
values |= {name: value / ranks for name, value in losses.items()} | {"tokens": tokens}
if rank == ranks - 1:
    save_file(values, sys.argv[1])
if ranks > 1:
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()
    os._exit(0)  # see test_distributed.py
"""

RUN = """
import os
import signal
import sys
from pathlib import Path

import datasets
import torch
from caption_models import model_of
from conftest import EMOJI, IMAGE
from transformers import TrainingArguments, set_seed

from hf_pretext import CaptioningForPreTraining
from hf_pretext.data.captions import Captions
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import trained
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.objectives.captioning import CaptioningTask
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer

folder, die_at, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "last"
torch.set_num_threads(1)
set_seed(0)
rows = datasets.load_dataset("parquet", data_files=str(EMOJI / "test-*.parquet"), split="train").select(range(40))
data = open_source(rows, columns={"image": "image", "text": "text", "keywords": "keywords"}, needed=("image", "text"))
tokenizer = trained(data, "wordpiece", 300, True, "text", 16)
given = dict(backward=True, parallel_share=0.4, prefix=2, label_smoothing=0.1)
task = CaptioningForPreTraining.complete(CaptioningTask(**given), {"text": tokenizer})
model = model_of(words=len(tokenizer), length=20, **vars(task))
texts = Text(tokenizer, 16, captions=Captions(("keywords",)))
inputs = Inputs(Image(default_processor(IMAGE), Augmentation(crop_scale=0.5, horizontal_flip=0.5)), texts)
model.freeze_unused(*inputs.noise())
args = TrainingArguments(
    folder, use_cpu=True, max_steps=6, per_device_train_batch_size=4, save_steps=2, learning_rate=1e-2, logging_steps=1,
    report_to="none", disable_tqdm=True, dataloader_num_workers=1,
)
trainer = PretextTrainer(model, args, data, inputs, stream=StreamSettings(parts=2))
compute = trainer.compute_loss


def dying(*arguments, **named):
    if trainer.state.global_step == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(*arguments, **named)


trainer.compute_loss = dying
trainer.train("last" if resume else None)
trainer.save_model()
"""


def environment() -> dict[str, str]:
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "objectives"), *sys.path]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def started(code: str, folder: Path, *arguments, ranks: int = 1) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(code)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d"]
    python = [sys.executable, *([*launch, "--rdzv_endpoint", "localhost:0"] if ranks > 1 else [])]
    typed = [*python, str(script), *map(str, arguments)]
    return subprocess.run(typed, capture_output=True, text=True, timeout=600, env=environment())


def gradients(folder: Path, ranks: int) -> dict[str, torch.Tensor]:
    done = started(SCRIPT, folder, folder / f"{ranks}.safetensors", ranks, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return load_file(folder / f"{ranks}.safetensors")


def test_two_processes_equal_one_with_all_captions(tmp_path):
    """Loss and every gradient, although captions of the second process are shorter."""
    one, two = (gradients(tmp_path, ranks) for ranks in (1, 2))
    assert found_tokens(two) != found_tokens(one) / 2
    assert two.keys() == one.keys() and len(one) > 60
    for name, value in one.items():
        if name != "tokens":
            torch.testing.assert_close(two[name], value, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def found_tokens(values: dict[str, torch.Tensor]) -> int:
    return values["tokens"].item()


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    """With every setting that draws, from a checkpoint in the middle."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = started(RUN, tmp_path, whole, -1, "no")
    assert done.returncode == 0, done.stderr
    assert started(RUN, tmp_path, killed, 5, "no").returncode == -signal.SIGKILL
    assert (killed / "checkpoint-4").exists() and not (killed / "model.safetensors").exists()
    done = started(RUN, tmp_path, killed, -1, "last")
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "pretext.safetensors"):
        first, second = (load_file(folder / name) for folder in (whole, killed))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    begun = load_file(whole / "checkpoint-2" / "pretext.safetensors")
    ended = load_file(whole / "pretext.safetensors")
    assert any(not torch.equal(begun[key], ended[key]) for key in ended)
