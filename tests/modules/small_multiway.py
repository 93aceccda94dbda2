"""A small Multiway Transformer and what it takes."""

from collections import Counter

import torch

from hf_pretext.modules.multiway import MultiwayConfig, MultiwayModel

SMALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, num_fusion_layers=1)
SMALL |= dict(image_size=32, patch_size=8, vocab_size=50, max_position_embeddings=12, pad_token_id=3)
IMAGE_TOKENS, TEXT_TOKENS = 17, 9


def build(**changes) -> MultiwayModel:
    """A small model in which every weight matters: no bias is 0, no norm's weight 1."""
    model = MultiwayModel(MultiwayConfig(**SMALL | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))}


def words() -> dict[str, torch.Tensor]:
    """Two texts, the second one padded."""
    ids = torch.randint(4, 50, (2, TEXT_TOKENS), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = 3, 0
    return {"input_ids": ids, "attention_mask": mask}


INPUTS = {"image": pixels, "text": words, "pair": lambda: pixels() | words()}


def counts(model: MultiwayModel) -> Counter:
    """How many parameters there are of each kind."""
    found = Counter()
    for name, parameter in model.named_parameters():
        found[kind_of(name)] += parameter.numel()
    return found


def kind_of(name: str) -> str:
    """Of what a parameter is part. Attention and experts are their linear layers, weights and biases, without norms."""
    parts = name.split(".")
    if parts[0].endswith("embeddings"):
        return parts[0]
    if any(part.endswith("norm") for part in parts):
        return "norms"
    return parts[3] if parts[2] == "experts" else parts[2]
