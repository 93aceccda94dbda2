"""Joins an image encoder and a decoder of texts in transformers' `VisionEncoderDecoderModel`, and checks that they fit.

image encoder (B, T, D), causal language model with cross-attention -> VisionEncoderDecoderModel
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ..encoders import as_encoder, check_encoder, noise, tried
from ..features import width
from .dual_encoder import blank

CROSS = ("cross", "encoder_attn")  # in the names of weights of cross-attention, by architecture
GOOD_DECODERS = "GPT-2, BERT, RoBERTa, BART or TrOCR"
MOVED = 1e-6  # smallest change of the scores that counts as one


def captioner(
    image: PreTrainedModel | PreTrainedConfig,
    text: PreTrainedModel | PreTrainedConfig,
    config: VisionEncoderDecoderConfig | None = None,
) -> VisionEncoderDecoderModel:
    """Joins an image encoder and a decoder, or new ones of given configs. Neither is copied, except a text model
    without cross-attention: a decoder with its weights and new cross-attention takes its place.

    config: of the joint model, from which the token ids are taken. Raises `ValueError` for an encoder
    without a sequence of hidden states, a text model without a decoder, and models of different dtypes."""
    image = as_encoder(image)
    text = new_decoder(text) if isinstance(text, PreTrainedConfig) else as_decoder(text)
    check_sequence(image)
    if image.dtype != text.dtype:
        raise ValueError(
            f"The image encoder has dtype {image.dtype}, but the decoder has {text.dtype}. Give both in one dtype."
        )
    joint = VisionEncoderDecoderConfig.from_encoder_decoder_configs(image.config, copy.deepcopy(text.config))
    if config is not None:
        for name in ("decoder_start_token_id", "pad_token_id", "eos_token_id"):
            setattr(joint, name, getattr(config, name, None))
    joint.tie_word_embeddings = False  # as in transformers: the decoder ties its own
    return VisionEncoderDecoderModel(joint, image, text).to(image.dtype)  # also converts the projection


def check_sequence(image: PreTrainedModel) -> None:
    """Raises `ValueError` for an image encoder whose last hidden state is not `(B, T, D)`. Sets `hidden_size` of its
    config, which some lack."""
    check_encoder(image, "image")
    with tried(image):
        hidden = image(pixel_values=blank(image)).last_hidden_state
    name = type(image).__name__
    if hidden.ndim != 3:
        raise ValueError(
            f"{name} gives a map of shape {tuple(hidden.shape[1:])} for an image, but a decoder reads a sequence of "
            "vectors. Give an encoder with tokens, for example ViT, DINOv2, CLIP's, BEiT or Swin."
        )
    if getattr(image.config, "hidden_size", None) is None:
        image.config = copy.deepcopy(image.config)
        image.config.hidden_size = width(image)
    if image.config.hidden_size != hidden.shape[2]:
        raise ValueError(
            f"{name} gives vectors of width {hidden.shape[2]}, but its config says hidden_size="
            f"{image.config.hidden_size}, from which the decoder takes its width. Give another image encoder."
        )


def new_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Returns a fresh causal language model with cross-attention, in float32. Raises `ValueError` for an architecture
    that has none."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"transformers has no {config.model_type} model that writes text (AutoModelForCausalLM). Give a decoder, "
            f"for example {GOOD_DECODERS}."
        )
    config = copy.deepcopy(config)
    config.is_decoder = config.add_cross_attention = True
    decoder = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    if not cross_attention(decoder):
        raise ValueError(
            f"{type(decoder).__name__} ({config.model_type}) has no cross-attention, so it can't see an image. Give "
            f"another decoder, for example {GOOD_DECODERS}."
        )
    return decoder


def as_decoder(text: PreTrainedModel) -> PreTrainedModel:
    """Returns a text model unchanged if it is a causal language model with cross-attention, else one with its weights.

    Raises `ValueError` like `new_decoder`, and for a text model that lacks other weights than those of cross-attention
    and of the head."""
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(text.config), None)
    if type(text) is causal and getattr(text.config, "add_cross_attention", False) and cross_attention(text):
        return text
    decoder = new_decoder(text.config).to(text.device, text.dtype)
    load_into(decoder, text)
    return decoder


def load_into(decoder: PreTrainedModel, text: PreTrainedModel) -> None:
    """Copies the weights of a text model, with or without a head, into a decoder with a head. The head is copied if the
    text model has one with the same weights, as that of a masked language model; else it stays as it is.

    Raises `ValueError` like `load_decoder`."""
    if type(text) is type(decoder):
        load_decoder(decoder, text)
        return
    load_decoder(decoder.base_model, text.base_model)
    given, head = text.state_dict(), dict(head_of(decoder))
    if all(name in given and given[name].shape == parameter.shape for name, parameter in head.items()):
        decoder.load_state_dict({name: given[name] for name in head}, strict=False)


def load_decoder(decoder: PreTrainedModel, text: PreTrainedModel) -> None:
    """Copies the weights of a text model into a decoder of the same architecture, whose cross-attention stays as it is.

    Raises `ValueError` for other missing weights, and for weights of other shapes."""
    state = text.state_dict()
    wrong = [name for name, value in decoder.state_dict().items() if name in state and state[name].shape != value.shape]
    if wrong:
        raise ValueError(
            f"The text model {type(text).__name__} has weights of other shapes than the decoder: "
            f"{', '.join(wrong[:5])}. Give a text model of the same sizes."
        )
    missing = decoder.load_state_dict(state, strict=False).missing_keys
    tied = set(getattr(decoder, "all_tied_weights_keys", None) or ())
    lost = sorted(name for name in missing if not is_cross(name) and name not in tied)
    if lost:
        raise ValueError(
            f"The text model {type(text).__name__} lacks weights of {type(decoder).__name__}, which would stay random: "
            f"{', '.join(lost[:5])}. Give another text model, or a config for a new one."
        )


def head_of(decoder: PreTrainedModel) -> Iterator[tuple[str, Parameter]]:
    """Yields name and value of the parameters of a decoder's head that are not those of its embeddings."""
    base = {*decoder.base_model.parameters()}
    yield from ((name, value) for name, value in decoder.named_parameters() if value not in base)


