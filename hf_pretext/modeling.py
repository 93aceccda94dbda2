"""The one abstraction: a pretext model is a `PreTrainedModel` that holds plain encoders and returns a loss.

    batch (clean, no labels) -> forward: corrupt, encode, predict, compare -> PretextOutput(loss, losses, logs, ...)

On disk it is the checkpoint of a native transformers model (see `checkpoints.py`), so that
`AutoModel.from_pretrained(folder)` gives the encoder without this package.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .checkpoints import HUB_ARGUMENTS, NativeCheckpoint, read_pretext
from .encoders import build_encoder, check_encoder
from .registry import objective_class
from .utils.settings import make_settings

EVAL_SEED = 0
ATTENTION_FLAGS = ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend")
NO_SETTINGS = ("objective", "parts")  # of what config.json says of pretraining


@dataclass
class PretextOutput(ModelOutput):
    """What every objective returns.

    loss (`()`): what the trainer differentiates, the sum of `losses`.
    losses (`dict[str, ()]`): its weighted terms, by name.
    logs (`dict[str, ()]`): detached scalars worth watching, never part of the loss.
    features (`(examples, width)`): one pooled vector per example that the encoder saw.
    logits, labels: what was predicted and what was right, where the objective has such a thing.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logs: dict[str, Tensor] | None = None
    features: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None


