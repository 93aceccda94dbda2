"""The Multiway Transformer: shared self-attention, and one feed-forward network each for images, texts and pairs.

BEiT-3: Wang et al., "Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language Tasks", 2022,
https://huggingface.co/papers/2208.10442

    pixel_values (B, C, S, S), input_ids (B, L) -> [class token, N patches, L tokens] -> in each layer: attention over
    all, then each token's expert (vision, language; fusion in the top layers of a pair) -> (B, 1 + N + L, D)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormModel,
    ViTConfig,
    ViTModel,
    initialization,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, can_return_tuple

from .multiway_sides import IMAGE, SHARED, TEXT, TwoSides, load_side, plain_side

# Settings that do not change the shapes of weights.
UNBOUND = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")


@strict
class MultiwayConfig(PreTrainedConfig):
    """Config of a `MultiwayModel`.

    num_fusion_layers: number of top layers that have an expert for image-text pairs, in addition to the experts for
    images and for texts. max_position_embeddings: maximum number of tokens of a text. The other settings are those of
    `ViTConfig` and `BertConfig`.

    Raises `ValueError` for sizes that don't fit each other.
    """

    model_type = "multiway"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    num_fusion_layers: int = 3
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    vocab_size: int = 30522
    max_position_embeddings: int = 128
    pad_token_id: int = 0
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        heads, patch, layers = self.num_attention_heads, self.patch_size, self.num_hidden_layers
        rules = (
            ("hidden_size", self.hidden_size % heads == 0, f"a multiple of num_attention_heads={heads}"),
            ("image_size", self.image_size % patch == 0, f"a multiple of patch_size={patch}"),
            ("num_fusion_layers", 0 <= self.num_fusion_layers <= layers, f"0 to num_hidden_layers={layers}"),
        )
        for name, kept, rule in rules:
            if not kept:
                raise ValueError(f"{name} must be {rule}, but is {getattr(self, name)}.")
        super().__post_init__(**kwargs)

    @property
    def num_patches(self) -> int:
        """Number of patches of an image: N."""
        return (self.image_size // self.patch_size) ** 2

    def image_side(self) -> ViTConfig:
        """Returns the config of the plain model of images."""
        sizes = {name: getattr(self, name) for name in SHARED + UNBOUND + IMAGE}
        return ViTConfig(**sizes, hidden_act="gelu", qkv_bias=True, encoder_stride=self.patch_size)

    def text_side(self) -> RobertaPreLayerNormConfig:
        """Returns the config of the plain model of texts. Its positions begin after the padding position, so it has
        `pad_token_id + 1` more."""
        sizes = {name: getattr(self, name) for name in SHARED + UNBOUND + TEXT}
        sizes["max_position_embeddings"] = self.max_position_embeddings + self.pad_token_id + 1
        return RobertaPreLayerNormConfig(**sizes, hidden_act="gelu", bos_token_id=None, eos_token_id=None)


@dataclass
class MultiwayOutput(ModelOutput):
    """Features of an image, a text or an image-text pair.

    last_hidden_state (`(B, T, D)`): of all tokens. T is 1 + N for an image, L for a text, 1 + N + L for a pair.
    hidden_states: input of the first layer and outputs of all layers, before the final norm: `(B, T, D)` each.
    image_hidden_state (`(B, 1 + N, D)`), text_hidden_state (`(B, L, D)`): the parts of last_hidden_state; None without
    an image or a text.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    image_hidden_state: Tensor | None = None
    text_hidden_state: Tensor | None = None


class MultiwayImageEmbeddings(nn.Module):
    """Embeddings of a class token and of patches, with learned positions. A learned token replaces masked patches."""

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.shape = (config.num_channels, config.image_size, config.image_size)
        self.projection = nn.Conv2d(config.num_channels, width, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + config.num_patches, width))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None) -> Tensor:
        """Embeds images: `(B, C, S, S)` to `(B, 1 + N, D)`.

        bool_masked_pos (`(B, N)`): masked patches. Raises `ValueError` for images or a mask of another shape."""
        if pixel_values.shape[1:] != self.shape:
            raise ValueError(
                f"Images of shape {tuple(pixel_values.shape[1:])} don't fit the model's {self.shape} (channels, "
                "image_size, image_size). Resize them."
            )
        patches = self.projection(pixel_values.to(self.projection.weight.dtype)).flatten(2).transpose(1, 2)  # (B, N, D)
        if bool_masked_pos is not None:
            if bool_masked_pos.shape != patches.shape[:2]:
                raise ValueError(
                    f"bool_masked_pos has shape {tuple(bool_masked_pos.shape)}, but (images, patches) is "
                    f"{tuple(patches.shape[:2])}. Give one value per patch."
                )
            patches = torch.where(bool_masked_pos[..., None].bool(), self.mask_token, patches)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.position_embeddings)


