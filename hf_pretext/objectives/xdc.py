"""Cross-modal deep clustering: cluster the features of sounds and of films, and predict from one of them the cluster of
the other.

Alwassel, Mahajan, Korbar, Torresani, Ghanem and Tran, "Self-Supervised Learning by Cross-Modal Audio-Video Clustering",
NeurIPS 2020, https://huggingface.co/papers/1911.12667. Clustering one kind alone is DeepCluster: Caron, Bojanowski,
Joulin and Douze, ECCV 2018, https://huggingface.co/papers/1807.05520

    before each round: all rows -> two encoders -> features (N, D) of each kind -> k-means -> codes (N,)
    input_values (B, T), pixel_values (B, F, 3, S, S), keys (B,) -> two encoders -> heads -> logits (B, K)
    -> cross-entropy with the codes of the rows
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from ..features import encode, width
from ..modeling import PretextOutput
from ..modules.clip_cues import BRIGHTNESS, CENTROID, FRAME_COLORS, LOUDNESS, MOTION, SILENCE
from ..modules.clusters import NONE, Clusters, check_size, mutual_information, used_share
from ..modules.composite import TwoEncoders, columns_of
from ..modules.cues import Question
from ..modules.losses import widened
from ..presets import Preset, films
from ..utils.progress import progress
from ..utils.ranks import on_each_process, rank_and_ranks

PRESET = Preset(
    encoder=films.two_resnets,
    large=films.large_resnets,
    tiny=films.tiny_resnets,
    dataset="emoji_films",
    samples=48_000,
    settings={
        **films.SMALL,
        "num_clusters": 128,
        "round_epochs": 5,
        "lr_scheduler_type": "constant_with_warmup",  # heads begin again in the last round too
    },
    for_large=films.LARGE,
    smoke={"num_clusters": 8, "round_epochs": 1},
)

FEW = 0.5  # share of the clusters with rows, below which a warning is logged
JOINT = "joint"  # name of the clusters of the features of all kinds together
PREDICTED = {  # whose clusters each kind predicts
    "cross": {"audio": ("video",), "video": ("audio",)},
    "own": {"audio": ("audio",), "video": ("video",)},
    "both": {"audio": ("audio", "video"), "video": ("video", "audio")},
    "joint": {"audio": (JOINT,), "video": (JOINT,)},
}

log = logging.get_logger(__name__)


@strict
@dataclass
class XdcTask:
    """Settings of cross-modal deep clustering.

    labels: clusters that an encoder predicts. cross: of the other kind's features (XDC); own: of its kind's features,
        each encoder separately (SDC); both: of each kind's features, with two heads on each encoder (MDC); joint: of
        the features of sound and film together (CDC).
    num_clusters: number of clusters of each kind; at most the number of rows.
    cluster_rows: number of rows that the clusters are fitted to, drawn at random in each round; the other rows are
        only assigned to the nearest cluster. The main process keeps their features in memory.
    round_epochs: number of epochs after which all rows are clustered again. The heads begin again, also in the last
        round: a learning rate that falls to 0 leaves them untrained (--lr_scheduler_type constant_with_warmup).
    """

    _argument_group_name: ClassVar[str] = "objective"

    labels: Literal["cross", "own", "both", "joint"] = "cross"
    num_clusters: int = 64
    cluster_rows: int = 100_000
    round_epochs: int = 1

    def validate_clusters(self):
        if not 2 <= self.num_clusters <= self.cluster_rows:
            raise ValueError(
                f"num_clusters must be at least 2 and at most cluster_rows={self.cluster_rows}, but is "
                f"{self.num_clusters}."
            )
        if self.round_epochs < 1:
            raise ValueError(f"round_epochs must be at least 1, but is {self.round_epochs}.")


class XdcForPreTraining(TwoEncoders):
    """A sound encoder and a video encoder that learn by predicting clusters of each other's features.

    Before each round, all rows are encoded in `eval()` mode, each rank its share, and clustered (`Clusters`); the heads
    are drawn again, since the clusters have other numbers. A row is encoded without random changes; of a film longer
    than the clip, the place is drawn in each round. Each rank keeps the features of its rows in memory until then: 4
    bytes a channel. The codes of all rows are in the checkpoint, so that a run resumes within a round.

    forward: the inputs of both encoders (see `columns_of`), keys (`(B,)`, int64: numbers of the rows). keys is required
    in training. Without keys, as for a labelled set, the labels in `eval()` are the clusters nearest to the features of
    the batch; before the first round there are none, and all labels are 0.

    Returns features (`(B, D)`, of sounds), logits (`(H B, K)`) and labels (`(H B,)`, -1 for rows without a code, which
    do not count) of H heads: 2, or 4 for labels="both". Losses and logs (accuracy) are named by the encoder and the
    clusters that it predicts: "audio_to_video". Logged for each round: the share of the clusters that have rows
    (`used`), and the normalised mutual information with the codes of the last round (`nmi_last`) and of the two kinds.

    Example:
        >>> model = XdcForPreTraining.from_encoders(audio=Wav2Vec2Config(), video=ResNetConfig(), num_clusters=8)
        >>> model.eval()(input_values=torch.rand(2, 8000), pixel_values=torch.rand(2, 4, 3, 64, 64)).logits.shape
        torch.Size([4, 8])
    """

    objective = "xdc"
    task_class = XdcTask
    inputs = ("audio", "video")
    needs_keys = True
    learns_on_all_ranks = True
    capabilities = ("ask",)
    cues, artefacts = (LOUDNESS, CENTROID, FRAME_COLORS, BRIGHTNESS, MOTION), (SILENCE,)
    _keep_in_fp32_modules_strict = frozenset({"clusters"})
    formula = (
        r"-\log p_a\left(c_v \mid a\right) - \log p_v\left(c_a \mid v\right), \quad c_a, c_v \text{ clusters of the "
        r"features of sound and film in the last round}"
    )
    limits = (
        "Clusters are those of random features at first. What neither encoder separates then is learned late or not "
        "at all.",
        "k-means divides frequent kinds of rows into several clusters, while rows of rare kinds share one with others.",
        "Sounds that do not belong to the film, for example music or speech over it, give labels without a meaning.",
    )

    def __init__(self, full_model: PreTrainedModel, task: XdcTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        widths = {kind: width(encoder) for kind, encoder in self.encoders.items()}
        predicted = {kind: PREDICTED[self.task.labels][kind] for kind in self.inputs}
        heads = {f"{kind}_to_{name}": widths[kind] for kind, names in predicted.items() for name in names}
        self.pretext_head = nn.ModuleDict({name: nn.Linear(d, self.task.num_clusters) for name, d in heads.items()})
        clustered = {kind: (d,) for kind, d in widths.items()}
        clustered = {JOINT: tuple(widths.values())} if self.task.labels == "joint" else clustered
        self.clusters = Clusters(clustered, self.task.num_clusters, (parts or {}).get("rows", 0))
        # equal on all ranks: DistributedDataParallel would send them in each step
        self._ddp_params_and_buffers_to_ignore = [f"clusters.{name}" for name, _ in self.clusters.named_buffers()]
        self.post_init()

    def set_rows(self, rows: int) -> None:
        """See `PretextModel.set_rows`. Raises `ValueError` for more clusters than rows."""
        check_size(self.task.num_clusters, rows)
        self.parts = {"rows": rows}
        self.clusters.set_rows(rows)

    @property
    def round_epochs(self) -> int:
        return self.task.round_epochs

    def forward(self, keys: Tensor | None = None, **batch: Tensor) -> PretextOutput:
        if keys is None and self.training:
            raise ValueError(
                "xdc needs keys in a batch of training: the numbers of its rows, (B,), int64. Train with "
                "PretextTrainer, which gives them, or set eval()."
            )
        features = self.features_of(batch)
        labels = {name: self.labels_of(name, keys, features) for name in self.clusters.widths}
        losses, logs, scores, targets = {}, {}, [], []
        for name, head in self.pretext_head.items():
            kind, _, predicted = name.partition("_to_")
            logits, target = head(features[kind]), labels[predicted]
            losses[name], logs[f"{name}_accuracy"] = compared(logits, target)
            scores.append(logits)
            targets.append(target)
        more = {"logits": torch.cat(scores), "labels": torch.cat(targets)}
        return self.output(losses, logs, features=features[self.inputs[0]], **more)

    def features_of(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the features of each kind, `(B, D)`, from a batch of all kinds."""
        columns = columns_of(batch, self.encoders)
        return {kind: encode(encoder, **columns[kind])[-1] for kind, encoder in self.encoders.items()}

    def labels_of(self, name: str, keys: Tensor | None, features: Mapping[str, Tensor]) -> Tensor:
        """Returns the labels of one kind of clusters, `(B,)`: the codes of the rows, or without keys the clusters that
        are nearest to the features."""
        if keys is not None:
            return self.clusters.codes_of(name, keys)
        return self.clusters.assign(name, *(features[kind] for kind in kinds_of(name, self.inputs)))

    # capabilities

    @property
    def questions(self) -> tuple[str, ...]:
        """Names of the heads, by the encoder and the clusters that it predicts, e.g. "audio_to_video". None before the
        first round: there are no clusters yet."""
        return tuple(self.pretext_head) if int(self.clusters.rounds) else ()

    def ask(self, question: str, **batch: Tensor) -> Question:
        """Asks for the cluster of each example, `(B,)`: the one that is nearest to its features, as in `eval()` without
        keys. It is of the encoders as they are now, and centres of the last round."""
        kind, _, predicted = question.partition("_to_")
        columns, seen = columns_of(batch, self.encoders), kinds_of(predicted, self.inputs)
        features = {each: encode(self.encoders[each], **columns[each])[-1] for each in seen}
        labels = self.labels_of(predicted, None, features)
        return Question(columns[kind], labels, self.task.num_clusters, kind)

    def answer(self, question: str, **inputs: Tensor) -> Tensor:
        """Returns the logits of the clusters, `(B, K)`, from the inputs of the encoder of `Question.kind`."""
        kind, _, _ = question.partition("_to_")
        return self.pretext_head[question](encode(self.encoders[kind], **inputs)[-1])

    # rounds

    def before_round(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, float]:
        """Clusters the features of all rows, and draws the heads again. All ranks call it, each with batches of its
        rows, with `keys`. Returns the values to log."""
        shares: dict[str, Tensor] = {}
        on_each_process(
            lambda: shares.update(self.extract(batches))
        )  # else a rank that fails leaves the others waiting
        keys, sampled = shares.pop("keys"), self.task.cluster_rows
        codes = {}
        for name in self.clusters.widths:
            codes[name] = self.clusters.fit(name, keys, [shares[kind] for kind in kinds_of(name, self.inputs)], sampled)
        values = self.compare_rounds(codes)
        warn_of_unused({name: values[f"{name}_used"] for name in codes}, self.task.num_clusters)
        self.clusters.keep(codes)
        self.draw_heads()
        return values

    @torch.no_grad()
    def extract(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Encodes rows in `eval()` mode. Returns their keys `(n,)` and the features of each kind `(n, D)`, on the CPU,
        in float32."""
        training, parts = self.training, {"keys": [torch.zeros(0, dtype=torch.int64)]}
        parts |= {kind: [torch.zeros(0, width(encoder))] for kind, encoder in self.encoders.items()}
        self.eval()
        for batch in progress(batches, "reading features for the clusters"):
            parts["keys"].append(batch.pop("keys").cpu())
            for kind, features in self.features_of(batch).items():
                parts[kind].append(features.float().cpu())
        self.train(training)
        return {name: torch.cat(some) for name, some in parts.items()}

    def compare_rounds(self, codes: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns values about new codes (`(N,)` by name) for the logs, before they replace the old ones."""
        values = {f"{name}_used": used_share(of_rows, self.task.num_clusters) for name, of_rows in codes.items()}
        if int(self.clusters.rounds):
            for name, of_rows in codes.items():
                values[f"{name}_nmi_last"] = mutual_information(of_rows, self.clusters.codes(name).cpu())
        if len(codes) > 1:
            values["nmi_of_kinds"] = mutual_information(*codes.values())
        return {name: value for name, value in values.items() if value is not None}  # None: no row to compare

    @torch.no_grad()
    def draw_heads(self) -> None:
        """Draws the weights of the heads from PyTorch's initial distribution, with the seed of the round."""
        generator = torch.Generator().manual_seed(int(self.clusters.seed) + int(self.clusters.rounds))
        for head in self.pretext_head.values():
            for parameter in (head.weight, head.bias):
                drawn = 2 * torch.rand(parameter.shape, generator=generator) - 1
                parameter.copy_(drawn / head.in_features**0.5)

    def redrawn(self) -> Iterable[nn.Parameter]:
        """See `PretextModel.redrawn`."""
        return self.pretext_head.parameters()

    def prepared(self) -> dict:
        """Returns facts about the clusters of the last round: how many rounds, the share of the clusters that have
        rows, and the normalised mutual information of the two kinds."""
        names, rounds = list(self.clusters.widths), int(self.clusters.rounds)
        if not rounds:
            return {}
        codes = [self.clusters.codes(name) for name in names]
        used = {name: used_share(some, self.task.num_clusters) for name, some in zip(names, codes, strict=True)}
        between = mutual_information(*codes) if len(codes) > 1 else None
        return {"clusters": {"rounds": rounds, "used": used, **({} if between is None else {"nmi_of_kinds": between})}}


def kinds_of(name: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the kinds of data whose features the clusters of this name are made of."""
    return kinds if name == JOINT else (name,)


def warn_of_unused(used: Mapping[str, float], clusters: int) -> None:
    """Logs a warning on the main process if few clusters have rows. used: share of them, by name of the clusters."""
    few = [f"{share:.0%} of the {clusters:,} clusters of {name}" for name, share in used.items() if share < FEW]
    if few and rank_and_ranks()[0] == 0:
        log.warning(
            f"Only {' and '.join(few)} have rows: the features of many rows are equal. If it stays so, the encoder has "
            "collapsed: lower --learning_rate, or check the data for copies and silence."
        )


def compared(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cross-entropy and accuracy, `()` each, over the rows with a label. Both are 0 if no row has one.

    logits: `(B, K)`. labels: `(B,)`, `NONE` for rows without a label."""
    known = labels != NONE
    count = known.sum().clamp(min=1)
    loss = F.cross_entropy(widened(logits), labels, ignore_index=NONE, reduction="sum") / count
    return loss, ((logits.argmax(-1) == labels) & known).sum() / count
