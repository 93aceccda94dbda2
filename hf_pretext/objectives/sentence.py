"""Vectors of texts: recognise a text among others by its vector, or rebuild it from the vector of a part of its words.

SimCSE: Gao, Yao and Chen, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", EMNLP 2021,
https://huggingface.co/papers/2104.08821. TSDAE: Wang, Reimers and Gurevych, "TSDAE: Using Transformer-based Sequential
Denoising Auto-Encoder for Unsupervised Sentence Embedding Learning", Findings of EMNLP 2021,
https://huggingface.co/papers/2104.06979

    simcse: input_ids (B, L) -> encoder, twice, with other dropout -> (B, D), (B, D) -> scores (B, B) -> cross-entropy
    tsdae: input_ids (B, L) -> without some words -> encoder -> (B, D) -> decoder -> logits (M, vocabulary)
"""

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..features import Pooling, width
from ..modeling import EVAL_SEED, PretextModel, PretextOutput
from ..modules.caption_tokens import bare, shifted, tokens_of, tokens_of_config
from ..modules.cues import Question
from ..modules.distributed import over_all_ranks
from ..modules.dual_encoder import normalised
from ..modules.losses import cross_entropy
from ..modules.masking import IGNORED, check_share, draw_units, positions_of
from ..modules.text_decoder import Tied, decode, names_of_shared, text_decoder
from ..modules.text_vectors import check_dropout, check_vectors, simcse, vectors_of, with_dropout
from ..modules.token_cues import LEFT, POSITION, TWO_BEFORE
from ..presets import Preset, texts
from ..utils.ranks import rank_and_ranks

PRESET = Preset(
    encoder=texts.modernbert_with_dropout,
    large=texts.large_modernbert_with_dropout,
    tiny=texts.tiny_modernbert_with_dropout,
    dataset="shakespeare",
    samples=43_000,
    settings={**texts.SMALL, "method": "tsdae", "max_length": 128, "per_device_train_batch_size": 32},
    for_large={**texts.LARGE, "max_length": 128},
)

OF_METHOD = {  # settings that only one method uses
    "simcse": ("temperature", "mlp_head", "negative_column"),
    "tsdae": ("delete_ratio", "tied", "decoder_layers"),
}

USAGE = """
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{{ folder }}")
encoder = AutoModel.from_pretrained("{{ folder }}")
batch = tokenizer(["a text", "another one"], padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = encoder(**batch).last_hidden_state
{% if objective.pooling == "cls" -%}
vectors = hidden[:, 0]
{% else -%}
mask = batch["attention_mask"].unsqueeze(-1)
vectors = (hidden * mask).sum(1) / mask.sum(1)
{% endif -%}
print(encoder.__class__.__name__, torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0).shape)
# the same vectors: SentenceTransformer("{{ folder }}").encode(["a text", "another one"])
"""
FORMULA = (
    r"\text{simcse: } -\frac{1}{B}\sum_i \log \frac{e^{\cos(h_i, h_i^+) / \tau}}{\sum_j e^{\cos(h_i, h_j^+) / \tau}"
    r" + \sum_j e^{\cos(h_i, h_j^-) / \tau}}; \quad \text{tsdae: } -\frac{1}{N}\sum_{t=1}^{T+1} \log "
    r"p_\theta\left(w_t \mid w_{<t}, h(\tilde{w})\right); \quad h \text{ is the vector of a text, } h^+ \text{ of "
    r"another pass, } h^- \text{ of a hard negative, } \tilde{w} \text{ the text without the deleted words}"
)
LIMITS = (
    "SimCSE: other texts of a batch count as different in meaning, even if they are not. Texts of a corpus about "
    "one topic are pushed apart, and so are equal texts of one batch.",
    "TSDAE: the vector has to contain the words of a text rather than its meaning.",
    "What makes two texts similar is not defined by the data. For search or similarity, fine-tune the encoder on "
    "pairs of texts.",
)


