"""Models that see films as visual words: the frozen encoder of these words, in the checkpoint's sub-folder `video/`.

path -> encoder, normalisation -> visual words, not fitted -> fitted to the stream
checkpoint: the native model, video/ (the frozen encoder), pretext.safetensors (clusters and the rest)
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoVideoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..checkpoints import HUB_ARGUMENTS, PUSH_ARGUMENTS, check_part, load_native, rewrite_config
from ..encoders import build_encoder, encoder_config
from ..modeling import PretextModel
from ..utils.settings import make_settings
from .codebook_sources import pretrained
from .masking import visual_tokens
from .normalisation import normalisation_of
from .visual_words import OPTION, VisualWords, VisualWordsTask

FOLDER = "video"  # of the frozen encoder in a checkpoint
ENCODER = "visual_words.encoder."  # prefix of its weights
FRAMES = ("pixel_values_videos", "pixel_values")  # possible columns of the frames


class WithVisualWords(PretextModel):
    """Base of objectives that see films as visual words. Their settings inherit `VisualWordsTask`."""

    _keep_in_fp32_modules_strict = frozenset({"visual_words"})

    def __init__(self, full_model: PreTrainedModel, task: VisualWordsTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        encoder = build_encoder(AutoConfig.for_model(**self.parts["word_encoder"]))
        self.visual_words = VisualWords(encoder, task.num_words, task.levels, task.branches)

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "WithVisualWords":
        """Opens the encoder of the visual words. See `PretextModel.from_encoder`. Raises `ValueError` for an encoder of
        visual words that is missing, can't be loaded, or takes neither images nor videos."""
        task = make_settings(cls.task_class, **settings)
        frozen, normalisation = open_encoder(task.word_encoder)
        described = json.loads(frozen.config.to_json_string())  # names of classes have keys that are no JSON types
        described.pop("pretext", None)  # the objective that it was pretrained with does not change its shape
        model = super().from_encoder(encoder, parts={"word_encoder": described}, **settings)
        model.visual_words.encoder.load_state_dict(frozen.state_dict())
        if task.image_mean is not None:
            model.visual_words.set_normalisation(task.image_mean, task.image_std)
        if normalisation is not None:
            model.visual_words.set_normalisation(*normalisation, prefix="encoder_")
        return model

    @classmethod
    def with_encoders(cls, config: PreTrainedConfig, encoders: Mapping[str, PreTrainedConfig]) -> PreTrainedConfig:
        """Raises `ValueError`: the native model is replaced by --encoder, and the frozen encoder by --word_encoder."""
        if FOLDER in encoders:
            raise ValueError(
                f"--video_encoder: {cls.objective} trains no video encoder. Leave it out, and give a frozen one with "
                f"{OPTION}."
            )
        return super().with_encoders(config, encoders)

    def kept_outside(self) -> set[str]:
        """See `NativeCheckpoint.kept_outside`. The frozen encoder is saved in its sub-folder instead."""
        return {name for name in super().kept_outside() if not name.startswith(ENCODER)}

    def save_pretrained(self, save_directory: str | os.PathLike, state_dict: dict | None = None, **kwargs) -> None:
        """Also writes the frozen encoder, to `video/`. See `NativeCheckpoint.save_pretrained`."""
        state, folder = state_dict or self.state_dict(), Path(save_directory) / FOLDER
        weights = {name.removeprefix(ENCODER): value for name, value in state.items() if name.startswith(ENCODER)}
        options = {k: v for k, v in kwargs.items() if k not in ("push_to_hub", "token", *PUSH_ARGUMENTS)}
        self.visual_words.encoder.save_pretrained(folder, state_dict=weights, **options)
        if kwargs.get("is_main_process", True):
            rewrite_config(folder)
        super().save_pretrained(save_directory, state_dict, **kwargs)  # last, because it may push the folder

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs):
        """Also loads the frozen encoder, from `video/`, in float32. See `NativeCheckpoint.from_pretrained`."""
        path, hub = pretrained_model_name_or_path, {k: v for k, v in kwargs.items() if k in HUB_ARGUMENTS}
        model = super().from_pretrained(path, **kwargs)
        hub["subfolder"] = os.path.join(hub.get("subfolder") or "", FOLDER)
        check_part(path, FOLDER, hub)
        saved = load_native(AutoModel, path, dtype=torch.float32, **hub)
        model.visual_words.encoder.load_state_dict(saved.state_dict())
        return model

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Fits the visual words to the films of training. Batches without films are skipped."""
        films = (frames for frames in map(frames_of, batches) if frames is not None)
        self.visual_words.fit(films, pieces=self.task.word_pieces)

    def condense(self, kind: str, **frames: Tensor) -> dict[str, Tensor]:
        """Returns the visual words of films, `(B, W)`, as `visual_words`. See `PretextModel.condense`."""
        return {"visual_words": visual_tokens(self.visual_words, frames_of(frames), self.training)}

    def prepared(self) -> dict:
        """Returns facts about the visual words, see `VisualWords.facts`."""
        return {"visual_words": self.visual_words.facts()}


def open_encoder(path: str | None) -> tuple[PreTrainedModel, tuple[list[float], list[float]] | None]:
    """Loads the encoder of visual words, in float32. path: folder or Hub id.

    Returns it, and the mean and standard deviation of its frames; None if it has no processor. Raises `ValueError`
    without a path, and for an encoder that can't be loaded or lacks weights."""
    if path is None:
        raise ValueError(
            f"The objective needs an encoder of visual words: give one of images or videos with {OPTION}, a folder or "
            f"Hub id, for example {OPTION} microsoft/resnet-18."
        )
    encoder_config(path, OPTION)  # raises an error that names the problem
    encoder = pretrained(AutoModel, path, OPTION)
    for auto in (AutoVideoProcessor, AutoImageProcessor):
        with suppress(OSError, ValueError):  # a folder may have no processor
            return encoder, normalisation_of(auto.from_pretrained(path, trust_remote_code=False))
    return encoder, None


def frames_of(batch: Mapping[str, Tensor]) -> Tensor | None:
    """Returns the frames of a batch, `(B, F, 3, S, S)`; None for a batch without films."""
    return next((batch[name] for name in FRAMES if batch.get(name) is not None), None)
