"""Measures tokens per second and peak memory of causal language modelling: hf_pretext and the usual script.

    python benchmarks/causal_lm.py                       # about half an hour on 2 cores
    python benchmarks/causal_lm.py --sizes 256x4 --steps 20

The usual script is `AutoModelForCausalLM` + `DataCollatorForLanguageModeling` + `Trainer`. It runs twice: with texts
concatenated and chunked, so that tokens see the end of other texts, and with texts padded to the longest of the batch
and truncated. All runs use the same architecture, initial weights, optimizer, precision and tokens per batch (with
padding), and an end token after each text. The rates count real tokens, without padding. Each run is a separate
process. The runs alternate, and the rates are medians. The losses on the same held-out texts, after the same number of
real tokens, show whether the faster run learns as much. The data are film reviews, downloaded once
(recipes/data/reviews.py).
"""

from language_models import LENGTH, Comparison
from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling, LlamaConfig

from hf_pretext import CausalLMForPreTraining


def llama(width: int, layers: int, tokens):
    """Returns a fresh Llama that shares its embeddings with the head."""
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokens.pad_token_id,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
    )
    return AutoModelForCausalLM.from_config(config)


def ended(tokens, texts: list[str]) -> dict[str, list[list[int]]]:
    """Returns the tokens of texts, each with its end token."""
    return {"input_ids": [[*ids, tokens.eos_token_id] for ids in tokens(texts, verbose=False)["input_ids"]]}


comparison = Comparison(
    script=__file__,
    doc=__doc__,
    architecture="Llama",
    sizes=("256x4", "768x12"),
    model_of=llama,
    pretext=lambda model, tokens: CausalLMForPreTraining.from_encoder(model),
    collator=lambda tokens: DataCollatorForLanguageModeling(tokens, mlm=False),
    encoded=ended,
    labelled=lambda ids, attention_mask, tokens, random: (ids, ids.masked_fill(attention_mask == 0, -100)),
    tokenizer={"add_eos_token": False},  # the usual script adds it to each text, and ours to each document
)

if __name__ == "__main__":
    comparison.main()
