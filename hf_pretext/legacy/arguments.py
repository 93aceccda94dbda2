"""Options of the runs that the new inputs replace."""

from dataclasses import dataclass
from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ..modalities.image import Augmentation, ImageArguments
from ..modalities.text import TextArguments
from ..utils.settings import accepts_ints


@accepts_ints
@strict
@dataclass
class PairArguments:
    """What is said of pictures with captions. --text_column is the caption, and --max_length cuts it.

    images_alone: Further datasets, given as --dataset is, of which only the pictures are taken.
    texts_alone: Further datasets of texts; of a long one a part is drawn. Each step's batch is of one dataset, as often
        as --mixture_weights say for the pairs, the pictures and the texts, in this order.

    other_captions: Further columns of captions: texts; lists of keywords, of which some are drawn, in any order; or
        texts by language, of which one is drawn. Evaluation sees the caption alone.
    caption_weights: How often the caption and each of --other_captions is drawn; all alike where nothing is said.
    pair_label: Column that makes pairs each other's positives where it is equal (--positives label); by itself, and in
        evaluation, the caption.
    vision_encoder: Start the picture tower from this encoder (a Hub id or folder).
    text_encoder: Start the text tower from this encoder, with its tokenizer.
    prompts: Sentences with {} for a class's name, whose mean stands for it in zero-shot classification, or a language
        whose sentences are taken: en, de, fr, es, zh, ja... for photographs, en-drawings... for what is drawn. By
        itself, en.
    """

    _argument_group_name: ClassVar[str] = "captions"

    images_alone: list[str] | None = None
    texts_alone: list[str] | None = None
    other_captions: list[str] | None = None
    caption_weights: list[float] | None = None
    pair_label: str | None = None
    vision_encoder: str | None = None
    text_encoder: str | None = None
    prompts: list[str] | None = None

    def validate_prompts(self):
        if any("{}" not in prompt for prompt in self.prompts or []):
            from ..evaluation.zero_shot import templates_of

            templates_of(self.prompts)

    def validate_weights(self):
        weights, columns = self.caption_weights, 1 + len(self.other_captions or [])
        if weights is not None and (len(weights) != columns or min(weights) < 0 or not sum(weights)):
            raise ValueError(
                f"caption_weights needs {columns} numbers, one for the caption and one for each of other_captions, "
                f"none below 0 and not all 0, but is {weights}."
            )


ARGUMENTS = {
    "image": (ImageArguments, Augmentation),
    "text": (TextArguments,),
    "image_text": (ImageArguments, Augmentation, TextArguments, PairArguments),
}
