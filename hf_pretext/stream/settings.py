"""What can be set of data: how it is read, and what is its kind's own. Apart from what does it, so that `--help` need
not import that."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict

from ..data.decoding import MAX_PIXELS
from ..utils.settings import accepts_ints

PARTS, WINDOW = 16, 256


@accepts_ints
@strict
@dataclass
class StreamSettings:
    """How data is read, shuffled and guarded.

    parts: Places of the data that are read from in turn, the finer to shuffle; a multiple of the processes.
    window: Rows that each of them shuffles among themselves; less where rows are large (see --buffer_bytes).
    buffer_bytes: Bytes of undecoded rows that a process holds at most.
    max_image_pixels: Pictures with more count as bad samples, and are never decoded.
    max_bad_fraction: Stop when more than this share of the last 1,000 samples could not be used.
    record_samples: Write the samples of each step to samples-rank*.jsonl in the output folder.
    allow_changed_source: Resume although the data has changed: the rest of the run sees it in an order of its own.
    """

    _argument_group_name: ClassVar[str] = "stream"

    parts: int = PARTS
    window: int = WINDOW
    buffer_bytes: int = 2**30
    max_image_pixels: int = MAX_PIXELS
    max_bad_fraction: float = 0.05
    record_samples: bool = False
    allow_changed_source: bool = False

    def validate_ranges(self):
        for name in ("parts", "window", "buffer_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must lie between 0 and 1, but is {self.max_bad_fraction}.")


@strict
@dataclass
class ImageArguments:
    """What is said of pictures.

    image_column: Their column, where that can't be told.
    eval_image_column: The same in --eval_dataset.
    image_size: Side of the square pictures that the encoder sees, in pixels; an --encoder brings its own.
    """

    _argument_group_name: ClassVar[str] = "pictures"

    image_column: str | None = None
    eval_image_column: str | None = None
    image_size: int | None = None

    def validate_image_size(self):
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, but is {self.image_size}.")


@accepts_ints
@strict
@dataclass
class Augmentation:
    """How training pictures are varied; evaluation pictures never are.

    crop_scale: smallest share of the picture's area that a random crop keeps; 1 for the processor's own crop.
    horizontal_flip: probability of mirroring.
    color_jitter: brightness, contrast and saturation are multiplied by a factor from [1 - x, 1 + x].
    hue: hues turn by up to this share of the colour circle, 0 to 0.5.
    grayscale: probability of losing all colour.
    channel_shuffle: probability of swapping red, green and blue at random.
    """

    _argument_group_name: ClassVar[str] = "augmentation"

    crop_scale: float = 0.5
    horizontal_flip: float = 0.5
    color_jitter: float = 0.4
    hue: float = 0.0
    grayscale: float = 0.0
    channel_shuffle: float = 0.0

    @property
    def changes_colors(self) -> bool:
        """Whether any setting touches colours."""
        return any((self.color_jitter, self.hue, self.grayscale, self.channel_shuffle))

    def validate_ranges(self):
        highest = dict(horizontal_flip=1, color_jitter=1, hue=0.5, grayscale=1, channel_shuffle=1)
        for name, high in highest.items():
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie between 0 and {high}, but is {getattr(self, name)}.")
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale must lie above 0 and at most at 1, but is {self.crop_scale}.")


@strict
@dataclass
class TextArguments:
    """What is said of texts.

    text_column: Their column, where that can't be told.
    eval_text_column: The same in --eval_dataset.
    sample_by: What a document of a plain text file is: a line, a paragraph (up to a blank line) or the whole file
        (document). By itself: paragraphs where a file has a blank line, else lines.
    tokenizer: A folder or Hub id, or open_clip:ViT-B-32 for that of an open_clip model; an --encoder brings its own,
        and without either one is trained on the texts.
    tokenizer_kind: What is trained: wordpiece, bpe (of bytes) or unigram.
    vocab_size: Tokens of the trained one, at most.
    lowercase: Whether the trained one takes upper and lower case, and accents, for the same.
    max_length: Tokens of a sequence, the special ones included. Short documents lie side by side in it, long ones and
        captions are cut.
    """

    _argument_group_name: ClassVar[str] = "texts"

    text_column: str | None = None
    eval_text_column: str | None = None
    sample_by: Literal["line", "paragraph", "document"] | None = None
    tokenizer: str | None = None
    tokenizer_kind: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    vocab_size: int = 8000
    lowercase: bool = True
    max_length: int = 128


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
