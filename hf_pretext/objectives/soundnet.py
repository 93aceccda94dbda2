"""SoundNet: predict from the sound of a film what image classifiers see in its frames.

Aytar, Vondrick and Torralba, "SoundNet: Learning Sound Representations from Unlabeled Video", NIPS 2016,
https://huggingface.co/papers/1610.09001

    pixel_values (B, F, 3, S, S) -> frozen image classifiers -> posteriors (B, C) of each, means over the frames
    input_values (B, T) -> sound encoder -> head for each classifier -> logits (B, C) -> KL divergence
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..features import encode, width
from ..modalities._image_processor import USUAL_SIZE, load_processor, target_size
from ..modalities.image import UNCHANGED
from ..modeling import PretextModel, PretextOutput
from ..modules.clip_cues import CENTROID, LOUDNESS, SILENCE
from ..modules.composite import columns_of
from ..modules.cues import Question
from ..modules.distributed import by_row
from ..modules.losses import widened
from ..modules.normalisation import (
    CHANNELS,
    NormalisationTask,
    normalisation_of,
    per_channel,
    with_normalisation_of,
)
from ..modules.teachers import Teacher, check_teachers, loaded
from ..presets import Preset, films
from ..utils.progress import progress
from ..utils.ranks import on_each_process, rank_and_ranks
from ..utils.settings import make_settings

PRESET = Preset(
    encoder=films.sound_resnet,
    large=films.large_sound_resnet,
    tiny=films.tiny_sound_resnet,
    dataset="emoji_films",
    samples=48_000,
    settings=films.SMALL,
    for_large=films.LARGE,
    needs="--teachers microsoft/resnet-18",
)

CACHED_BYTES = 2**30  # most bytes of the posteriors of all rows
FRAMES = ("video_pixel_values", "pixel_values_videos", "pixel_values")  # possible columns of the frames
FIXED = {name: (value, "teachers classify the frames as they are") for name, value in UNCHANGED.items()}
log = logging.get_logger(__name__)


@strict
@dataclass
class SoundnetTask(NormalisationTask):
    """Settings of SoundNet.

    teachers: image classifiers, folders or Hub ids of checkpoints that AutoModelForImageClassification loads, also
        timm's. They are not trained, and not stored in the checkpoint.
    cache_posteriors: whether the posteriors of each row are computed only once, before training, from one clip of it,
        at a random place and without random changes; they take 4 bytes a class and row, at most 1 GiB. Training then
        decodes only the sound. Set it to False for films much longer than the clips, whose frames differ from clip to
        clip: posteriors are then computed in each step.
    """

    late: ClassVar[tuple[str, ...]] = ("image_mean", "image_std")  # read by `forward`, as in `MaskTask`

    teachers: list[str] | None = None
    cache_posteriors: bool = True


class SoundnetForPreTraining(PretextModel):
    """A sound encoder that learns by predicting the posteriors of image classifiers on the frames of the same clip.

    Only the sound encoder is trained and saved: the checkpoint is a checkpoint of it alone. The teachers are named in
    config.json, with the heads for their classes in pretext.safetensors. They are needed to train, to resume and to
    compute the loss, not to load the encoder or the model.

    forward: the inputs of the sound encoder (see `columns_of`), frames (`(B, F, 3, S, S)`, normalised, as
    `pixel_values_videos` or `pixel_values`; `video_pixel_values` if the sound encoder takes pixel_values) and, with
    cache_posteriors, keys (`(B,)`, int64: numbers of the rows). The posteriors of rows with keys come from the cache,
    if there is one, and need no frames; rows that are missing in it do not count. Others are computed from the frames.

    Returns features (`(B, D)`, of sounds), logits (`(B, C)`) of the first teacher's classes and labels (`(B,)`): its
    most probable classes. Losses and logs (agreement: share of the clips with the same most probable class) are named
    by the number of the teacher, from 1.

    Example:
        >>> model = SoundnetForPreTraining.from_encoder(Wav2Vec2Config(), teachers=["microsoft/resnet-18"])
        >>> model(input_values=torch.rand(2, 8000), pixel_values_videos=torch.rand(2, 4, 3, 64, 64)).logits.shape
        torch.Size([2, 1000])
    """

    objective = "soundnet"
    task_class = SoundnetTask
    inputs = ("audio", "video")
    needs_keys = True
    learns_on_all_ranks = True
    processor_of = "audio"
    capabilities, answers_are_fixed = ("ask",), True  # those of the teachers
    cues, artefacts = (LOUDNESS, CENTROID), (SILENCE,)
    fixed_options = FIXED
    formula = (
        r"\sum_k \mathrm{KL}\left(\frac{1}{F}\sum_{f=1}^{F} q_k\left(v_f\right) \,\Big\|\, p_k\left(a\right)\right), "
        r"\quad q_k \text{ teachers on the frames } v_f, \; p_k \text{ heads on the sound } a"
    )
    limits = (
        "It learns what the teachers see. Sounds of what is not in the image, or of what no teacher has a class for, "
        "teach it nothing.",
        "Errors and biases of the teachers are copied. Their licenses and data apply to the encoder too.",
        "With cached posteriors, all clips of a long film have the labels of one of them.",
    )

    def __init__(self, full_model: PreTrainedModel, task: SoundnetTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        described = (parts or {}).get("teachers", [])
        named = zip(self.task.teachers or (), described, strict=True)
        self.teachers = [Teacher(path, **facts) for path, facts in named]
        heads = [nn.Linear(width(self.encoder), teacher.classes) for teacher in self.teachers]
        self.pretext_head = nn.ModuleDict({f"teacher_{i}": head for i, head in enumerate(heads, 1)})
        self.rows, self.cached = 0, None  # posteriors of all teachers side by side, (N, classes)
        self.post_init()

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "SoundnetForPreTraining":
        """Puts the heads for the classes of the teachers on a sound encoder. See `PretextModel.from_encoder`.

        parts: those of a checkpoint with these teachers, which then need not be loaded. Raises `ValueError` for no
        teachers, the same teacher twice, and teachers that can't be loaded, classify no images or have only one
        class."""
        if parts is None:
            paths = make_settings(cls.task_class, **settings).teachers
            check_teachers(paths)
            parts = {"teachers": [described(path) for path in paths]}
        return super().from_encoder(encoder, parts=parts, **settings)

    @classmethod
    def complete(cls, task: SoundnetTask, processors: Mapping[str, Any]) -> SoundnetTask:
        """Completes the settings with the mean and standard deviation of the frames."""
        return with_normalisation_of(task, processors["video"])

    @classmethod
    def with_encoders(cls, config: PreTrainedConfig, encoders: Mapping[str, PreTrainedConfig]) -> PreTrainedConfig:
        """Returns the config of the sound encoder that replaces `config`. Raises `ValueError` for a video encoder."""
        if "video" in encoders:
            raise ValueError(
                "--video_encoder: soundnet trains no video encoder. Leave it out, and give image classifiers with "
                "--teachers."
            )
        return encoders["audio"]

    @classmethod
    def needs_keys_of(cls, task: SoundnetTask) -> bool:
        """Returns True if posteriors are cached, by the numbers of the rows."""
        return task.cache_posteriors

    def set_rows(self, rows: int) -> None:
        """See `PretextModel.set_rows`."""
        self.rows = rows

    def forward(self, keys: Tensor | None = None, **batch: Tensor) -> PretextOutput:
        features = encode(self.encoder, **columns_of(batch, self.encoders)["audio"])[-1]
        known = self.cached is not None and keys is not None
        posteriors = self.cached[keys].split(self.classes, 1) if known else self.posteriors(batch)
        losses, logs, scores = {}, {}, []
        for (name, head), target in zip(self.pretext_head.items(), posteriors, strict=True):
            scores.append(head(features))
            losses[name], logs[f"{name}_agreement"] = divergence(scores[-1], target)
        return self.output(losses, logs, features=features, logits=scores[0], labels=posteriors[0].argmax(-1))

    @property
    def classes(self) -> list[int]:
        """Number of classes of each teacher."""
        return [teacher.classes for teacher in self.teachers]

    def posteriors(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the posteriors of each teacher on the clips of a batch, `(B, classes)`, float32.

        Raises `ValueError` for a batch without frames, and for teachers that can't be loaded."""
        pixels = self.frames_of(batch)
        posteriors = [teacher(pixels) for teacher in self.teachers]
        if self.cached is not None:
            self.teachers_to_cpu()
        return posteriors

    def frames_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the frames of a batch in [0, 1], `(B, F, 3, S, S)`. Raises `ValueError` if it has none."""
        frames = next((batch[name] for name in FRAMES if name in batch and batch[name].ndim == 5), None)
        if frames is None:
            raise ValueError(
                f"The batch has no frames for the teachers: give (B, F, 3, S, S) as one of {', '.join(FRAMES)}."
            )
        mean, std = (
            per_channel(values or [default] * CHANNELS, frames.device)
            for values, default in ((self.task.image_mean, 0.0), (self.task.image_std, 1.0))
        )
        return (frames.float() * std + mean).clamp(0, 1)

    # capabilities

    @property
    def questions(self) -> tuple[str, ...]:
        """Names of the heads, one for each teacher."""
        return tuple(self.pretext_head)

    def ask(self, question: str = "teacher_1", labels: Tensor | None = None, **batch: Tensor) -> Question:
        """Asks for the class that a teacher finds most likely on the frames, `(B,)`; labels: if it is known. Raises
        `ValueError` for a batch without frames, and for a teacher that can't be loaded."""
        teacher = self.teachers[list(self.pretext_head).index(question)]
        labels = teacher(self.frames_of(batch)).argmax(1) if labels is None else labels
        return Question(columns_of(batch, self.encoders)["audio"], labels, teacher.classes, "audio")

    def answer(self, question: str = "teacher_1", **inputs: Tensor) -> Tensor:
        """Returns the logits of the classes of a teacher, `(B, C)`, from the inputs of the sound encoder."""
        return self.pretext_head[question](encode(self.encoder, **inputs)[-1])

    # before training

    def teachers_to_cpu(self) -> None:
        """Frees the device of the teachers, when steps do not need them any more."""
        for teacher in self.teachers:
            teacher.to_cpu()

    def step_inputs(self) -> tuple[str, ...]:
        """See `PretextModel.step_inputs`. With the posteriors of all rows, steps need no frames."""
        return self.inputs if self.cached is None else ("audio",)

    def before_training(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Computes the posteriors of all rows, each rank for its rows, and keeps those of all ranks on the device.

        It does so in a resumed run too, from the same clips as at first: their places depend on the seed and the
        numbers of the rows alone. The teachers leave the device then. Warns of rows without posteriors."""
        self.cached = None
        size = 4 * self.rows * sum(self.classes)
        if not self.task.cache_posteriors or not 0 < size <= CACHED_BYTES:
            if self.task.cache_posteriors:
                log.warning(
                    f"The posteriors of {self.rows:,} rows would take {size / 2**30:,.1f} GiB, more than "
                    f"{CACHED_BYTES / 2**30:g}: they are computed in each step."
                )
            return
        parts = {"keys": [torch.zeros(0, dtype=torch.int64)], "posteriors": [torch.zeros(0, sum(self.classes))]}

        def compute() -> None:
            for batch in progress(batches, "posteriors of the teachers"):
                parts["keys"].append(batch["keys"].cpu())
                parts["posteriors"].append(torch.cat(self.posteriors(batch), 1).cpu())

        on_each_process(compute)  # else the others would wait for one that fails
        self.teachers_to_cpu()
        keys, posteriors = (torch.cat(some) for some in parts.values())
        self.cached = by_row(self.rows, keys, posteriors, device=self.device).to(self.device)
        missing = int((self.cached.sum(1) == 0).sum())
        if missing and rank_and_ranks()[0] == 0:
            log.warning(
                f"{missing:,} of {self.rows:,} rows have no posteriors, because their clips could not be used: they do "
                "not count in the loss."
            )


def described(path: str) -> dict[str, Any]:
    """Returns what a checkpoint says about a teacher: its number of classes, the size and normalisation of its images,
    and a digest of its weights. Raises `ValueError` if it can't be loaded."""
    teacher, digest = loaded(path)
    config = teacher.config
    size = getattr(config, "image_size", None)
    processor = load_processor(path, None, size if isinstance(size, int) else USUAL_SIZE)
    mean, std = normalisation_of(processor)
    size = list(target_size(processor))
    return {"classes": config.num_labels, "size": size, "mean": mean, "std": std, "digest": digest}


def divergence(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean of KL(target || softmax(logits)), and the share of rows whose most probable class is that of the
    target, `()` each. Rows whose target is 0 do not count.

    logits, target: `(B, C)`."""
    known = target.sum(1) > 0
    count = known.sum().clamp(min=1)
    loss = F.kl_div(widened(logits).log_softmax(1), target, reduction="none").sum(1)
    agreement = (logits.argmax(1) == target.argmax(1)) & known
    return loss.mul(known).sum() / count, agreement.sum() / count
