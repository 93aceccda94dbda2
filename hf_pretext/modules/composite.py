"""Models of one encoder per kind of data, for kinds that transformers has no joint class for.

{"audio": encoder, "video": encoder} -> CompositeModel -> a sub-folder for each, which `AutoModel` loads
batch of all kinds -> columns_of -> {"audio": {"input_values": (B, T)}, "video": {"pixel_values": (B, F, 3, S, S)}}
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from ..checkpoints import PartedModel
from ..encoders import as_encoder, build_encoder, check_encoder
from ..modeling import PretextModel
from .composite_config import CompositeConfig

MASKED = ("audio", "text")  # kinds whose encoders take an attention mask
TIMED = ("audio", "video")  # if two kinds have a column of one name, that of another kind than these is not prefixed


class CompositeModel(PartedModel):
    """Plain encoders, one for each kind of data. Each is saved in a sub-folder with the name of its kind.

    forward: takes the inputs of each encoder, by kind. Returns the outputs of each encoder, by kind.

    Example:
        >>> audio, image = AutoModel.from_config(ASTConfig()), AutoModel.from_config(ViTConfig())
        >>> model = CompositeModel.of(audio=audio, image=image)
        >>> model.save_pretrained("folder")
        >>> type(AutoModel.from_pretrained("folder", subfolder="audio")).__name__
        'ASTModel'
    """

    config_class = CompositeConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True  # encoders check

    def __init__(self, config: CompositeConfig, encoders: Mapping[str, PreTrainedModel] | None = None):
        super().__init__(config)
        if encoders is None:
            configs = {kind: AutoConfig.for_model(**values) for kind, values in (config.encoders or {}).items()}
            encoders = {kind: build_encoder(config) for kind, config in configs.items()}
        self.encoders = nn.ModuleDict(encoders)
        self.main_input_name = next(iter(encoders.values())).main_input_name
        self.post_init()

    @classmethod
    def of(cls, **encoders: PreTrainedModel) -> "CompositeModel":
        """Returns a model of these encoders, by kind. They are not copied, so they are trained in place. Raises
        `ValueError` for no encoder, and for different dtypes."""
        types = {kind: encoder.dtype for kind, encoder in encoders.items()}
        if len(set(types.values())) != 1:
            raise ValueError(f"A CompositeModel needs encoders, all of the same dtype, but got {types}.")
        return cls(CompositeConfig(encoders={k: e.config.to_diff_dict() for k, e in encoders.items()}), encoders)

    def forward(self, **inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        return {kind: self.encoders[kind](**batch) for kind, batch in inputs.items()}

    @classmethod
    def subfolders(cls, config: CompositeConfig) -> tuple[str, ...]:
        return tuple(config.encoders)

    def parts(self, state_dict: Mapping[str, Tensor]) -> dict[str, tuple[PreTrainedModel, dict[str, Tensor]]]:
        weights = {kind: {} for kind in self.encoders}
        for name, value in state_dict.items():
            _, kind, rest = name.split(".", 2)
            weights[kind][rest] = value
        return {kind: (encoder, weights[kind]) for kind, encoder in self.encoders.items()}

    @classmethod
    def joined(cls, config: CompositeConfig, parts: dict[str, PreTrainedModel]) -> "CompositeModel":
        return cls(config, parts)

    def init_weights(self) -> None:
        """Does nothing, since each encoder initialises its weights."""

    def _init_weights(self, module: nn.Module) -> None:
        """See `init_weights`."""


class TwoEncoders(PretextModel):
    """Base of objectives with one encoder per kind of data, for kinds that transformers has no joint class for."""

    usage = """
{% for kind in encoders %}
# the encoder of {{ kind }}, from its sub-folder
{{ usage_of(kind) }}

