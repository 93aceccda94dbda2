"""Masks patches of images and tokens of texts: shared code of objectives for images, texts and image-text pairs.

pixel_values (B, 3, S, S) -> codebook -> visual tokens (B, N), some masked; input_ids (B, L) -> some masked
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..encoders import as_encoder
from ..modeling import PretextModel
from ..utils.settings import make_settings
from .caption_cues import CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES
from .codebook import CodebookTask
from .codebook_sources import codebook_config, codebook_from, open_codebook
from .cues import COLOR_HISTOGRAM, CORNERS, SILHOUETTE, SMALL_THUMBNAIL
from .masking import (
    IGNORED,
    MaskTask,
    check_share,
    draw_units,
    replaced,
    visual_tokens,
    with_tokens_of,
    without_special,
)
from .normalisation import with_normalisation_of
from .patches import random_patches


@strict
@dataclass
class MaskedPairsTask(MaskTask, CodebookTask):
    """Settings of objectives that mask images and texts.

    image_mask_ratio: share of patches that are masked. They are drawn one by one, while the papers mask blocks.
    text_mask_ratio: share of tokens that are masked.
    """

    image_mask_ratio: float = 0.4
    text_mask_ratio: float = 0.15

    def validate_mask_ratios(self):
        for name in ("image_mask_ratio", "text_mask_ratio"):
            check_share(name, getattr(self, name))


class MaskedPairs(PretextModel):
    """Base of objectives that mask patches of images and tokens of texts, alone and in image-text pairs.

    A subclass sets `encoder_class` to the transformers model of image-text pairs. Its settings inherit
    `MaskedPairsTask`. Its head contains `new_codebook()` under the name "codebook".
    """

    inputs = ("image", "text")
    pipeline_tag = "image-feature-extraction"
    capabilities = ("embed", "match", "predict_tokens")
    cues = (COLOR_HISTOGRAM, SMALL_THUMBNAIL, SILHOUETTE)
    artefacts = (CORNERS, CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES)
    encoder_class: ClassVar[type[PreTrainedModel]]
    learns_from_one_kind = True

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "MaskedPairs":
        """Puts the objective's heads on a model of `encoder_class`, or on a new one of its config, and opens the
        codebook. See `PretextModel.from_encoder`.

        Raises `ValueError` for any other model, and for a codebook that can't be loaded."""
        encoder, task = cls.native(encoder), make_settings(cls.task_class, **settings)
        patch = getattr(encoder.config, "image_config", encoder.config).patch_size
        codebook = open_codebook(task.codebook, task.codebook_size, patch)
        model = super().from_encoder(encoder, parts={"codebook": codebook_config(codebook)}, **settings)
        model.codebook.load_state_dict(codebook.state_dict())
        if task.image_mean is not None:
            model.codebook.set_normalisation(task.image_mean, task.image_std)
        return model

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """Returns a model of `encoder_class`. Raises `ValueError` for any other model."""
        full_model = as_encoder(encoder)
        if not isinstance(full_model, cls.encoder_class):
            raise ValueError(
                f"This objective needs a {cls.encoder_class.__name__} or a {cls.encoder_class.config_class.__name__}, "
                f"not a {type(full_model).__name__}."
            )
        return full_model

    @classmethod
    def complete(cls, task: MaskedPairsTask, processors: Mapping[str, Any]) -> MaskedPairsTask:
        """Completes the settings with the tokenizer's mask token and special tokens, and with the image processor's
        mean and standard deviation.

        Raises `ValueError` for a tokenizer without a mask token."""
        return with_normalisation_of(with_tokens_of(task, processors["text"]), processors["image"])

    def new_codebook(self) -> nn.Module:
        """Returns a codebook of the shape that config.json contains, not fitted."""
        return codebook_from(self.parts["codebook"])

    @property
    def codebook(self) -> nn.Module:
        """The codebook, which gives the visual tokens of patches."""
        return self.pretext_head["codebook"]

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Fits the codebook to the training images. batches: of training; those without images are skipped."""
        images = (batch["pixel_values"] for batch in batches if "pixel_values" in batch)
        self.codebook.fit(images, patches=self.task.codebook_patches)

    def prepared(self) -> dict:
        """Returns the codebook's kind, size (number of codes) and perplexity (effective number of codes in fitting;
        None for a ready codebook)."""
        shape = {"kind": self.codebook.kind, "size": self.codebook.size}
        return {"codebook": {**shape, "perplexity": getattr(self.codebook, "perplexity", None)}}

    def hide_patches(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Draws the patches of images `(B, 3, S, S)` to mask: `(B, N)`, bool. Also returns their visual tokens as
        labels: `(B, N)`, `IGNORED` for all other patches."""
        codes = visual_tokens(self.codebook, pixel_values, self.training)
        hidden = random_patches(*codes.shape, self.task.image_mask_ratio, codes.device, self.generator())
        return hidden, codes.masked_fill(~hidden, IGNORED)

    def hide_tokens(self, input_ids: Tensor, attention_mask: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        """Masks a share `ratio` of the tokens of texts `(B, L)`. Returns the token ids for the encoder, and the masked
        tokens' ids as labels, `IGNORED` for all other tokens: `(B, L)` each."""
        task, generator = self.task, self.generator()
        allowed = without_special(input_ids, attention_mask.bool(), task.special_token_ids)
        hidden = draw_units(allowed, torch.ones_like(allowed), ratio, generator)
        vocabulary = self.config.get_text_config().vocab_size
        special = task.special_token_ids
        seen = replaced(
            input_ids, hidden, task.mask_token_id, vocabulary, generator=generator, special_token_ids=special
        )
        return seen, input_ids.masked_fill(~hidden, IGNORED)
