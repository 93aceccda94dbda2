"""VideoBERT: mask words of a text and visual words of its film, predict them from each other, and predict whether text
and film belong together.

Sun, Myers, Vondrick, Murphy and Schmid, "VideoBERT: A Joint Model for Video and Language Representation Learning",
ICCV 2019, https://huggingface.co/papers/1904.01766

    pixel_values_videos (B, F, 3, S, S) -> pieces -> frozen encoder -> hierarchical k-means -> visual words (B, W)
    input_ids (B, L) -> [CLS] text [>] visual words [SEP], some masked (B, L + W + 1) -> BERT
    -> masked words and visual words (M, vocabulary), alignment by [CLS] (B, 2)
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoModelForPreTraining, BertForPreTraining, PreTrainedConfig, PreTrainedModel

from ..features import pool
from ..modalities.image import UNCHANGED
from ..modeling import PretextOutput
from ..modules.bert import check_bert, with_heads
from ..modules.cues import Question
from ..modules.dual_encoder import pair_labels
from ..modules.losses import cross_entropy
from ..modules.masking import (
    IGNORED,
    MaskTask,
    check_share,
    masked_prediction,
    positions_of,
    with_tokens_of,
    without_special,
)
from ..modules.normalisation import with_normalisation_of
from ..modules.packing import present_tokens
from ..modules.token_cues import IN_PLACE, LEFT, NEIGHBOURS, POSITION, RIGHT
from ..modules.video_text import (
    TEXT_TYPE,
    VIDEO_TYPE,
    Tokens,
    check_batch,
    check_length,
    every_nth,
    half_wrong,
    masked_film,
    masked_text,
    sequence_of,
    tokens_of,
    video_tokens,
)
from ..modules.visual_words import VisualWordsTask
from ..modules.word_encoder import WithVisualWords, frames_of
from ..modules.word_strips import strips
from ..presets.films import FILMS_AS_WORDS as PRESET  # noqa: F401
from ..utils.settings import make_settings

TYPES = {"words": TEXT_TYPE, "visual_words": VIDEO_TYPE}  # of the tokens that are predicted
NEEDED = ("mask_token_id", "cls_token_id", "sep_token_id")
FIXED = {name: (value, "visual words are those of films as they are") for name, value in UNCHANGED.items()}
ILLUSTRATED = 3  # films in a report
FORMULA = (
    r"-\frac{1}{|M|}\sum_{i \in M} \log p_\theta\left(x_i \mid x_{\setminus M}\right) "
    r"- \log p_\theta\left(y \mid x_{\setminus M}\right), \quad x = \text{[CLS]}\, t_1 \dots t_n\, \text{[>]}\, "
    r"v_1 \dots v_m\, \text{[SEP]}, \; y \text{ whether text } t \text{ and visual words } v \text{ fit}"
)
LIMITS = (
    "A visual word is a cluster of the features of a frozen encoder: what that encoder does not separate is lost.",
    "Features of a piece of film are means. Small objects and short events have little weight in them.",
    "The model hardly understands words that do not occur in its training texts.",
)


@strict
@dataclass
class VideobertTask(MaskTask, VisualWordsTask):
    """Settings of VideoBERT.

    text_mask_ratio: share of the words of a text that are masked.
    video_mask_ratio: share of the visual words of a film that are masked.
    max_step: in training, each film keeps only every n-th of its visual words, n drawn between 1 and max_step, because
        films differ in pace; 5 in the paper.
    text_weight: weight of the loss of masked words.
    video_weight: weight of the loss of masked visual words.
    alignment_weight: weight of the loss of alignment. For 0, no text gets a wrong film.
    cls_token_id, sep_token_id: ids of the first and the last token; a recipe takes them from the tokenizer.
    video_token_id: id of the token [>] before the visual words; a recipe adds it to the tokenizer.
    first_word_id: id of the first visual word, which the others follow; a recipe adds them to the tokenizer.
    """

    text_mask_ratio: float = 0.15
    video_mask_ratio: float = 0.15
    max_step: int = 1
    text_weight: float = 1.0
    video_weight: float = 1.0
    alignment_weight: float = 1.0
    cls_token_id: int | None = None
    sep_token_id: int | None = None
    video_token_id: int | None = None
    first_word_id: int | None = None

    @property
    def special(self) -> list[int]:
        """Ids that are neither masked nor drawn in a text: those of the tokenizer's special tokens, and [>]."""
        return [*(self.special_token_ids or ()), self.video_token_id]

    def validate_shares(self):
        check_share("text_mask_ratio", self.text_mask_ratio)
        check_share("video_mask_ratio", self.video_mask_ratio)
        if not 1 <= self.max_step <= self.num_words:
            raise ValueError(
                f"max_step must be at least 1 and at most num_words={self.num_words}, but is {self.max_step}."
            )
        weights = (self.text_weight, self.video_weight, self.alignment_weight)
        if min(weights) < 0 or not any(weights):
            raise ValueError(f"Weights of losses must be at least 0, and one of them above 0, but are {weights}.")


