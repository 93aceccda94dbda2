"""Converts a Multiway Transformer to two plain transformers models, one of images and one of texts, and back.

MultiwayModel -> ViTModel, RobertaPreLayerNormModel: tensor by tensor, with equal features
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, RobertaPreLayerNormModel, ViTConfig, ViTModel

from ..checkpoints import SHOWN, PartedModel

# Names of weights in `MultiwayModel`, `ViTModel` and `RobertaPreLayerNormModel`; {} is the index of a layer. A new
# module of `MultiwayModel` needs a new row.
NAMES = (
    ("image_embeddings.cls_token", "embeddings.cls_token", None),
    ("image_embeddings.position_embeddings", "embeddings.position_embeddings", None),
    ("image_embeddings.projection", "embeddings.patch_embeddings.projection", None),
    ("text_embeddings.word_embeddings", None, "embeddings.word_embeddings"),
    ("text_embeddings.position_embeddings", None, "embeddings.position_embeddings"),
    ("text_embeddings.norm", None, "embeddings.LayerNorm"),
    ("layers.{}.attention_norm", "layers.{}.layernorm_before", "encoder.layer.{}.attention.LayerNorm"),
    ("layers.{}.attention.q_proj", "layers.{}.attention.q_proj", "encoder.layer.{}.attention.self.query"),
    ("layers.{}.attention.k_proj", "layers.{}.attention.k_proj", "encoder.layer.{}.attention.self.key"),
    ("layers.{}.attention.v_proj", "layers.{}.attention.v_proj", "encoder.layer.{}.attention.self.value"),
    ("layers.{}.attention.o_proj", "layers.{}.attention.o_proj", "encoder.layer.{}.attention.output.dense"),
    ("layers.{}.experts.vision.norm", "layers.{}.layernorm_after", None),
    ("layers.{}.experts.vision.fc1", "layers.{}.mlp.fc1", None),
    ("layers.{}.experts.vision.fc2", "layers.{}.mlp.fc2", None),
    ("layers.{}.experts.language.norm", None, "encoder.layer.{}.intermediate.LayerNorm"),
    ("layers.{}.experts.language.fc1", None, "encoder.layer.{}.intermediate.dense"),
    ("layers.{}.experts.language.fc2", None, "encoder.layer.{}.output.dense"),
    ("norm", "layernorm", "LayerNorm"),
)
COLUMNS = {ViTModel: 1, RobertaPreLayerNormModel: 2}
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"  # a MultiwayModel has none
SHARED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
IMAGE, TEXT = ("image_size", "patch_size", "num_channels"), ("vocab_size", "pad_token_id")


class TwoSides(PartedModel):
    """Saves and loads a `MultiwayModel` as two native models, in the sub-folders `image` and `text`.

    Both contain the shared attention. The experts for pairs and the mask token are saved in pretext.safetensors."""

    @classmethod
    def subfolders(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        return ("image", "text")

    def parts(self, state_dict: Mapping[str, Tensor]) -> dict[str, tuple[PreTrainedModel, dict[str, Tensor]]]:
        sides = {"image": self.config.image_side(), "text": self.config.text_side()}
        sides = {name: plain_side(self, config, state_dict) for name, config in sides.items()}
        return {name: (side, side.state_dict()) for name, side in sides.items()}

    def outside_parts(self) -> set[str]:
        state = self.state_dict()
        return state.keys() - {name for side in COLUMNS for name, _ in paired(state, self.config, side)}

    @classmethod
    def joined(cls, config: PreTrainedConfig, parts: dict[str, PreTrainedModel]) -> "TwoSides":
        check_agreement(config, parts["image"], parts["text"])
        image = parts["image"]
        with torch.random.fork_rng(devices=[]):
            model = cls(config).to(image.device, image.dtype)
        load_side(model, image, config.image_side())
        load_side(model, parts["text"], config.text_side())
        return model


def plain_side(
    model: PreTrainedModel, config: PreTrainedConfig, state: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """Returns a plain model of this config, in `eval()`, with the weights of a `MultiwayModel`.

    state: state dict of a `MultiwayModel` to take the weights from; default: that of `model`. No loss trains a pooler,
    so the pooler of the plain model returns the hyperbolic tangent of the first token."""
    side_class = ViTModel if isinstance(config, ViTConfig) else RobertaPreLayerNormModel
    with torch.random.fork_rng(devices=[]):  # saving must not change the random numbers of training
        side = side_class(config).to(model.device, model.dtype)
    state = model.state_dict() if state is None else state
    weights = {name: state[source] for source, name in paired(state, model.config, side_class)}
    width = config.hidden_size
    weights |= {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}
    if side_class is RobertaPreLayerNormModel:
        weights[TOKEN_TYPES] = torch.zeros(config.type_vocab_size, width)
    side.load_state_dict(weights)
    return side.eval()


@torch.no_grad()
def load_side(model: PreTrainedModel, side: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Copies the weights of a plain model into a `MultiwayModel`.

    side: the plain model. config: config of a plain model that fits.
    Raises `ValueError` for another class or other sizes."""
    side_class = ViTModel if isinstance(config, ViTConfig) else RobertaPreLayerNormModel
    if type(side) is not side_class:
        raise ValueError(
            f"This side must be a {side_class.__name__}, not a {type(side).__name__}. For a model with a head, give "
            "its base_model."
        )
    for name in (*SHARED, *IMAGE, *TEXT, "max_position_embeddings", "hidden_act", "qkv_bias"):
        expected, actual = getattr(config, name, None), getattr(side.config, name, None)
        if expected != actual:
            raise ValueError(
                f"The {side_class.__name__} has {name}={actual}, but this model needs {expected}. Give a model with "
                "this value."
            )
    state, weights = model.state_dict(), side.state_dict()
    for target, name in paired(state, model.config, side_class):
        state[target].copy_(weights[name])
    if side_class is RobertaPreLayerNormModel:
        # A MultiwayModel has no token types. The plain model adds type 0 to all tokens: it is added to the positions.
        model.text_embeddings.position_embeddings.weight += weights[TOKEN_TYPES][0].to(model.device)


def check_agreement(config: PreTrainedConfig, image: PreTrainedModel, text: PreTrainedModel) -> None:
    """Raises `ValueError` for two sides with different values of the shared weights."""
    one, other, differ = image.state_dict(), text.state_dict(), []
    for _, in_image, in_text in (row for row in NAMES if all(row)):
        for i in range(config.num_hidden_layers if "{}" in in_image else 1):
            pairs = [(in_image.format(i) + end, in_text.format(i) + end) for end in (".weight", ".bias")]
            differ += [a for a, b in pairs if not torch.equal(one[a], other[b])]
    if differ:
        raise ValueError(
            f"The sides `image` and `text` of this checkpoint differ in {len(differ)} shared weights, for example "
            f"{', '.join(differ[:SHOWN])}. One was trained or replaced alone. Take both sides from one checkpoint."
        )


def paired(
    state: Mapping[str, Tensor], config: PreTrainedConfig, side_class: type[PreTrainedModel]
) -> list[tuple[str, str]]:
    """Returns the names of one side's tensors: pairs of the name in a `MultiwayModel` and that in the plain model."""
    pairs = []
    for source, target in ((row[0], row[COLUMNS[side_class]]) for row in NAMES if row[COLUMNS[side_class]]):
        for i in range(config.num_hidden_layers if "{}" in source else 1):
            ends = [end for end in ("", ".weight", ".bias") if source.format(i) + end in state]
            pairs += [(source.format(i) + end, target.format(i) + end) for end in ends]
    return pairs
