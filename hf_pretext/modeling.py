"""The one abstraction: a pretext model is a `PreTrainedModel` that holds a plain encoder and returns a loss.

    batch (clean, no labels) -> forward: corrupt, encode, predict, compare -> PretextOutput(loss, losses, logs, ...)

On disk it is the encoder's own transformers checkpoint: `config.json` is the encoder's config with one more entry,
`pretext`, and `model.safetensors` holds the encoder's weights under the names that transformers gives them, with the
heads beside them under `pretext_head.`. So `AutoModel.from_pretrained(folder)` gives the encoder without this package.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .encoders import build_encoder, check_encoder
from .registry import objective_class
from .utils.settings import make_settings

EVAL_SEED = 0
# Where an encoder has no prefix of its own, or its weights' names carry it already (timm's do), it lives under this
# name in memory and under no prefix at all on disk.
BARE_PREFIX = "pretext_encoder"
ATTENTION_FLAGS = ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend")
NO_SETTINGS = ("objective", "parts")  # of what config.json says of pretraining
PUSH_ARGUMENTS = ("repo_id", "private", "commit_message", "commit_description", "create_pr", "revision", "tags")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


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


class PretextModel(PreTrainedModel):
    """Base of every objective with one encoder.

    A subclass names its `objective` (the name of its file), its `task_class` (a dataclass of settings) and its
    `modality` ("image", "text", "audio" or "video"), builds its heads in `self.pretext_head` and ends `__init__` with
    `self.post_init()`. Everything but the encoder is scaffolding: trained and saved for going on, never needed to use
    the encoder. An objective that transformers has classes with a head for names their `auto_class`; checkpoints are
    then theirs.
    """

    config_class = PreTrainedConfig
    objective: ClassVar[str]
    task_class: ClassVar[type]
    modality: ClassVar[str]
    auto_class: ClassVar[type] = AutoModel
    formula: ClassVar[str] = ""  # of the loss, as LaTeX; a card shows it
    limits: ClassVar[tuple[str, ...]] = ()  # known failures of the objective, a sentence each; a card says them
    usage: ClassVar[str] = ""  # lines that load a checkpoint, {folder}, where its modality's own would not do
    learns_alone: ClassVar[bool] = False  # of pairs: whether it learns from pictures alone and texts alone, too
    own_names: ClassVar[bool] = False  # whether the native class's weights have no prefix, also beside heads
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # or Trainer would not divide the loss by the number of accumulation steps

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None):
        encoder = encoder if encoder is not None else self.auto_class.from_config(config)
        for flag in ATTENTION_FLAGS:  # the whole can do with attention just what its encoder can
            setattr(self, flag, getattr(encoder, flag, False))
        super().__init__(config)
        self.task = make_settings(self.task_class, **{k: v for k, v in config.pretext.items() if k not in NO_SETTINGS})
        prefix = encoder.base_model_prefix
        whole = self.own_names or self.auto_class is not AutoModel
        bare = not prefix or whole or all(name.startswith(f"{prefix}.") for name in encoder.state_dict())
        self.base_model_prefix = BARE_PREFIX if bare else prefix
        self.main_input_name = encoder.main_input_name
        setattr(self, self.base_model_prefix, encoder)

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "PretextModel":
        """Puts the objective's heads on an encoder.

        encoder: a model (its weights are kept bit for bit, and trained in place where it is of `auto_class`) or a
            config (a fresh one is built, with its library's own initialisation). settings: the fields of `task_class`.
        parts: for objectives that bring modules of their own, what each is made of, for config.json.
        Raises `ValueError` for unknown settings, and for what is no encoder of this objective's modality.
        """
        task = make_settings(cls.task_class, **settings)
        encoder = cls.native(encoder)
        config = copy.deepcopy(encoder.config)  # the caller's own config stays as it was
        config.pretext = {"objective": cls.objective, **dataclasses.asdict(task), **({"parts": parts} if parts else {})}
        model = cls(config, encoder)
        if hasattr(model, "pretext_head"):  # a module that is built is in float32
            model.pretext_head.to(encoder.dtype)
        return model

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """The transformers model that the checkpoint is of. Raises `ValueError` for what is no such encoder."""
        if isinstance(encoder, PreTrainedConfig):
            encoder = build_encoder(encoder)
        check_encoder(encoder, cls.modality)
        return encoder

    @classmethod
    def complete(cls, task, processor):
        """Settings with what depends on the data's own processor (a tokenizer's ids, say) filled in, where they leave
        it open. Raises `ValueError` for a processor that lacks what the objective needs."""
        return task

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, *args, config=None, **kwargs):
        """Loads encoder and heads from a folder or Hub repository that `save_pretrained` wrote.

        Takes the arguments of `PreTrainedModel.from_pretrained`. Raises `ValueError` when the checkpoint belongs to
        another objective or to none, lacks a weight, or has one of another size: nothing is left at random silently.
        """
        where = pretrained_model_name_or_path
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        config = config if config is not None else AutoConfig.from_pretrained(where, **hub)
        found = read_objective(config, where)
        if found != cls.objective:
            raise ValueError(
                f"{where} was pretrained with the objective {found!r}, not {cls.objective!r}. Load it with "
                f"hf_pretext.load({str(where)!r}), or start anew from its encoder: "
                f"{cls.__name__}.from_encoder(AutoModel.from_pretrained({str(where)!r}))."
            )
        with_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(where, *args, config=config, output_loading_info=True, **kwargs)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise ValueError(
                f"{where} has weights of other sizes than its config.json says. The checkpoint is damaged, or its "
                "config was changed."
            ) from error
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(
                f"{where} lacks {len(missing)} of the weights of {cls.__name__}, which would stay random: "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. The checkpoint is damaged or cut."
            )
        model._weight_conversions = None  # save under the names that a fresh model has, not as this one was renamed
        return (model, info) if with_info else model

    def save_pretrained(self, save_directory: str | PathLike, state_dict: dict | None = None, **kwargs) -> None:
        """Writes the encoder's native checkpoint with the heads beside it, as `PreTrainedModel.save_pretrained`."""
        push_to_hub = kwargs.pop("push_to_hub", False)
        hub = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if name in kwargs}
        state_dict = self.state_dict() if state_dict is None else state_dict
        if self.base_model_prefix == BARE_PREFIX:
            tied = self.all_tied_weights_keys  # transformers would look for them under their names in memory
            state_dict = {n.removeprefix(f"{BARE_PREFIX}."): v for n, v in state_dict.items() if n not in tied}
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        if kwargs.get("is_main_process", True):
            self.config.architectures = [type(self.whole).__name__]  # the class that anybody can load it with
            self.config.save_pretrained(save_directory)
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", Path(save_directory).name), token=kwargs.get("token"), **hub)

    @property
    def whole(self) -> PreTrainedModel:
        """The transformers model that the checkpoint is of: the encoder, with its own head where it has one."""
        return getattr(self, self.base_model_prefix)

    @property
    def encoder(self) -> PreTrainedModel:
        """The plain transformers encoder that all of this is for."""
        return self.whole if self.auto_class is AutoModel else self.whole.base_model

    def forward(self, **batch: Tensor) -> PretextOutput:
        raise NotImplementedError(f"{type(self).__name__} has no forward.")

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Learns from the data what must be known before training begins, as a codebook. batches: of training, for as
        long as they are asked for. A run that goes on has it already."""

    def prepared(self) -> dict:
        """What results say of what was learned beforehand."""
        return {}

    def output(self, losses: dict[str, Tensor], logs: dict[str, Tensor], **more: Tensor) -> PretextOutput:
        """A `PretextOutput` whose loss is the sum of `losses` and whose `logs` are detached.

        Raises `ValueError` where there are no losses: for a batch of a kind whose losses have no weight."""
        if not losses:
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from a batch of this kind: all of its losses have the "
                "weight 0. Raise one, or leave such data out."
            )
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

    def _init_weights(self, module: nn.Module) -> None:
        """Heads keep PyTorch's own initialisation, encoders their own: a weight missing on loading is an error."""


def load(folder_or_repo: str | PathLike, **kwargs) -> PretextModel:
    """Loads encoder and heads; the checkpoint says which objective it is of.

    Takes the arguments of `from_pretrained`. Raises `ValueError` when it is not one of ours.
    """
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    config, _ = PreTrainedConfig.get_config_dict(folder_or_repo, **hub)  # of a class that the objective may bring
    return objective_class(read_objective(config, folder_or_repo)).from_pretrained(folder_or_repo, **kwargs)


def read_objective(config: PreTrainedConfig | dict, where: str | PathLike) -> str:
    """The name of the objective that a checkpoint's config carries. Raises `ValueError` where there is none."""
    said = config if isinstance(config, dict) else vars(config)
    pretext = said.get("pretext")
    if not isinstance(pretext, dict) or "objective" not in pretext:
        kind = said.get("model_type") or getattr(config, "model_type", "transformers")
        raise ValueError(
            f"{where} has no `pretext` entry in its config.json: it is a plain {kind} checkpoint. To "
            f"pretrain from it: <Objective>ForPreTraining.from_encoder(AutoModel.from_pretrained({str(where)!r}))."
        )
    return pretext["objective"]