class MultiwayTextEmbeddings(nn.Module):
    """Embeddings of tokens, with learned positions that do not count padding, as in RoBERTa."""

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        self.length, self.padding_idx = config.max_position_embeddings, config.pad_token_id
        positions = self.length + self.padding_idx + 1
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=self.padding_idx)
        self.position_embeddings = nn.Embedding(positions, config.hidden_size, padding_idx=self.padding_idx)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embeds token ids: `(B, L)` to `(B, L, D)`. Raises `ValueError` for texts that are too long."""
        if input_ids.shape[1] > self.length:
            raise ValueError(
                f"Texts of {input_ids.shape[1]} tokens exceed max_position_embeddings={self.length}. Truncate them."
            )
        word = input_ids != self.padding_idx
        position_ids = word.long().cumsum(1) * word + self.padding_idx
        return self.dropout(self.norm(self.word_embeddings(input_ids) + self.position_embeddings(position_ids)))


class MultiwayAttention(nn.Module):
    """Self-attention over all tokens, of images and of texts."""

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`. attention_mask (`(B, 1, 1, T)`, bool): tokens to attend to; None for all."""
        heads = (*hidden_states.shape[:2], self.num_heads, -1)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (projection(hidden_states).view(heads).transpose(1, 2) for projection in projections)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=dropout)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class MultiwayExpert(nn.Module):
    """Feed-forward network of one modality, with its layer norm."""

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(hidden_states))))


class MultiwayLayer(GradientCheckpointingLayer):
    """Attention that all modalities share, then the expert of each token."""

    def __init__(self, config: MultiwayConfig, fusion: bool):
        super().__init__()
        kinds = ("vision", "language", "fusion") if fusion else ("vision", "language")
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = MultiwayAttention(config)
        self.experts = nn.ModuleDict({kind: MultiwayExpert(config) for kind in kinds})
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, num_image_tokens: int) -> Tensor:
        attended = self.attention(self.attention_norm(hidden_states), attention_mask)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.route(hidden_states, num_image_tokens))

    def route(self, hidden_states: Tensor, num_image_tokens: int) -> Tensor:
        """Applies the expert of each token: `(B, T, D)` to `(B, T, D)`. The first `num_image_tokens` of each row are
        those of an image."""
        if num_image_tokens == hidden_states.shape[1]:
            return self.experts["vision"](hidden_states)
        if num_image_tokens == 0:
            return self.experts["language"](hidden_states)
        if "fusion" in self.experts:
            return self.experts["fusion"](hidden_states)
        image, text = hidden_states[:, :num_image_tokens], hidden_states[:, num_image_tokens:]
        return torch.cat([self.experts["vision"](image), self.experts["language"](text)], dim=1)


