"""Causal language modelling: predict each token of a text from the tokens before it.

Radford, Narasimhan, Salimans and Sutskever, "Improving Language Understanding by Generative Pre-Training", 2018,
https://huggingface.co/openai-community/openai-gpt; packed documents that do not see each other as in Llama 3,
https://huggingface.co/papers/2407.21783

    input_ids (B, L) -> encoder -> the architecture's head, on the M tokens with a successor in their document only
    -> logits (M, vocabulary) -> cross-entropy with the successors (M,)
"""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from ..data.corpus import document_tokens, special_tokens
from ..encoders import tried
from ..features import pool
from ..modeling import PretextModel, PretextOutput
from ..modules.cues import Question
from ..modules.distributed import over_all_ranks
from ..modules.losses import cross_entropy, widened
from ..modules.masking import IGNORED, positions_of
from ..modules.native_head import logits_at, with_head
from ..modules.packing import Packing, present_tokens
from ..modules.token_cues import LEFT, POSITION, TWO_BEFORE
from ..presets import Preset, texts

PRESET = Preset(
    encoder=texts.llama,
    large=texts.large_llama,
    tiny=texts.tiny_llama,
    dataset="shakespeare",
    samples=26_000,
    settings={**texts.SMALL, "tokenizer_kind": "bpe"},
    for_large=texts.LARGE,
)

TRIED_TOKENS = 4
LEAK = 1e-3  # smaller differences of hidden states are rounding


@strict
@dataclass
class CausalLMTask:
    """Settings of causal language modelling.

    bos_token_id: id of the token that begins a document, for `generate`; a recipe takes it from the tokenizer.
    eos_token_id: id of the token that ends a document, for `generate`; a recipe takes it from the tokenizer.
    pad_token_id: id of the padding token, for `generate`; a recipe takes it from the tokenizer.
    """

    _argument_group_name: ClassVar[str] = "objective"

    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None


