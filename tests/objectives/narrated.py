"""Small encoders of videos and texts, and batches of narrated clips for them."""

import torch
import transformers
from conftest import CONFIGS, IMAGE
from torch import nn
from towers import ENDS, WORDS

from hf_pretext import MilNceForPreTraining

BAG, LENGTH, FRAMES = 3, 7, 2
TEXTS = {"bert": CONFIGS["bert"], "clip_text": lambda: transformers.CLIPTextConfig(**{**WORDS, **ENDS})}
VECTORS = {"word_dim": 6, "word_hidden": 10, "num_words": 50}


def model_of(video: str = "resnet", text: str | None = "bert", **settings) -> MilNceForPreTraining:
    """Without dropout. text: None for word vectors."""
    encoders = {"video": CONFIGS[video](), **({"text": TEXTS[text]()} if text else {})}
    model = MilNceForPreTraining.from_encoders(**encoders, **({} if text else VECTORS), **settings)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def narrated_clips(model: MilNceForPreTraining, count: int = 6, seed: int = 1) -> dict[str, torch.Tensor]:
    """Clips with different texts of different lengths and some missing ones; the text of one clip is also one of
    another's, and one clip has a text twice and one has none."""
    random = torch.Generator().manual_seed(seed)
    frames = getattr(model.encoders["video"].config, "num_frames", FRAMES)
    ids = torch.randint(3, 50, (count, BAG, LENGTH), generator=random)
    ids[..., 0] = torch.arange(3, 3 + BAG * count).view(count, BAG)  # no two are equal
    lengths = torch.randint(3, LENGTH + 1, (count, BAG, 1), generator=random)
    ids[3, 0], lengths[3, 0] = ids[0, 1], lengths[0, 1]
    ids[4, 1], lengths[4, 1] = ids[4, 0], lengths[4, 0]
    lengths[1, 2] = lengths[2] = 0
    lengths[0, 0] = LENGTH
    mask = (torch.arange(LENGTH) < lengths).long()
    return {
        "pixel_values": torch.randn(count, frames, 3, IMAGE, IMAGE, generator=random),
        "input_ids": ids * mask,
        "attention_mask": mask,
    }


def as_double(model: MilNceForPreTraining, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Converts the model, and returns the batch, in double precision."""
    model.double()
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
