"""Masked language modelling: mask some of the tokens, predict which they were.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
NAACL 2019, https://huggingface.co/papers/1810.04805; spans after Joshi, Chen, Liu, Weld, Zettlemoyer and Levy,
"SpanBERT", TACL 2020, https://huggingface.co/papers/1907.10529

    input_ids (B, L) -> hidden tokens (M of them), labels -> encoder -> the architecture's own head on M tokens alone
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
    replaced,
    unit_starts,
    with_tokens_of,
    without_special,
)


@strict
@dataclass
class MaskedLMTask(MaskTask):
    """Settings of masked language modelling.

    mask_ratio: share of each sequence's tokens that are hidden; at least one is.
    replaced_by_mask: share of the hidden tokens that become the mask token.
    replaced_by_random: share of them that become any token of the vocabulary; the rest stays as it is.
    unit: what is hidden together: a token, a whole word, or a span of words.
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
                f"replaced_by_mask and replaced_by_random must be shares, of 1 together, but are {shares[0]} and "
                f"{shares[1]}."
            )


class MaskedLMForPreTraining(PretextModel):
    """A text encoder that learns by predicting masked tokens, as the architecture's own `...ForMaskedLM`.

    The checkpoint is that class's: `AutoModelForMaskedLM`, `AutoModel` and `pipeline("fill-mask")` load it. The head
    over the vocabulary, most of the work of a small model, runs at hidden tokens alone.

    forward: input_ids (`(B, L)`), attention_mask (`(B, L)`, 1 for tokens, 0 for padding). word_starts (`(B, L)`, True
    where a word begins), needed for the units "word" and "span". document_ids (`(B, L)`: 1, 2, ... for the documents
    of a packed sequence, 0 for padding) in place of an attention_mask: attention stays inside each document, and
    positions begin again. labels (`(B, L)`): a batch that brings them is taken as masked already. num_bytes (`(B,)`):
    how long each sequence is as UTF-8, for the log of bits per byte.

    Returns features (`(B, D)`), logits (`(M, vocabulary)`), labels (`(M,)`) of the M hidden tokens, row by row. Logs:
    accuracy, perplexity, and with num_bytes bits_per_byte: the loss of each token as if all were hidden in turn
    ("pseudo", since what one sees of the others differs from a language model's).

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
features = (hidden * mask).sum(1) / mask.sum(1)  # the mean over tokens, as the first probe under "Transfer" reads them
print(encoder.__class__.__name__, features.shape)

fill_mask = pipeline("fill-mask", model="{{ folder }}")
print([guess["token_str"] for guess in fill_mask(f"this is the best {tokenizer.mask_token} of all .")])
# the last layer's features, too: SentenceTransformer("{{ folder }}").encode(["a text", "another one"])
"""
    capabilities = ("predict_tokens",)
    formula = r"-\frac{1}{|M|}\sum_{i \in M} \log p_\theta\left(t_i \mid t_{\setminus M}\right)"
    limits = (
        "It learned from texts with mask tokens, and is used on texts without: features of whole texts are not what it "
        "was trained for.",
        "The mean over tokens tells topic better than it tells meaning: for search and similarity, train further on "
        "pairs.",
        "What the texts say of people it repeats, when it fills in words.",
    )
    auto_class = AutoModelForMaskedLM

    def __init__(self, full_model: PreTrainedModel, task: MaskedLMTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        self.takes = set(inspect.signature(self.encoder.forward).parameters)
        self.first_position = positions(self.encoder)[0]
        self.post_init()

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """The `...ForMaskedLM` of a config (all fresh), of a bare encoder (its weights, a fresh head) or of one that
        has its head. Raises `ValueError` where the architecture has no such class."""
        config = encoder if isinstance(encoder, PreTrainedConfig) else getattr(encoder, "config", None)
        native = MODEL_FOR_MASKED_LM_MAPPING.get(type(config), None)
        if native is not None and type(encoder) is native:
            return encoder
        if native is None and config is not None:
            raise ValueError(
                f"transformers has no {config.model_type} for masked language modelling (AutoModelForMaskedLM). "
                "Take another architecture, as BERT, RoBERTa or ModernBERT."
            )
        if isinstance(encoder, PreTrainedConfig):
            return AutoModelForMaskedLM.from_config(copy.deepcopy(config), dtype=torch.float32)
        check_encoder(encoder, "text")
        full_model = AutoModelForMaskedLM.from_config(config).to(encoder.dtype)
        missing = full_model.base_model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
        if missing:  # a pooler may be too much; nothing may be too little
            raise ValueError(f"The encoder lacks weights of {type(full_model).__name__}: {', '.join(missing[:5])}.")
        return full_model

    @classmethod
    def complete(cls, task: MaskedLMTask, processors: Mapping[str, Any]) -> MaskedLMTask:
        """The tokenizer's mask token and special tokens. Raises `ValueError` for one without a mask token."""
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
        hidden, logits = self.predict(labels != IGNORED, input_ids=input_ids, **inputs)
        labels = labels[labels != IGNORED]  # (M,)
        loss = cross_entropy(logits, labels)
        logs = {"accuracy": (logits.argmax(-1) == labels).float().mean(), "perplexity": loss.exp()}
        if num_bytes is not None:
            logs["bits_per_byte"] = loss * allowed.sum() / num_bytes.sum() / math.log(2)
        features = pool(hidden, present)
        return self.output({"masked_lm": loss}, logs, features=features, logits=logits, labels=labels)

    def corrupt(self, input_ids: Tensor, allowed: Tensor, word_starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hides some of the allowed tokens: ids as the model sees them, and labels (`IGNORED` for all others), both
        `(B, L)`.

        Raises `ValueError` without a mask token, or without `word_starts` for a unit that needs them."""
        task, generator = self.task, self.generator()
        if task.unit != "token" and word_starts is None:
            raise ValueError(f"unit={task.unit!r} needs word_starts in the batch: True where a word begins.")
        starts = unit_starts(input_ids.shape, task.unit, word_starts, input_ids.device, generator)
        hidden = draw_units(allowed, starts, task.mask_ratio, generator)
        labels = input_ids.masked_fill(~hidden, IGNORED)
        shares = (task.replaced_by_mask, task.replaced_by_random)
        special, vocabulary = task.special_token_ids, self.config.vocab_size
        return replaced(input_ids, hidden, task.mask_token_id, vocabulary, shares, generator, special), labels

    def predict(self, hidden: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's last hidden states `(B, L, D)`, and the head's logits `(M, vocabulary)` where `hidden`.

        A head sees each token alone, so it is given the hidden ones as one sequence of M: whatever its architecture.
        """
        states = []

        def only_hidden(module, arguments, outputs):
            states.append(outputs.last_hidden_state)
            outputs["last_hidden_state"] = outputs.last_hidden_state[hidden][None]  # (1, M, D)
            return outputs

        handle = self.encoder.register_forward_hook(only_hidden)
        try:
            logits = self.full_model(**inputs).logits[0]
        finally:
            handle.remove()
        return states[0], logits

    def predict_tokens(self, masked: Tensor, **batch: Tensor) -> Tensor:
        """Logits of the tokens at `masked` positions (`(B, L)`, bool), which the ids replace already, row by row:
        `(M, vocabulary)`."""
        return self.predict(masked, **batch)[1]

    def inside_documents(self, document_ids: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        """The encoder's inputs that keep the documents of a packed sequence apart: attention and positions."""
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
        """Whether this architecture keeps the documents of a packed sequence apart, found out by trying: two documents
        side by side must come out as they do alone. Some drop a mask of this kind without a word.

        length: of the sequence, in tokens.
        """
        training, device, length = self.training, self.device, max(length, 3)  # or the first document is empty
        self.eval()
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.config.vocab_size, (1, length), generator=random).to(device)
        tokens[tokens == self.config.pad_token_id] = 0 if self.config.pad_token_id else 1  # RoBERTa does not count it
        documents = (torch.arange(length, device=device)[None] >= length // 3) + 1
        alone = torch.cat([self.encoder(tokens[documents == i][None]).last_hidden_state for i in (1, 2)], dim=1)
        together = self.encoder(tokens).last_hidden_state
        try:
            packed = self.encoder(tokens, **self.inside_documents(documents)).last_hidden_state
        except (TypeError, ValueError, RuntimeError, AttributeError):  # each architecture has its own
            return False
        finally:
            self.train(training)
        return bool((packed - alone).abs().max() < 0.01 * (together - alone).abs().max())


def document_mask(document_ids: Tensor, dtype: torch.dtype, near: int | None = None) -> Tensor:
    """What is added to attention scores so that each token sees its own document alone, `(B, 1, L, L)`.

    document_ids (`(B, L)`): 0 for padding, which sees itself. near: tokens see no further than this.
    """
    same = document_ids[:, :, None] == document_ids[:, None, :]
    if near is not None:
        at = torch.arange(document_ids.shape[1], device=document_ids.device)
        same = same & ((at[:, None] - at).abs() <= near)
    blocked = torch.zeros(same.shape, dtype=dtype, device=same.device)
    return blocked.masked_fill_(~same, torch.finfo(dtype).min)[:, None]


def positions_inside(document_ids: Tensor) -> Tensor:
    """Positions of tokens in their documents, from 0: `(B, L)`."""
    at = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return at - torch.where(begins, at, 0).cummax(1).values
