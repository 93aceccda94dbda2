"""`PretextModel`, the base class of all objectives: a `PreTrainedModel` of plain encoders whose forward returns a loss.

    batch (clean, no labels) -> forward: corrupt, encode, predict, compare -> PretextOutput(loss, losses, logs, ...)

Its checkpoint is a checkpoint of a native transformers model (see `checkpoints.py`), so
`AutoModel.from_pretrained(folder)` loads the encoder without this package.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .checkpoints import HUB_ARGUMENTS, NativeCheckpoint, read_config, read_pretext
from .encoders import TrainedEncoders, as_encoder, check_encoder
from .registry import objective_class
from .utils.columns import check_columns
from .utils.paths import relative
from .utils.settings import make_settings

if TYPE_CHECKING:
    from .modules.cues import Question

EVAL_SEED = 0
ATTENTION_FLAGS = ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend")
EXPERTS = "_can_set_experts_implementation"
NO_SETTINGS = ("objective", "parts")  # keys of the entry `pretext` in config.json that are not settings


@dataclass
class PretextOutput(ModelOutput):
    """Output of every objective.

    loss (`()`): the loss to train on, the sum of `losses`.
    losses (`dict[str, ()]`): weighted terms of the loss, by name.
    logs (`dict[str, ()]`): detached scalars to log. They are not part of the loss.
    features (`(examples, width)`): one pooled vector per example that the encoder processed.
    logits, labels: predictions and targets; None for objectives that do not classify.
    candidates: in `eval()`, number of classes K of a loss without logits: equal scores have the loss ln K. None else.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logs: dict[str, Tensor] | None = None
    features: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None
    candidates: int | None = None


class TrainingHooks:
    """Hooks of objectives that depend on the data or on the training progress. All do nothing here.

    needs_keys: True if each batch of training must have `keys` (`(B,)`, int64): the number of each row in the training
    data, 0 to N - 1 over all sources, the same in each epoch. learns_on_all_ranks: True if all ranks take part in
    `prepare`, `before_training` and `before_round`: rank r of R gets every R-th row of the data, from row r of its
    order on. An error of one rank must then be raised on all of them (`utils.ranks.on_each_process`), because the
    others would wait for it. False: the main process gets all rows, and the other ranks get its parameters and buffers.
    """

    needs_keys: bool = False  # of a class: with any settings
    learns_on_all_ranks: ClassVar[bool] = False

    @classmethod
    def complete(cls, task, processors: Mapping[str, Any]):
        """Returns the settings `task` with missing values from the processors, e.g. token ids or the image mean.

        processors: by kind of data. Raises `ValueError` for a processor that does not fit the objective."""
        return task

    @classmethod
    def needs_keys_of(cls, task) -> bool:
        """Returns the value of `needs_keys` for these settings."""
        return cls.needs_keys

    @classmethod
    def columns_of(cls, task) -> Mapping[str, str]:
        """Returns the further columns of the training data that these settings need: `{canonical name: name there}`."""
        return {}

    @classmethod
    def least_batch_of(cls, task) -> int:
        """Returns the smallest global batch, in rows: 2 if rows are compared, as those of several kinds of data are."""
        return min(len(cls.inputs), 2)

    def set_rows(self, rows: int) -> None:
        """Gets the number of rows of the training data, before training. Only called if `needs_keys` is True. Raises
        `ValueError` for data with too few rows."""

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Learns from the data before training, e.g. a codebook. A resumed run skips it, because the checkpoint
        contains the result. batches: training batches of one epoch; without end for data without a length."""

    def prepared(self) -> dict:
        """Returns what was learned from the data, as JSON types for results.json; `{}` for nothing."""
        return {}

    def before_training(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Learns from the data at the start of each run, also of a resumed one: what checkpoints do not contain.
        batches: as in `before_round`, of round 0."""

    def step_inputs(self) -> Sequence[str]:
        """Returns the kinds of `inputs` that training steps need, after `before_training`. Others are not decoded."""
        return self.inputs

    @property
    def round_epochs(self) -> int:
        """Number of epochs from one `before_round` to the next."""
        return 1

    def before_round(self, batches: Iterator[dict[str, Tensor]]) -> Mapping[str, float] | None:
        """Learns from the data at the start of each round, e.g. clusters. Returns values to log, by name.

        It sets the mode that it needs (`eval()`) and restores it. It runs under the autocast of training, like
        `forward`. The result must be in parameters or buffers, because a run resumed within a round does not call it.

        batches: each row of the training data once, processed as for evaluation, without random changes; bad rows are
        left out. Only the place of a clip is random: it depends on the seed, the round and the row, not on the order of
        the rows. For data without a length: training batches, without end."""

    def redrawn(self) -> Iterable[nn.Parameter]:
        """Returns the parameters that `before_round` draws again. The trainer then drops the optimizer's state of them:
        momentum of the old values would move the new ones."""
        return ()

    def after_step(self, progress: float) -> None:
        """Updates the model after an optimizer step, e.g. the moving average of a teacher. progress: 0 to 1."""


