"""Encoders that see some patches of an image only, as in masked autoencoders.

pixel_values (B, 3, S, S), kept (B, K) -> patch and position embeddings (B, 1 + N, D) -> tokens (B, 1 + K, D) -> layers

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, https://huggingface.co/papers/2111.06377
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..encoders import noise, tried
from ..features import last_hidden

ROUNDING = 100  # largest difference of features by rounding, in units of the precision


class VisiblePatches:
    """Makes an encoder skip patches, by a hook between its embeddings and its layers. Its class, weights and `forward`
    stay as they are, and it sees all patches outside of `only`.

    encoder: a model whose positions are added to the embeddings of its patches (ViT, DINOv2, CLIP, SigLIP, DeiT, ...).
    Raises `ValueError` for an encoder without embeddings of patches.
    """

    def __init__(self, encoder: PreTrainedModel):
        self.kept: Tensor | None = None
        self.patches = 0
        embeddings_of(encoder).register_forward_hook(self)

    @contextmanager
    def only(self, kept: Tensor, patches: int) -> Iterator[None]:
        """In this context the encoder sees class and register tokens, and the patches `kept` of all `patches`, in this
        order: `(B, K)`, indices."""
        self.kept, self.patches = kept, patches
        try:
            yield
        finally:
            self.kept = None

    def __call__(self, module: nn.Module, arguments: tuple, output):
        """Returns the embeddings of the kept patches, after those of class and register tokens."""
        if self.kept is None:
            return output
        tokens, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        first = tokens.shape[1] - self.patches
        index = (self.kept + first)[..., None].expand(-1, -1, tokens.shape[2])
        tokens = torch.cat([tokens[:, :first], tokens.gather(1, index)], dim=1)
        return tokens if rest is None else (tokens, *rest)


def embeddings_of(encoder: PreTrainedModel) -> nn.Module:
    """Returns the module whose output are the embeddings of all patches with their positions. Raises `ValueError` for
    an encoder without one."""
    names = [name for name, _ in encoder.named_modules() if name.rpartition(".")[2] in ("embeddings", "patch_drop")]
    if not names:
        raise ValueError(
            f"{type(encoder).__name__} has no sequence of patches, so it can't skip some. Leave --visible_only out, or "
            "give a ViT."
        )
    return encoder.get_submodule(min(names, key=len))


def check_skips(encoder: PreTrainedModel, visible: VisiblePatches, side: int, patch: int) -> None:
    """Raises `ValueError` for an encoder whose layers know the places of patches by more than their embeddings.

    It encodes noise with the patches in reverse order, which must only reverse the output, and with the first patch
    alone. side: rows and columns of patches. patch: side of a patch in pixels."""
    count = side * side
    pixels = noise(encoder, 1, 3, side * patch, side * patch)
    order = torch.arange(count, device=pixels.device).flip(0)[None]
    with tried(encoder), torch.autocast(pixels.device.type, enabled=False):
        expected = states_of(encoder, visible, pixels, None, count)  # an error is that of the size, not of skipping
        try:
            reverse, single = (states_of(encoder, visible, pixels, kept, count) for kept in (order, order[:, -1:]))
            tolerance = ROUNDING * torch.finfo(expected.dtype).eps * float(expected.abs().max())
            same = torch.allclose(reverse[:, -count:].flip(1), expected[:, -count:], rtol=0, atol=tolerance)
            skips = same and single.shape[1] == expected.shape[1] - count + 1
        except (RuntimeError, ValueError, IndexError, TypeError):
            skips = False
    if not skips:
        raise ValueError(
            f"{type(encoder).__name__} can't skip patches: it knows their places by more than their embeddings, or its "
            f"patches are not of {patch}x{patch} pixels. Leave --visible_only out, or give a ViT."
        )


def states_of(
    encoder: PreTrainedModel, visible: VisiblePatches, pixel_values: Tensor, kept: Tensor | None, count: int
) -> Tensor:
    """Returns the hidden states of images with the patches `kept` only; with all patches if it is None."""
    with nullcontext() if kept is None else visible.only(kept, count):
        return last_hidden(encoder, encoder(pixel_values=pixel_values))
