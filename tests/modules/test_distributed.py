"""Two processes with half the batch each are one with all of it: loss, and every gradient."""

import pytest
from rank_runs import same_values, values_of

SCRIPT = """
import torch
from torch import nn
from hf_pretext.modules import masked_pairs
from conftest import CONFIGS
from hf_pretext.objectives import colorization, flava, jigsaw, masked_image, matching, relative_position
from rank_runs import compare, trained
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


def compute(kind, rank, ranks):
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
    return trained(model, batch, ranks)


compare(KINDS, compute)
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return values_of(SCRIPT, tmp_path_factory.mktemp("one"), 1)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_equal_one_with_the_whole_batch(tmp_path, one, ranks):
    assert len(one) > 300
    same_values(values_of(SCRIPT, tmp_path, ranks), one)
