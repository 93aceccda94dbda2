"""Models that see films as visual words: the frozen encoder of these words, and the words of all rows.

path -> encoder, normalisation -> visual words, not fitted -> fitted to the stream
checkpoint: the native model, video/ (the frozen encoder) or its name, pretext.safetensors (clusters and the rest)
films of all rows -> words (N, W), once -> keys (B,) -> words (B, W)
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
from transformers.utils import logging

from ..checkpoints import HUB_ARGUMENTS, PUSH_ARGUMENTS, check_part, load_native, rewrite_config
from ..encoders import build_encoder, encoder_config
from ..modeling import PretextModel
from ..utils.progress import progress
from ..utils.ranks import gather_objects, on_each_process, rank_and_ranks
from ..utils.settings import make_settings
from .codebook_sources import pretrained
from .distributed import by_row
from .masking import visual_tokens
from .named import commit_of, digest_of, note_place, place_of
from .normalisation import normalisation_of
from .visual_words import OPTION, VisualWords, VisualWordsTask

FOLDER = "video"  # of the frozen encoder in a checkpoint
ENCODER = "visual_words.encoder."  # prefix of its weights
FRAMES = ("pixel_values_videos", "pixel_values")  # possible columns of the frames
CACHED_BYTES = 2**30  # most bytes of the visual words of all rows
log = logging.get_logger(__name__)


class WithVisualWords(PretextModel):
    """Base of objectives that see films as visual words. Their settings inherit `VisualWordsTask`.

    cached: with cache_words, the visual words of each row of the training data, `(N, W)`, int32; -1 for rows without a
    film, or with one that can't be used. None before training."""

    _keep_in_fp32_modules_strict = frozenset({"visual_words"})
    learns_on_all_ranks = True

    def __init__(self, full_model: PreTrainedModel, task: VisualWordsTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        encoder = build_encoder(AutoConfig.for_model(**self.parts["word_encoder"]))
        self.visual_words = VisualWords(encoder, task.num_words, task.levels, task.branches)
        self.rows, self.cached = 0, None

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "WithVisualWords":
        """Opens the encoder of the visual words. See `PretextModel.from_encoder`.

        parts: those of a checkpoint with this encoder, which then is not opened: its weights are random. Raises
        `ValueError` for an encoder that is missing, can't be loaded, or takes neither images nor videos."""
        if parts is not None:
            return super().from_encoder(encoder, parts=parts, **settings)
        task = make_settings(cls.task_class, **settings)
        frozen, normalisation = open_encoder(task.word_encoder, task.word_encoder_revision)
        described = json.loads(frozen.config.to_json_string())  # names of classes have keys that are no JSON types
        described.pop("pretext", None)  # the objective that it was pretrained with does not change its shape
        parts = {"word_encoder": described}
        if not task.store_word_encoder:
            note_place(task.word_encoder)
            commit = commit_of(task.word_encoder, task.word_encoder_revision)
            parts["named"] = {"digest": digest_of(frozen), "revision": commit}
        model = super().from_encoder(encoder, parts=parts, **settings)
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

    # checkpoints

    def kept_outside(self) -> set[str]:
        """See `NativeCheckpoint.kept_outside`. The frozen encoder is saved in its sub-folder instead, or not at all."""
        return {name for name in super().kept_outside() if not name.startswith(ENCODER)}

    def save_pretrained(self, save_directory: str | os.PathLike, state_dict: dict | None = None, **kwargs) -> None:
        """Also writes the frozen encoder, to `video/`, unless the checkpoint only names it. See
        `NativeCheckpoint.save_pretrained`."""
        state, folder = state_dict or self.state_dict(), Path(save_directory) / FOLDER
        weights = {name.removeprefix(ENCODER): value for name, value in state.items() if name.startswith(ENCODER)}
        options = {k: v for k, v in kwargs.items() if k not in ("push_to_hub", "token", *PUSH_ARGUMENTS)}
        if self.task.store_word_encoder:
            self.visual_words.encoder.save_pretrained(folder, state_dict=weights, **options)
            if kwargs.get("is_main_process", True):
                rewrite_config(folder)
        super().save_pretrained(save_directory, state_dict, **kwargs)  # last, because it may push the folder

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *, word_encoder: str | None = None, **kwargs
    ):
        """Also loads the frozen encoder in float32, from `video/` or from where the checkpoint says. See
        `NativeCheckpoint.from_pretrained`.

        word_encoder: folder or Hub id of a frozen encoder that the checkpoint only names, if it has moved. Raises
        `ValueError` if it is missing or has other weights than in training, and for a checkpoint that contains it."""
        path, hub = pretrained_model_name_or_path, {k: v for k, v in kwargs.items() if k in HUB_ARGUMENTS}
        model = super().from_pretrained(path, **kwargs)
        if "named" in model.parts:
            saved = open_named(word_encoder, model.task.word_encoder, **model.parts["named"])
        elif word_encoder is not None:
            raise ValueError(
                f"{path} contains its frozen encoder, so word_encoder={word_encoder!r} has no effect. Leave it out."
            )
        else:
            hub["subfolder"] = os.path.join(hub.get("subfolder") or "", FOLDER)
            check_part(path, FOLDER, hub)
            saved = load_native(AutoModel, path, dtype=torch.float32, **hub)
        model.visual_words.encoder.load_state_dict(saved.state_dict())
        return model

    # visual words of the training data

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

    @classmethod
    def needs_keys_of(cls, task: VisualWordsTask) -> bool:
        """Returns True if visual words are cached, by the numbers of the rows."""
        return task.cache_words

    def set_rows(self, rows: int) -> None:
        """See `PretextModel.set_rows`."""
        self.rows = rows

    @property
    def caches(self) -> bool:
        """True if the visual words of all rows are computed before training, and fit in memory."""
        return self.task.cache_words and 0 < 4 * self.rows * self.task.num_words <= CACHED_BYTES

    def step_inputs(self) -> tuple[str, ...]:
        """See `PretextModel.step_inputs`. With the visual words of all rows, steps need no frames."""
        return tuple(kind for kind in self.inputs if kind != "video" or not self.caches)

    def before_training(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Computes the visual words of all rows, each rank those of its rows, and keeps those of all ranks on the
        device.

        It does so in a resumed run too, from the same clips as at first: their places depend on the seed and the
        numbers of the rows alone. Warns of films without visual words."""
        self.cached = None
        if not self.caches:
            if self.task.cache_words:
                log.warning(
                    f"The visual words of {self.rows:,} rows would take more than {CACHED_BYTES / 2**30:g} GiB: they "
                    "are computed in each step."
                )
            return
        keys, words = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, self.task.num_words, dtype=torch.int32)]
        without_film = [0]

        def compute() -> None:
            for batch in progress(batches, "visual words of the films"):
                frames = frames_of(batch)
                if frames is None:
                    without_film[0] += len(batch["keys"])
                    continue
                keys.append(batch["keys"].cpu())
                words.append(self.visual_words(frames).int().cpu() + 1)  # 0 is for rows of no rank

        on_each_process(compute)  # else the others would wait for one that fails
        cached = by_row(self.rows, torch.cat(keys), torch.cat(words), device=self.device)
        self.cached = cached.to(self.device) - 1
        films = self.rows - sum(gather_objects(without_film[0]))
        missing = films - int((cached[:, 0] > 0).sum())
        if missing and rank_and_ranks()[0] == 0:
            log.warning(
                f"{missing:,} of {films:,} films have no visual words, because they could not be used: others of their "
                "batches take their place."
            )

    def words_of(
        self, batch: Mapping[str, Tensor], keys: Tensor | None = None, needed: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns the visual words of a batch, `(B, W)`: of its frames, those that `condense` returned for them, or
        else the cached ones of the rows `keys` (`(B,)`). None for a batch without films.

        Cached words come with the rows of the batch that they are of, `(B,)`: a row without visual words is replaced by
        the first of the batch with them. Raises `ValueError` if they are `needed` and no row has any."""
        if "visual_words" in batch:
            return batch["visual_words"], None
        frames = frames_of(batch)
        if frames is not None:
            return visual_tokens(self.visual_words, frames, self.training), None
        words = None if self.cached is None or keys is None else self.cached[keys].long()
        usable = None if words is None else words[:, 0] >= 0
        if words is None or not usable.any():
            if needed:
                raise ValueError("No film of the batch has visual words, because none could be used. Check the films.")
            return None, None
        rows = torch.where(usable, torch.arange(len(usable), device=usable.device), usable.int().argmax())
        return words[rows], rows


def open_encoder(
    path: str | None, revision: str | None = None
) -> tuple[PreTrainedModel, tuple[list[float], list[float]] | None]:
    """Loads the encoder of visual words, in float32. path: folder or Hub id. revision: of a Hub repository.

    Returns it, and the mean and standard deviation of its frames; None if it has no processor. Raises `ValueError`
    without a path, for a revision of a folder, and for an encoder that can't be loaded or lacks weights."""
    if path is None:
        raise ValueError(
            f"The objective needs an encoder of visual words: give one of images or videos with {OPTION}, a folder or "
            f"Hub id, for example {OPTION} microsoft/resnet-18."
        )
    if revision is not None and os.path.isdir(path):
        raise ValueError(f"{OPTION}_revision {revision}: {path} is a folder, which has no revisions. Leave it out.")
    encoder_config(path, OPTION, revision)  # raises an error that names the problem
    encoder = pretrained(AutoModel, path, OPTION, revision=revision)
    for auto in (AutoVideoProcessor, AutoImageProcessor):
        with suppress(OSError, ValueError):  # a folder may have no processor
            processor = auto.from_pretrained(path, revision=revision or "main", trust_remote_code=False)
            return encoder, normalisation_of(processor)
    return encoder, None


def open_named(given: str | None, name: str, digest: str, revision: str | None) -> PreTrainedModel:
    """Loads an encoder of visual words that a checkpoint only names, in float32.

    given: folder or Hub id, if it has moved. name, digest, revision: in the checkpoint. Raises `ValueError` if it can't
    be loaded, or has other weights than in training."""
    place = given or place_of(name)
    fix = f"Give the one that it was trained with: load(..., word_encoder='a folder or Hub id'), it was {name}."
    try:
        encoder = pretrained(AutoModel, place, OPTION, revision=None if os.path.isdir(place) else revision)
    except ValueError as error:
        raise ValueError(f"The checkpoint does not contain the encoder of its visual words. {fix} {error}") from error
    if digest_of(encoder) != digest:
        raise ValueError(
            f"{place} has other weights than the encoder of this model's visual words, which would be other words. "
            f"{fix}"
        )
    return encoder


def frames_of(batch: Mapping[str, Tensor]) -> Tensor | None:
    """Returns the frames of a batch, `(B, F, 3, S, S)`; None for a batch without films."""
    return next((batch[name] for name in FRAMES if batch.get(name) is not None), None)
