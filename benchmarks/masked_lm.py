"""Measures tokens per second and peak memory of masked language modelling: hf_pretext and the usual script.

    python benchmarks/masked_lm.py                       # about half an hour on 2 cores
    python benchmarks/masked_lm.py --sizes 256x4 --steps 20

The usual script is `AutoModelForMaskedLM` + `DataCollatorForLanguageModeling` + `Trainer`. It runs twice: with texts
concatenated and chunked, and with texts truncated and padded. All runs use the same architecture, initial
weights, optimizer, precision and tokens per batch (with padding). The rates count real tokens, without padding. Each
run is a separate process. The runs alternate, and the rates are medians. The losses on the same held-out masks, after
the same number of real tokens, show whether the faster run learns as much. The data are film reviews, downloaded once
(recipes/data/reviews.py).
"""

import torch
from language_models import LENGTH, Comparison
from transformers import AutoModelForMaskedLM, BertConfig, DataCollatorForLanguageModeling

from hf_pretext import MaskedLMForPreTraining

SHARE = 0.15  # of the tokens that are masked


def bert(width: int, layers: int, tokens):
    """Returns a fresh BERT without dropout."""
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return AutoModelForMaskedLM.from_config(config)


def pretext(model, tokens) -> MaskedLMForPreTraining:
    """Returns the model as our objective."""
    ids = dict(mask_token_id=tokens.mask_token_id, special_token_ids=tokens.all_special_ids)
    return MaskedLMForPreTraining.from_encoder(model, mask_ratio=SHARE, **ids)


def encoded(tokens, texts: list[str]) -> dict[str, list[list[int]]]:
    """Returns the tokens of texts, and which of them are special."""
    rows = tokens(texts, return_special_tokens_mask=True, verbose=False)
    return {key: rows[key] for key in ("input_ids", "special_tokens_mask")}


def labelled(ids, attention_mask, tokens, random: torch.Generator):
    """Masks tokens of held-out texts. Returns the ids and the labels."""
    special = torch.isin(ids, torch.tensor(tokens.all_special_ids))
    masked = (torch.rand(ids.shape, generator=random) < SHARE) & ~special
    return ids.masked_fill(masked, tokens.mask_token_id), ids.masked_fill(~masked, -100)


comparison = Comparison(
    script=__file__,
    doc=__doc__,
    architecture="BERT",
    sizes=("256x4", "512x4", "768x12"),
    model_of=bert,
    pretext=pretext,
    collator=lambda tokens: DataCollatorForLanguageModeling(tokens, mlm_probability=SHARE),
    encoded=encoded,
    labelled=labelled,
    tokenizer={},
)

if __name__ == "__main__":
    comparison.main()
