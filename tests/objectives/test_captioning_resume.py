"""Captioning: a killed run resumes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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


def started(code: str, folder: Path, *arguments) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(code)
    typed = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(typed, capture_output=True, text=True, timeout=600, env=environment())


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
