"""What results and cards say of texts and tokenizers."""

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

USAGE = """
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
batch = tokenizer(["a text", "a second one"], padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = encoder(**batch{{ hidden_of }}
mask = batch["attention_mask"].unsqueeze(-1)
features = (hidden * mask).sum(1) / mask.sum(1)  # the mean over tokens, as the first probe under "Transfer" reads them
print(encoder.__class__.__name__, features.shape)
"""


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> dict:
    """What results.json says of a tokenizer."""
    kind = type(tokenizer.backend_tokenizer.model).__name__
    return {"class": type(tokenizer).__name__, "kind": kind, "tokens": len(tokenizer)}


def text_preparation(results: Mapping) -> list[str]:
    """How texts were prepared, of the results of a run, in sentences."""
    if "packed" in results:
        how = (
            "packed side by side, attention inside each document" if results["packed"] else "in batches of like length"
        )
        return [f"Texts: {results['tokens']:,} tokens in all, {how}, {100 * results['padding']:.1f} % padding."]
    captions = results.get("captions") or {}
    others, weights = captions.get("other_captions"), captions.get("caption_weights")
    either = f" or one of {', '.join(others)}" if others else ""
    drawn = f", drawn {' : '.join(map(str, weights))}" if others and weights else ""
    return [f"Captions: the main one{either}{drawn}, padded {results['padded']}."]


def tokenizer_words(tokenizer: Mapping) -> str:
    """A tokenizer, of the results of a run, in a sentence."""
    origin = f"from `{tokenizer['from']}`" if tokenizer["from"] else "trained on these texts"
    return f"Tokenizer: {tokenizer['kind']}, {origin}."