class PretextModel(TrainedEncoders, TrainingHooks, NativeCheckpoint, PreTrainedModel):
    """Base class of every objective.

    A subclass sets `objective` (the name of its file), `task_class` (a dataclass of settings) and `inputs` (the kinds
    of data in a batch, e.g. `("image",)`), builds its heads and ends `__init__` with `self.post_init()`. `views` is the
    number of views for each kind with several views. If views or capabilities depend on the settings, define `views_of`
    and set `self.capabilities`. Heads and other modules are trained too, and saved in pretext.safetensors to resume a
    run. The encoders do not need them after training. If transformers has model classes with the objective's head (e.g.
    `BertForMaskedLM`), set `auto_class` to the matching auto class; checkpoints are then saved in their format.

    full_model: the native transformers model that the checkpoint is saved from. task: the settings. parts: configs of
    additional modules of the objective, as JSON types. progress: fraction of the training that is done, 0 to 1.
    """

    config_class = PreTrainedConfig
    base_model_prefix = "full_model"
    objective: ClassVar[str]
    task_class: ClassVar[type]
    inputs: ClassVar[tuple[str, ...]]
    views: ClassVar[Mapping[str, int]] = {}
    one_text_a_row: ClassVar[bool] = False  # True if texts alone are not packed, since each gets one vector
    auto_class: ClassVar[type] = AutoModel
    pipeline_tag: ClassVar[str] = "feature-extraction"  # pipeline tag of the checkpoint on the Hub
    usage: ClassVar[str] = ""  # code that loads a checkpoint, instead of `Modality.usage`
    formula: ClassVar[str] = ""  # the loss as LaTeX, shown in the card
    limits: ClassVar[tuple[str, ...]] = ()  # known failures, one sentence each, shown in the card
    capabilities: tuple[str, ...] = ()  # names of the methods below that it implements; of a class: with any settings
    fixed_options: ClassVar[Mapping[str, tuple[Any, str]]] = {}  # options of a run with a fixed value, and the reason
    learns_from_one_kind: ClassVar[bool] = False  # True if a batch may lack some kinds of `inputs`
    match_is_cosine: ClassVar[bool] = False  # True if `match` is the cosine of the embeddings of `embed`
    processor_of: ClassVar[str | None] = None  # kind of the only encoder, if other kinds in `inputs` have none
    sees_gray: ClassVar[bool] = False  # True if its encoder sees only gray images: transfer is measured on these too
    cues: ClassVar[Sequence] = ()  # `Cue`, `TokenCue`, `CellCue`, `PatchCue`: what may reveal the answers of `ask`
    artefacts: ClassVar[Sequence] = ()  # cues that are no content of the data, and must reveal nothing
    controls: ClassVar[Sequence] = ()  # cues that cannot reveal anything
    token_classes: ClassVar[int | None] = None  # that `ask` wants of tokens of texts; None: the tokens themselves
    questions: Sequence[str] = ("",)  # of `ask`; with a name, `ask` and `answer` take it as `question`
    eval_seed: int = EVAL_SEED  # of the corruption in `eval()`
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # so that Trainer divides the loss by the accumulation steps

    def __init__(self, full_model: PreTrainedModel, task, parts: dict | None = None):
        for flag in ATTENTION_FLAGS:  # supports the attention implementations of its native model
            setattr(self, flag, getattr(full_model, flag, False))
        if hasattr(full_model, EXPERTS):  # transformers asks whether the source of the class names its experts
            setattr(self, EXPERTS, getattr(full_model, EXPERTS))
        super().__init__(full_model.config)
        self.task, self.parts, self.progress = task, parts, 0.0
        self.needs_keys = self.needs_keys_of(task)
        self.main_input_name = full_model.main_input_name
        self.full_model = full_model

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "PretextModel":
        """Builds the model of the objective from an encoder.

        encoder: a model or a config. The weights of a model are kept unchanged, and trained in place if `auto_class`
            returns its class. A config gives a fresh encoder with the initialisation of its library.
        parts: configs of additional modules, for objectives with such modules; saved in config.json.
        settings: fields of `task_class`.
        Raises `ValueError` for unknown settings, and for an encoder that does not take the objective's kind of data.
        """
        task = make_settings(cls.task_class, **settings)
        model = cls(cls.native(encoder), task, parts)
        model.follow_full_model()
        return model

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """Returns the native model for the checkpoint. Raises `ValueError` for an encoder that does not fit."""
        encoder = as_encoder(encoder)
        check_encoder(encoder, cls.inputs[0])
        return encoder

    @classmethod
    def with_encoders(cls, config: PreTrainedConfig, encoders: Mapping[str, PreTrainedConfig]) -> PreTrainedConfig:
        """Returns the config of the full model with some of its encoders replaced. encoders: new configs, by kind.

        Raises `ValueError` if the full model of the objective is not made of separate encoders."""
        options = " and ".join(f"--{kind}_encoder" for kind in encoders)
        reason = f"the encoders of {cls.objective} are parts of one model and can't be replaced"
        raise ValueError(f"{options}: {reason}. Start from a full model with --encoder.")

    @classmethod
    def views_of(cls, task) -> Mapping[str, int]:
        """Returns the number of views in a batch, for each kind with several views. task: the settings."""
        return cls.views

    @classmethod
    def settings_of(cls, pretext: Mapping[str, Any]):
        """Returns the settings from the entry `pretext` of a config.json. Raises `ValueError` for unknown settings."""
        return make_settings(cls.task_class, **{k: v for k, v in pretext.items() if k not in NO_SETTINGS})

    @property
    def pretext(self) -> dict[str, Any]:
        """The entry `pretext` of config.json: the objective, its settings, and `parts` if not empty."""
        parts = {"parts": self.parts} if self.parts else {}
        task = {name: relative(value, to_current=False) for name, value in dataclasses.asdict(self.task).items()}
        return {"objective": self.objective, **task, **parts}

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The plain transformers encoder of each kind of data: the result of pretraining."""
        return {self.inputs[0]: self.full_model if self.auto_class is AutoModel else self.full_model.base_model}

    @property
    def readers(self) -> dict[str, PreTrainedModel]:
        """The model that reads each kind of data: `encoders`, and for example a decoder of texts. Sizes and vocabulary
        of the inputs must fit it, and `--<kind>_encoder` replaces its weights."""
        return self.encoders

    @property
    def encoder(self) -> PreTrainedModel:
        """The encoder of the first kind in `inputs`."""
        return self.encoders[self.inputs[0]]

    def __call__(self, *args: Any, **batch: Any) -> PretextOutput:
        """Computes the loss of a batch, see `forward`. Raises `ValueError` for a column that the objective does not
        take."""
        check_columns(type(self), batch)
        return super().__call__(*args, **batch)

    def forward(self, **batch: Tensor) -> PretextOutput:
        raise NotImplementedError(f"{type(self).__name__} does not implement forward().")

    # capabilities: methods that evaluation calls if `capabilities` contains their name

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Returns the embeddings of inputs of one kind, `(B, D)`, of length 1, in one space for all kinds."""
        raise NotImplementedError(f"{type(self).__name__} does not implement embed().")

    def match(self, **batch: Tensor) -> Tensor:
        """Returns the matching score of each example, `(B,)`: above 0 if its kinds of data belong together."""
        raise NotImplementedError(f"{type(self).__name__} does not implement match().")

    def predict_tokens(self, masked: Tensor, **batch: Tensor) -> Tensor:
        """Returns the logits of the masked tokens (`(B, L)`, bool), row by row, `(M, vocabulary)`. The ids in `batch`
        are masked already."""
        raise NotImplementedError(f"{type(self).__name__} does not implement predict_tokens().")

    def condense(self, kind: str, **batch: Tensor) -> dict[str, Tensor]:
        """Returns a small form of inputs of one kind that `match` and `predict_tokens` take in their place, so that a
        frozen encoder reads them only once. For videos, dimension 1 is time."""
        raise NotImplementedError(f"{type(self).__name__} does not implement condense().")

    def illustrate(self, **batch: Tensor) -> dict[str, Tensor]:
        """Returns normalised images `(B, C, H, W)` or clips `(B, F, C, H, W)` by title: what the model in `eval()` sees
        and what it predicts."""
        raise NotImplementedError(f"{type(self).__name__} does not implement illustrate().")

    def ask(self, **batch: Tensor) -> "Question":
        """Returns the pretext task of a batch as a question: what the encoder sees, and the right answers. `forward`
        makes the same changes. Raises `NotImplementedError` for objectives that ask nothing."""
        raise NotImplementedError(f"{type(self).__name__} does not implement ask().")

    def answer(self, **inputs: Tensor) -> Tensor:
        """Returns the logits `(N, classes)` of the inputs of a `Question`, or predicted values `(N, M, d)`. For texts
        and cells of a grid, `inputs` has `asked` (`(B, L)` or `(B, g, g)`, bool) too: N of them, row by row."""
        raise NotImplementedError(f"{type(self).__name__} does not implement answer().")

    def packs(self, length: int) -> bool:
        """Returns True if attention does not cross documents in packed sequences of `length` tokens."""
        return False

    # helpers for objectives and the trainer

    def output(self, losses: dict[str, Tensor], logs: dict[str, Tensor], **more: Tensor) -> PretextOutput:
        """Returns a `PretextOutput` whose loss is the sum of `losses` and whose `logs` are detached. Raises
        `ValueError` if `losses` is empty: all losses of this kind of batch have the weight 0."""
        if not losses:
            reason = "no loss for this kind of batch: the weights of all its losses are 0"
            raise ValueError(f"{type(self).__name__} has {reason}. Set a weight above 0, or leave this data out.")
        logs = {name: value.detach() for name, value in logs.items()}
        return PretextOutput(loss=sum(losses.values()), losses=losses, logs=logs, **more)

    def generator(self) -> torch.Generator | None:
        """Returns the generator of the corruption: None (the global one) in training, with a fixed seed in `eval()`."""
        return None if self.training else torch.Generator(self.device).manual_seed(self.eval_seed)

    def freeze_unused(self, *batches: Mapping[str, Tensor]) -> list[str]:
        """Freezes the parameters that get no gradient from these batches, e.g. poolers, which DDP would search for at
        each step. Returns their names."""
        training = self.training
        self.eval()  # leaves batch norm statistics and the global generator unchanged
        for batch in batches:
            self(**batch).loss.backward()
        unused = [name for name, p in self.named_parameters() if p.requires_grad and p.grad is None]
        for name, parameter in self.named_parameters():
            parameter.grad = None
            if name in unused:
                parameter.requires_grad_(False)
        self.train(training)
        return unused

    def init_weights(self, *modules: nn.Module) -> None:
        """Does nothing: heads keep PyTorch's initialisation, encoders keep theirs, and weights are tied already."""

    _init_weights = init_weights


def load(folder_or_repo: str | PathLike, **kwargs) -> PretextModel:
    """Loads a checkpoint with its heads, as the objective that its config.json names.

    kwargs: arguments of `from_pretrained`. Raises `ValueError` for a plain checkpoint, without an objective.
    """
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    config = read_config(folder_or_repo, hub)  # the objective's module may define its class
    return objective_class(read_objective(config, folder_or_repo)).from_pretrained(folder_or_repo, **kwargs)


def read_objective(config: PreTrainedConfig | dict, path: str | PathLike) -> str:
    """Returns the name of the objective from a checkpoint's config. Raises `ValueError` for a plain checkpoint."""
    return read_pretext(config, path)["objective"]
