"""Masked language modelling: mask some of the tokens and predict them.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
NAACL 2019, https://huggingface.co/papers/1810.04805; spans after Joshi, Chen, Liu, Weld, Zettlemoyer and Levy,
"SpanBERT", TACL 2020, https://huggingface.co/papers/1907.10529

    input_ids (B, L) -> M masked tokens, labels (M,) -> encoder -> the architecture's head, on the M masked tokens only
    -> logits (M, vocabulary) -> cross-entropy

Optionally, whether two segments of a text are in order or follow each other is predicted too (`modules/
sentence_pairs.py`): pooled first token (B, D) -> logits (B, 2) -> cross-entropy
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, PreTrainedConfig, PreTrainedModel

from ..features import pool
from ..modeling import PretextModel, PretextOutput
from ..modules.cues import Question
from ..modules.distributed import over_all_ranks
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
from ..modules.native_head import logits_at, with_head
from ..modules.packing import Packing, present_tokens
from ..modules.sentence_pairs import Pairs, check_pairs, check_tokenizer_of_pairs, make_pairs, pair_prediction
from ..modules.token_cues import IN_PLACE, LEFT, NEIGHBOURS, POSITION, RIGHT
from ..presets import Preset, texts
from ..utils.settings import make_settings

PRESET = Preset(
    encoder=texts.wide_modernbert,
    large=texts.large_modernbert,
    tiny=texts.tiny_modernbert,
    dataset="shakespeare",
    samples=26_000,
    settings={**texts.SMALL, "mask_ratio": 0.4},
    for_large={**texts.LARGE, "mask_ratio": 0.3},
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
    pairs: also cut each text into two segments, and predict whether they are in order ("order", ALBERT) or whether the
        second one follows the first one in the same text ("next", BERT). Texts are then not packed. For BERT, ALBERT
        and others with such a head.
    """

    mask_ratio: float = 0.15
    replaced_by_mask: float = 0.8
    replaced_by_random: float = 0.1
    unit: Literal["token", "word", "span"] = "token"
    pairs: Literal["order", "next"] | None = None

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
    masked already, and with the setting `pairs` are pairs already: give token_type_ids (`(B, L)`) and pair_labels
    (`(B,)`: 1 for changed pairs, else 0). num_bytes (`(B,)`): length of each sequence in bytes of UTF-8, for
    bits_per_byte.

    Returns features (`(B, D)`), and logits (`(M, vocabulary)`) and labels (`(M,)`) of the M masked tokens, row by row.
    Logs: accuracy, perplexity, and with num_bytes bits_per_byte: the mean loss times the number of tokens, in bits per
    byte. It is not comparable with causal language models, because predictions use the tokens on both sides. With
    `pairs` also sentence_accuracy, with a chance level of 0.5. The checkpoint is then e.g. a `BertForPreTraining`.

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
    capabilities = ("predict_tokens", "ask")
    cues = (NEIGHBOURS, LEFT, RIGHT, IN_PLACE, POSITION)
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
    def auto_class_of(cls, task: MaskedLMTask) -> type:
        """Returns the auto class of `...ForMaskedLM`, or with `pairs` of `...ForPreTraining`."""
        return AutoModelForPreTraining if task.pairs else cls.auto_class

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "MaskedLMForPreTraining":
        """Builds the model as `PretextModel.from_encoder` does. With `pairs`, raises `ValueError` for an architecture
        without a native head for pairs."""
        task = make_settings(cls.task_class, **settings)
        model = cls(native_model(encoder, cls.auto_class_of(task)), task, parts)
        model.follow_full_model()
        return model

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """Returns a `...ForMaskedLM`, see `native_model`."""
        return native_model(encoder, cls.auto_class)

    @classmethod
    def complete(cls, task: MaskedLMTask, processors: Mapping[str, Any]) -> MaskedLMTask:
        """Fills in the tokenizer's mask token and special tokens. Raises `ValueError` if it has no mask token, and with
        `pairs` if it does not put one special token before and one after a text."""
        if task.pairs:
            check_tokenizer_of_pairs(processors["text"])
        return with_tokens_of(task, processors["text"])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        word_starts: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        pair_labels: Tensor | None = None,
        num_bytes: Tensor | None = None,
        **inputs: Tensor,
    ) -> PretextOutput:
        inputs |= self.packing.inputs(document_ids, attention_mask)
        present = present_tokens(input_ids, attention_mask, document_ids)
        allowed = without_special(input_ids, present, self.task.special_token_ids)
        count = allowed.sum()  # of the texts, before pairs are made of them
        if self.task.pairs and labels is None:
            made = self.paired(input_ids, present, word_starts, document_ids)
            input_ids, present, inputs["token_type_ids"], word_starts, pair_labels = made
            inputs["attention_mask"] = present.long()
            allowed = without_special(input_ids, present, self.task.special_token_ids)
        if self.task.pairs and pair_labels is None:
            raise ValueError("pairs needs pair_labels next to labels in the batch, but got None. Give a tensor (B,).")
        if labels is None:
            input_ids, labels = self.corrupt(input_ids, allowed, word_starts)
        where = positions_of(labels != IGNORED)
        hidden, logits, of_pairs = self.predict(where, input_ids=input_ids, **inputs)
        labels = labels[where]  # (M,)
        loss = cross_entropy(logits, labels) if len(labels) else logits.sum()  # 0 for a batch without words
        right = (logits.argmax(-1) == labels).sum()
        logs = {"accuracy": right / max(len(labels), 1), "perplexity": loss.exp()}
        if num_bytes is not None:
            logs["bits_per_byte"] = loss * count / num_bytes.sum() / math.log(2)
        losses = {"masked_lm": over_all_ranks(loss, len(labels)) if self.training else loss}
        if self.task.pairs:
            losses["sentences"], logs["sentence_accuracy"] = pair_prediction(of_pairs, pair_labels, self.training)
        features = pool(hidden, present)
        return self.output(losses, logs, features=features, logits=logits, labels=labels)

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

    def paired(
        self, input_ids: Tensor, present: Tensor, word_starts: Tensor | None, document_ids: Tensor | None
    ) -> Pairs:
        """Returns pairs of segments of the documents, see `make_pairs`. Raises `ValueError` for packed documents."""
        if document_ids is not None:
            raise ValueError(
                "pairs needs one document in each row of the batch, but got document_ids of packed sequences. Give "
                "input_ids and attention_mask."
            )
        padding = self.encoder.config.pad_token_id or 0
        return make_pairs(input_ids, present, word_starts, self.task.pairs, padding, self.generator())

    def predict(self, where: tuple[Tensor, Tensor], **inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns the encoder's last hidden states `(B, L, D)`, logits `(M, vocabulary)` of the masked tokens, and
        logits `(B, 2)` of the pairs, None without the setting `pairs`.

        where: rows and columns of the masked tokens, see `positions_of`."""
        hidden, outputs = logits_at(self.full_model, self.encoder, where, **inputs)
        return hidden, outputs[0][0], outputs[1] if self.task.pairs else None

    def predict_tokens(self, masked: Tensor, **batch: Tensor) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the masked tokens (`(B, L)`, bool), row by row. The input_ids of the
        batch have these tokens replaced already."""
        return self.predict(positions_of(masked), **batch)[1]

    def ask(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        word_starts: Tensor | None = None,
        document_ids: Tensor | None = None,
        num_bytes: Tensor | None = None,
    ) -> Question:
        """Asks which tokens are masked. The pairs of the setting `pairs` are made, but not asked about."""
        inputs = self.packing.inputs(document_ids, attention_mask)
        present = present_tokens(input_ids, attention_mask, document_ids)
        if self.task.pairs:
            made = self.paired(input_ids, present, word_starts, document_ids)
            input_ids, present, word_starts = made.input_ids, made.attention_mask, made.word_starts
            inputs |= {"attention_mask": present.long(), "token_type_ids": made.token_type_ids}
        allowed = without_special(input_ids, present, self.task.special_token_ids)
        unmasked = (input_ids, input_ids.masked_fill(~allowed, IGNORED))
        input_ids, labels = self.corrupt(input_ids, allowed, word_starts)
        return Question({"input_ids": input_ids, **inputs}, labels, self.config.vocab_size, unmasked=unmasked)

    def answer(self, asked: Tensor, **inputs: Tensor) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the tokens that are asked (`(B, L)`, bool), row by row."""
        return self.predict_tokens(asked, **inputs)

    def packs(self, length: int = 128) -> bool:
        """Returns whether this architecture separates the documents of a packed sequence, see `Packing.works`. With
        `pairs`, False: each row is one document."""
        return self.task.pairs is None and self.packing.works(length)


def native_model(encoder: PreTrainedModel | PreTrainedConfig, auto_class: type) -> PreTrainedModel:
    """Returns the model that `auto_class` has for an encoder, see `with_head`. Raises `ValueError` as `with_head` does,
    and for `AutoModelForPreTraining` as `check_pairs` does."""
    config = encoder if isinstance(encoder, PreTrainedConfig) else getattr(encoder, "config", None)
    if auto_class is AutoModelForPreTraining and config is not None:
        check_pairs(config)
    return with_head(encoder, auto_class, "masked language modelling", "BERT, RoBERTa or ModernBERT")
