"""Decoders that rebuild a text from one vector of it, next to an encoder of texts.

vectors (B, D), inputs (B, L) -> causal decoder, whose cross-attention has the vector as its only key -> (M, vocabulary)
"""

from typing import Literal

from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel

from ..features import positions, width
from .captioner import new_decoder
from .masking import applied_at

Tied = Literal["none", "embeddings", "all"]
LONGEST = 512  # tokens of a text: a table of positions for 100,000 tokens would be most of the decoder


def text_decoder(encoder: PreTrainedModel, tied: Tied, layers: int) -> PreTrainedModel:
    """Returns a causal language model with cross-attention to vectors of the width of an encoder, in float32.

    tied: weights that it shares with the encoder: none, those of the token embeddings, or all that both have. With
    "all" it has the encoder's architecture; else that of BERT. layers: without "all". Raises `ValueError` for an
    encoder that can't share these weights."""
    if tied == "all":
        decoder = same_architecture(encoder)
        share_all(decoder, encoder)
        return decoder
    decoder = new_decoder(bert_like(encoder, layers))
    if tied == "embeddings":
        share_embeddings(decoder, encoder)
    return decoder


def bert_like(encoder: PreTrainedModel, layers: int) -> BertConfig:
    """Returns the config of a BERT of an encoder's vocabulary, width, heads and number of positions."""
    size, config = width(encoder), encoder.config
    heads = getattr(config, "num_attention_heads", 1)
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=heads if size % heads == 0 else 1,
        intermediate_size=4 * size,
        max_position_embeddings=min(positions(encoder)[1] or LONGEST, LONGEST) + 1,  # one more for the end of a text
        type_vocab_size=1,
        pad_token_id=config.pad_token_id,
    )


def same_architecture(encoder: PreTrainedModel) -> PreTrainedModel:
    """Returns a fresh decoder of an encoder's architecture. Raises `ValueError` if it has none with cross-attention."""
    try:
        return new_decoder(encoder.config)
    except ValueError as error:
        raise ValueError(
            f"tied='all' needs a decoder like the encoder, but transformers has no {type(encoder).__name__} "
            "with causal attention and cross-attention. Set tied='embeddings', or give a BERT, RoBERTa or ELECTRA."
        ) from error


def share_all(decoder: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Replaces the weights of a decoder by those of an encoder that have the same name."""
    base = decoder.base_model
    known = dict(base.named_parameters())
    for name, parameter in encoder.named_parameters():
        if name in known:
            where, _, attribute = name.rpartition(".")
            setattr(base.get_submodule(where), attribute, parameter)
    decoder.tie_weights()


def share_embeddings(decoder: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Replaces the token embeddings and the head of a decoder by an encoder's token embeddings. Raises `ValueError` for
    embeddings of another width than the encoder's."""
    shared, replaced = encoder.get_input_embeddings(), decoder.get_input_embeddings()
    if not isinstance(shared, nn.Embedding) or shared.weight.shape != replaced.weight.shape:
        shape = tuple(shared.weight.shape) if isinstance(shared, nn.Embedding) else None
        raise ValueError(
            f"tied='embeddings' needs token embeddings of shape {tuple(replaced.weight.shape)}, but those of "
            f"{type(encoder).__name__} have {shape}. Set tied='none', or tied='all' for BERT, RoBERTa or ELECTRA."
        )
    replaced.weight = shared.weight
    decoder.tie_weights()


def names_of_shared(module: nn.Module, other: nn.Module) -> set[str]:
    """Returns the names of the parameters of a module that `other` has, too."""
    given = {id(parameter) for parameter in other.parameters()}
    return {name for name, value in module.named_parameters(remove_duplicate=False) if id(value) in given}


def decode(decoder: PreTrainedModel, vectors: Tensor, inputs: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
    """Returns the logits of the M predicted tokens, `(M, vocabulary)`.

    vectors (`(B, D)`): all that the decoder knows of each text, next to the tokens before. inputs (`(B, L)`): shifted
    ids; padding needs no mask, since it comes last and attention is causal. where: rows and columns of the M tokens.
    Raises `ValueError` for more positions than the decoder has."""
    most = positions(decoder.base_model)[1]
    if most is not None and inputs.shape[1] > most:
        raise ValueError(
            f"A text of {inputs.shape[1] - 1} tokens and its end need {inputs.shape[1]} positions, but the decoder has "
            f"{most}. Give a smaller --max_length."
        )
    embedded = decoder.get_input_embeddings()(inputs)  # ids without a mask are searched for padding: the CPU would wait
    with applied_at(decoder.get_output_embeddings(), where):
        return decoder(inputs_embeds=embedded, encoder_hidden_states=vectors[:, None], use_cache=False).logits
