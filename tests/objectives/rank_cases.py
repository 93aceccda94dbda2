"""What objectives compute on one or several processes: losses and gradients. test_objective_ranks.py runs this script.

    python rank_cases.py FILE RANKS [CASE ...]

Each case is a function (kind, rank, ranks) -> values, for several kinds of settings. It computes in float64, without
dropout, and with draws that are the same for any number of ranks.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from rank_runs import compare, trained
from torch import Tensor, nn

CASES: dict[str, tuple[list[str], Callable[[str, int, int], dict[str, Tensor]]]] = {}


def case(*kinds: str):
    """Registers a function as the case of its name, with its kinds."""

    def register(compute):
        CASES[compute.__name__] = (list(kinds) or [""], compute)
        return compute

    return register


def part_of(batch: dict[str, Tensor], rank: int, ranks: int, *shortened: str) -> dict[str, Tensor]:
    """The rows of a rank; `shortened` loses the columns that are padding in all of them."""
    part = {name: value.chunk(ranks)[rank] for name, value in batch.items()}
    if shortened:
        longest = int(part["attention_mask"].sum(-1).max())
        part |= {name: part[name][..., :longest] for name in shortened}
    return part


IMAGES = {  # without random places: tiles as large as their cells
    "jigsaw": dict(grid=2, num_permutations=24),
    "relative_position": dict(gap=0, color="project"),
    "colorization": dict(head_dim=16, color_grid=4),
    "masked_image": dict(mask_ratio=0.5, decoder_dim=16),
    "masked_image, visible": dict(mask_ratio=0.5, decoder_dim=32, decoder_layers=1, visible_only=True),
}


def by_content(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Tiles are shuffled in the same way on any rank."""
    from hf_pretext.objectives import jigsaw

    labels = (pixels.sum((1, 2, 3)) * 1000).long() % self.task.num_permutations
    return jigsaw.reordered(jigsaw.cut_tiles(pixels, 2, 16), self.pretext_head.permutations[labels]), labels


@case(*IMAGES)
def images(kind, rank, ranks):
    from conftest import CONFIGS
    from towers import batch_of

    from hf_pretext.objectives import jigsaw, masked_image
    from hf_pretext.registry import objective_class

    def every_second(rows, count, *_):
        return torch.arange(count).expand(rows, -1) % 2 == 0

    with (
        patch.object(jigsaw.JigsawForPreTraining, "shuffled", by_content),
        patch.object(masked_image, "random_patches", every_second),
    ):
        torch.manual_seed(0)
        model = objective_class(kind.split(",")[0]).from_encoder(CONFIGS["vit"](), **IMAGES[kind])
        pixels = part_of(batch_of(12), rank, ranks)["pixel_values"].double()
        pixels = nn.functional.interpolate(pixels, size=(32, 32), mode="bilinear")
        batch = {"pixel_values": pixels[..., :24, :24] if kind == "relative_position" else pixels}
        return trained(ready(model, batch), batch, ranks)


PAIRS = {
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
}


@case(*PAIRS)
def pairs(kind, rank, ranks):
    from towers import batch_of, pair_of

    torch.manual_seed(0)
    batch = part_of({**batch_of(12), "labels": torch.arange(12) % 5}, rank, ranks)
    batch["pixel_values"] = batch["pixel_values"].double()
    return trained(ready(pair_of("vit", **PAIRS[kind]), batch), batch, ranks)


JOINED = {
    "matching": {},
    "flava": {},
    "flava, nothing compared": {"contrastive_weight": 0.0, "itm_weight": 0.0},
    "flava, images alone": {},
    "multiway": {"contrastive_weight": 1.0},
    "multiway, images alone": {},
}