class MultiwayModel(TwoSides):
    """Encoder of BEiT-3, for images, texts and image-text pairs. A pair is one sequence.

    forward: takes pixel_values (`(B, C, S, S)`), input_ids (`(B, L)`) or both. attention_mask (`(B, L)`): 1 for tokens,
    0 for padding; default: 1 for all. bool_masked_pos (`(B, N)`): patches that the mask token replaces. Arguments of
    other encoders, for example token_type_ids, are ignored.

    Raises `ValueError` without any input, and for inputs that don't fit the config or each other.

    Example:
        >>> model = MultiwayModel(MultiwayConfig(image_size=64, patch_size=8))
        >>> model(torch.rand(2, 3, 64, 64), torch.randint(1000, 2000, (2, 9))).last_hidden_state.shape
        torch.Size([2, 74, 768])
    """

    config_class = MultiwayConfig
    base_model_prefix = "multiway"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("MultiwayImageEmbeddings", "MultiwayTextEmbeddings", "MultiwayLayer")

    def __init__(self, config: MultiwayConfig):
        super().__init__(config)
        first_fusion = config.num_hidden_layers - config.num_fusion_layers
        self.image_embeddings = MultiwayImageEmbeddings(config)
        self.text_embeddings = MultiwayTextEmbeddings(config)
        self.layers = nn.ModuleList(MultiwayLayer(config, i >= first_fusion) for i in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> MultiwayOutput:
        check_inputs(pixel_values, input_ids, attention_mask, bool_masked_pos)
        image = None if pixel_values is None else self.image_embeddings(pixel_values, bool_masked_pos)
        text = None if input_ids is None else self.text_embeddings(input_ids)
        hidden_states = torch.cat([part for part in (image, text) if part is not None], dim=1)
        num_image_tokens = 0 if image is None else image.shape[1]
        seen = seen_tokens(attention_mask, num_image_tokens)
        all_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states = (hidden_states,) if all_states else None
        for layer in self.layers:
            hidden_states = layer(hidden_states, seen, num_image_tokens)
            states = (*states, hidden_states) if all_states else None
        last = self.norm(hidden_states)
        return MultiwayOutput(
            last_hidden_state=last,
            hidden_states=states,
            image_hidden_state=None if image is None else last[:, :num_image_tokens],
            text_hidden_state=None if text is None else last[:, num_image_tokens:],
        )

    def image_side(self) -> ViTModel:
        """Returns a plain transformers model of images, in `eval()`, with copies of the weights and equal features."""
        return plain_side(self, self.config.image_side())

    def text_side(self) -> RobertaPreLayerNormModel:
        """Returns a plain transformers model of texts, in `eval()`, with copies of the weights and equal features."""
        return plain_side(self, self.config.text_side())

    def load_image_side(self, side: ViTModel) -> None:
        """Copies the weights of a plain image model. See `load_text_side`. This model's mask token does not change."""
        load_side(self, side, self.config.image_side())

    def load_text_side(self, side: RobertaPreLayerNormModel) -> None:
        """Copies the weights of a plain text model, without its pooler. This also replaces the attention and the final
        norm, which images share. Raises `ValueError` for another class or other sizes."""
        load_side(self, side, self.config.text_side())

    def get_input_embeddings(self) -> nn.Embedding:
        return self.text_embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.text_embeddings.word_embeddings = value

    def _init_weights(self, module: nn.Module) -> None:
        """Initialises weights as in ViT and BERT: normal for linear layers and token embeddings, truncated normal for
        the class token, mask token and positions of images."""
        super()._init_weights(module)
        if isinstance(module, MultiwayImageEmbeddings):
            for parameter in (module.cls_token, module.mask_token, module.position_embeddings):
                initialization.trunc_normal_(parameter, std=self.config.initializer_range)


def seen_tokens(attention_mask: Tensor | None, num_image_tokens: int) -> Tensor | None:
    """Returns the tokens to attend to, `(B, 1, 1, T)`, bool: all image tokens, and those in the text's mask `(B, L)`.

    Returns None for all tokens, because the fastest attention kernels take no mask."""
    if attention_mask is None:
        return None
    return F.pad(attention_mask.bool(), (num_image_tokens, 0), value=True)[:, None, None]


def check_inputs(
    pixel_values: Tensor | None, input_ids: Tensor | None, attention_mask: Tensor | None, bool_masked_pos: Tensor | None
) -> None:
    """Raises `ValueError` for missing inputs, and for inputs that don't fit each other."""
    if pixel_values is None and input_ids is None:
        raise ValueError("The model got no input. Give pixel_values, input_ids or both.")
    if pixel_values is None and bool_masked_pos is not None:
        raise ValueError("bool_masked_pos came without pixel_values. Give the images whose patches it masks.")
    if pixel_values is not None and input_ids is not None and len(pixel_values) != len(input_ids):
        raise ValueError(f"{len(pixel_values)} images came with {len(input_ids)} texts. Give one text per image.")
    text = None if input_ids is None else tuple(input_ids.shape)
    if attention_mask is not None and tuple(attention_mask.shape) != text:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}, but input_ids "
            f"{f'have shape {text}' if text else 'are missing'}. Give the mask of input_ids, 0 for padding."
        )


AutoConfig.register("multiway", MultiwayConfig, exist_ok=True)
AutoModel.register(MultiwayConfig, MultiwayModel, exist_ok=True)