class VideobertForPreTraining(WithVisualWords):
    """transformers' `BertForPreTraining`, trained on texts and on films as sequences of visual words.

    The vocabulary is that of the text, then [>], then the visual words. `AutoModel` loads a checkpoint as `BertModel`,
    with a tokenizer that has the new tokens. The frozen encoder of the visual words is in the sub-folder `video/`, or
    only named (store_word_encoder), and their clusters are in pretext.safetensors. A batch has texts with their films,
    only films or only texts. Of the pairs, half get the film of another row with other `labels`; their masked words are
    not predicted.

    forward: input_ids and attention_mask (`(B, L)`, with [CLS] and [SEP]), and pixel_values_videos or pixel_values
    (`(B, F, 3, S, S)`), or one of the two kinds; labels (`(B,)`, integers: pairs with equal labels belong together;
    default: no two pairs do). With cache_words, keys (`(B,)`, int64: numbers of the rows) instead of frames.

    Returns features (`(B, D)`): means over the tokens. Losses and logs (accuracies): `words` of texts alone,
    `visual_words` of films alone; `pair_words`, `pair_visual_words` and `alignment` of pairs.

    Example:
        >>> tokens = dict(cls_token_id=101, sep_token_id=102, mask_token_id=103, special_token_ids=[0, 101, 102, 103])
        >>> model = VideobertForPreTraining.from_encoder(BertConfig(), word_encoder="microsoft/resnet-18", **tokens)
        >>> model.config.vocab_size
        30587
    """

    objective = "videobert"
    task_class = VideobertTask
    inputs = ("text", "video")
    auto_class = AutoModelForPreTraining
    processor_of = "text"
    learns_from_one_kind = True
    fixed_options = FIXED
    capabilities = ("match", "predict_tokens", "condense", "illustrate", "ask")
    cues, formula, limits = (NEIGHBOURS, LEFT, RIGHT, IN_PLACE, POSITION), FORMULA, LIMITS

    def __init__(self, full_model: PreTrainedModel, task: VideobertTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        self.post_init()

    @classmethod
    def from_encoder(
        cls, encoder: PreTrainedModel | PreTrainedConfig, parts: dict | None = None, **settings
    ) -> "VideobertForPreTraining":
        """Adds the new tokens to the vocabulary of a BERT, in place. See `WithVisualWords.from_encoder`.

        Without video_token_id and first_word_id, the new tokens follow the vocabulary. Raises `ValueError` for a model
        that is not a BERT, and without the ids of the tokenizer's mask token, first token and last token."""
        task = make_settings(cls.task_class, **settings)
        missing = [name for name in NEEDED if getattr(task, name) is None]
        if missing:
            raise ValueError(f"{missing[0]} is not set. Give the tokenizer's: {missing[0]}=tokenizer.{missing[0]}.")
        full_model = cls.native(encoder)
        if task.video_token_id is None or task.first_word_id is None:
            video = full_model.config.vocab_size
            settings |= {"video_token_id": video, "first_word_id": video + 1}
        tokens = settings["first_word_id"] + task.branches**task.levels
        if tokens > full_model.config.vocab_size:
            full_model.resize_token_embeddings(tokens, mean_resizing=False)
        return super().from_encoder(full_model, parts, **settings)

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> BertForPreTraining:
        """Returns a `BertForPreTraining`. encoder: a `BertConfig` (random weights), a `BertModel` (keeps its weights,
        random heads), or a `BertForPreTraining` (returned unchanged). Raises `ValueError` for any other model, without
        pooler, and for fewer than two token types."""
        check_bert(encoder, cls.objective)
        return with_heads(encoder)

    @classmethod
    def complete(cls, task: VideobertTask, processors: Mapping[str, Any]) -> VideobertTask:
        """Adds [>] and the visual words to the tokenizer, in place. Completes the settings with the ids of its tokens,
        and with the mean and standard deviation of frames.

        Raises `ValueError` for a tokenizer without a mask token, and for one whose texts are not [CLS] text [SEP]."""
        task = with_normalisation_of(with_tokens_of(task, processors["text"]), processors["video"])
        return dataclasses.replace(task, **video_tokens(processors["text"], task.branches**task.levels))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        keys: Tensor | None = None,
        **frames: Tensor,
    ) -> PretextOutput:
        check_batch(input_ids, frames_of(frames), keys)
        words, rows = self.words_of(frames, keys, needed=input_ids is None)
        if rows is not None:
            labels = rows if labels is None else labels[rows]
            input_ids, attention_mask = (x if x is None else x[rows] for x in (input_ids, attention_mask))
        present = None if input_ids is None else present_tokens(input_ids, attention_mask)
        text = None if input_ids is None else masked_text(self.task, input_ids, present, self.generator())
        if words is None:
            return self.learn(text, ("words",))
        if text is None:
            return self.learn(self.joined(None, self.mask_film(words)), ("visual_words",))
        wrong = None
        if self.task.alignment_weight:
            labels = pair_labels(labels, len(words), words.device, self.training)
            wrong, partner = half_wrong(labels, self.generator())
            words = words[partner]
        return self.learn(self.joined(text, self.mask_film(words)), tuple(TYPES), wrong, "pair_")

    def learn(
        self, tokens: Tokens, kinds: tuple[str, ...], wrong: Tensor | None = None, begin: str = ""
    ) -> PretextOutput:
        """Encodes sequences and computes their losses.

        kinds: of tokens to predict, keys of `TYPES`. wrong: `(B,)`, bool, pairs that do not belong together; None
        without alignment. begin: of the names of losses."""
        hidden, pooled = self.encode(tokens)
        task, heads, losses, logs = self.task, self.full_model.cls, {}, {}
        if wrong is not None:
            tokens = dataclasses.replace(tokens, labels=tokens.labels.masked_fill(wrong[:, None], IGNORED))
            logits, classes = heads.seq_relationship(pooled), wrong.long()  # as next sentences: 0 right, 1 wrong
            losses["alignment"] = task.alignment_weight * cross_entropy(logits, classes)
            logs["alignment_accuracy"] = (logits.argmax(1) == classes).float().mean()
        weights = {"words": task.text_weight, "visual_words": task.video_weight}
        for name in kinds:
            if weights[name]:
                loss, accuracy = masked_prediction(heads.predictions, hidden, tokens.labels_of(TYPES[name]))
                losses[begin + name], logs[f"{begin}{name}_accuracy"] = weights[name] * loss, accuracy
        return self.output(losses, logs, features=pool(hidden, tokens.present))

    # sequences

    def mask_film(self, words: Tensor) -> Tokens:
        """Masks visual words of films `(B, W)`, see `masked_film`. In training, only every n-th is kept."""
        generator = self.generator()
        kept = every_nth(words, self.task.max_step if self.training else 1, generator)
        return masked_film(self.task, words, kept, self.visual_words.drawn, generator)

    def joined(self, text: Tokens | None, film: Tokens | None) -> Tokens:
        """See `sequence_of`."""
        task = self.task
        return sequence_of(text, film, task.cls_token_id, task.sep_token_id, task.video_token_id)

    def encode(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Returns the last hidden states `(B, T, D)` and the pooled first token `(B, D)`."""
        check_length(tokens, self.config.max_position_embeddings)
        outputs = self.encoder(tokens.ids, attention_mask=tokens.present.long(), token_type_ids=tokens.types)
        return outputs.last_hidden_state, outputs.pooler_output

    # capabilities

    def match(self, input_ids: Tensor, attention_mask: Tensor | None = None, **frames: Tensor) -> Tensor:
        """Returns the alignment score of each text and its film, `(B,)`: above 0 if they belong together."""
        text = tokens_of(input_ids, TEXT_TYPE, present_tokens(input_ids, attention_mask))
        _, pooled = self.encode(self.joined(text, self.film_of(frames)))
        right, wrong = self.full_model.cls.seq_relationship(pooled).unbind(1)
        return right - wrong

    def predict_tokens(
        self, masked: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, **frames: Tensor
    ) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the masked tokens, predicted from the text and, if given, its film.
        masked: `(B, L)`, bool. input_ids: `(B, L)`, with the masked tokens replaced already."""
        labels = input_ids.masked_fill(~masked, IGNORED)
        text = tokens_of(input_ids, TEXT_TYPE, present_tokens(input_ids, attention_mask), labels)
        return self.predicted(self.joined(text, self.film_of(frames)))

    def predicted(self, tokens: Tokens) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the tokens that have labels, row by row."""
        hidden, _ = self.encode(tokens)
        return self.full_model.cls.predictions(hidden[positions_of(tokens.labels != IGNORED)])

    @property
    def questions(self) -> tuple[str, ...]:
        """The kinds of tokens that it learns to predict, keys of `TYPES`. None before the visual words are fitted."""
        weights = zip(TYPES, (self.task.text_weight, self.task.video_weight), strict=True)
        return tuple(name for name, weight in weights if weight and self.visual_words.fitted)

    def ask(self, question: str, input_ids: Tensor, attention_mask: Tensor | None = None, **frames: Tensor) -> Question:
        """Asks which tokens of one kind are masked, in right pairs. frames: or what `condense` returns."""
        present, words = present_tokens(input_ids, attention_mask), self.words_of(frames)[0]
        tokens = self.joined(masked_text(self.task, input_ids, present, self.generator()), self.mask_film(words))
        may = without_special(input_ids, present, self.task.special)
        text = tokens_of(input_ids, TEXT_TYPE, present, input_ids.masked_fill(~may, IGNORED))
        words, kind = words + self.task.first_word_id, TYPES[question]
        clean = self.joined(text, tokens_of(words, VIDEO_TYPE, labels=words))
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.present.long(), "token_type_ids": tokens.types}
        unmasked = (clean.ids, clean.labels_of(kind))
        return Question(inputs, tokens.labels_of(kind), self.config.vocab_size, unmasked=unmasked)

    def answer(self, question: str, asked: Tensor, **inputs: Tensor) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the tokens that are asked (`(B, T)`, bool), row by row."""
        return self.full_model.cls.predictions(self.encoder(**inputs).last_hidden_state[positions_of(asked)])

    def illustrate(self, **batch: Tensor) -> dict[str, Tensor]:
        """Returns frame strips of the first films with masked visual words, predicted next to the text: see `strips`"""
        film, ids = self.mask_film(self.words_of(batch)[0]), batch["input_ids"]
        masked, first = film.labels != IGNORED, self.task.first_word_id
        film.ids = film.ids.masked_fill(masked, self.task.mask_token_id)
        text = tokens_of(ids, TEXT_TYPE, present_tokens(ids, batch.get("attention_mask")))
        words = self.predicted(self.joined(text, film))[:, first : first + self.visual_words.size].argmax(1)
        return strips(self.visual_words, frames_of(batch), masked, words, ILLUSTRATED)

    def film_of(self, frames: Mapping[str, Tensor]) -> Tokens | None:
        """Returns all visual words of films, none of them masked; None for a batch without films. frames: or what
        `condense` returns for them."""
        words, _ = self.words_of(frames)
        return None if words is None else tokens_of(words + self.task.first_word_id, VIDEO_TYPE)