@strict
@dataclass
class SentenceTask:
    """Settings of vectors of texts.

    method: simcse: two passes of a text with different dropout give vectors that are closer to each other than to those
        of other texts; tsdae: a decoder rebuilds a text from the vector of a part of its words.
    pooling: vector of a text: mean over its tokens, or the first token (cls, as in both papers).
    temperature: simcse: the cosines are divided by it.
    mlp_head: simcse: in training, the vectors pass through a layer with tanh, which the checkpoint's encoder lacks.
    negative_column: simcse: column of the training data with a text that differs in meaning from the text of its row: a
        negative for all texts, in addition to the other texts of the batch. Default: none.
    delete_ratio: tsdae: share of the tokens of a text that are deleted, whole words; at least one word is left.
    tied: tsdae: weights that decoder and encoder share. embeddings: those of the tokens, which must be as wide as the
        hidden states; all: all that both have, as in the paper, for architectures that have a decoder with
        cross-attention, such as BERT; none.
    decoder_layers: tsdae: layers of the decoder. Default: 1, or with tied=all those of the encoder.
    start_token_id: tsdae: id of the token before the first word; a recipe takes it from the tokenizer, as the next two.
    end_token_id: tsdae: id of the token after the last word.
    pad_token_id: tsdae: id of the token that fills rows.
    """

    _argument_group_name: ClassVar[str] = "objective"

    method: Literal["simcse", "tsdae"] = "simcse"
    pooling: Pooling = "mean"
    temperature: float = 0.05
    mlp_head: bool = True
    negative_column: str | None = None
    delete_ratio: float = 0.6
    tied: Tied = "embeddings"
    decoder_layers: int | None = None
    start_token_id: int | None = None
    end_token_id: int | None = None
    pad_token_id: int | None = None

    def validate_values(self):
        check_share("delete_ratio", self.delete_ratio)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, but is {self.temperature}.")
        if self.decoder_layers is not None and self.decoder_layers < 1:
            raise ValueError(f"decoder_layers must be at least 1, but is {self.decoder_layers}.")
        if self.decoder_layers is not None and self.tied == "all":
            raise ValueError(
                f"decoder_layers={self.decoder_layers} has no effect with tied='all': the decoder has the layers of "
                "the encoder. Leave it out."
            )

    def validate_method(self):
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for method, names in OF_METHOD.items():
            unused = [name for name in names if getattr(self, name) != defaults[name]]
            if method != self.method and unused:
                raise ValueError(
                    f"{unused[0]}={getattr(self, unused[0])!r} has no effect with method={self.method!r}. Leave it "
                    f"out, or set method={method!r}."
                )