{% endfor %}
# all encoders with their heads: hf_pretext.load("{{ folder }}")
"""

    @classmethod
    def from_encoders(cls, **encoders_and_settings) -> "TwoEncoders":
        """Puts the objective's heads on encoders, or on new encoders of given configs: `from_encoders(audio=...,
        video=..., **settings)`. Raises `ValueError` for a kind without encoder, and for an encoder that does not take
        its kind of data."""
        missing = [kind for kind in cls.inputs if kind not in encoders_and_settings]
        if missing:
            raise ValueError(
                f"{cls.__name__} needs an encoder for each of {', '.join(cls.inputs)}: give {missing[0]}=."
            )
        encoders = {kind: encoders_and_settings.pop(kind) for kind in cls.inputs}
        built = {k: as_encoder(e) for k, e in encoders.items()}
        return cls.from_encoder(CompositeModel.of(**built), **encoders_and_settings)

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> CompositeModel:
        """Returns a `CompositeModel` with one encoder for each of the `inputs`. Raises `ValueError` for any other
        model."""
        full_model = as_encoder(in_order(encoder, cls.inputs))
        if not isinstance(full_model, CompositeModel) or set(full_model.encoders) != set(cls.inputs):
            raise ValueError(
                f"{cls.__name__} needs a CompositeModel of {' and '.join(cls.inputs)}, not a "
                f"{type(full_model).__name__}. Give the encoders to {cls.__name__}.from_encoders."
            )
        for kind, part in full_model.encoders.items():
            check_encoder(part, kind)
        return full_model

    @classmethod
    def with_encoders(cls, config: CompositeConfig, encoders: Mapping[str, PreTrainedConfig]) -> CompositeConfig:
        """See `PretextModel.with_encoders`."""
        given = {kind: encoder.to_diff_dict() for kind, encoder in encoders.items()}
        return CompositeConfig(encoders={**config.encoders, **given})

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        return {kind: self.full_model.encoders[kind] for kind in self.inputs if kind in self.full_model.encoders}


def columns_of(batch: Mapping[str, Tensor], encoders: Mapping[str, PreTrainedModel]) -> dict[str, dict[str, Tensor]]:
    """Returns the inputs of each encoder, `{kind: {argument name: tensor}}`, from a batch of all kinds.

    A column has the argument name of the encoder, or `<kind>_<name>` where two kinds have a column of one name (see
    `Inputs`): a one-channel image encoder of audio takes `pixel_values`, one of video `video_pixel_values`. Other
    columns, e.g. `labels`, are left out. Raises `ValueError` for a batch without the column of a kind."""
    columns, left = {}, dict(batch)
    for kind in sorted(encoders, key=TIMED.__contains__):  # the order in which kinds get names without prefix
        name = encoders[kind].main_input_name
        names = (name, "attention_mask") if kind in MASKED else (name,)
        shown = {each: f"{kind}_{each}" if f"{kind}_{each}" in left else each for each in names}
        if shown[name] not in left:
            raise ValueError(
                f"The batch has no {name} for the {kind} encoder, only {', '.join(batch)}. Give it as {kind}_{name} if "
                f"another kind has {name}, else as {name}."
            )
        columns[kind] = {each: left.pop(column) for each, column in shown.items() if column in left}
    return {kind: columns[kind] for kind in encoders}


def without(encoder: PreTrainedModel | PreTrainedConfig, kind: str) -> PreTrainedModel | PreTrainedConfig:
    """Returns a composite model, or its config, without the encoder of one kind; any other model unchanged."""
    if isinstance(encoder, CompositeConfig):
        return CompositeConfig(encoders={k: config for k, config in encoder.encoders.items() if k != kind})
    if isinstance(encoder, CompositeModel):
        return CompositeModel.of(**{k: part for k, part in encoder.encoders.items() if k != kind})
    return encoder


AutoModel.register(CompositeConfig, CompositeModel, exist_ok=True)


def in_order(encoder: PreTrainedModel | PreTrainedConfig, kinds: Sequence[str]) -> PreTrainedModel | PreTrainedConfig:
    """Returns the config of a composite with its encoders in the order of `kinds`; anything else unchanged.

    New weights are drawn in this order, and a saved config has sorted kinds."""
    if not isinstance(encoder, CompositeConfig) or not set(encoder.encoders or ()) <= set(kinds):
        return encoder
    config = copy.deepcopy(encoder)
    config.encoders = {kind: encoder.encoders[kind] for kind in kinds if kind in encoder.encoders}
    return config
