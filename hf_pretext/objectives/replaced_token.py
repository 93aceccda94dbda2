"""Replaced token detection: predict for each token of a text whether a small generator replaced it.

Clark, Luong, Le and Manning, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", ICLR 2020,
https://huggingface.co/papers/2003.10555

    input_ids (B, L) -> M masked tokens -> generator -> logits (M, vocabulary) -> cross-entropy
    logits -> sampled tokens (M,), without gradient -> input_ids (B, L) with replaced tokens -> encoder -> head
    -> logits (B, L) -> binary cross-entropy over all real tokens
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import ElectraForPreTraining, PreTrainedConfig, PreTrainedModel

from ..features import pool, width
from ..modeling import PretextModel, PretextOutput
from ..modules.cues import Question
from ..modules.distributed import weights_of_rank
from ..modules.electra import AutoDiscriminator, build_generator, discriminator, generator_sizes
from ..modules.losses import cross_entropy, widened
from ..modules.masking import (
    IGNORED,
    MaskTask,
    check_share,
    draw_masked,
    positions_of,
    sampled,
    with_tokens_of,
    without_special,
)
from ..modules.native_head import logits_at
from ..modules.packing import Packing, present_tokens
from ..modules.token_cues import LEFT_AND_TOKEN, NEIGHBOURS, POSITION, TOKEN, TOKEN_AND_RIGHT
from ..modules.wrong_pairs import balanced_accuracy
from ..presets import Preset, texts

PRESET = Preset(
    encoder=texts.three_layers,
    large=texts.large_modernbert,
    tiny=texts.tiny_modernbert,
    dataset="shakespeare",
    samples=31_000,
    settings={
        **texts.SMALL,
        "generator_size": 0.67,
        "mask_ratio": 0.25,
        "discriminator_weight": 5.0,
    },
    for_large={**texts.LARGE, "generator_size": 0.5, "mask_ratio": 0.15, "discriminator_weight": 50.0},
)
USAGE = """
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{{ folder }}")
encoder = AutoModel.from_pretrained("{{ folder }}")
batch = tokenizer(["a text", "a second one"], padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = encoder(**batch{{ hidden_of }}
mask = batch["attention_mask"].unsqueeze(-1)
features = (hidden * mask).sum(1) / mask.sum(1)  # mean over tokens: input of the first probe under "Transfer"
print(encoder.__class__.__name__, features.shape)

{% if encoder["class"] == "ElectraModel" %}
from transformers import AutoModelForPreTraining

detector = AutoModelForPreTraining.from_pretrained("{{ folder }}")
with torch.no_grad():
    logits = detector(**tokenizer("this is the best of banana .", return_tensors="pt")).logits[0]
print((logits > 0).tolist())  # True: the token looks replaced
{% endif %}
"""


@strict
@dataclass
class ReplacedTokenTask(MaskTask):
    """Settings of replaced token detection.

    mask_ratio: share of each sequence's tokens that the generator fills; at least one token.
    unit: tokens that are filled together: single tokens, words, or spans of words.
    generator_size: size of the generator, as a share of the encoder's: width, attention heads and feed-forward width
        for ELECTRA, with as many layers; number of layers for other architectures, with the same width (DeBERTaV3).
    discriminator_weight: weight of the encoder's loss, next to the generator's with weight 1.
    temperature: divides the generator's logits when tokens are sampled; below 1, replaced tokens fit better.
    """

    mask_ratio: float = 0.15
    unit: Literal["token", "word", "span"] = "token"
    generator_size: float = 0.25
    discriminator_weight: float = 50.0
    temperature: float = 1.0

    def validate_shares(self):
        check_share("mask_ratio", self.mask_ratio)
        if not 0 < self.generator_size <= 1:
            raise ValueError(
                f"generator_size must be above 0 and at most 1, but is {self.generator_size}: a generator larger than "
                "its encoder replaces tokens so well that the encoder learns little. Give for example 0.25."
            )
        for name in ("discriminator_weight", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, but is {getattr(self, name)}.")


class ReplacedTokenForPreTraining(PretextModel):
    """A text encoder that learns to detect tokens that a small masked language model replaced (ELECTRA).

    The checkpoint of an ELECTRA encoder is an `ElectraForPreTraining`, with its head: `AutoModelForPreTraining` and
    `AutoModel` load it. That of any other encoder of texts is the plain encoder; its head is in pretext.safetensors.

    The generator is a masked language model of the encoder's architecture (`AutoModelForMaskedLM`). Its sizes are in
    config.json (`parts`), its weights in pretext.safetensors. It shares the encoder's embeddings, which are stored
    once, in model.safetensors: all of them for ELECTRA, else those of tokens. Its output layer uses the same table, if
    its own has that shape. After training, only the encoder is needed, but the generator opens with plain transformers
    too: `load(folder).token_generator.save_pretrained(other)`, then `AutoModelForMaskedLM`.

    forward: input_ids (`(B, L)`), attention_mask (`(B, L)`, 1 for tokens, 0 for padding). word_starts, document_ids:
    see `MaskedLMForPreTraining`. labels (`(B, L)`, `IGNORED` for tokens that are not masked): if given, input_ids are
    masked already. num_bytes is accepted, but not used.

    The encoder gets input_ids in which the masked tokens are samples of the generator, never special tokens. A masked
    token that was sampled as it was counts as original. No gradient passes through the sample. In training, each loss
    is the mean over the tokens of all ranks.

    Returns features (`(B, D)`), logits (`(B, L)`: above 0 for tokens that are predicted to be replaced) and labels
    (`(B, L)`: 1 for replaced, 0 for original, `IGNORED` for padding). Logs: generator_accuracy on masked tokens;
    replaced, the share of real tokens; accuracy, the mean of the accuracy on replaced and on original tokens (chance
    0.5); precision and recall of replaced tokens.

    Example:
        >>> model = ReplacedTokenForPreTraining.from_encoder(ElectraConfig(), mask_token_id=103)
        >>> model(input_ids=torch.randint(1000, 2000, (2, 40))).logits.shape
        torch.Size([2, 40])
    """

    objective = "replaced_token"
    task_class = ReplacedTokenTask
    inputs = ("text",)
    auto_class = AutoDiscriminator
    capabilities = ("ask",)
    cues = (LEFT_AND_TOKEN, TOKEN_AND_RIGHT, TOKEN, NEIGHBOURS, POSITION)
    token_classes = 2  # original, replaced
    usage = USAGE
    formula = (
        r"-\frac{1}{|M|}\sum_{i \in M} \log p_G\left(t_i \mid t_{\setminus M}\right) - \frac{\lambda}{n}\sum_{i=1}^{n} "
        r"\left[r_i \log D_i(\hat t) + (1 - r_i) \log\left(1 - D_i(\hat t)\right)\right], \quad \hat t_i \sim p_G "
        r"\text{ for } i \in M, \quad r_i = [\hat t_i \ne t_i]"
    )
    limits = (
        "The encoder is trained to distinguish tokens, not to give features of whole texts. For search and similarity "
        "of texts, fine-tune it on pairs of texts.",
        "It can't fill in masked words: only the generator does, which is smaller and is not part of the encoder.",
        "Which tokens look replaced depends on the generator, and so on what its training texts say about people, "
        "including biases.",
    )

    def __init__(self, full_model: PreTrainedModel, task: ReplacedTokenTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        if not parts:
            self.parts = {"generator": generator_sizes(self.encoder, task.generator_size)}
        self.token_generator = build_generator(self.encoder, self.parts["generator"])
        check_tokens(task, self.token_generator.config.vocab_size)
        self.pretext_head = None
        if not isinstance(full_model, ElectraForPreTraining):
            wide = width(self.encoder)
            self.pretext_head = nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, 1))
        self.packings = [Packing(model) for model in (self.token_generator.base_model, self.encoder)]
        self.post_init()

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """See `discriminator`."""
        return discriminator(encoder)

    @classmethod
    def complete(cls, task: ReplacedTokenTask, processors: Mapping[str, Any]) -> ReplacedTokenTask:
        """Fills in the tokenizer's mask token and special tokens. Raises `ValueError` if it has no mask token."""
        return with_tokens_of(task, processors["text"])

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        full = self.full_model
        return {"text": full.electra if isinstance(full, ElectraForPreTraining) else full}

    def trained_encoders(self) -> list[PreTrainedModel]:
        """Returns the encoder and the generator."""
        return [*super().trained_encoders(), self.token_generator.base_model]

    def kept_outside(self) -> set[str]:
        """See `NativeCheckpoint.kept_outside`. The generator is saved without the embeddings that it shares."""
        state = self.state_dict(keep_vars=True)
        shared = {id(parameter) for parameter in self.full_model.parameters()}
        return {name for name in super().kept_outside() if id(state[name]) not in shared}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        word_starts: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_bytes: Tensor | None = None,
    ) -> PretextOutput:
        inputs = [packing.inputs(document_ids, attention_mask) for packing in self.packings]
        present = present_tokens(input_ids, attention_mask, document_ids)
        generator = self.generator()
        if labels is None:
            input_ids, labels = self.corrupt(input_ids, present, word_starts, generator)
        filled, replaced, guesses, words = self.fill(input_ids, labels, generator, **inputs[0])
        hidden, logits = self.discriminate(input_ids=filled, **inputs[1])
        labels = replaced.long().masked_fill(~present, IGNORED)
        losses = self.losses(guesses, words, logits, labels)
        logs = {"generator_accuracy": (guesses.argmax(-1) == words).sum() / max(len(words), 1)}
        logs |= detection(logits, labels)
        return self.output(losses, logs, features=pool(hidden, present), logits=logits, labels=labels)

    def corrupt(
        self, input_ids: Tensor, present: Tensor, word_starts: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Masks some of the present tokens. input_ids, present, word_starts: `(B, L)`.

        Returns the ids with mask tokens, and labels (`IGNORED` for tokens that are not masked): `(B, L)` each. Raises
        `ValueError` if `mask_token_id` is not set, and if `unit` needs `word_starts` and gets none."""
        task = self.task
        if task.mask_token_id is None:
            raise ValueError("mask_token_id is not set. Give the tokenizer's: mask_token_id=tokenizer.mask_token_id.")
        allowed = without_special(input_ids, present, task.special_token_ids)
        masked = draw_masked(allowed, task.mask_ratio, task.unit, word_starts, generator)
        return input_ids.masked_fill(masked, task.mask_token_id), input_ids.masked_fill(~masked, IGNORED)

    def fill(
        self, input_ids: Tensor, labels: Tensor, generator: torch.Generator | None, **inputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fills masked tokens with samples of the token generator. input_ids, labels: see `corrupt`.

        Returns the ids, and which of them are not the original ones (bool): `(B, L)` each; the logits of the M masked
        tokens, `(M, vocabulary)`, and the original ones, `(M,)`."""
        where, original = positions_of(labels != IGNORED), torch.where(labels == IGNORED, input_ids, labels)
        guesses = self.guess(where, input_ids=input_ids, **inputs)
        filled = original.index_put(where, self.sample(guesses, generator))
        return filled, filled != original, guesses, labels[where]

    def guess(self, where: tuple[Tensor, Tensor], **inputs: Tensor) -> Tensor:
        """Returns the generator's logits of the masked tokens, `(M, vocabulary)`. where: see `positions_of`."""
        return logits_at(self.token_generator, self.token_generator.base_model, where, **inputs)[1][0][0]

    def sample(self, guesses: Tensor, generator: torch.Generator | None) -> Tensor:
        """Samples a token from each row of the generator's logits, `(M, vocabulary)` to `(M,)`.

        Special tokens are never sampled: padding would shift the positions of some encoders, and the others would be
        detected too easily."""
        task = self.task
        special = {*(task.special_token_ids or ()), task.mask_token_id} - {None}
        return sampled(guesses.detach(), task.temperature, sorted(special), generator)

    def discriminate(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the encoder's last hidden states `(B, L, D)`, and for each token the logit that it was replaced,
        `(B, L)`."""
        hidden = self.encoder(**inputs).last_hidden_state
        if self.pretext_head is None:
            return hidden, self.full_model.discriminator_predictions(hidden)
        return hidden, self.pretext_head(hidden).squeeze(-1)

    def losses(self, guesses: Tensor, words: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns the losses of generator and encoder, weighted, `()` each.

        guesses (`(M, vocabulary)`), words (`(M,)`): of masked tokens. logits, labels (`(B, L)`): of all tokens."""
        logits, real = widened(logits), labels != IGNORED
        each = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits.dtype), reduction="none")
        count = real.sum().to(logits.dtype)
        of_encoder = (each * real).sum() / count.clamp(min=1)
        of_generator = cross_entropy(guesses, words) if len(words) else guesses.sum()  # 0 for a batch without words
        weights = weights_of_rank(torch.stack([torch.full_like(count, len(words)), count]), self.training)
        return {
            "generator": weights[0] * of_generator,
            "discriminator": self.task.discriminator_weight * weights[1] * of_encoder,
        }

    def ask(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        word_starts: Tensor | None = None,
        document_ids: Tensor | None = None,
        num_bytes: Tensor | None = None,
    ) -> Question:
        """Asks of each token whether it was replaced, 1, or not, 0."""
        inputs = [packing.inputs(document_ids, attention_mask) for packing in self.packings]
        present = present_tokens(input_ids, attention_mask, document_ids)
        generator = self.generator()
        masked = self.corrupt(input_ids, present, word_starts, generator)
        filled, replaced, _, _ = self.fill(*masked, generator, **inputs[0])
        labels = replaced.long().masked_fill(~present, IGNORED)
        return Question({"input_ids": filled, **inputs[1]}, labels, self.token_classes)

    def answer(self, asked: Tensor, **inputs: Tensor) -> Tensor:
        """Returns the logits `(M, 2)` of the tokens that are asked (`(B, L)`, bool), row by row."""
        replaced = self.discriminate(**inputs)[1][positions_of(asked)]
        return torch.stack([torch.zeros_like(replaced), replaced], dim=1)

    def packs(self, length: int = 128) -> bool:
        """Returns whether encoder and generator separate the documents of a packed sequence, see `Packing.works`."""
        return all(packing.works(length) for packing in self.packings)


def detection(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Returns metrics of detected tokens, `()` each: see the logs of `ReplacedTokenForPreTraining`.

    logits, labels: `(B, L)`. Labels `IGNORED` are left out."""
    replaced, detected = labels == 1, (logits > 0) & (labels != IGNORED)
    right = (replaced & detected).sum()
    return {
        "accuracy": balanced_accuracy(logits, labels),
        "replaced": replaced.sum() / (labels != IGNORED).sum().clamp(min=1),
        "precision": right / detected.sum().clamp(min=1),
        "recall": right / replaced.sum().clamp(min=1),
    }


def check_tokens(task: MaskTask, vocabulary: int) -> None:
    """Raises `ValueError` for a mask token or special tokens that are not in the vocabulary of the encoder."""
    for name, ids in (("mask_token_id", [task.mask_token_id]), ("special_token_ids", task.special_token_ids or [])):
        wrong = [token for token in ids if token is not None and not 0 <= token < vocabulary]
        if wrong:
            raise ValueError(
                f"{name}: the token {wrong[0]} is not in the encoder's vocabulary of {vocabulary:,} tokens. Give the "
                "ids of the tokenizer that the encoder was made for, or an encoder with the tokenizer's vocabulary."
            )