class PretextModel(NativeCheckpoint, PreTrainedModel):
    """Base of every objective.

    A subclass names its `objective` (the name of its file), its `task_class` (a dataclass of settings) and its `inputs`
    (the kinds of data of a batch, as `("image",)`; `views`: how many of a kind, where several), builds its heads and
    ends `__init__` with `self.post_init()`. Everything but the encoders is scaffolding: trained and saved for resuming,
    never needed to use them. An objective that transformers has classes with a head for names their `auto_class`;
    checkpoints are then theirs.

    full_model: the transformers model that the checkpoint is of. task: the settings. parts: what modules of the
    objective's own are made of, in JSON's types. progress: how much of the training is done, 0 to 1.
    """

    config_class = PreTrainedConfig
    base_model_prefix = "full_model"
    objective: ClassVar[str]
    task_class: ClassVar[type]
    inputs: ClassVar[tuple[str, ...]]
    views: ClassVar[Mapping[str, int]] = {}
    auto_class: ClassVar[type] = AutoModel
    pipeline_tag: ClassVar[str] = "feature-extraction"  # of the Hub: what the checkpoint is used for
    usage: ClassVar[str] = ""  # lines that load a checkpoint, as `Modality.usage`, where those would not do
    formula: ClassVar[str] = ""  # of the loss, as LaTeX; a card shows it
    limits: ClassVar[tuple[str, ...]] = ()  # known failures of the objective, a sentence each; a card says them
    capabilities: ClassVar[tuple[str, ...]] = ()  # of "embed", "match", "predict_tokens", "generate", "ask"
    learns_from_one_kind: ClassVar[bool] = False  # whether a batch may lack one of the kinds of `inputs`
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # or Trainer would not divide the loss by the number of accumulation steps

    def __init__(self, full_model: PreTrainedModel, task, parts: dict | None = None):
        for flag in ATTENTION_FLAGS:  # can do with attention just what the native model can
            setattr(self, flag, getattr(full_model, flag, False))
        super().__init__(full_model.config)
        self.task, self.parts, self.progress = task, parts, 0.0
        self.main_input_name = full_model.main_input_name
        self.full_model = full_model

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "PretextModel":
        """Puts the objective's heads on an encoder.

        encoder: a model (its weights are kept bit for bit, and trained in place where it is of `auto_class`) or a
            config (a fresh one is built, with its library's own initialisation). settings: the fields of `task_class`.
        parts: for objectives that bring modules of their own, what each is made of, for config.json.
        Raises `ValueError` for unknown settings, and for what is no encoder of the objective's kind of data.
        """
        task = make_settings(cls.task_class, **settings)
        model = cls(cls.native(encoder), task, parts)
        model.follow_full_model()
        return model

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """The transformers model that the checkpoint is of. Raises `ValueError` for what is no such encoder."""
        if isinstance(encoder, PreTrainedConfig):
            encoder = build_encoder(encoder)
        check_encoder(encoder, cls.inputs[0])
        return encoder

    @classmethod
    def with_encoders(cls, config: PreTrainedConfig, encoders: Mapping[str, PreTrainedConfig]) -> PreTrainedConfig:
        """A full model's config with other encoders in their places, by kind of data. Raises `ValueError` for an
        objective whose full model has no encoders of its own."""
        options = " and ".join(f"--{kind}_encoder" for kind in encoders)
        parts = f"the encoders of {cls.objective} are parts of one model"
        raise ValueError(f"{options}: {parts}. Start from a full model with --encoder.")

    @classmethod
    def settings_of(cls, pretext: Mapping[str, Any]):
        """The settings in the entry `pretext` of a config.json. Raises `ValueError` for unknown ones."""
        return make_settings(cls.task_class, **{k: v for k, v in pretext.items() if k not in NO_SETTINGS})

    @property
    def pretext(self) -> dict[str, Any]:
        """What config.json says of pretraining: the objective, its settings, and parts where it has any."""
        parts = {"parts": self.parts} if self.parts else {}
        return {"objective": self.objective, **dataclasses.asdict(self.task), **parts}

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The plain transformers encoder of each kind of data: what all of this is for."""
        return {self.inputs[0]: self.full_model if self.auto_class is AutoModel else self.full_model.base_model}

    @property
    def encoder(self) -> PreTrainedModel:
        """That of the first of the `inputs`."""
        return self.encoders[self.inputs[0]]

    def forward(self, **batch: Tensor) -> PretextOutput:
        raise NotImplementedError(f"{type(self).__name__} has no forward.")

    # hooks: what depends on the data or on time

    @classmethod
    def complete(cls, task, processors: Mapping[str, Any]):
        """Settings with what depends on the data's processors (by kind) filled in, where they leave it open: a
        tokenizer's ids, what images are normalised by. Raises `ValueError` for a processor that lacks what the
        objective needs."""
        return task

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Learns from the data what must be known before training begins, as a codebook, on the main process for all.
        batches: of training, for as long as they are asked for. A resumed run has it already."""

    def prepared(self) -> dict:
        """What results say of what was learned beforehand."""
        return {}

    def before_round(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Learns from the data once more at the beginning of each epoch, as clusters of features, on the main process
        for all; it sets the mode (`eval()`) that it needs, and restores it. batches: of one epoch. What it learns must
        lie in parameters or buffers: a run resumed within an epoch does not ask again."""

    def after_step(self, progress: float) -> None:
        """Follows an optimizer step, as the moving average of a teacher does. progress: as `self.progress`, 0 to 1."""

    # capabilities: what evaluation may ask of objectives that name them

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Inputs of one kind to embeddings of length 1, in a space that all kinds share: `(B, D)`."""
        raise NotImplementedError(f"{type(self).__name__} embeds nothing.")

    def match(self, **batch: Tensor) -> Tensor:
        """How much the kinds of each example belong together, `(B,)`: above 0 for yes."""
        raise NotImplementedError(f"{type(self).__name__} matches nothing.")

    def predict_tokens(self, masked: Tensor, **batch: Tensor) -> Tensor:
        """Logits of the tokens at `masked` positions (`(B, L)`, bool), which the ids replace already, row by row:
        `(M, vocabulary)`."""
        raise NotImplementedError(f"{type(self).__name__} predicts no tokens.")

    def packs(self, length: int) -> bool:
        """Whether documents of a packed sequence of so many tokens are kept apart."""
        return False

    # help for objectives and the trainer

    def output(self, losses: dict[str, Tensor], logs: dict[str, Tensor], **more: Tensor) -> PretextOutput:
        """A `PretextOutput` whose loss is the sum of `losses` and whose `logs` are detached.

        Raises `ValueError` where there are no losses: for a batch of a kind whose losses have no weight."""
        if not losses:
            reason = "nothing to learn from a batch of this kind: all of its losses have the weight 0"
            raise ValueError(f"{type(self).__name__} has {reason}. Raise one, or leave such data out.")
        logs = {name: value.detach() for name, value in logs.items()}
        return PretextOutput(loss=sum(losses.values()), losses=losses, logs=logs, **more)

    def generator(self) -> torch.Generator | None:
        """What the corruption is drawn from: the global generator in training, the same numbers each time in `eval()`,
        so that evaluation losses compare."""
        return None if self.training else torch.Generator(self.device).manual_seed(EVAL_SEED)

    def freeze_unused(self, *batches: Mapping[str, Tensor]) -> list[str]:
        """Freezes the parameters that get no gradient from any of these batches, and returns their names.

        Poolers and the like have no part in pooled hidden states: they would never learn, and with several processes
        the search for them would cost time at each step.
        """
        training = self.training
        self.eval()  # no statistics of batch norm, no draw from the global generator
        for batch in batches:
            self(**batch).loss.backward()
        unused = [name for name, p in self.named_parameters() if p.requires_grad and p.grad is None]
        for name, parameter in self.named_parameters():
            parameter.grad = None
            if name in unused:
                parameter.requires_grad_(False)
        self.train(training)
        return unused

    def checkpointed(self) -> list[PreTrainedModel]:
        """The models that `gradient_checkpointing_enable` acts on: every encoder that is trained."""
        encoders = {id(encoder): encoder for encoder in self.encoders.values()}.values()
        return [encoder for encoder in encoders if any(p.requires_grad for p in encoder.parameters())]

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict | None = None, **kwargs) -> None:
        """As transformers', of every encoder that is trained. Raises `ValueError` that names one that can't."""
        for model in self.checkpointed():
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            try:
                enable(gradient_checkpointing_kwargs, **kwargs)
            except (ValueError, NotImplementedError) as error:
                reason = f"{type(model).__name__} has no gradient checkpointing"
                raise ValueError(f"{reason}. Leave --gradient_checkpointing out.") from error

    def gradient_checkpointing_disable(self) -> None:
        """As transformers', of every encoder that is trained."""
        for model in self.checkpointed():
            getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()

    def init_weights(self) -> None:
        """Nothing: heads keep PyTorch's own initialisation, encoders their own, and what is tied is tied."""

    def _init_weights(self, module: nn.Module) -> None:
        """As `init_weights`."""


def load(folder_or_repo: str | PathLike, **kwargs) -> PretextModel:
    """Loads a checkpoint with its heads; it says which objective it is of.

    Takes the arguments of `from_pretrained`. Raises `ValueError` when it is not one of ours.
    """
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    config, _ = PreTrainedConfig.get_config_dict(folder_or_repo, **hub)  # of a class that the objective may bring
    return objective_class(read_objective(config, folder_or_repo)).from_pretrained(folder_or_repo, **kwargs)


def read_objective(config: PreTrainedConfig | dict, path: str | PathLike) -> str:
    """The name of the objective that a checkpoint's config says. Raises `ValueError` for a plain one."""
    return read_pretext(config, path)["objective"]
