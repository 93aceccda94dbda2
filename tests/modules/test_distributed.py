"""Two processes with half the batch each are one with all of it: loss, and every gradient."""

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
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from hf_pretext.modules import masked_pairs
from conftest import CONFIGS
from hf_pretext.objectives import colorization, flava, jigsaw, masked_image, matching, relative_position
from towers import batch_of, pair_of
import test_multiway
from test_flava import fitted
from test_matching import model_of

# as the scores say, and not by chance: the same for any number of ranks
matching.wrong_ones = flava.wrong_ones = lambda scores, same, *_: scores.masked_fill(same, -torch.inf).argmax(1)
masked_pairs.random_patches = lambda rows, count, *_: torch.arange(count).expand(rows, -1) % 2 == 0
masked_image.random_patches = masked_pairs.random_patches
flava.random_patches = masked_pairs.random_patches
masked_pairs.draw_units = lambda allowed, *_: allowed & (torch.arange(allowed.shape[1]) % 2 == 0)
masked_pairs.replaced = lambda ids, hidden, mask, *_, **__: ids.masked_fill(hidden, mask)



def by_content(self, pixels):  # tiles are shuffled in the same way on any rank
    labels = (pixels.sum((1, 2, 3)) * 1000).long() % self.task.num_permutations
    return jigsaw.reordered(jigsaw.cut_tiles(pixels, 2, 16), self.pretext_head.permutations[labels]), labels


jigsaw.JigsawForPreTraining.shuffled = by_content
IMAGES = {  # without random places: tiles as large as their cells
    "jigsaw": (jigsaw.JigsawForPreTraining, dict(grid=2, num_permutations=24)),
    "relative position": (relative_position.RelativePositionForPreTraining, dict(gap=0, color="project")),
    "colorization": (colorization.ColorizationForPreTraining, dict(head_dim=16, color_grid=4)),
    "masked image": (masked_image.MaskedImageForPreTraining, dict(mask_ratio=0.5, decoder_dim=16)),
    "masked image, visible": (
        masked_image.MaskedImageForPreTraining,
        dict(mask_ratio=0.5, decoder_dim=32, decoder_layers=1, visible_only=True),
    ),
}
KINDS = {
    **dict.fromkeys(IMAGES, {}),
    "softmax, local": {},
    "softmax, gather": {"exchange": "gather"},
    "smoothed, local": {"label_smoothing": 0.1},
    "smoothed, gather": {"label_smoothing": 0.1, "exchange": "gather"},
    "unicl, local": {"positives": "label"},
    "unicl, gather": {"positives": "label", "exchange": "gather"},
    "sigmoid, local": {"loss": "sigmoid"},
    "sigmoid, gather": {"loss": "sigmoid", "exchange": "gather"},
    "sigmoid, ring": {"loss": "sigmoid", "exchange": "ring"},
    "sigmoid with labels, ring": {"loss": "sigmoid", "positives": "label", "exchange": "ring"},
    "in pieces, local": {"embed_batch_size": 2},
    "matching": {},
    "flava": {},
    "flava, nothing compared": {"contrastive_weight": 0.0, "itm_weight": 0.0},
    "flava, images alone": {},
    "multiway": {"contrastive_weight": 1.0},
    "multiway, images alone": {},
}
MODELS = {"matching": model_of, "flava": fitted, "multiway": test_multiway.fitted}
ranks = int(sys.argv[2])
if ranks > 1:
    dist.init_process_group("gloo")
rank = dist.get_rank() if ranks > 1 else 0


def found(kind):
    torch.manual_seed(0)
    name = kind.split(",")[0]
    if kind in IMAGES:
        MODELS[name] = lambda **_: IMAGES[kind][0].from_encoder(CONFIGS["vit"](), **IMAGES[kind][1])
    model = MODELS[name](**KINDS[kind]) if name in MODELS else pair_of("vit", **KINDS[kind])
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batch = {**batch_of(12), "labels": torch.arange(12) % 5}
    if name in MODELS and kind not in IMAGES:  # texts of one length in each half, another in the other
        batch["attention_mask"] = (torch.arange(7) < torch.tensor([7] * 6 + [5] * 6)[:, None]).long()
    batch = {key: value.chunk(ranks)[rank] for key, value in batch.items()}
    longest = int(batch["attention_mask"].sum(1).max()) if name in MODELS and kind not in IMAGES else 7
    batch |= {key: value[:, :longest] for key, value in batch.items() if key in ("input_ids", "attention_mask")}
    batch["pixel_values"] = batch["pixel_values"].double()
    if "alone" in kind:
        batch = {"pixel_values": batch["pixel_values"]}
    if kind in IMAGES:
        pixels = torch.nn.functional.interpolate(batch["pixel_values"], size=(32, 32), mode="bilinear")
        batch = {"pixel_values": pixels[..., :24, :24] if kind == "relative position" else pixels}
    model.eval()
    model.freeze_unused(batch)
    model.train()
    trained = DistributedDataParallel(model) if ranks > 1 else model
    output = trained(**batch)
    output.loss.backward()
    values = {"loss": output.loss.detach()}
    if "negatives" in output.logs:
        values["negatives"] = output.logs["negatives"].double()
    if ranks > 1:
        for value in values.values():
            dist.all_reduce(value)
            value /= ranks
    values |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {f"{kind}: {name}": value.clone() for name, value in values.items()}


# In a function: no model outlives the group, whose threads must have ended before the interpreter does.
values = {name: value for kind in KINDS for name, value in found(kind).items()}
if rank == 0:
    save_file(values, sys.argv[1])
if ranks > 1:
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()
    os._exit(0)  # an interpreter that ends while a thread of gloo's still frees a tensor is aborted, once in many runs
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


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_equal_one_with_the_whole_batch(tmp_path, one, ranks):
    found = run(tmp_path, ranks)
    assert found.keys() == one.keys()
    assert len(one) > 300
    for name, value in one.items():
        torch.testing.assert_close(found[name], value, atol=1e-10, rtol=1e-8, msg=lambda m, name=name: f"{name}: {m}")
