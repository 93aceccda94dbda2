"""Audio-visual correspondence: predict whether a sound and the frames of a video are of the same clip.

L3-Net (concat): Arandjelovic and Zisserman, "Look, Listen and Learn", ICCV 2017,
https://huggingface.co/papers/1705.08168. AVE-Net (distance) and AVOL-Net (locate): the same, "Objects that Sound", ECCV
2018, https://huggingface.co/papers/1712.06651. AVTS (margin, shifted): Korbar, Tran and Torresani, NeurIPS 2018,
https://huggingface.co/papers/1807.00230. Contrastive: van den Oord, Li and Vinyals, "Representation Learning with
Contrastive Predictive Coding", 2018, https://huggingface.co/papers/1807.03748

    input_values (B, T), pixel_values (B, F, 3, S, S) -> two encoders -> (B, D), (B, D) -> B right and B wrong pairs
    -> logits (2 B,) -> binary cross-entropy; or scores of all pairs of the batch (B, B) -> softmax over each row and
    column
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..features import encode, last_hidden, width
from ..modeling import PretextOutput
from ..modules.clip_cues import BRIGHTNESS, CENTROID, FRAME_COLORS, LOUDNESS, MOTION, SILENCE
from ..modules.composite import TwoEncoders, columns_of
from ..modules.correspondence import (
    Concatenation,
    Cosine,
    Distance,
    Margin,
    accuracy_among,
    check_maps,
    heat_maps,
    projection,
)
from ..modules.dense import as_map
from ..modules.distributed import gather
from ..modules.draws import drawn_by
from ..modules.dual_encoder import HIGHEST_SCALE, clamp_scale, normalised, pair_labels, scale_of
from ..modules.losses import softmax_loss
from ..modules.shifted import MIN_SHIFT, Shifted, check_times, check_two_sounds, near
from ..modules.wrong_pairs import all_but_same_source, balanced_accuracy, check_sources, has_source, wrong_ones
from ..presets.films import SOUND_AND_FRAMES as PRESET  # noqa: F401
from ..utils.ranks import rank_and_ranks
from ..utils.settings import refuse_without_effect

VIEWS = 2  # sounds of a clip for negatives=shifted: at the time of its frames, and at another
UNMATCHED = -1  # label of a shifted sound, unless it is too near to the clip's sound
LEAST_SHIFT = 0.01  # seconds; the starts of two sounds are exact to a thousandth


@strict
@dataclass
class AudioVisualTask:
    """Settings of audio-visual correspondence.

    fusion: how sounds and frames are compared. contrastive: the sound of a clip is predicted among all sounds of the
        batch, and vice versa; distance: a threshold on the distance of two embeddings (AVE-Net); concat: an MLP over
        the features of both (L3-Net).
    negatives: wrong sounds. other: of another clip of the batch; same_source: of another clip with the same
        --pair_label, if the batch has one, else of any other; shifted: after a part of the training, some are of the
        same clip at another time (AVTS).
    locate: whether the score is the maximum over the places of all frames of a clip, which gives a heat map of what
        sounds; only for fusion=distance and an image encoder. AVOL-Net takes the maximum over one frame, of the scalar
        product with a learned scale and bias; here it is of the distance of embeddings of length 1.
    embedding_dim: length of the embeddings; for fusion=concat, width of the MLP's hidden layer.
    margin: margin of the contrastive loss of AVTS, which replaces the threshold (AVTS: 0.99); only for fusion=distance.
        Default: binary cross-entropy with a learned threshold.
    temperature: divisor of the cosines; the initial one if it is learned; only for fusion=contrastive.
    learned_temperature: whether the temperature is learned; only for fusion=contrastive.
    easy_until: share of the training with sounds of other clips only (AVTS: 50 of 90 epochs); only for
        negatives=shifted.
    shifted_share: share of the wrong sounds that are shifted after that (AVTS: 0.25); only for negatives=shifted.
    min_shift: least seconds from the start of a sound to that of a shifted one; nearer ones are not wrong. AVTS takes
        sounds that do not overlap: at least --seconds. Only for negatives=shifted.
    """

    _argument_group_name: ClassVar[str] = "objective"

    fusion: Literal["contrastive", "distance", "concat"] = "contrastive"
    negatives: Literal["other", "same_source", "shifted"] = "other"
    locate: bool = False
    embedding_dim: int = 128
    margin: float | None = None
    temperature: float = 0.07
    learned_temperature: bool = True
    easy_until: float = 0.55
    shifted_share: float = 0.25
    min_shift: float = MIN_SHIFT

    def validate_numbers(self):
        if self.embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, but is {self.embedding_dim}.")
        if self.margin is not None and not 0 < self.margin <= 2:
            raise ValueError(f"margin must be above 0 and at most 2, the largest distance, but is {self.margin}.")
        if self.temperature < 1 / HIGHEST_SCALE:
            raise ValueError(f"temperature must be at least {1 / HIGHEST_SCALE}, but is {self.temperature}.")
        if not 0 <= self.easy_until < 1:
            raise ValueError(f"easy_until must be at least 0 and below 1, but is {self.easy_until}.")
        if not 0 < self.shifted_share <= 1:
            raise ValueError(f"shifted_share must be above 0 and at most 1, but is {self.shifted_share}.")
        if not LEAST_SHIFT <= self.min_shift < float("inf"):
            raise ValueError(f"min_shift must be at least {LEAST_SHIFT} seconds, but is {self.min_shift}.")

    def validate_fusion(self):
        uses = {
            ("locate", "margin"): ("fusion", "distance"),
            ("temperature", "learned_temperature"): ("fusion", "contrastive"),
            ("easy_until", "shifted_share", "min_shift"): ("negatives", "shifted"),
        }
        for names, (setting, needed) in uses.items():
            chosen = getattr(self, setting)
            for name in names:
                refuse_without_effect(self, name, chosen != needed, f"{setting}={needed}, not for {setting}={chosen}")
        if self.negatives == "same_source" and self.fusion == "contrastive":
            raise ValueError(
                "negatives='same_source' needs fusion='distance' or 'concat': with fusion='contrastive', all other "
                "clips of the batch are negatives."
            )


class AudioVisualForPreTraining(TwoEncoders):
    """A sound encoder and a video encoder that learn by predicting whether a sound and frames are of the same clip.

    forward: the columns of both encoders (see `columns_of`), e.g. input_values and attention_mask (`(B, T)`), and
    pixel_values (`(B, F, 3, S, S)`; an image encoder takes the frames one by one). For negatives="shifted", the columns
    of sounds are `(B, 2, ...)`: at the time of the frames, and at another; also sound_start, their places in the file
    in seconds (`(B, 2)`). For negatives="same_source" also labels, the source of each clip (`(B,)`, integers; only
    required in training). The contrastive fusion compares the batches of all ranks; the others draw wrong sounds from
    the batch of this rank.

    Returns features (`(B, D)`: embeddings of the sounds; for concat their features), and for distance and concat also
    logits (`(2 B,)`: of the right pairs, then of the frames with a wrong sound) and labels (`(2 B,)`: 1 for right, 0
    for wrong, -100 without a wrong sound). Logs: accuracy, the mean over right and wrong pairs, or for contrastive that
    of `accuracy_among` the clips of this rank; scale (contrastive, in training); shifted: the share of clips with a
    wrong sound from another time, in `eval()` that of the end of training; same_source: of clips with one of theirs.

    Example:
        >>> model = AudioVisualForPreTraining.from_encoders(audio=Wav2Vec2Config(), video=ResNetConfig())
        >>> model(input_values=torch.randn(2, 16000), pixel_values=torch.rand(2, 4, 3, 64, 64)).loss.shape
        torch.Size([])
    """

    objective = "audio_visual"
    task_class = AudioVisualTask
    inputs = ("audio", "video")
    capabilities = ("embed", "match", "illustrate")
    cues, artefacts = (LOUDNESS, CENTROID, FRAME_COLORS, BRIGHTNESS, MOTION), (SILENCE,)
    formula = (
        r"\text{contrastive: } -\frac{1}{2B}\sum_i \left[\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} + "
        r"\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\right], \; s_{ij} = v_i^\top a_j / \tau; \quad "
        r"\text{else: } -\frac{1}{2B}\sum_i \left[\log\sigma(s(v_i, a_i)) + \log\sigma(-s(v_i, a_i'))\right], \; "
        r"a_i' \text{ is wrong}; \quad \text{distance: } s(v, a) = w (t - \lVert v - a \rVert), \; w > 0; \quad "
        r"\text{margin } \eta\text{: } \frac{1}{2B}\sum_i \left[\lVert v_i - a_i \rVert^2 + "
        r"\max(\eta - \lVert v_i - a_i' \rVert, 0)^2\right]"
    )
    limits = (
        "Sounds of other clips count as wrong, even if they would fit. If many clips sound alike, the model learns "
        "differences that do not exist.",
        "The model learns what distinguishes clips. Without shifted wrong sounds, it hardly learns when things sound.",
        "Sounds without a visible source (music, a speaker who is not shown) are matched to what is usually seen then.",
    )

    def __init__(self, full_model: PreTrainedModel, task: AudioVisualTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        task, sizes = self.task, {kind: width(encoder) for kind, encoder in self.encoders.items()}
        if task.fusion == "concat":
            heads = {"score": Concatenation(sum(sizes.values()), task.embedding_dim)}
        else:
            heads = {kind: projection(size, task.embedding_dim) for kind, size in sizes.items()}
            heads["score"] = Cosine(task.temperature, task.learned_temperature)
        if task.fusion == "distance":
            heads["score"] = Distance() if task.margin is None else Margin(task.margin)
        self.pretext_head = nn.ModuleDict(heads)
        has = {"embed": task.fusion != "concat" and not task.locate, "match": True, "illustrate": task.locate}
        self.capabilities = tuple(name for name in type(self).capabilities if has[name])
        self.post_init()

    @classmethod
    def views_of(cls, task: AudioVisualTask) -> Mapping[str, int]:
        """Returns two sounds of each clip for negatives="shifted"."""
        return {"audio": VIEWS} if task.negatives == "shifted" else {}

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings):
        """As `PretextModel.from_encoder`. Also raises `ValueError` for `locate` without maps of frames."""
        model = super().from_encoder(encoder, parts, **settings)
        if model.task.locate:
            check_maps(model.encoders["video"])
        return model

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Raises `ValueError` for negatives="shifted" if all clips of a batch are too short for another time, and for
        negatives="same_source" if no clip of some batches has another of its source."""
        if self.task.negatives == "shifted":
            check_times(next(batches)["sound_start"], self.task.min_shift)
        if self.task.negatives == "same_source":
            check_sources(batch["labels"] for batch in batches)

    def forward(self, **batch: Tensor) -> PretextOutput:
        columns, labels = columns_of(batch, self.encoders), batch.get("labels")
        check_batch(self.task, columns, labels, batch.get("sound_start"), self.training)
        sounds, shifted = self.sounds_of(columns["audio"], batch.get("sound_start"))
        frames = self.compared("video", **columns["video"])
        with torch.autocast(sounds.device.type, enabled=False):
            if self.task.fusion == "contrastive":
                loss, logs, more = self.contrast(sounds, frames, shifted)
            else:
                loss, logs, more = self.classify(sounds, frames, shifted, labels)
        if self.task.negatives == "shifted":
            logs["shifted"] = sounds.new_zeros(()) if shifted is None else (~shifted.same).sum() / len(sounds)
        return self.output({"correspondence": loss}, logs, features=sounds, **more)

    # encode

    def compared(self, kind: str, **columns: Tensor) -> Tensor:
        """Returns what the score takes, for inputs of one kind: embeddings of length 1, for concat features, `(B, D)`;
        for `locate`, an embedding of each place of all frames, `(B, P, D)`."""
        if self.task.locate and kind == "video":
            return self.places(columns["pixel_values"]).flatten(1, 3)
        features = encode(self.encoders[kind], (-1,), **columns)[-1]
        return features if self.task.fusion == "concat" else normalised(self.pretext_head[kind](features))

    def places(self, pixel_values: Tensor) -> Tensor:
        """Returns the embeddings of all places of frames, of length 1: `(B, F, 3, S, S)` to `(B, F, h, w, D)`."""
        encoder = self.encoders["video"]
        maps = as_map(encoder, last_hidden(encoder, encoder(pixel_values=pixel_values.flatten(0, 1))))
        embeddings = normalised(self.pretext_head["video"](maps.permute(0, 2, 3, 1)))
        return embeddings.unflatten(0, pixel_values.shape[:2])

    def sounds_of(self, columns: Mapping[str, Tensor], starts: Tensor | None) -> tuple[Tensor, Shifted | None]:
        """Returns `compared` of the sounds, and of the shifted ones; None if there are none at this progress.

        columns: of sounds, `(B, ...)`, or `(B, 2, ...)` for negatives="shifted"; then starts are theirs, `(B, 2)`."""
        if self.task.negatives != "shifted":
            return self.compared("audio", **columns), None
        right, first = {name: values[:, 0] for name, values in columns.items()}, next(iter(columns.values()))
        count = self.num_shifted(len(first))
        if not count:
            return self.compared("audio", **right), None
        rows = torch.randperm(len(first), device=first.device, **drawn_by(self.generator()))[:count]
        together = {name: torch.cat([right[name], values[rows, 1]]) for name, values in columns.items()}
        sounds, shifted = self.compared("audio", **together).split([len(first), count])
        return sounds, Shifted(shifted, rows, near(starts[rows], self.task.min_shift))

    def num_shifted(self, clips: int) -> int:
        """Returns how many of a batch's clips get a shifted sound as a wrong one: none at first."""
        easy = self.training and self.progress < self.task.easy_until
        return 0 if easy else max(round(self.task.shifted_share * clips), 1)

    # compare

    def contrast(self, sounds: Tensor, frames: Tensor, shifted: Shifted | None) -> tuple[Tensor, dict, dict]:
        """Returns the loss `()` over the clips of all ranks, the logs, and `{}`. sounds, frames: embeddings `(B, D)`.

        For frames, shifted sounds are candidates, too. In `eval()` the loss is over the batch of this rank alone."""
        head, across = self.pretext_head["score"], self.training
        if self.training:
            clamp_scale(head)
        labels = pair_labels(None, len(frames), frames.device, across)
        all_frames, candidates, all_labels = (gather(values, across) for values in (frames, sounds, labels))
        of_candidates = all_labels
        if shifted is not None:  # one that is too near to the clip's sound is right
            of_shifted = torch.where(shifted.same, labels[shifted.rows], UNMATCHED)
            candidates = torch.cat([candidates, gather(shifted.sounds, across)])
            of_candidates = torch.cat([all_labels, gather(of_shifted, across)])
        ways, scale = ((frames, candidates, of_candidates), (sounds, all_frames, all_labels)), scale_of(head)
        losses = [softmax_loss(rows, others, scale, labels, of, symmetric=False) for rows, others, of in ways]
        logs = {"accuracy": accuracy_among(sounds, frames), **({"scale": scale} if self.training else {})}
        return sum(losses) / 2, logs, {}

    def classify(
        self, sounds: Tensor, frames: Tensor, shifted: Shifted | None, labels: Tensor | None
    ) -> tuple[Tensor, dict, dict]:
        """Returns the loss `()` over right and wrong pairs, the logs, and logits and labels `(2 B,)`."""
        score, kept = self.pretext_head["score"], all_but_same_source(len(sounds), labels, sounds.device)
        wrong = wrong_ones(torch.zeros_like(kept, dtype=torch.float32), kept, False, self.generator())
        others, of_others = sounds[wrong.clamp(min=0)], wrong.clamp(max=0)
        if shifted is not None:
            others, of_others = shifted.put_into(others, of_others)
        logits = torch.cat([score(sounds, frames), score(others, frames)])
        right = torch.cat([torch.ones_like(wrong), of_others])
        logs = {"accuracy": balanced_accuracy(logits, right)}
        if labels is not None:
            logs["same_source"] = has_source(labels).float().mean()
        return score.loss(logits, right), logs, {"logits": logits, "labels": right}

    # capabilities

    def embed(self, kind: str, **columns: Tensor) -> Tensor:
        """Embeds sounds or videos, given the columns of their encoder. Returns `(B, D)`, of length 1.

        Raises `ValueError` for fusion="concat" and for `locate`, which do not compare two vectors."""
        if "embed" not in self.capabilities:
            setting = "locate=True" if self.task.locate else "fusion='concat'"
            raise ValueError(f"A model with {setting} has no embeddings of length 1 for each {kind}. Use match().")
        return self.compared(kind, **columns)

    def match(self, **batch: Tensor) -> Tensor:
        """Returns the matching score of each video and its sound, `(B,)`: above 0 if they belong together.

        For fusion="contrastive" it is the cosine of the embeddings: choose a threshold on data."""
        columns = columns_of(batch, self.encoders)
        sounds, frames = (self.compared(kind, **columns[kind]) for kind in self.inputs)
        with torch.autocast(sounds.device.type, enabled=False):
            return self.pretext_head["score"](sounds, frames)

    def illustrate(self, **batch: Tensor) -> dict[str, Tensor]:
        """Returns videos, float32 `(B, F, 3, S, S)`, and heat maps of the scores of their places, with their sounds and
        with the sound of the next video. Raises `ValueError` without `locate`."""
        if not self.task.locate:
            raise ValueError("A model without locate=True has no heat maps.")
        columns = columns_of(batch, self.encoders)
        pixels, sounds = columns["video"]["pixel_values"], self.compared("audio", **columns["audio"])
        places, score = self.places(pixels), self.pretext_head["score"]
        scores = {
            title: score.of_places(each, places.flatten(1, 3)).view(places.shape[:-1])
            for title, each in {"its sound": sounds, "another sound": sounds.roll(-1, 0)}.items()
        }
        return {"frames": pixels.float(), **heat_maps(pixels, scores)}