class CausalLMForPreTraining(PretextModel):
    """A text encoder that learns by predicting the next token, with transformers' `...ForCausalLM` of its architecture.

    The checkpoint has that class: `AutoModelForCausalLM`, `AutoModel` and `pipeline("text-generation")` load it. The
    head over the vocabulary runs only on tokens whose next token is predicted.

    forward: input_ids (`(B, L)`), attention_mask (`(B, L)`, 1 for tokens, 0 for padding). document_ids (`(B, L)`: 1, 2,
    ... for the documents of a packed sequence, 0 for padding): replaces attention_mask; attention stays inside each
    document, positions restart in each, and its first token is not predicted. A document of one token predicts nothing;
    a batch of such documents is an error. labels (`(B, L)`, `IGNORED` for tokens that are not predicted): default: all
    tokens; as in transformers, the label of a token is the token itself, and is predicted from those before it.
    num_bytes (`(B,)`): length of each sequence in bytes of UTF-8, for bits_per_byte.

    A tokenizer that adds no end token, like GPT-2's, is needed, because a prompt has no end. In training, `Corpus` adds
    the end token after each document, so that it is predicted. A piece of a long document has the start token only if
    it is the first, and the end token only if it is the last.

    Returns features (`(B, D)`): the mean over tokens; logits (`(M, vocabulary)`) and labels (`(M,)`) of the M predicted
    tokens, row by row. Logs: accuracy, perplexity, and with num_bytes bits_per_byte: of the predicted tokens, without
    the first token of a document (which is the start token, if the tokenizer has one).

    Example:
        >>> model = CausalLMForPreTraining.from_encoder(LlamaConfig(hidden_size=64, num_attention_heads=2))
        >>> model(input_ids=torch.randint(1000, 2000, (2, 40))).logits.shape
        torch.Size([78, 32000])
    """

    objective = "causal_lm"
    task_class = CausalLMTask
    inputs = ("text",)
    pipeline_tag = "text-generation"
    usage = """
import torch
from transformers import AutoModel, AutoTokenizer, pipeline

tokenizer = AutoTokenizer.from_pretrained("{{ folder }}")
encoder = AutoModel.from_pretrained("{{ folder }}")
batch = tokenizer(["a text", "another one"], padding=True, padding_side="right", return_tensors="pt")
with torch.no_grad():
    hidden = encoder(**batch{{ hidden_of }}
mask = batch["attention_mask"].unsqueeze(-1)
features = (hidden * mask).sum(1) / mask.sum(1)  # mean over tokens: input of the first probe under "Transfer"
print(encoder.__class__.__name__, features.shape)

torch.manual_seed(0)  # the text is drawn at random
generate = pipeline("text-generation", model="{{ folder }}")
print(generate("this is the best", max_new_tokens=20, do_sample=True)[0]["generated_text"])
# for features of the last layer: SentenceTransformer("{{ folder }}").encode(["a text", "another one"])
"""
    capabilities = ("log_likelihood", "ask")
    cues = (LEFT, TWO_BEFORE, POSITION)
    fixed_options = MappingProxyType({"add_eos_token": (False, "a prompt has no end")})
    formula = r"-\frac{1}{N}\sum_{i} \log p_\theta\left(t_i \mid t_{<i}\right)"
    limits = (
        "The hidden state of a token represents only the text up to this token, so the mean over tokens represents the "
        "beginning of a text better than its end. The encoder is not trained to give features of whole texts.",
        "Generated texts repeat what the training texts say about people, including biases, and state things that are "
        "not true. The model follows no instructions.",
    )
    auto_class = AutoModelForCausalLM

    def __init__(self, full_model: PreTrainedModel, task: CausalLMTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        if getattr(full_model.config, "output_router_logits", False):
            raise ValueError(
                f"The config of {type(full_model).__name__} has output_router_logits=True, which adds a loss of the "
                "routers that causal_lm does not compute. Set it to False."
            )
        self.packing = Packing(self.encoder, causal=True)
        no_cache = "use_cache" in inspect.signature(self.encoder.forward).parameters
        self.options = {"use_cache": False} if no_cache else {}
        set_tokens(full_model, {name: value for name, value in vars(task).items() if value is not None})
        self.post_init()

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """Returns a `...ForCausalLM`. encoder: a config (random weights), an encoder without a head (keeps its weights,
        random head), or a `...ForCausalLM` (returned unchanged). Raises `ValueError` if transformers has no causal
        language model of this architecture, if the encoder lacks weights of the full model (except the head's), or if
        it sees later tokens."""
        examples = "Llama, GPT-2 or Qwen"
        full_model = with_head(encoder, AutoModelForCausalLM, "causal language modelling", examples)
        if not any(p.is_meta for p in full_model.parameters()):
            check_causal(full_model.base_model)
        return full_model

    @classmethod
    def complete(cls, task: CausalLMTask, processors: Mapping[str, Any]) -> CausalLMTask:
        """Fills in the tokenizer's start, end and padding token.

        Raises `ValueError` for a tokenizer without an end token, and for one that adds it to each text."""
        tokenizer = processors["text"]
        name, added = type(tokenizer).__name__, special_tokens(tokenizer)[1]
        if len(added):
            token = tokenizer.decode(added)
            raise ValueError(
                f"The tokenizer ({name}) adds {token} after each text, so prompts would end before the model writes. "
                "Give a --tokenizer of a causal language model, or leave it out to train one."
            )
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"The tokenizer ({name}) has no end token (eos_token), so the model would not learn where texts end. "
                'Set one and save the tokenizer: tokenizer.add_special_tokens({"eos_token": "</s>"}).'
            )
        before, after = document_tokens(tokenizer)
        ids = {"eos_token_id": int(after[-1]), "pad_token_id": tokenizer.pad_token_id}
        ids["bos_token_id"] = int(before[0]) if len(before) else tokenizer.bos_token_id
        return dataclasses.replace(task, **{name: value for name, value in ids.items() if getattr(task, name) is None})

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_bytes: Tensor | None = None,
        word_starts: Tensor | None = None,
        **inputs: Tensor,
    ) -> PretextOutput:
        inputs |= self.packing.inputs(document_ids, attention_mask)
        present = present_tokens(input_ids, attention_mask, document_ids)
        if labels is None:
            labels = self.next_tokens(input_ids.masked_fill(~present, IGNORED), document_ids, present)
        else:
            labels = self.next_tokens(labels, document_ids)
        where = positions_of(labels != IGNORED)
        if not len(where[0]):
            raise ValueError(
                f"The batch of {len(input_ids)} sequences has no token to predict: each document has only one token. "
                "Give documents of at least two tokens, for example with an end token."
            )
        hidden, logits = self.predict(where, input_ids=input_ids, **inputs)
        labels = labels[where]  # (M,)
        loss = cross_entropy(logits, labels)
        logs = {"accuracy": (logits.argmax(-1) == labels).float().mean(), "perplexity": loss.exp()}
        if num_bytes is not None:
            logs["bits_per_byte"] = loss * len(labels) / num_bytes.sum() / math.log(2)
        loss = over_all_ranks(loss, len(labels)) if self.training else loss
        features = pool(hidden, present)
        return self.output({"causal_lm": loss}, logs, features=features, logits=logits, labels=labels)

    @staticmethod
    def next_tokens(labels: Tensor, document_ids: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Returns the label of the token after each one, `(B, L)`: `IGNORED` at the end of a row and of a document, and
        at padding before a text. labels, document_ids, present (bool): `(B, L)`."""
        following = labels[:, 1:]
        if present is not None:
            following = following.masked_fill(~present[:, :-1], IGNORED)
        if document_ids is not None:
            following = following.masked_fill(document_ids[:, 1:] != document_ids[:, :-1], IGNORED)
        return F.pad(following, (0, 1), value=IGNORED)

    def predict(self, where: tuple[Tensor, Tensor], **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the encoder's last hidden states `(B, L, D)`, and logits `(M, vocabulary)` of the tokens after those
        at `where`.

        where: rows and columns, see `positions_of`."""
        base = self.full_model.get_decoder()  # of OPT: inside its encoder
        hidden, outputs = logits_at(self.full_model, base, where, **{**inputs, **self.options})
        return hidden, outputs[0][0]

    def ask(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        num_bytes: Tensor | None = None,
        word_starts: Tensor | None = None,
    ) -> Question:
        """Asks for each token but the first of a document. Its label is in its place, from where it is not read."""
        present = present_tokens(input_ids, attention_mask, document_ids)
        following = self.next_tokens(input_ids.masked_fill(~present, IGNORED), document_ids, present)
        labels = F.pad(following[:, :-1], (1, 0), value=IGNORED)
        inputs = {"input_ids": input_ids, **self.packing.inputs(document_ids, attention_mask)}
        return Question(inputs, labels, self.config.vocab_size)

    def answer(self, asked: Tensor, **inputs: Tensor) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the tokens that are asked (`(B, L)`, bool, without the first
        column), row by row."""
        rows, columns = positions_of(asked)
        return self.predict((rows, columns - 1), **inputs)[1]

    def packs(self, length: int = 128) -> bool:
        """Returns whether this architecture separates the documents of a packed sequence, see `Packing.works`."""
        return self.packing.works(length)

    @torch.no_grad()
    def log_likelihood(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns the natural logarithm of the probability of each text given its first token, `(B,)`, in float32 or
        higher precision: the sum over its other tokens. input_ids, attention_mask (1 for tokens): `(B, L)`."""
        present = attention_mask.bool()
        labels = self.next_tokens(input_ids.masked_fill(~present, IGNORED), present=present)
        where = positions_of(labels != IGNORED)
        logits = self.predict(where, input_ids=input_ids, attention_mask=attention_mask)[1]
        losses = F.cross_entropy(widened(logits), labels[where], reduction="none")
        return losses.new_zeros(len(input_ids)).index_add(0, where[0], -losses)


def check_causal(encoder: PreTrainedModel) -> None:
    """Raises `ValueError` for an encoder whose hidden state of a token depends on later tokens, like BERT's without
    `is_decoder`: it would see what it has to predict."""
    ids = torch.randint(encoder.config.vocab_size, (1, TRIED_TOKENS), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, -1] = (ids[:, -1] + 1) % encoder.config.vocab_size
    with tried(encoder):
        first, second = (encoder(one.to(encoder.device)).last_hidden_state[:, :-1] for one in (ids, other))
    if (first - second).abs().max() > LEAK * first.abs().max():
        raise ValueError(
            f"{type(encoder).__name__} sees later tokens, so the next token is no task for it. Set is_decoder=True in "
            "its config, or choose another architecture, for example Llama, GPT-2 or Qwen."
        )


def set_tokens(full_model: PreTrainedModel, ids: Mapping[str, int]) -> None:
    """Writes token ids to the configs of a model and of its generation, so that `generate` begins and ends texts as in
    training. They replace other ids; a list that contains the id is kept."""
    generation = full_model.generation_config or GenerationConfig()
    for config in (full_model.config, generation):
        for name, value in ids.items():
            known = getattr(config, name, None)
            if known != value and not (isinstance(known, list) and value in known):
                setattr(config, name, value)
    full_model.generation_config = generation