class SentenceForPreTraining(PretextModel):
    """A text encoder that learns to give each text one vector, by SimCSE or by TSDAE.

    The checkpoint is the encoder: `AutoModel` and `SentenceTransformer` load it. The head of SimCSE or the decoder of
    TSDAE is in pretext.safetensors; weights that the decoder shares with the encoder are stored once, with the encoder.
    Embeddings are tied by default: another matrix of vocabulary x width would be most of the weights of a small model.

    forward: input_ids (`(B, L)`, one text a row), attention_mask (`(B, L)`, 1 for tokens; default: all are tokens).
    simcse: negative_input_ids and negative_attention_mask (`(B, S)`): a hard negative of each text. In training, the
    batches of all ranks form one batch. In `eval()` dropout stays on, with a fixed seed: it is the corruption.
    tsdae: word_starts (`(B, L)`, True at the first token of a word): words are deleted; without it, single tokens.

    Returns features (`(B, D)`, before the head; in `eval()` of texts without corruption). tsdae: logits (`(M,
    vocabulary)`) and labels (`(M,)`) of all tokens and ends. Logs: accuracy of finding the other pass of a text among
    the texts of this rank, see `text_vectors.simcse`; of tsdae, accuracy and perplexity of the next token.

    Example:
        >>> model = SentenceForPreTraining.from_encoder(BertConfig())
        >>> model(input_ids=torch.randint(1000, 2000, (4, 9))).features.shape
        torch.Size([4, 768])
    """

    objective = "sentence"
    task_class = SentenceTask
    inputs = ("text",)
    one_text_a_row = True
    pipeline_tag = "sentence-similarity"
    capabilities = ("ask",)  # of tsdae
    cues = (LEFT, TWO_BEFORE, POSITION)
    usage = USAGE
    formula, limits = FORMULA, LIMITS

    def __init__(self, full_model: PreTrainedModel, task: SentenceTask, parts: dict | None = None):
        """Raises `ValueError` for token ids that tsdae lacks, and like `text_decoder`."""
        super().__init__(full_model, task, parts)
        self.pretext_head, self.decoder = None, None
        # simcse compares two passes of one text, so that every cue reveals which two belong together
        self.capabilities = ("ask",) if task.method == "tsdae" else ()
        if task.method == "tsdae":
            names = {name: getattr(task, f"{name}_token_id") for name in ("start", "end", "pad")}
            self.tokens = tokens_of_config(full_model.config, names, "texts")
            self.decoder = text_decoder(full_model, task.tied, task.decoder_layers or 1)
        elif task.mlp_head:
            size = width(full_model)
            self.pretext_head = nn.Sequential(nn.Linear(size, size), nn.Tanh())
        self.post_init()

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "SentenceForPreTraining":
        """As `PretextModel.from_encoder`. Also raises `ValueError` for an encoder that gives all texts one vector, and
        with simcse, for one without dropout."""
        model = super().from_encoder(encoder, **settings)
        check_vectors(model.encoder, model.task.pooling)
        if model.task.method == "simcse":
            check_dropout(model.encoder, model.task.pooling)
        return model

    @classmethod
    def complete(cls, task: SentenceTask, processors: Mapping[str, Any]) -> SentenceTask:
        """Fills in the tokens that the tokenizer puts around a text, for tsdae. Raises `ValueError` for a tokenizer
        without a token that ends a text."""
        if task.method == "simcse":
            return task
        filled = {f"{name}_token_id": value for name, value in vars(tokens_of(processors["text"])).items()}
        return dataclasses.replace(task, **{k: v for k, v in filled.items() if getattr(task, k) is None})

    @classmethod
    def columns_of(cls, task: SentenceTask) -> Mapping[str, str]:
        return {} if task.negative_column is None else {"negative": task.negative_column}

    @classmethod
    def least_batch_of(cls, task: SentenceTask) -> int:
        return 2 if task.method == "simcse" else 1

    def kept_outside(self) -> set[str]:
        """As `NativeCheckpoint.kept_outside`, without what decoder and encoder share; one name for each weight."""
        names = super().kept_outside() - names_of_shared(self, self.full_model)
        first = {id(value): name for name, value in reversed(self.state_dict(keep_vars=True).items()) if name in names}
        return set(first.values())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        word_starts: Tensor | None = None,
        negative_input_ids: Tensor | None = None,
        negative_attention_mask: Tensor | None = None,
        num_bytes: Tensor | None = None,
    ) -> PretextOutput:
        if self.task.method == "simcse":
            negatives = (negative_input_ids, negative_attention_mask)
            output = self.contrast(input_ids, attention_mask, None if negative_input_ids is None else negatives)
        elif negative_input_ids is not None:
            raise ValueError("The batch has negative_input_ids, which method='tsdae' does not use. Leave them out.")
        else:
            output = self.rebuild(input_ids, attention_mask, word_starts)
        if not self.training:
            with torch.no_grad():
                output.features = self.encode(input_ids, attention_mask)
        return output

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Returns the vector of each text, `(B, D)`."""
        return vectors_of(self.encoder, self.task.pooling, input_ids, attention_mask)

    # simcse

    def contrast(
        self, input_ids: Tensor, attention_mask: Tensor | None, negatives: tuple[Tensor, Tensor | None] | None
    ) -> PretextOutput:
        """Returns the output of SimCSE. negatives: ids and mask of the hard negatives. Raises `ValueError` for a global
        training batch of one text, and for another number of hard negatives."""
        ranks = rank_and_ranks()[1] if self.training else 1
        if self.training and len(input_ids) * ranks < 2:
            raise ValueError(
                "SimCSE compares the texts of a batch, but got a global batch of 1. Give a larger "
                "--per_device_train_batch_size."
            )
        if negatives is not None and len(negatives[0]) != len(input_ids):
            raise ValueError(
                f"{len(input_ids)} texts came with {len(negatives[0])} hard negatives. Give one for each text."
            )
        mask = None if attention_mask is None else attention_mask.repeat(2, 1)
        with nullcontext() if self.training else with_dropout(self.encoder, self.device, EVAL_SEED):
            vectors = self.encode(input_ids.repeat(2, 1), mask)  # both passes at once
            embedded = [*vectors.chunk(2), *([] if negatives is None else [self.encode(*negatives)])]
        features = embedded[0]
        embedded = [normalised(each if self.pretext_head is None else self.pretext_head(each)) for each in embedded]
        with torch.autocast(vectors.device.type, enabled=False):
            loss, accuracy = simcse(*embedded, temperature=self.task.temperature, everywhere=self.training)
        return self.output({"simcse": loss}, {"accuracy": accuracy}, features=features)

    # tsdae

    def rebuild(self, input_ids: Tensor, attention_mask: Tensor | None, word_starts: Tensor | None) -> PretextOutput:
        """Returns the output of TSDAE."""
        seen, mask, inputs, labels = self.shortened(input_ids, attention_mask, word_starts)
        vectors, where = self.encode(seen, mask), positions_of(labels != IGNORED)
        logits, labels = decode(self.decoder, vectors, inputs, where), labels[where]
        loss = cross_entropy(logits, labels)
        logs = {"accuracy": (logits.argmax(-1) == labels).float().mean(), "perplexity": loss.exp()}
        if self.training:
            loss = over_all_ranks(loss, len(labels))
        return self.output({"tsdae": loss}, logs, features=vectors, logits=logits, labels=labels)

    def shortened(
        self, input_ids: Tensor, attention_mask: Tensor | None, word_starts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns what the encoder sees of texts, ids and mask `(B, S)`, and the inputs and labels of the decoder,
        `(B, longest + 1)`, see `shifted`."""
        present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        first, count = bare(input_ids, present, self.tokens)
        seen, mask = self.corrupt(input_ids, present.bool(), first, count, word_starts)
        left, longest = torch.stack([mask.sum(1).max(), count.max()]).tolist()  # one wait for the device
        inputs, labels = shifted(input_ids, first, count, self.tokens)
        return seen[:, :left], mask[:, :left], inputs[:, : longest + 1], labels[:, : longest + 1]

    def corrupt(
        self, input_ids: Tensor, present: Tensor, first: Tensor, count: Tensor, word_starts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Deletes words. input_ids, present (bool), word_starts: `(B, L)`. first, count: of the words, see `bare`.

        Returns ids and attention mask, `(B, L)`; the tokens that are left come first, in their order."""
        at = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = (at >= first[:, None]) & (at < (first + count)[:, None])
        starts = torch.ones_like(present) if word_starts is None else word_starts
        left = present & (draw_units(words, starts, 1 - self.task.delete_ratio, self.generator()) | ~words)
        order = (~left).long().argsort(dim=1, stable=True)
        mask = at < left.sum(1, keepdim=True)
        return input_ids.gather(1, order).masked_fill(~mask, self.tokens.pad), mask.long()

    def ask(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        word_starts: Tensor | None = None,
        num_bytes: Tensor | None = None,
    ) -> Question:
        """tsdae: asks for each token and the end of a text. Its label is in its place, from where it is not read."""
        seen, mask, inputs, labels = self.shortened(input_ids, attention_mask, word_starts)
        present = F.pad(labels != IGNORED, (1, 0), value=True)
        text = torch.cat([inputs[:, :1], labels], 1).masked_fill(~present, self.tokens.pad)
        given = {"input_ids": text, "attention_mask": present.long(), "seen_ids": seen, "seen_mask": mask}
        return Question(given, F.pad(labels, (1, 0), value=IGNORED), self.config.vocab_size)

    def answer(
        self, asked: Tensor, input_ids: Tensor, attention_mask: Tensor, seen_ids: Tensor, seen_mask: Tensor
    ) -> Tensor:
        """tsdae: returns the logits `(M, vocabulary)` of the tokens that are asked (`(B, L)`, bool, without the first
        column), row by row, from the vector of the text that is seen and the tokens before each."""
        rows, columns = positions_of(asked)
        return decode(self.decoder, self.encode(seen_ids, seen_mask), input_ids[:, :-1], (rows, columns - 1))