def is_cross(name: str) -> bool:
    """Returns True for the name of a weight of cross-attention."""
    return any(part in name for part in CROSS)


def cross_attention(decoder: PreTrainedModel) -> list[str]:
    """Returns the names of a decoder's weights of cross-attention."""
    return [name for name, _ in decoder.named_parameters() if is_cross(name)]


def check_sees(model: VisionEncoderDecoderModel) -> None:
    """Raises `ValueError` if the scores of a decoder do not depend on the image: some architectures ignore it in
    silence."""
    with tried(model):
        ids = torch.arange(4, device=model.device).reshape(2, 2) % model.config.decoder.vocab_size
        images = noise(model, 2, 3, model.config.encoder.hidden_size)
        try:
            scores = [decoded(model, image, ids) for image in (images, -images)]
        except TypeError as error:
            raise ValueError(f"{refusal(model)} Details: {error}") from error
    if (scores[0] - scores[1]).abs().max() <= MOVED:
        raise ValueError(refusal(model))


def refusal(model: VisionEncoderDecoderModel) -> str:
    """Returns the error message for a decoder that does not see images."""
    decoder = model.decoder
    return (
        f"{type(decoder).__name__} ({decoder.config.model_type}) has no cross-attention, so it can't see an image. "
        f"Give another decoder, for example {GOOD_DECODERS}."
    )


def check_parallel(model: VisionEncoderDecoderModel) -> None:
    """Raises `ValueError` if attention of a decoder stays causal under a mask that lets each token see all others."""
    with tried(model):
        ids = torch.arange(6, device=model.device).reshape(2, 3) % model.config.decoder.vocab_size
        other = ids.clone()
        other[:, -1] = (other[:, -1] + 1) % model.config.decoder.vocab_size
        images = noise(model, 2, 3, model.config.encoder.hidden_size)
        causal, all_see = (parallel_mask(torch.tensor([flag] * 2), 3, model) for flag in (False, True))
        try:
            first, second = (decoded(model, images, each, all_see)[:, 0] for each in (ids, other))
            plain, masked = decoded(model, images, ids), decoded(model, images, ids, causal)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:  # architectures differ
            raise ValueError(f"{no_parallel(model)} Details: {error}") from error
    if (first - second).abs().max() <= MOVED or not torch.allclose(plain, masked, atol=1e-4):
        raise ValueError(no_parallel(model))


def no_parallel(model: VisionEncoderDecoderModel) -> str:
    """Returns the error message for a decoder that can't predict all tokens at once."""
    return (
        f"parallel_share needs a decoder that takes an attention mask for each pair of tokens, but "
        f"{type(model.decoder).__name__} with attn_implementation={model.decoder.config._attn_implementation!r} does "
        f"not. Set parallel_share=0, or give another decoder, for example {GOOD_DECODERS}."
    )


def parallel_mask(parallel: Tensor, length: int, model: PreTrainedModel) -> Tensor:
    """Returns the additive attention mask of captions, `(B, 1, L, L)`: each token sees all others in rows where
    `parallel` (`(B,)`, bool) is True, also padding, so that the length of a caption stays hidden; else the tokens
    before it."""
    later = torch.ones(length, length, dtype=torch.bool, device=model.device).triu(1)
    hidden = later & ~parallel.to(model.device)[:, None, None]
    mask = torch.zeros(hidden.shape, dtype=model.dtype, device=model.device)
    return mask.masked_fill_(hidden, torch.finfo(model.dtype).min)[:, None]


def decoded(model: VisionEncoderDecoderModel, images: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the scores of all tokens, `(B, L, vocabulary)`. images: hidden states of the encoder, `(B, T, D)`."""
    outputs = BaseModelOutput(last_hidden_state=images)
    return model(encoder_outputs=outputs, decoder_input_ids=ids, decoder_attention_mask=mask, use_cache=False).logits
