"""Trains a model of images for some seconds."""

import torch

from hf_pretext.evaluation.labelled_set import LabelledSet


def trained(model, some: LabelledSet, steps: int, rate: float = 3e-3):
    """The model after `steps` steps on the train split, in batches of 32 drawn images."""
    model.train()
    pixels = torch.cat([batch["pixel_values"] for batch in some.pretext_batches("train")])
    optimizer, generator = torch.optim.AdamW(model.parameters(), rate), torch.Generator().manual_seed(0)
    for _ in range(steps):
        loss = model(pixel_values=pixels[torch.randperm(len(pixels), generator=generator)[:32]]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
