"""The ways of pictures alone and of texts alone through a Multiway Transformer, as plain transformers models.

MultiwayModel -> ViTModel, RobertaPreLayerNormModel: tensor by tensor, with equal features; and back
"""

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, RobertaPreLayerNormModel, ViTConfig, ViTModel

# Names here, in `ViTModel` and in `RobertaPreLayerNormModel`; {} is a layer's number. Who adds a part adds its row.
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
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"  # which texts here don't have
BOTH = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
IMAGE, TEXT = ("image_size", "patch_size", "num_channels"), ("vocab_size", "pad_token_id")


def plain_side(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A plain model of this config, in `eval()`, with the weights of a `MultiwayModel`. Its pooler, that no loss
    trains, gives the hyperbolic tangent of the first token."""
    side_class = ViTModel if isinstance(config, ViTConfig) else RobertaPreLayerNormModel
    with torch.random.fork_rng(devices=[]):  # saving must not move the random numbers of a training that goes on
        side = side_class(config).to(model.device, model.dtype)
    weights, width = dict(paired(model, side_class)), config.hidden_size
    weights |= {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}
    if side_class is RobertaPreLayerNormModel:
        weights[TOKEN_TYPES] = torch.zeros(config.type_vocab_size, width)
    side.load_state_dict(weights)
    return side.eval()


@torch.no_grad()
def load_side(model: PreTrainedModel, side: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Copies the weights that a `MultiwayModel` shares with a plain model; config: of one that would fit.

    Raises `ValueError` for another class or other sizes."""
    side_class = ViTModel if isinstance(config, ViTConfig) else RobertaPreLayerNormModel
    if type(side) is not side_class:
        raise ValueError(f"This side is a {side_class.__name__}, not a {type(side).__name__}: give its base_model.")
    for name in (*BOTH, *IMAGE, *TEXT, "max_position_embeddings", "hidden_act", "qkv_bias"):
        ours, theirs = getattr(config, name, None), getattr(side.config, name, None)
        if ours != theirs:
            raise ValueError(f"The {side_class.__name__} has {name}={theirs}, but {ours} would fit this model.")
    weights = side.state_dict()
    for name, own in paired(model, side_class):
        own.copy_(weights[name])
    if side_class is RobertaPreLayerNormModel:
        # Texts have one part here: what is added to all tokens of the first goes into their positions.
        model.text_embeddings.position_embeddings.weight += weights[TOKEN_TYPES][0].to(model.device)


def paired(model: PreTrainedModel, side_class: type[PreTrainedModel]) -> list[tuple[str, Tensor]]:
    """The tensors of one side, each with its name in the plain model."""
    own, pairs = model.state_dict(), []
    for here, there in ((row[0], row[COLUMNS[side_class]]) for row in NAMES if row[COLUMNS[side_class]]):
        for i in range(model.config.num_hidden_layers if "{}" in here else 1):
            ends = [end for end in ("", ".weight", ".bias") if here.format(i) + end in own]
            pairs += [(there.format(i) + end, own[here.format(i) + end]) for end in ends]
    return pairs
