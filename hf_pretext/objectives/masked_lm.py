"""Masked language modelling: mask some of the tokens and predict them.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
NAACL 2019, https://huggingface.co/papers/1810.04805; spans after Joshi, Chen, Liu, Weld, Zettlemoyer and Levy,
"SpanBERT", TACL 2020, https://huggingface.co/papers/1907.10529

    input_ids (B, L) -> M masked tokens, labels (M,) -> encoder -> the architecture's head, on the M masked tokens only
    -> logits (M, vocabulary) -> cross-entropy
"""

import copy
import inspect
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
from ..features import pool, positions
from ..modeling import PretextModel, PretextOutput
from ..modules.losses import cross_entropy
from ..modules.masking import (
    IGNORED,
    MaskTask,
    check_share,
    draw_units,
    positions_of,
    replaced,
    unit_starts,
    with_tokens_of,
    without_special,
)


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
        self.takes = set(inspect.signature(self.encoder.forward).parameters)
        self.first_position = positions(self.encoder)[0]
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
            inputs |= self.inside_documents(document_ids)
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
        if task.unit != "token" and word_starts is None:
            raise ValueError(
                f"unit={task.unit!r} needs word_starts in the batch, but got None. Give a bool tensor (B, L), True at "
                "the first token of each word."
            )
        starts = unit_starts(input_ids.shape, task.unit, word_starts, input_ids.device, generator)
        hidden = draw_units(allowed, starts, task.mask_ratio, generator)
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

    def inside_documents(self, document_ids: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        """Returns the encoder inputs that separate packed documents: attention_mask (one per layer type if there are
        several), and position_ids if the encoder takes them. document_ids: `(B, L)`, 0 for padding."""
        dtype = self.encoder.dtype
        layer_types = set(getattr(self.config, "layer_types", None) or ())
        if layer_types:
            near = self.config.local_attention // 2
            mask = {
                kind: document_mask(document_ids, dtype, near if "sliding" in kind else None) for kind in layer_types
            }
        else:
            mask = document_mask(document_ids, dtype)
        inputs = {"attention_mask": mask}
        if "position_ids" in self.takes:
            inputs["position_ids"] = positions_inside(document_ids) + self.first_position
        return inputs

    @torch.no_grad()
    def packs(self, length: int = 128) -> bool:
        """Returns whether this architecture separates the documents of a packed sequence.

        Encodes two documents in one packed sequence and each one alone, and compares the hidden states. The test is
        needed because some architectures silently ignore a mask per document. length: tokens of the packed sequence."""
        training, device, length = self.training, self.device, max(length, 3)  # below 3, the first document is empty
        self.eval()
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.config.vocab_size, (1, length), generator=random).to(device)
        tokens[tokens == self.config.pad_token_id] = 0 if self.config.pad_token_id else 1  # padding gets no position
        documents = (torch.arange(length, device=device)[None] >= length // 3) + 1
        alone = torch.cat([self.encoder(tokens[documents == i][None]).last_hidden_state for i in (1, 2)], dim=1)
        together = self.encoder(tokens).last_hidden_state
        try:
            packed = self.encoder(tokens, **self.inside_documents(documents)).last_hidden_state
        except (TypeError, ValueError, RuntimeError, AttributeError):  # architectures differ in what they raise
            return False
        finally:
            self.train(training)
        return bool((packed - alone).abs().max() < 0.01 * (together - alone).abs().max())


def document_mask(document_ids: Tensor, dtype: torch.dtype, near: int | None = None) -> Tensor:
    """Returns the additive attention mask `(B, 1, L, L)` that limits attention to tokens of the same document.

    document_ids: `(B, L)`, 0 for padding; padding attends to padding. near: maximum distance in tokens between a token
    and those it attends to; None for no maximum.
    """
    same = document_ids[:, :, None] == document_ids[:, None, :]
    if near is not None:
        at = torch.arange(document_ids.shape[1], device=document_ids.device)
        same = same & ((at[:, None] - at).abs() <= near)
    blocked = torch.zeros(same.shape, dtype=dtype, device=same.device)
    return blocked.masked_fill_(~same, torch.finfo(dtype).min)[:, None]


def positions_inside(document_ids: Tensor) -> Tensor:
    """Returns the position of each token in its document, `(B, L)`, from 0. document_ids: `(B, L)`."""
    at = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return at - torch.where(begins, at, 0).cummax(1).values