def check_batch(
    task: AudioVisualTask, columns: Mapping, labels: Tensor | None, starts: Tensor | None, training: bool
) -> None:
    """Raises `ValueError` for different numbers of sounds, clips and labels, one sound of each clip instead of two,
    missing starts or labels, labels without effect, and a training batch of one clip.

    columns: `{kind: {name: (B, ...)}}`. starts: of both sounds, `(B, 2)`."""
    sounds, clips = (next(iter(columns[kind].values())) for kind in ("audio", "video"))
    numbers = {"sounds": len(sounds), "labels": len(clips) if labels is None else len(labels)}
    for name, number in numbers.items():
        if number != len(clips):
            raise ValueError(f"{len(clips)} clips came with {number} {name}. Give one for each clip.")
    if task.negatives == "shifted":
        check_two_sounds(sounds, starts)
    by_source = task.negatives == "same_source"
    if by_source and labels is None and training:
        raise ValueError("negatives='same_source' needs the source of each clip. Give its column with --pair_label.")
    if not by_source and labels is not None:
        raise ValueError(
            f"The labels of --pair_label have no effect with negatives={task.negatives!r}. Set "
            "negatives='same_source', or leave --pair_label out."
        )
    if training and len(clips) * (rank_and_ranks()[1] if task.fusion == "contrastive" else 1) < 2:
        raise ValueError(
            f"A wrong sound is that of another clip of the batch, but the batch has {len(clips)} clip. Give a larger "
            "--per_device_train_batch_size."
        )