@case(*JOINED)
def joined(kind, rank, ranks):
    import test_flava
    import test_matching
    import test_multiway
    from towers import batch_of

    from hf_pretext.modules import masked_pairs
    from hf_pretext.objectives import flava, matching

    build = {"matching": test_matching.model_of, "flava": test_flava.fitted, "multiway": test_multiway.fitted}

    def by_scores(scores, same, *_):
        return scores.masked_fill(same, -torch.inf).argmax(1)

    def every_second(rows, count, *_):
        return torch.arange(count).expand(rows, -1) % 2 == 0

    with (
        patch.object(matching, "wrong_ones", by_scores),
        patch.object(flava, "wrong_ones", by_scores),
        patch.object(masked_pairs, "random_patches", every_second),
        patch.object(flava, "random_patches", every_second),
        patch.object(masked_pairs, "draw_units", lambda ok, *_: ok & (torch.arange(ok.shape[1]) % 2 == 0)),
        patch.object(masked_pairs, "replaced", lambda ids, hidden, mask, *_, **__: ids.masked_fill(hidden, mask)),
    ):
        torch.manual_seed(0)
        model = build[kind.split(",")[0]](**JOINED[kind])
        batch = {**batch_of(12), "labels": torch.arange(12) % 5}  # texts of one length in each half
        batch["attention_mask"] = (torch.arange(7) < torch.tensor([7] * 6 + [5] * 6)[:, None]).long()
        batch = part_of(batch, rank, ranks, "input_ids", "attention_mask")
        batch["pixel_values"] = batch["pixel_values"].double()
        if "alone" in kind:
            batch = {"pixel_values": batch["pixel_values"]}
        return trained(ready(model, batch), batch, ranks)


def ready(model, batch):
    """The model in float64 and in training, without dropout, with weights that get no gradient frozen."""
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.eval()
    model.freeze_unused(batch)
    return model.train()


CLIPS = {
    "contrastive": {},
    "fixed temperature": {"learned_temperature": False},
    "shifted": {"negatives": "shifted", "easy_until": 0.0, "shifted_share": 1.0},  # all, so that no draw matters
    "shifted, none yet": {"negatives": "shifted"},
}


@case(*CLIPS)
def audio_visual(kind, rank, ranks):
    from clips import clips, model_of

    torch.manual_seed(0)
    model = model_of("wav2vec2", "vit", **CLIPS[kind]).double().train()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in clips(model, 8).items()}
    if "shifted" in kind:
        for name in ("input_values", "attention_mask", "sound_start"):
            batch[name][5, 1] = batch[name][5, 0]  # without another time
    model.freeze_unused(batch)
    return trained(model.train(), part_of(batch, rank, ranks), ranks)


NARRATED = {
    "bag": {"learned_temperature": True},
    "nearest": {"positives": "nearest"},
    "word vectors": {"text": None},
}


@case(*NARRATED)
def mil_nce(kind, rank, ranks):
    from narrated import as_double, model_of, narrated_clips

    torch.manual_seed(0)
    model = model_of("vit", **NARRATED[kind])
    batch = as_double(model, narrated_clips(model, 8))
    batch["attention_mask"][4:, :, 6] = batch["attention_mask"][0, 1:, 6] = 0  # shorter texts on the last rank
    for name in ("input_ids", "attention_mask"):  # the last rank has two texts of the first
        batch[name][5, 2], batch[name][6, 0] = batch[name][0, 2], batch[name][0, 1]
    model.freeze_unused(batch)
    part = part_of(batch, rank, ranks, "input_ids", "attention_mask")
    return {**trained(model.train(), part, ranks), "length": torch.tensor(part["input_ids"].shape[-1])}


@case()
def captioning(kind, rank, ranks):
    from caption_models import batch_of, model_of

    torch.manual_seed(0)
    model = model_of(backward=True, label_smoothing=0.1).double()
    batch = batch_of(8)
    batch["pixel_values"] = batch["pixel_values"].double()
    model.freeze_unused(batch)
    model.eval().training = True  # without dropout, whose draws differ
    return trained(model, part_of(batch, rank, ranks, "input_ids", "attention_mask"), ranks, counted=True)


@case()
def causal_lm(kind, rank, ranks):
    from test_causal_lm import native

    from hf_pretext import CausalLMForPreTraining

    model = CausalLMForPreTraining.from_encoder(native("llama")).double().train()
    documents = torch.tensor([[1] * 9 + [2] * 3, [1] * 12, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 0], [1] * 4 + [0] * 8])
    ids = torch.randint(60, (4, 12), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "document_ids": documents}
    return trained(model, part_of(batch, rank, ranks), ranks, counted=True)


