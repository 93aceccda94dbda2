"""Descriptions of texts and tokenizers for results.json and cards."""

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
features = (hidden * mask).sum(1) / mask.sum(1)  # mean over tokens, as for the first linear probe under "Transfer"
print(encoder.__class__.__name__, features.shape)
"""


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Returns the entries of results.json about a tokenizer."""
    kind = type(tokenizer.backend_tokenizer.model).__name__
    return {"class": type(tokenizer).__name__, "kind": kind, "tokens": len(tokenizer)}


def text_preparation(results: Mapping) -> list[str]:
    """Returns sentences that describe the preprocessing of texts, from the results of a run."""
    if "packed" in results:
        how = "packed, with attention inside each document" if results["packed"] else "in batches of similar length"
        return [f"Texts: {results['tokens']:,} tokens, {how}, {100 * results['padding']:.1f} % padding."]
    if results.get("inputs") == ["text"]:
        parts = f"Of a text much longer than {results['max_length']} tokens, each epoch uses a random part"
        return [f"Texts: one in each row. {parts}. Texts are padded {results['padded']}."]
    captions = results.get("captions") or {}
    others, weights = captions.get("other_captions"), captions.get("caption_weights")
    padded = results["padded"].replace("longest of a batch", "longest caption of the batch")
    if not others:
        return [f"Captions: the main caption of each sample. Captions are padded {padded}."]
    names = [f"`{name}`" for name in others]
    either = f"a caption from the column {names[0]}" if len(names) == 1 else f"one from the columns {listed(names)}"
    drawn = f"weights {listed(list(map(str, weights)))}" if weights else "equal weights"
    languages = captions.get("caption_languages")
    marked = f" Texts by language are in {listed(languages)}, after a token of the language." if languages else ""
    return [
        f"Captions: for each sample, the main caption or {either} is drawn ({drawn}).{marked} Captions are padded "
        f"{padded}."
    ]


def listed(items: list[str]) -> str:
    """Returns items as in a sentence: "a, b and c"."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def tokenizer_words(tokenizer: Mapping) -> str:
    """Returns a sentence that describes a tokenizer, from the results of a run."""
    origin = f"from `{tokenizer['from']}`" if tokenizer["from"] else "trained on these texts"
    return f"Tokenizer: {tokenizer['kind']}, {origin}."
