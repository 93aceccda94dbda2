"""Masked language modelling: mask some of the tokens and predict them.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
NAACL 2019, https://huggingface.co/papers/1810.04805; spans after Joshi, Chen, Liu, Weld, Zettlemoyer and Levy,
"SpanBERT", TACL 2020, https://huggingface.co/papers/1907.10529

    input_ids (B, L) -> M masked tokens, labels (M,) -> encoder -> the architecture's head, on the M masked tokens only
    -> logits (M, vocabulary) -> cross-entropy
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from ..encoders import check_encoder
from ..features import pool
from ..modeling import PretextModel, PretextOutput
from ..modules.losses import cross_entropy
from ..modules.masking import (
    IGNORED,
    MaskTask,
    check_share,
    draw_masked,
    positions_of,
    replaced,
    with_tokens_of,
    without_special,
)
from ..modules.packing import Packing


@strict
@dataclass
class MaskedLMTask(MaskTask):
    """Settings of masked language modelling.

    mask_ratio: share of each sequence's tokens that are masked; at least one token is masked.
    replaced_by_mask: share of the masked tokens that are replaced by the mask token.
    replaced_by_random: share of the masked tokens that are replaced by a random token of the vocabulary; the remaining
        ones stay unchanged.
    unit: tokens that are masked together: single tokens, words, or spans of words (SpanBERT).
    """

    mask_ratio: float = 0.15
    replaced_by_mask: float = 0.8
    replaced_by_random: float = 0.1
    unit: Literal["token", "word", "span"] = "token"

    def validate_shares(self):
        check_share("mask_ratio", self.mask_ratio)
        shares = (self.replaced_by_mask, self.replaced_by_random)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(
                f"replaced_by_mask and replaced_by_random must be at least 0 and sum to at most 1, but are {shares[0]} "
                f"and {shares[1]}."
            )


class MaskedLMForPreTraining(PretextModel):
    """A text encoder that learns by predicting masked tokens, with transformers' `...ForMaskedLM` of its architecture.

    The checkpoint has that class: `AutoModelForMaskedLM`, `AutoModel` and `pipeline("fill-mask")` load it. The head
    over the vocabulary, which takes most of the compute of a small model, runs on the masked tokens only.

    forward: input_ids (`(B, L)`), attention_mask (`(B, L)`, 1 for tokens, 0 for padding). word_starts (`(B, L)`, True
    at the first token of a word): required for the units "word" and "span". document_ids (`(B, L)`: 1, 2, ... for the
    documents of a packed sequence, 0 for padding): replaces attention_mask; attention stays inside each document, and
    positions restart in each. labels (`(B, L)`, `IGNORED` for tokens that are not masked): if given, input_ids are
    masked already. num_bytes (`(B,)`): length of each sequence in bytes of UTF-8, for bits_per_byte.

    Returns features (`(B, D)`), and logits (`(M, vocabulary)`) and labels (`(M,)`) of the M masked tokens, row by row.
    Logs: accuracy, perplexity, and with num_bytes bits_per_byte: the mean loss times the number of tokens, in bits per
    byte. It is not comparable with causal language models, because predictions use the tokens on both sides.

    Example:
        >>> model = MaskedLMForPreTraining.from_encoder(BertConfig(), mask_token_id=103)
        >>> model(input_ids=torch.randint(1000, 2000, (2, 40))).logits.shape
        torch.Size([12, 30522])
    """

    objective = "masked_lm"
    task_class = MaskedLMTask
    inputs = ("text",)
    pipeline_tag = "fill-mask"
    usage = """
import torch
from transformers import AutoModel, AutoTokenizer, pipeline

