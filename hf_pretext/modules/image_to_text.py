"""Models that write texts about images: shared code of objectives with an image encoder and a decoder of texts.

pixel_values (B, 3, S, S) -> image encoder -> (B, T, D); input_ids (B, L) -> decoder, which sees the image by
cross-attention -> head, on the M predicted tokens only -> logits (M, vocabulary)
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.modeling_outputs import BaseModelOutput

from ..features import positions
from ..modeling import PretextModel
from .caption_tokens import Tokens, bare, shifted, tokens_of_config
from .captioner import captioner, check_sees, check_sequence, head_of, is_cross
from .losses import widened
from .masking import IGNORED, applied_at, positions_of

USAGE = """
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("{{ folder }}")
model = AutoModelForImageTextToText.from_pretrained("{{ folder }}")  # plain pipelines do not take this class
image = Image.new("RGB", (200, 100), "red")  # or your image: Image.open("image.png").convert("RGB")
pixels = processor.image_processor(images=image, return_tensors="pt").pixel_values
tokens = model.generate(pixel_values=pixels, max_new_tokens=20, num_beams=3)
print(processor.tokenizer.batch_decode(tokens, skip_special_tokens=True))

prompt = processor.tokenizer("a red", add_special_tokens=False, return_tensors="pt").input_ids  # how it begins
tokens = model.generate(pixel_values=pixels, decoder_input_ids=prompt, max_new_tokens=20)
print(processor.tokenizer.batch_decode(tokens, skip_special_tokens=True))

encoder = model.encoder  # evaluated under "Transfer"; encoder.save_pretrained("encoder") is what AutoModel loads
with torch.no_grad():
    print("features of the image", encoder(pixel_values=pixels).last_hidden_state.mean(1).shape)
