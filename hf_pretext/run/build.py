"""From options to models: which inputs, which encoder, fresh or from elsewhere.

options, recipe -> Inputs, config -> Blueprint -> fresh, random and trained models
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, set_seed

from ..encoders import is_shape_alone
from ..modeling import PretextModel
from ..utils.paths import relative


@dataclass(frozen=True)
class Start:
    """What training starts from.

    encoder: the folder or Hub id of a full model (--encoder). towers: of single encoders, by kind (--image_encoder)."""

    encoder: str | None = None
    towers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def of(self, kind: str) -> str | None:
        """What the encoder of one kind starts from; None for a fresh one."""
        return self.encoder or self.towers.get(kind)

    def option(self, kind: str) -> str:
        """The option that names it."""
        return f"--{kind}_encoder" if kind in self.towers else "--encoder"

    @property
    def paths(self) -> list[str]:
        """All folders and Hub ids that training starts from."""
        return [path for path in (self.encoder, *self.towers.values()) if path]

    @property
    def base_models(self) -> list[str]:
        """Those that lie on the Hub."""
        return [path for path in self.paths if not Path(path).exists()]

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Puts the options that were given before the message of a `ValueError`."""
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


@dataclass(frozen=True)
class Blueprint:
    """What it takes to build the model of a seed: objective, settings, the full model's config, and its start."""

    objective: type[PretextModel]
    task: Any
    config: PreTrainedConfig
    start: Start

    def fresh(self, seed: int, random: bool = False) -> tuple[PretextModel, list[str]]:
        """The model as training of this seed begins, and the names of the encoder's weights that stayed random.

        random: with nothing of `start` but its shape."""
        set_seed(seed)
        with self.start.named_in_errors():
            full_model, missing = (self.config, []) if random else self._full_model()
            model = self.objective.from_encoder(full_model, **dataclasses.asdict(self.task))
        if not random:
            for kind, path in self.start.towers.items():
                load_tower(model.encoders[kind], path, kind, frozen=getattr(self.task, "frozen", None) == kind)
        return model, missing

    def random(self, seed: int) -> PretextModel:
        """The model of a seed before any training."""
        return self.fresh(seed, random=True)[0]

    def trained(self, folder: str) -> PretextModel:
        """The model of a finished seed, in float32."""
        return self.objective.from_pretrained(folder, dtype=torch.float32)

    def _full_model(self) -> tuple[PreTrainedModel | PreTrainedConfig, list[str]]:
        path = self.start.encoder
        if path is None or is_shape_alone(path):
            return self.config, []
        auto = self.objective.auto_class  # with its own head, where the objective has one and the checkpoint too
        if auto is not AutoModel and type(self.config) not in auto._model_mapping:
            self.objective.native(self.config)  # says what is wrong
        model, info = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        inner = "" if auto is AutoModel else f"{model.base_model_prefix}."
        return model, [name for name in info["missing_keys"] if name.startswith(inner)]


def load_tower(encoder: PreTrainedModel, path: str, kind: str, frozen: bool) -> None:
    """Fills one encoder of several with the weights of a folder or Hub id.

    A pooler may be missing where it is trained: it will learn. Raises `ValueError` for other missing weights."""
    if is_shape_alone(path):
        return
    tower, info = AutoModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if any(frozen or "pooler." not in name for name in missing):
        raise ValueError(
            f"--{kind}_encoder {path} lacks weights, which would stay random: {', '.join(missing[:5])}. Give a "
            "checkpoint that has them."
        )
    encoder.load_state_dict(tower.state_dict())


def by_name(function: Callable[..., PreTrainedConfig], sizes: Mapping[str, int]) -> PreTrainedConfig:
    """A recipe's encoder function called with those of the sizes that it names."""
    named = inspect.signature(function).parameters
    return function(**{name: size for name, size in sizes.items() if name in named})