tokenizer = AutoTokenizer.from_pretrained("{{ folder }}")
encoder = AutoModel.from_pretrained("{{ folder }}")
batch = tokenizer(["a text", "another one"], padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = encoder(**batch{{ hidden_of }}
mask = batch["attention_mask"].unsqueeze(-1)
features = (hidden * mask).sum(1) / mask.sum(1)  # mean over tokens: input of the first probe under "Transfer"
print(encoder.__class__.__name__, features.shape)

fill_mask = pipeline("fill-mask", model="{{ folder }}")
print([guess["token_str"] for guess in fill_mask(f"this is the best {tokenizer.mask_token} of all .")])
# for features of the last layer: SentenceTransformer("{{ folder }}").encode(["a text", "another one"])
"""
    capabilities = ("predict_tokens",)
    formula = r"-\frac{1}{|M|}\sum_{i \in M} \log p_\theta\left(t_i \mid t_{\setminus M}\right)"
    limits = (
        "The encoder is trained on texts with mask tokens, but used on texts without them. It is not trained to give "
        "features of whole texts.",
        "The mean over tokens represents the topic of a text better than its meaning. For search and similarity of "
        "texts, fine-tune the encoder on pairs of texts.",
        "When the model predicts masked words, it repeats what its training texts say about people, including biases.",
    )
    auto_class = AutoModelForMaskedLM

    def __init__(self, full_model: PreTrainedModel, task: MaskedLMTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        self.packing = Packing(self.encoder)
        self.post_init()

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """Returns a `...ForMaskedLM`. encoder: a config (random weights), an encoder without a head (keeps its weights,
        random head), or a `...ForMaskedLM` (returned unchanged). Raises `ValueError` if transformers has no masked
        language model of this architecture, or if the encoder lacks weights of the full model (except the head's)."""
        config = encoder if isinstance(encoder, PreTrainedConfig) else getattr(encoder, "config", None)
        native = MODEL_FOR_MASKED_LM_MAPPING.get(type(config), None)
        if native is not None and type(encoder) is native:
            return encoder
        if native is None and config is not None:
            raise ValueError(
                f"transformers has no {config.model_type} model for masked language modelling (AutoModelForMaskedLM). "
                "Choose another architecture, for example BERT, RoBERTa or ModernBERT."
            )
        if isinstance(encoder, PreTrainedConfig):
            return AutoModelForMaskedLM.from_config(copy.deepcopy(config), dtype=torch.float32)
        check_encoder(encoder, "text")
        full_model = AutoModelForMaskedLM.from_config(config).to(encoder.dtype)
        missing = full_model.base_model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
        if missing:  # they would stay random; extra weights, for example of a pooler, are ignored
            raise ValueError(
                f"The encoder lacks weights of {type(full_model).__name__}: {', '.join(missing[:5])}. Give an encoder "
                "with all weights, or a config for a new one."
            )
        return full_model

    @classmethod
    def complete(cls, task: MaskedLMTask, processors: Mapping[str, Any]) -> MaskedLMTask:
        """Fills in the tokenizer's mask token and special tokens. Raises `ValueError` if it has no mask token."""
        return with_tokens_of(task, processors["text"])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        word_starts: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_bytes: Tensor | None = None,
        **inputs: Tensor,
    ) -> PretextOutput:
        if document_ids is not None:
            inputs |= self.packing.inputs(document_ids)
            present = document_ids > 0
        else:
            inputs["attention_mask"] = attention_mask
            present = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        allowed = without_special(input_ids, present, self.task.special_token_ids)
        if labels is None:
            input_ids, labels = self.corrupt(input_ids, allowed, word_starts)
        where = positions_of(labels != IGNORED)
        hidden, logits = self.predict(where, input_ids=input_ids, **inputs)
        labels = labels[where]  # (M,)
        loss = cross_entropy(logits, labels)
        logs = {"accuracy": (logits.argmax(-1) == labels).float().mean(), "perplexity": loss.exp()}
        if num_bytes is not None:
            logs["bits_per_byte"] = loss * allowed.sum() / num_bytes.sum() / math.log(2)
        features = pool(hidden, present)
        return self.output({"masked_lm": loss}, logs, features=features, logits=logits, labels=labels)

    def corrupt(self, input_ids: Tensor, allowed: Tensor, word_starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Masks some of the allowed tokens. input_ids, allowed, word_starts: `(B, L)`.

        Returns the ids as the encoder gets them, and labels (`IGNORED` for tokens that are not masked): `(B, L)` each.
        Raises `ValueError` if `mask_token_id` is not set, and if `unit` needs `word_starts` and gets none."""
        task, generator = self.task, self.generator()
        hidden = draw_masked(allowed, task.mask_ratio, task.unit, word_starts, generator)
        labels = input_ids.masked_fill(~hidden, IGNORED)
        shares = (task.replaced_by_mask, task.replaced_by_random)
        special, vocabulary = task.special_token_ids, self.config.vocab_size
        return replaced(input_ids, hidden, task.mask_token_id, vocabulary, shares, generator, special), labels

    def predict(self, where: tuple[Tensor, Tensor], **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the encoder's last hidden states `(B, L, D)`, and logits `(M, vocabulary)` of the masked tokens.

        where: rows and columns of the masked tokens, see `positions_of`. A head processes each token separately, so
        only the M masked tokens are passed to it, as one sequence `(1, M, D)`."""
        states = []

        def only_hidden(module, arguments, outputs):
            states.append(outputs.last_hidden_state)
            outputs["last_hidden_state"] = outputs.last_hidden_state[where][None]  # (1, M, D)
            return outputs

        handle = self.encoder.register_forward_hook(only_hidden)
        try:
            logits = self.full_model(**inputs).logits[0]
        finally:
            handle.remove()
        return states[0], logits

    def predict_tokens(self, masked: Tensor, **batch: Tensor) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the masked tokens (`(B, L)`, bool), row by row. The input_ids of the
        batch have these tokens replaced already."""
        return self.predict(positions_of(masked), **batch)[1]

    def packs(self, length: int = 128) -> bool:
        """Returns whether this architecture separates the documents of a packed sequence, see `Packing.works`."""
        return self.packing.works(length)
