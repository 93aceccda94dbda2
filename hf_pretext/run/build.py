"""Builds the models of a run from its options: freshly initialised, or from pretrained encoders.

options, recipe -> Inputs, config -> Blueprint -> fresh, random and trained models
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, set_seed

from ..encoders import is_shape_alone
from ..modeling import PretextModel
from ..modules.captioner import load_decoder
from ..utils.paths import relative


@dataclass(frozen=True)
class Start:
    """The pretrained encoders that training starts from.

    encoder: folder or Hub id of a full model (--encoder). towers: folders or Hub ids of single encoders, by kind of
    data (--image_encoder)."""

    encoder: str | None = None
    towers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def of(self, kind: str) -> str | None:
        """Returns the folder or Hub id that the encoder of one kind starts from; None for a fresh encoder."""
        return self.encoder or self.towers.get(kind)

    def option(self, kind: str) -> str:
        """Returns the option that sets the encoder of one kind."""
        return f"--{kind}_encoder" if kind in self.towers else "--encoder"

    @property
    def paths(self) -> list[str]:
        """Folders and Hub ids of all pretrained encoders."""
        return [path for path in (self.encoder, *self.towers.values()) if path]

    @property
    def base_models(self) -> list[str]:
        """Hub ids of the pretrained encoders that are on the Hub."""
        return [path for path in self.paths if not Path(path).exists()]

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Adds the encoder options that the user gave to the start of a `ValueError`'s message."""
        towers = {self.option(kind): path for kind, path in self.towers.items()}
        options = {"--encoder": self.encoder} if self.encoder else towers
        try:
            yield
        except ValueError as error:
            given = ", ".join(f"{option} {path}" for option, path in options.items())
            raise ValueError(f"{given}: {error}" if given else str(error)) from error

    def __str__(self) -> str:
        towers = ", ".join(f"{relative(path)} for {kind}s" for kind, path in self.towers.items())
        return relative(self.encoder) if self.encoder else towers


class AsItWas(NamedTuple):
    """The model that training started from, before this training. kinds: of data, of its encoders with pretrained
    weights. complete: True if all other weights are pretrained, too, also those of the heads."""

    model: PretextModel
    kinds: list[str]
    complete: bool


@dataclass(frozen=True)
class Blueprint:
    """Builds the model of any seed from an objective, its settings, the full model's config and pretrained weights."""

    objective: type[PretextModel]
    task: Any
    config: PreTrainedConfig
    start: Start

    def fresh(self, seed: int, random: bool = False) -> tuple[PretextModel, list[str]]:
        """Builds the model for the start of training. Returns it and the names of encoder weights that stayed random.

        random: ignores the pretrained weights of `start` and keeps only its config."""
        model, missing, _ = self._built(seed, random)
        return model, missing

    def random(self, seed: int) -> PretextModel:
        """Builds the randomly initialised model of a seed."""
        return self.fresh(seed, random=True)[0]

    def as_it_was(self, seed: int) -> AsItWas | None:
        """Builds the model that the training of a seed starts from; None if no encoder has pretrained weights."""
        if all(map(is_shape_alone, self.start.paths)):
            return None
        model, missing, missing_in_head = self._built(seed)
        begun = [kind for kind in model.encoders if self.start.of(kind) and not is_shape_alone(self.start.of(kind))]
        heads = [p for name, p in model.named_parameters() if p.ndim and not name.startswith("full_model.")]
        complete = self.start.encoder is not None and not (missing or missing_in_head or heads)
        return AsItWas(model, begun, complete) if begun else None

    def trained(self, folder: str) -> PretextModel:
        """Loads the trained model of a seed from its folder, in float32."""
        return self.objective.from_pretrained(folder, dtype=torch.float32)

    def _built(self, seed: int, random: bool = False) -> tuple[PretextModel, list[str], list[str]]:
        """Builds a model (see `fresh`). Returns it, and the names of the weights of the encoder and of the native head
        that stayed random."""
        set_seed(seed)
        with self.start.named_in_errors():
            full_model, *missing = (self.config, [], []) if random else self._full_model()
            model = self.objective.from_encoder(full_model, **dataclasses.asdict(self.task))
        if not random:
            for kind, path in self.start.towers.items():
                if kind not in model.readers:
                    reason = f"{self.objective.objective} has no {kind} encoder with these settings"
                    raise ValueError(f"{self.start.option(kind)} {path}: {reason}. Leave it out.")
                load_tower(model.readers[kind], path, kind, frozen=getattr(self.task, "frozen", None) == kind)
        return model, *missing

    def _full_model(self) -> tuple[PreTrainedModel | PreTrainedConfig, list[str], list[str]]:
        """Returns the native model with its pretrained weights, or its config without any; and missing names, as
        `_built`."""
        path = self.start.encoder
        if path is None or is_shape_alone(path):
            return self.config, [], []
        auto = self.objective.auto_class_of(self.task)  # keeps a pretrained head if the objective has one
        if auto is not AutoModel and type(self.config) not in auto._model_mapping:
            self.objective.native(self.config)  # raises the error
        model, info = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True, trust_remote_code=False)
        inner = "" if model.base_model is model else f"{model.base_model_prefix}."
        missing = [name for name in info["missing_keys"] if name.startswith(inner)]
        return model, missing, [name for name in info["missing_keys"] if name not in missing]


def load_tower(encoder: PreTrainedModel, path: str, kind: str, frozen: bool) -> None:
    """Loads the weights of a folder or Hub id into one of several encoders.

    encoder: the encoder to fill. kind: its kind of data, for errors. frozen: True if the encoder is not trained.
    A pooler may be missing if it is trained, and the cross-attention of a decoder, which stays random. Raises
    `ValueError` for other missing weights."""
    if is_shape_alone(path):
        return
    tower, info = AutoModel.from_pretrained(
        path, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    missing = sorted(info["missing_keys"])
    if any(frozen or "pooler." not in name for name in missing):
        raise ValueError(
            f"--{kind}_encoder {path} lacks weights, which would stay random: {', '.join(missing[:5])}. Give a "
            "checkpoint with these weights."
        )
    if getattr(encoder.config, "add_cross_attention", False):
        load_decoder(encoder, tower)
    else:
        encoder.load_state_dict(tower.state_dict())


def by_name(function: Callable[..., PreTrainedConfig], sizes: Mapping[str, int]) -> PreTrainedConfig:
    """Calls a recipe's encoder function with the sizes that are its arguments, and returns its config."""
    named = inspect.signature(function).parameters
    return function(**{name: size for name, size in sizes.items() if name in named})