# with its losses and the likelihood of captions: hf_pretext.load("{{ folder }}")
"""


class ImageToText(PretextModel):
    """Base of objectives that train a `VisionEncoderDecoderModel`: an image encoder, and a decoder that writes texts.

    The checkpoint has that class: `AutoModelForImageTextToText` loads it, and `generate` writes texts from left to
    right. `model.encoder.save_pretrained(folder)` saves the image encoder alone, which `AutoModel` loads. The head over
    the vocabulary runs on predicted tokens only: padding takes none of its compute.

    The settings have start_token_id, end_token_id and pad_token_id (default: those in the config of the full model),
    and frozen.
    """

    inputs = ("image", "text")
    capabilities = ("describe", "condense")
    auto_class = AutoModelForImageTextToText
    pipeline_tag = "image-to-text"
    usage = USAGE

    def __init__(self, full_model: VisionEncoderDecoderModel, task, parts: dict | None = None):
        """Raises `ValueError` for token ids that are missing or not in the vocabulary."""
        super().__init__(full_model, task, parts)
        names = {name: getattr(task, f"{name}_token_id") for name in ("start", "end", "pad")}
        self.tokens = tokens_of_config(full_model.config, names)
        self.positions = positions(full_model.decoder.base_model)[1]
        set_tokens(full_model, self.tokens)
        self.freeze()

    @classmethod
    def from_encoders(
        cls, image: PreTrainedModel | PreTrainedConfig, text: PreTrainedModel | PreTrainedConfig, **settings
    ) -> "ImageToText":
        """Joins an image encoder and a decoder, or new ones of given configs. Trained models are trained in place.

        text: a causal language model; without cross-attention, it gets new one. settings: fields of `task_class`.
        Raises `ValueError` like `captioner` and `native`."""
        return cls.from_encoder(captioner(image, text), **settings)

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> VisionEncoderDecoderModel:
        """Returns a `VisionEncoderDecoderModel`. Raises `ValueError` for any other model, for an image encoder without
        a sequence of hidden states, and for a decoder that does not see images."""
        if isinstance(encoder, VisionEncoderDecoderConfig):
            full_model = captioner(encoder.encoder, encoder.decoder, encoder)
        elif isinstance(encoder, VisionEncoderDecoderModel):
            full_model = encoder
            check_sequence(full_model.encoder)
        else:
            raise ValueError(
                f"{type(encoder).__name__} is not a VisionEncoderDecoderModel or its config. Give an image encoder and "
                f"a decoder to {cls.__name__}.from_encoders."
            )
        check_sees(full_model)
        return full_model

    @classmethod
    def with_encoders(
        cls, config: VisionEncoderDecoderConfig, encoders: Mapping[str, PreTrainedConfig]
    ) -> VisionEncoderDecoderConfig:
        """See `PretextModel.with_encoders`. "text" is the decoder."""
        parts = {"image": config.encoder, "text": config.decoder, **encoders}
        return captioner(parts["image"], parts["text"], config).config

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The image encoder. The decoder can't encode texts without an image."""
        return {"image": self.full_model.encoder}

    @property
    def readers(self) -> dict[str, PreTrainedModel]:
        """The image encoder, and the decoder without its head."""
        return {"image": self.full_model.encoder, "text": self.full_model.decoder.base_model}

    def trained_encoders(self) -> list[PreTrainedModel]:
        return [model for model in self.readers.values() if any(p.requires_grad for p in model.parameters())]

    def freeze(self) -> None:
        """Freezes what `frozen` names: the image encoder, or the decoder except for cross-attention and head."""
        if self.task.frozen == "image":
            self.full_model.encoder.requires_grad_(False)
        elif self.task.frozen == "text":
            head = dict(head_of(self.full_model.decoder))  # may be new
            for name, parameter in self.full_model.decoder.named_parameters():
                parameter.requires_grad_(is_cross(name) or name in head)

    def train(self, mode: bool = True) -> "ImageToText":
        """As `nn.Module.train`. A frozen model stays in `eval()` mode: no dropout, fixed statistics of batch norm."""
        super().train(mode)
        if self.task.frozen:
            (self.full_model.encoder if self.task.frozen == "image" else self.full_model.decoder).eval()
        return self

    def shifted(
        self, input_ids: Tensor, attention_mask: Tensor | None, backward: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Returns the decoder's inputs and labels, `(B, longest)` each, see `caption_tokens.shifted`. Raises
        `ValueError` for captions longer than the decoder's positions."""
        first, count = bare(input_ids, attention_mask, self.tokens)
        longest = int(count.max()) + 1  # with the end token
        if self.positions is not None and longest > self.positions:
            raise ValueError(
                f"A caption of {longest - 1} tokens and its end need {longest} positions, but the decoder has "
                f"{self.positions}. Give --max_length {input_ids.shape[1] - (longest - self.positions)} or less."
            )
        inputs, labels = shifted(input_ids, first, count, self.tokens, backward)
        return inputs[:, :longest], labels[:, :longest]

    def decode(self, images: Tensor, inputs: Tensor | None, where: tuple[Tensor, Tensor], **options: Tensor) -> Tensor:
        """Returns the logits of the predicted tokens, `(M, vocabulary)`.

        images: `(B, T, D)`, hidden states. inputs: `(B, L)`. where: rows and columns of the M predicted tokens, see
        `positions_of`. options: of the full model. Padding needs no mask: it comes last, and attention is causal."""
        outputs = BaseModelOutput(last_hidden_state=images)
        if inputs is not None:  # ids without a mask are searched for padding, for which the CPU waits each step
            options["decoder_inputs_embeds"] = self.full_model.decoder.get_input_embeddings()(inputs)
        with applied_at(self.full_model.decoder.get_output_embeddings(), where):
            return self.full_model(encoder_outputs=outputs, use_cache=False, **options).logits

    # capabilities

    @torch.no_grad()
    def condense(self, kind: str, **images: Tensor) -> dict[str, Tensor]:
        """Encodes images once for several captions. Returns hidden states, `{"hidden": (B, T, D)}`, which
        `log_likelihood` and `describe` take in place of the inputs of the image encoder. kind: "image"."""
        if kind != "image":
            raise ValueError(f"{type(self).__name__} encodes images alone, not kind={kind!r}. Give kind='image'.")
        return {"hidden": self.hidden_of(images)}

    def hidden_of(self, images: Mapping[str, Tensor]) -> Tensor:
        """Returns the hidden states of images, `(B, T, D)`. images: inputs of the encoder, or a result of
        `condense`."""
        return images["hidden"] if "hidden" in images else self.full_model.encoder(**images).last_hidden_state

    @torch.no_grad()
    def log_likelihood(self, input_ids: Tensor, attention_mask: Tensor | None = None, **images: Tensor) -> Tensor:
        """Returns the natural logarithm of the probability of each caption given its image, `(B,)`, in float32: the sum
        over its tokens and the end, from left to right. images: see `hidden_of`."""
        hidden = self.hidden_of(images)
        inputs, labels = self.shifted(input_ids, attention_mask)
        where, words = predicted(labels)
        losses = F.cross_entropy(widened(self.decode(hidden, inputs, where)), words, reduction="none")
        return torch.zeros(len(input_ids), device=losses.device, dtype=losses.dtype).index_add(0, where[0], -losses)

    @torch.no_grad()
    def describe(
        self, max_new_tokens: int, num_beams: int = 1, suppress_tokens: Sequence[int] | None = None, **images: Tensor
    ) -> Tensor:
        """Returns captions as token ids `(B, L)`, with the start token, padded after the end. images: see
        `hidden_of`. num_beams: of beam search; 1 takes the most probable token each time.
        suppress_tokens: ids of tokens that no caption has."""
        outputs = BaseModelOutput(last_hidden_state=self.hidden_of(images))
        options = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "do_sample": False}
        options |= {"suppress_tokens": [*suppress_tokens]} if suppress_tokens else {}
        return self.full_model.generate(encoder_outputs=outputs, **options)


def predicted(labels: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Returns rows and columns of the labels `(B, L)` that are not `IGNORED`, and these labels, `(M,)`."""
    where = positions_of(labels != IGNORED)
    return where, labels[where]


def set_tokens(full_model: VisionEncoderDecoderModel, tokens: Tokens) -> None:
    """Writes the tokens to the configs of a model and of its generation, so that `generate` begins and ends captions as
    in training."""
    ids = {"decoder_start_token_id": tokens.start, "eos_token_id": tokens.end, "pad_token_id": tokens.pad}
    for name, value in ids.items():
        setattr(full_model.config, name, value)
    config = full_model.generation_config or GenerationConfig()
    config.update(bos_token_id=tokens.start, **ids)
    full_model.generation_config = config