@case("tokens", "pairs")
def masked_lm(kind, rank, ranks):
    from test_masked_lm import CONFIGS, SETTINGS, masked

    from hf_pretext import MaskedLMForPreTraining

    torch.manual_seed(0)
    pairs = {"pairs": "order"} if kind == "pairs" else {}
    model, batch = MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), **SETTINGS, **pairs), masked((12, 7, 9, 5))
    if pairs:
        batch["pair_labels"] = torch.tensor([0, 1, -100, 1])
    part = part_of(batch, rank, ranks, "input_ids", "attention_mask", "labels")
    return trained(ready(model, batch), part, ranks, counted=True)


@case("narrow electra", "bert")
def replaced_token(kind, rank, ranks):
    from test_replaced_token import SURE, masked, model_of

    model = model_of(kind, temperature=SURE).double().train()
    batch = masked((12, 7, 9, 5))
    model.freeze_unused(batch)
    part = part_of(batch, rank, ranks, *batch)
    count = torch.tensor([int(part["attention_mask"].sum()), int((part["labels"] >= 0).sum())])
    return {**trained(model, part, ranks), "count": count}


@case("simcse", "negatives", "tsdae")
def sentence(kind, rank, ranks):
    from test_sentence import TSDAE, model_of, texts, with_negatives, without_dropout

    settings = {"negatives": {"mlp_head": False, "pooling": "cls"}, "tsdae": TSDAE}
    model, batch = without_dropout(model_of(**settings.get(kind, {})).double()), texts((12, 9, 5, 4))
    if kind == "negatives":
        batch = with_negatives(batch)
    if kind == "tsdae":  # nothing is drawn: all of the words are left
        model.corrupt = lambda ids, present, *others: (ids, present.long())
    model.freeze_unused(batch)
    without_dropout(model)
    return trained(model, part_of(batch, rank, ranks, "input_ids", "attention_mask", "word_starts"), ranks)


@case()
def videobert(kind, rank, ranks):
    """One token of each row is masked, and every second film is that of the neighbour. The encoder of visual words is
    in the folder `frozen` next to FILE."""
    import test_videobert

    from hf_pretext.modules import video_text
    from hf_pretext.objectives import videobert

    def neighbours(labels, generator):
        return labels % 2 == 1, torch.arange(len(labels)) ^ (labels % 2 == 1).long()

    def second(allowed, *_):
        return allowed & (allowed.cumsum(1) == 2)

    masks = patch.multiple(video_text, BY_MASK=1.0, BY_RANDOM=0.0, draw_units=second)
    with masks, patch.object(videobert, "half_wrong", neighbours):
        torch.manual_seed(0)
        frozen = Path(sys.argv[1]).with_name("frozen")
        model = test_videobert.model_of(frozen, fitted=False, cache_words=True, word_pieces=43)
        model.full_model.double()
        batch = test_videobert.pairs(24)
        films, mine = batch["pixel_values"], torch.arange(24)[rank::ranks]
        model.set_rows(24)
        model.prepare({"pixel_values": films[keys]} for keys in mine.split(8 // ranks))
        good = mine[(mine != 5) & (mine != 6)]
        model.before_training({"keys": keys, "pixel_values": films[keys]} for keys in good.split(3))
        batch = {name: batch[name][8:] for name in ("input_ids", "attention_mask")}
        batch |= {"keys": torch.arange(8, 24), "labels": torch.arange(16)}
        model.freeze_unused(batch)
        values = trained(model.train(), part_of(batch, rank, ranks), ranks)
    buffers = model.visual_words.named_buffers()
    values |= {name: value.clone() for name, value in buffers if "encoder" not in name}
    return values | {"cached": model.cached.clone()}


if __name__ == "__main__":
    chosen = sys.argv[3:] or list(CASES)
    compare({name: CASES[name] for name in chosen})
