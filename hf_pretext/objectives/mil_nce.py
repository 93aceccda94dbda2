"""MIL-NCE: predict which of the narrations in a batch are of the time of a clip, where any of several may describe it.

Miech, Alayrac, Smaira, Laptev, Sivic and Zisserman, "End-to-End Learning of Visual Representations from Uncurated
Instructional Videos", CVPR 2020, https://huggingface.co/papers/1912.06430

    pixel_values (B, F, 3, S, S), input_ids (B, K, L) -> two encoders -> embeddings (B, D), (B, K, D) -> scores of each
    clip with all narrations (B, B K), and of each narration with all clips (B K, B), computed in tiles
    -> softmax of the clip's narrations together among all of them

With one narration a clip and unique texts, the negatives are those of `contrastive.py`, but those of both directions
are in one denominator: the loss is log(exp(a) + exp(b) - 1) of its two cross-entropies a and b, not their mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.tokenizer import check_masks
from ..encoders import as_encoder, check_encoder
from ..features import encode, width
from ..modeling import PretextOutput
from ..modules.caption_cues import CAPTION_LENGTH
from ..modules.clip_cues import BRIGHTNESS, FRAME_COLORS, MOTION
from ..modules.composite import CompositeModel, TwoEncoders, columns_of, in_order, without
from ..modules.correspondence import COMPARED, Cosine
from ..modules.distributed import gather, gather_sequences
from ..modules.dual_encoder import HIGHEST_SCALE, clamp_scale, normalised, scale_of
from ..modules.losses import NegativeNormalizers, numbered_rows
from ..modules.temporal import frame_gru
from ..modules.video_text_models import USAGE, embedded, embeds_videos_and_texts, scale_in, towers_of
from ..modules.word_vectors import WordVectors, attended, tokens_of
from ..presets.films import FILMS_AND_TEXTS as PRESET  # noqa: F401
from ..utils.ranks import rank_and_ranks
from ..utils.settings import refuse_without_effect

NO_COSINE = -1.0  # lowest cosine: score of a clip without narration


@strict
@dataclass
class MilNceTask:
    """Settings of MIL-NCE.

    positives: narrations that count as right for a clip. bag: the --bag_size narrations that are nearest in time,
        together: it is enough if one of them fits (MIL-NCE); nearest: only the nearest one (the paper's baseline).
    bag_size: number of narrations of a clip (paper: 5); only for positives=bag.
    embedding_dim: length of the embeddings (paper: 512). XCLIP and VideoPrism have their own.
    temperature: divisor of the cosines; the initial one if it is learned. The paper has none: its embeddings have any
        length. A pretrained XCLIP has its own.
    learned_temperature: whether the temperature is learned.
    temporal_layers: GRU layers over the features of the frames, in both directions, for an encoder of images.
        With 0, the features of the frames are averaged, so that their order is lost.
    word_dim: length of the word vectors that encode texts in place of a text encoder: a layer on each word, the maximum
        over all words, and one more layer (paper: 300, from word2vec; here they are trained). Default: a text encoder.
    word_hidden: width of the layer on each word; only with --word_dim.
    num_words: number of word vectors; only with --word_dim. Default: the tokens of the tokenizer.
    """

    _argument_group_name: ClassVar[str] = "objective"

    positives: Literal["bag", "nearest"] = "bag"
    bag_size: int = 5
    embedding_dim: int = 128
    temperature: float = 0.1
    learned_temperature: bool = False
    temporal_layers: int = 0
    word_dim: int | None = None
    word_hidden: int = 2048
    num_words: int | None = None

    def validate_numbers(self):
        for name in ("bag_size", "embedding_dim", "word_dim", "word_hidden", "num_words"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        if self.temporal_layers < 0:
            raise ValueError(f"temporal_layers must be at least 0, but is {self.temporal_layers}.")
        if self.temperature < 1 / HIGHEST_SCALE:
            raise ValueError(f"temperature must be at least {1 / HIGHEST_SCALE}, but is {self.temperature}.")

    def validate_use(self):
        alone = self.positives == "nearest"  # which is a bag of 1
        refuse_without_effect(self, "bag_size", alone and self.bag_size != 1, "positives=bag")
        for name in ("word_hidden", "num_words"):
            refuse_without_effect(self, name, self.word_dim is None, "word vectors, which need word_dim")


class MilNceForPreTraining(TwoEncoders):
    """A video encoder and a text encoder that learn from narrated film, whose words do not always fit the moment.

    forward: the columns of the video encoder (see `columns_of`), e.g. pixel_values (`(B, F, 3, S, S)`; an image encoder
    takes the frames one by one), input_ids and attention_mask (`(B, K, L)`): the K narrations of each clip, nearest in
    time first; or one text of each, `(B, L)`. A narration whose attention_mask is 0 is missing: it is neither right nor
    wrong. A clip without any has no loss, but counts as wrong for narrations of other clips. In training, the batches
    of all ranks form one batch; K must be the same on all. A narration whose tokens equal one of a clip's is never
    wrong for it. In a run, films without narration are bad samples: they are replaced and counted. Films or texts alone
    (`--videos_alone`) are refused, because they have nothing to compare.

    With `word_dim`, texts are encoded by word vectors: the checkpoint has the video encoder alone, in `video/`, and
    pretext.safetensors has the word vectors.

    `from_encoder` also takes an `XCLIPModel` or a `VideoPrismClipModel`, or its config. The checkpoint has this class.
    Trained are its encoders and projections, those of `get_video_features` and `get_text_features`; the scale of the
    scores is XCLIP's `logit_scale`. XCLIP's prompts, which add to the embedding of a text what depends on the video,
    are not trained, so its own `logits_per_video` are not those of this loss.

    Returns features (`(B, D)`: embeddings of the clips, of length 1). Logs: accuracy, the share of the first `COMPARED`
    clips with narration whose nearest narration of this rank is one of theirs; narrations, their mean number of a clip;
    in training also scale.

    Example:
        >>> model = MilNceForPreTraining.from_encoders(video=ResNetConfig(), text=BertConfig())
        >>> texts = torch.randint(1000, 2000, (2, 5, 9))
        >>> model(pixel_values=torch.rand(2, 4, 3, 64, 64), input_ids=texts).loss.shape
        torch.Size([])
    """

    objective = "mil_nce"
    task_class = MilNceTask
    inputs = ("video", "text")
    usage = (
        '{% if encoders.video.class in ("XCLIPVisionModel", "VideoPrismVideoModel") %}'
        f"{USAGE}{{% else %}}{TwoEncoders.usage}{{% endif %}}"
    )
    capabilities = ("embed", "match")
    cues, artefacts = (FRAME_COLORS, BRIGHTNESS, MOTION), (CAPTION_LENGTH,)
    match_is_cosine = True
    formula = (
        r"-\frac{1}{B}\sum_i \log\frac{\sum_{y \in P_i} e^{s(x_i, y)}}{\sum_{y \in P_i} e^{s(x_i, y)} + "
        r"\sum_{(x, y) \in N_i} e^{s(x, y)}}, \; s(x, y) = x^\top y / \tau; \quad P_i \text{ are the narrations of "
        r"clip } x_i; \; N_i \text{: } x_i \text{ with narrations of other clips, and other clips with those of } "
        r"x_i; \; x, y \text{ are embeddings of length 1; equal texts are never in } N_i"
    )
    limits = (
        "Narrations of other clips count as wrong, even if they would fit. Only equal texts do not.",
        "If no narration of a bag is about the clip, one of them still counts as right.",
        "The model learns what distinguishes the clips of a batch, which need not be the order of events in a clip.",
    )

    def __init__(self, full_model: PreTrainedModel, task: MilNceTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        if task.word_dim is None and "text" not in self.encoders:
            raise ValueError("The model has no text encoder. Give one, or word vectors with word_dim=300.")
        if task.word_dim is not None and task.num_words is None:
            raise ValueError(f"word_dim={task.word_dim} needs num_words, the number of tokens of the tokenizer.")
        self.pretext_head = nn.ModuleDict(self.heads())
        if (scale := scale_in(full_model)) is not None:
            scale.requires_grad_(task.learned_temperature)
        self.post_init()

    def heads(self) -> dict[str, nn.Module]:
        """Returns fresh heads: what the full model lacks of projections and scale. Raises `ValueError` for settings
        that have no effect on it."""
        task, name, made = self.task, type(self.full_model).__name__, {}
        joint = embeds_videos_and_texts(self.full_model)
        for each in ("embedding_dim", "word_dim", "temporal_layers"):
            refuse_without_effect(task, each, joint, f"encoders of video and text, and not for the parts of {name}")
        if not joint:
            made = {kind: nn.Linear(width(encoder), task.embedding_dim) for kind, encoder in self.encoders.items()}
        if task.word_dim is not None:
            made["text"] = WordVectors(task.num_words, task.word_dim, task.word_hidden, task.embedding_dim)
        if task.temporal_layers:
            made["frames"] = frame_gru(self.encoders["video"], task.temporal_layers)
        if scale_in(self.full_model) is None:
            made["score"] = Cosine(task.temperature, task.learned_temperature)
        return made

    @classmethod
    def from_encoders(cls, **encoders_and_settings) -> "MilNceForPreTraining":
        """As `TwoEncoders.from_encoders`: with `word_dim`, give `video=` alone. Raises `ValueError` for `text=` next to
        it."""
        if encoders_and_settings.get("word_dim") is None:
            return super().from_encoders(**encoders_and_settings)
        video = encoders_and_settings.pop("video", None)
        if video is None or "text" in encoders_and_settings:
            raise ValueError("Word vectors (word_dim) replace the text encoder: give video= alone, or no word_dim.")
        video = as_encoder(video)
        return cls.from_encoder(CompositeModel.of(video=video), **encoders_and_settings)

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "MilNceForPreTraining":
        """As `PretextModel.from_encoder`. With `word_dim`, the text encoder is left out. The `logit_scale` of a model
        is kept; that of a config begins with `temperature`. Raises `ValueError` for a model without a text encoder if
        there is no `word_dim`, for `word_dim` without `num_words`, and for settings that a model does not need."""
        if settings.get("word_dim") is not None:
            encoder = without(encoder, "text")
        model = super().from_encoder(encoder, parts, **settings)
        if isinstance(encoder, PreTrainedConfig) and (scale := scale_in(model.full_model)) is not None:
            nn.init.constant_(scale, -math.log(model.task.temperature))
        use = f"models without a trained scale, and {type(encoder).__name__} has one"
        refuse_without_effect(model.task, "temperature", scale_in(encoder) is not None, use)
        return model

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """As `TwoEncoders.native`, but it also takes a `CompositeModel` of video alone, for word vectors, and a model
        of video and text that has projections: `XCLIPModel`, `VideoPrismClipModel`."""
        full_model = as_encoder(in_order(encoder, cls.inputs))
        if embeds_videos_and_texts(full_model):
            return full_model
        if isinstance(full_model, CompositeModel) and set(full_model.encoders) == {"video"}:
            check_encoder(full_model.encoders["video"], "video")
            return full_model
        return super().native(full_model)

    @classmethod
    def complete(cls, task: MilNceTask, processors: Mapping[str, Any]) -> MilNceTask:
        """Completes the settings with the number of tokens, for word vectors. Raises `ValueError` for bags of several
        narrations and a tokenizer without attention_mask."""
        if cls.views_of(task)["text"] > 1:
            check_masks(processors["text"])
        if task.word_dim is None or task.num_words is not None:
            return task
        return replace(task, num_words=len(processors["text"]))

    @classmethod
    def views_of(cls, task: MilNceTask) -> Mapping[str, int]:
        """Returns the number of narrations of each clip."""
        return {"text": task.bag_size if task.positives == "bag" else 1}

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **batch: Tensor) -> PretextOutput:
        columns = self.columns_of_video(batch)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        check_batch(next(iter(columns.values())), input_ids, mask, self.training)
        if input_ids.ndim == 2:
            input_ids, mask = input_ids[:, None], mask[:, None]
        if self.task.positives == "nearest":
            input_ids, mask = input_ids[:, :1], mask[:, :1]
        videos = self.embed("video", **columns)
        texts = self.embed("text", input_ids=input_ids.flatten(0, 1), attention_mask=mask.flatten(0, 1))
        with torch.autocast(videos.device.type, enabled=False):
            loss, logs = self.compare(videos, texts.unflatten(0, mask.shape[:2]), tokens_of(input_ids, mask))
        return self.output({"mil_nce": loss}, logs, features=videos)

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        return towers_of(self.full_model) if embeds_videos_and_texts(self.full_model) else super().encoders

    def columns_of_video(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the inputs of the video encoder from a batch of all kinds."""
        return columns_of(batch, {"video": self.encoders["video"]})["video"]

    def compare(self, videos: Tensor, texts: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss `()` over the clips of all ranks, and the logs.

        videos, texts: embeddings `(B, D)`, `(B, K, D)`. tokens: of the texts, see `tokens_of`. In `eval()` the loss is
        over the batch of this rank alone, because one rank computes the metrics."""
        head = self.pretext_head["score"] if scale_in(self.full_model) is None else self.full_model
        rank, ranks = rank_and_ranks() if self.training else (0, 1)
        if self.training:
            clamp_scale(head)
        (clips, bag), scale = tokens.shape[:2], scale_of(head)
        all_tokens = gather_sequences(tokens.flatten(0, 1), self.training)
        numbers, present = (v.unflatten(0, (-1, bag)) for v in (numbered_rows(all_tokens), (all_tokens > 0).any(1)))
        here = slice(rank * clips, (rank + 1) * clips)
        everyone = gather(videos, self.training), gather(texts.flatten(0, 1), self.training)
        losses = mil_nce(videos, texts, *everyone, scale, numbers, present, here)
        loss = losses.sum() * ranks / present.any(1).sum().clamp(min=1)  # the mean over the clips of all ranks
        numbers, present = numbers[here], present[here]
        logs = {"accuracy": accuracy_of(videos, texts, numbers, present), "narrations": present.sum() / clips}
        return loss, {**logs, **({"scale": scale} if self.training else {})}

    # capabilities

    def embed(self, kind: str, **columns: Tensor) -> Tensor:
        """Embeds videos, given the columns of their encoder, or texts (input_ids, attention_mask: `(B, L)`). Returns
        `(B, D)`, of length 1."""
        if kind == "text":
            columns["attention_mask"] = attended(**columns)
        if embeds_videos_and_texts(self.full_model):
            return normalised(embedded(self.full_model, kind, columns))
        if kind == "text" and self.task.word_dim is not None:
            return normalised(self.pretext_head["text"](**columns))
        over_time = self.pretext_head["frames"] if kind == "video" and self.task.temporal_layers else None
        features = encode(self.encoders[kind], (-1,), average_frames=over_time is None, **columns)[-1]
        return normalised(self.pretext_head[kind](features if over_time is None else over_time(features)))

    def match(self, input_ids: Tensor, attention_mask: Tensor | None = None, **batch: Tensor) -> Tensor:
        """Returns the cosine of each video and its text, `(B,)`; of several texts `(B, K, L)`, the highest. Choose a
        threshold on data. Videos without narration get -1."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        texts = self.embed("text", input_ids=input_ids.flatten(0, -2), attention_mask=mask.flatten(0, -2))
        videos = self.embed("video", **self.columns_of_video(batch))
        cosines = torch.einsum("bd,bkd->bk", videos, texts.view(len(videos), -1, texts.shape[1]))
        return cosines.masked_fill(~mask.any(-1).view(cosines.shape), NO_COSINE).amax(1)


def mil_nce(
    videos: Tensor,
    texts: Tensor,
    all_videos: Tensor,
    all_texts: Tensor,
    scale: Tensor,
    numbers: Tensor,
    present: Tensor,
    here: slice,
) -> Tensor:
    """Returns the loss of each clip of this rank, `(b,)`; 0 for a clip without narration.

    videos, texts: embeddings of this rank, `(b, D)`, `(b, K, D)`. all_videos, all_texts: of all ranks, `(B, D)`,
    `(B K, D)`. scale: factor of the scores, `()`. numbers (`(B, K)`): equal for equal texts. present (`(B, K)`, bool):
    False for missing narrations. here: rows of this rank. A tile of scores is in memory at a time."""
    of_texts, some = numbers.view(-1, 1), present[here]
    every_video = torch.ones_like(present[:, 0])
    wrong_texts = NegativeNormalizers.apply(videos, all_texts, scale, numbers[here], of_texts, present.flatten())
    wrong_videos = NegativeNormalizers.apply(
        texts.flatten(0, 1), all_videos, scale, numbers[here].reshape(-1, 1), numbers, every_video
    )
    narrated = some.any(1)
    right = scale * torch.einsum("bd,bkd->bk", videos, texts)
    right = right.masked_fill(~some & narrated[:, None], -torch.inf)  # finite for a clip without narration
    wrong = torch.cat([wrong_texts[:, None], wrong_videos.view_as(some).masked_fill(~some, -torch.inf)], 1)
    losses = torch.cat([right, wrong], 1).logsumexp(1) - right.logsumexp(1)
    return losses.masked_fill(~narrated, 0)


@torch.no_grad()
def accuracy_of(videos: Tensor, texts: Tensor, numbers: Tensor, present: Tensor) -> Tensor:
    """Returns the share of the first `COMPARED` clips with narration whose nearest text is one of theirs, `()`.

    videos: `(B, D)`. texts: `(B, K, D)`. numbers, present: of the texts, see `mil_nce`."""
    scores = (videos[:COMPARED] @ texts.flatten(0, 1).T).masked_fill_(~present.flatten(), -torch.inf)
    predicted = numbers.flatten()[scores.argmax(1)]
    right = ((numbers[:COMPARED] == predicted[:, None]) & present[:COMPARED]).any(1)
    return right.sum() / present[:COMPARED].any(1).sum().clamp(min=1)


def check_batch(videos: Tensor, input_ids: Tensor, attention_mask: Tensor, training: bool) -> None:
    """Raises `ValueError` for texts or a mask of other shapes than `(B, K, L)` or `(B, L)`, another number of clips
    than of texts, and a training batch of one clip."""
    shape = tuple(input_ids.shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"input_ids must be (B, K, L), K narrations of each clip, or (B, L), but are {shape}.")
    if attention_mask.shape != input_ids.shape:
        raise ValueError(f"attention_mask {tuple(attention_mask.shape)} must have the shape of input_ids, {shape}.")
    if len(videos) != len(input_ids):
        raise ValueError(f"{len(videos)} clips came with narrations of {len(input_ids)}. Give (B, K, L) for B clips.")
    if training and len(videos) * rank_and_ranks()[1] < 2:
        raise ValueError(
            f"Wrong narrations are those of other clips of the batch, but the batch has {len(videos)} clip. Give a "
            "larger --per_device_train_batch_size."
        )
