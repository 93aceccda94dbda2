"""VideoBERT: mask words of a text and visual words of its film, predict them from each other, and predict whether text
and film belong together.

Sun, Myers, Vondrick, Murphy and Schmid, "VideoBERT: A Joint Model for Video and Language Representation Learning",
ICCV 2019, https://huggingface.co/papers/1904.01766

    pixel_values_videos (B, F, 3, S, S) -> pieces -> frozen encoder -> hierarchical k-means -> visual words (B, W)
    input_ids (B, L) -> [CLS] text [>] visual words [SEP], some masked (B, L + W + 1) -> BERT
    -> masked words and visual words (M, vocabulary), alignment by [CLS] (B, 2)
"""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import (
    AutoModelForPreTraining,
    BertConfig,
    BertForPreTraining,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..features import pool
from ..modeling import PretextOutput
from ..modules.draws import drawn_by
from ..modules.dual_encoder import pair_labels
from ..modules.losses import cross_entropy
from ..modules.masking import (
    IGNORED,
    MaskTask,
    check_share,
    draw_units,
    masked_prediction,
    positions_of,
    replaced,
    visual_tokens,
    with_tokens_of,
    without_special,
)
from ..modules.normalisation import with_normalisation_of
from ..modules.video_text import (
    TEXT_TYPE,
    VIDEO_TYPE,
    Tokens,
    add_video_tokens,
    every_nth,
    half_wrong,
    sequence_of,
    tokens_of,
)
from ..modules.visual_words import VisualWordsTask
from ..modules.word_encoder import WithVisualWords, frames_of
from ..utils.settings import make_settings

BY_MASK, BY_RANDOM = 0.8, 0.1  # shares of the masked tokens that are replaced, as in BERT; the others stay
NEEDED = ("mask_token_id", "cls_token_id", "sep_token_id")


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
    with a tokenizer that has the new tokens. The frozen encoder of the visual words is in the sub-folder `video/`, and
    their clusters are in pretext.safetensors. A batch has texts with their films, only films or only texts. Of the
    pairs, half get the film of another row with other `labels`; their masked words are not predicted.

    forward: input_ids and attention_mask (`(B, L)`, with [CLS] and [SEP]), and pixel_values_videos or pixel_values
    (`(B, F, 3, S, S)`), or one of the two kinds; labels (`(B,)`, integers: pairs with equal labels belong together;
    default: no two pairs do).

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
    capabilities = ("match", "predict_tokens")
    formula = (
        r"-\frac{1}{|M|}\sum_{i \in M} \log p_\theta\left(x_i \mid x_{\setminus M}\right) "
        r"- \log p_\theta\left(y \mid x_{\setminus M}\right), \quad x = \text{[CLS]}\, t_1 \dots t_n\, \text{[>]}\, "
        r"v_1 \dots v_m\, \text{[SEP]}, \; y \text{ whether text } t \text{ and visual words } v \text{ belong together}"
    )
    limits = (
        "A visual word is a cluster of the features of a frozen encoder: what that encoder does not separate is lost.",
        "Features of a piece of film are means. Small objects and short events have little weight in them.",
        "The model hardly understands words that do not occur in its training texts.",
    )

    def __init__(self, full_model: PreTrainedModel, task: VideobertTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        self.post_init()

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "VideobertForPreTraining":
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
        return super().from_encoder(full_model, **settings)

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> BertForPreTraining:
        """Returns a `BertForPreTraining`. encoder: a `BertConfig` (random weights), a `BertModel` (keeps its weights,
        random heads), or a `BertForPreTraining` (returned unchanged). Raises `ValueError` for any other model, without
        pooler, and for fewer than two token types."""
        if type(encoder) not in (BertConfig, BertModel, BertForPreTraining):
            raise ValueError(
                f"videobert needs a BertConfig, a BertModel or a BertForPreTraining, not a {type(encoder).__name__}."
            )
        config = encoder if isinstance(encoder, BertConfig) else encoder.config
        if config.type_vocab_size < 2:
            raise ValueError(
                f"videobert needs 2 token types, for text and film, but type_vocab_size is {config.type_vocab_size}."
            )
        if isinstance(encoder, BertForPreTraining):
            return encoder
        if isinstance(encoder, BertConfig):
            return AutoModelForPreTraining.from_config(copy.deepcopy(config), dtype=torch.float32)
        if encoder.pooler is None:
            raise ValueError("The BertModel has no pooler, which alignment needs. Give one with a pooler.")
        full_model = AutoModelForPreTraining.from_config(copy.deepcopy(config)).to(encoder.dtype)
        full_model.bert.load_state_dict(encoder.state_dict())
        return full_model

    @classmethod
    def complete(cls, task: VideobertTask, processors: Mapping[str, Any]) -> VideobertTask:
        """Adds [>] and the visual words to the tokenizer, in place. Completes the settings with the ids of its tokens,
        and with the mean and standard deviation of frames.

        Raises `ValueError` for a tokenizer without a mask token, and for one whose texts are not [CLS] text [SEP]."""
        tokenizer = processors["text"]
        task = with_normalisation_of(with_tokens_of(task, tokenizer), processors["video"])
        ids, ends = tokenizer("a")["input_ids"], (tokenizer.cls_token_id, tokenizer.sep_token_id)
        if None in ends or (ids[0], ids[-1]) != ends:
            raise ValueError(
                "videobert needs a tokenizer whose texts are [CLS] text [SEP], like BERT's, but that of --tokenizer "
                f"gives {tokenizer.convert_ids_to_tokens(ids)} for the text 'a'. Give another one."
            )
        video, first = add_video_tokens(tokenizer, task.branches**task.levels)
        tokens = {"cls_token_id": ends[0], "sep_token_id": ends[1], "video_token_id": video, "first_word_id": first}
        return dataclasses.replace(task, **tokens)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **frames: Tensor,
    ) -> PretextOutput:
        pixels = frames_of(frames)
        check_batch(input_ids, pixels)
        text = None if input_ids is None else self.mask_text(input_ids, present_of(input_ids, attention_mask))
        if pixels is None:
            return self.learn(self.joined(text, None))
        words = visual_tokens(self.visual_words, pixels, self.training)
        if text is None:
            return self.learn(self.joined(None, self.mask_film(words)))
        labels = pair_labels(labels, len(words), words.device, self.training)
        wrong, partner = half_wrong(labels, self.generator())
        wrong = wrong & bool(self.task.alignment_weight)
        film = self.mask_film(torch.where(wrong[:, None], words[partner], words))
        return self.learn(self.joined(text, film), wrong)

    def learn(self, tokens: Tokens, wrong: Tensor | None = None) -> PretextOutput:
        """Encodes sequences and computes their losses. wrong: `(B,)`, bool, pairs that do not belong together; None for
        texts or films alone."""
        hidden, pooled = self.encode(tokens)
        task, heads, losses, logs = self.task, self.full_model.cls, {}, {}
        if wrong is not None:
            tokens = dataclasses.replace(tokens, labels=tokens.labels.masked_fill(wrong[:, None], IGNORED))
        begin = "" if wrong is None else "pair_"
        kinds = {"words": (TEXT_TYPE, task.text_weight), "visual_words": (VIDEO_TYPE, task.video_weight)}
        present = set(kinds) if wrong is not None else {"words" if tokens.types is None else "visual_words"}
        for name, (kind, weight) in kinds.items():
            if weight:
                loss, accuracy = masked_prediction(heads.predictions, hidden, tokens.labels_of(kind))
                losses[begin + name], logs[f"{begin}{name}_accuracy"] = weight * loss, accuracy
        if wrong is not None and task.alignment_weight:
            logits = heads.seq_relationship(pooled)
            losses["alignment"] = task.alignment_weight * cross_entropy(logits, wrong.long())
            logs["alignment_accuracy"] = (logits.argmax(1) == wrong).float().mean()
        return self.output(losses, logs, features=pool(hidden, tokens.present))
