"""Captioning: predict the words of an image's caption, each from the image and the words before it.

Backward captions: Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
https://huggingface.co/papers/2006.06666. Parallel prediction: Tschannen, Kumar, Steiner, Zhai, Houlsby and Beyer, "Image
Captioners Are Scalable Vision Learners Too" (Cap and CapPa), NeurIPS 2023, https://huggingface.co/papers/2306.07915.
Prefixes: Wang, Yu, Yu, Dai, Tsvetkov and Cao, "SimVLM", ICLR 2022, https://huggingface.co/papers/2108.10904.

    pixel_values (B, 3, S, S) -> image encoder -> (B, T, D); input_ids (B, L) -> start, w1, w2, ... -> decoder, which
    sees the image by cross-attention -> head, on the M predicted tokens only -> logits (M, vocabulary) -> cross-entropy
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.modeling_outputs import BaseModelOutput

from ..features import pool, positions
from ..modeling import PretextModel, PretextOutput
from ..modules.caption_tokens import bare, shifted, tokens_of, tokens_of_config
from ..modules.captioner import captioner, check_parallel, check_sees, check_sequence, is_cross, parallel_mask
from ..modules.draws import drawn_by
from ..modules.dual_encoder import check_counts
from ..modules.losses import cross_entropy, widened
from ..modules.masking import IGNORED, positions_of
from ..utils.ranks import rank_and_ranks


@strict
@dataclass
class CaptioningTask:
    """Settings of captioning.

    backward: whether each caption is also predicted from right to left, with the same weight (VirTex). The same decoder
        predicts both; a learned vector, added to the start token, tells it the direction.
    parallel_share: share of the captions of a training step whose tokens are all predicted at once, from the image
        alone (CapPa: 0.75): all inputs of the decoder are the mask token, and its attention is not causal.
    prefix: maximum number of tokens at the start of a caption that the decoder sees but does not predict, drawn evenly
        from 0 for each caption of a training step (SimVLM).
    label_smoothing: share of the target probability that is spread over the vocabulary in training.
    frozen: the model that is not trained: image encoder, or decoder except for its cross-attention; default: both are
        trained.
    start_token_id: id of the token before the first word; a recipe takes it from the tokenizer, as the next three.
    end_token_id: id of the token after the last word.
    pad_token_id: id of the token that fills rows.
    mask_token_id: id of the mask token, for parallel_share.
    """

    _argument_group_name: ClassVar[str] = "objective"

    backward: bool = False
    parallel_share: float = 0.0
    prefix: int = 0
    label_smoothing: float = 0.0
    frozen: Literal["image", "text"] | None = None
    start_token_id: int | None = None
    end_token_id: int | None = None
    pad_token_id: int | None = None
    mask_token_id: int | None = None

    def validate_shares(self):
        if not 0 <= self.parallel_share <= 1:
            raise ValueError(f"parallel_share must be from 0 to 1, but is {self.parallel_share}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, but is {self.label_smoothing}.")
        if self.prefix < 0:
            raise ValueError(f"prefix must be at least 0, but is {self.prefix}.")
        if self.prefix and self.parallel_share == 1:
            raise ValueError(
                f"prefix={self.prefix} has no effect with parallel_share=1, where the decoder sees no word of a "
                "caption. Set prefix=0."
            )


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

prompt = processor.tokenizer("a red", add_special_tokens=False, return_tensors="pt").input_ids  # the caption goes on
tokens = model.generate(pixel_values=pixels, decoder_input_ids=prompt, max_new_tokens=20)  # start token is put before
print(processor.tokenizer.batch_decode(tokens, skip_special_tokens=True))

encoder = model.encoder  # evaluated under "Transfer"; encoder.save_pretrained("encoder") is what AutoModel loads
with torch.no_grad():
    print("features of the image", encoder(pixel_values=pixels).last_hidden_state.mean(1).shape)
# with its losses and the likelihood of captions: hf_pretext.load("{{ folder }}")
"""


class CaptioningForPreTraining(PretextModel):
    """An image encoder and a decoder of texts that learn by predicting captions, as a `VisionEncoderDecoderModel`.

    The checkpoint has that class: `AutoModelForImageTextToText` loads it, and `generate` writes captions, from left to
    right. `model.encoder.save_pretrained(folder)` saves the image encoder alone, which `AutoModel` loads. The head over
    the vocabulary runs on predicted tokens only: padding takes none of its compute.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`; texts as the tokenizer gives them,
    with or without tokens at start and end, padded). labels are accepted, but not used.

    In `eval()` each token is predicted from all tokens before it, without `parallel_share`, `prefix` and
    `label_smoothing`: the loss is the negative log-likelihood. In training it is the mean over the tokens of all ranks.

    Returns features (`(B, D)`: mean of the encoder's last hidden state), logits (`(M, vocabulary)`) and labels (`(M,)`)
    of the M tokens that are predicted from left to right or in parallel, row by row. Logs: accuracy of the next token;
    backward_accuracy and parallel_accuracy with these settings.

    Example:
        >>> model = CaptioningForPreTraining.from_encoders(
        ...     image=ViTConfig(), text=GPT2Config(), start_token_id=50256, end_token_id=50256, pad_token_id=50256
        ... )
        >>> model(pixel_values=torch.rand(2, 3, 224, 224), input_ids=torch.randint(1000, (2, 7))).logits.shape
        torch.Size([16, 50257])
    """

    objective = "captioning"
    task_class = CaptioningTask
    inputs = ("image", "text")
    capabilities = ("describe",)
    auto_class = AutoModelForImageTextToText
    pipeline_tag = "image-to-text"
    usage = USAGE
    formula = (
        r"-\frac{1}{N}\sum_{t=1}^{T+1} \log p_\theta\left(w_t \mid w_{<t}, x\right), \quad w_{T+1} \text{ the end; "
        r"backward: } w_{>t} \text{ in place of } w_{<t}\text{; parallel: neither}"
    )
    limits = (
        "Captions are guesses. The model names what is frequent in its training captions, also where the image does "
        "not show it.",
        "It learns what captions mention. What they leave out, like texture and background, the features may lack.",
        "Pipelines of transformers do not take this class. `generate` does, as shown above.",
    )

    def __init__(self, full_model: VisionEncoderDecoderModel, task: CaptioningTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        names = {name: getattr(task, f"{name}_token_id") for name in ("start", "end", "pad")}
        self.tokens = tokens_of_config(full_model.config, names)
        self.positions = positions(full_model.decoder.base_model)[1]
        set_tokens(full_model, self.tokens)
        self.pretext_head = None
        if task.backward:
            width = full_model.decoder.get_input_embeddings().embedding_dim
            self.pretext_head = nn.ParameterDict({"direction": nn.Parameter(torch.zeros(width))})
        self.freeze()
        self.post_init()

    @classmethod
    def from_encoders(
        cls, image: PreTrainedModel | PreTrainedConfig, text: PreTrainedModel | PreTrainedConfig, **settings
    ) -> "CaptioningForPreTraining":
        """Joins an image encoder and a decoder, or new ones of given configs. Trained models are trained in place.

        text: a causal language model; without cross-attention, it gets new one. settings: fields of `CaptioningTask`.
        Raises `ValueError` like `captioner` and `native`."""
        return cls.from_encoder(captioner(image, text), **settings)

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "CaptioningForPreTraining":
        """As `PretextModel.from_encoder`, for a `VisionEncoderDecoderModel` or its config. Also raises `ValueError` for
        token ids that are missing or not in the vocabulary, and for a decoder that can't predict in parallel, with
        `parallel_share`."""
        model = super().from_encoder(encoder, **settings)
        if model.task.parallel_share:
            if model.task.mask_token_id is None:
                raise ValueError(f"parallel_share={model.task.parallel_share} needs mask_token_id, but it is not set.")
            check_parallel(model.full_model)
        return model

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

    @classmethod
    def complete(cls, task: CaptioningTask, processors: Mapping[str, Any]) -> CaptioningTask:
        """Fills in the tokens that the tokenizer puts around a text, and its mask token.

        Raises `ValueError` for a tokenizer without an end token, and with `parallel_share`, without a mask token."""
        tokenizer = processors["text"]
        tokens = tokens_of(tokenizer)
        found = {f"{name}_token_id": value for name, value in dataclasses.asdict(tokens).items()}
        if task.parallel_share:
            found["mask_token_id"] = tokenizer.mask_token_id
            if task.mask_token_id is None and tokenizer.mask_token_id is None:
                raise ValueError(
                    f"parallel_share={task.parallel_share} needs a mask token, but the tokenizer "
                    f"({type(tokenizer).__name__}) has none. Give another --tokenizer, or the id of one of its tokens "
                    "as --mask_token_id."
                )
        return dataclasses.replace(task, **{k: v for k, v in found.items() if getattr(task, k) is None})

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
        """Freezes what `frozen` names: the image encoder, or the decoder except for its cross-attention."""
        if self.task.frozen == "image":
            self.full_model.encoder.requires_grad_(False)
        elif self.task.frozen == "text":
            for name, parameter in self.full_model.decoder.named_parameters():
                parameter.requires_grad_(is_cross(name))

    def train(self, mode: bool = True) -> "CaptioningForPreTraining":
        """As `nn.Module.train`. A frozen model stays in `eval()` mode: no dropout, fixed statistics of batch norm."""
        super().train(mode)
        if self.task.frozen:
            (self.full_model.encoder if self.task.frozen == "image" else self.full_model.decoder).eval()
        return self

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> PretextOutput:
        check_counts(pixel_values, input_ids)
        images = self.full_model.encoder(pixel_values=pixel_values).last_hidden_state
        inputs, wanted = self.shifted(input_ids, attention_mask)
        parallel = self.drawn_parallel(len(inputs))
        if self.training and self.task.prefix:
            wanted = self.without_prefix(wanted, parallel)
        where, words = predicted(wanted)
        logits = self.decode(images, inputs, where, parallel)
        right = logits.argmax(-1) == words
        losses = {"forward": self.loss_of(logits, words)}
        logs = {"accuracy": right.float().mean()}
        if parallel is not None:
            of = parallel[where[0]]
            logs = {"accuracy": share(right, ~of), "parallel_accuracy": share(right, of)}
        if self.task.backward:
            inputs, wanted = self.shifted(input_ids, attention_mask, backward=True)
            where, turned = predicted(wanted)
            scores = self.decode(images, inputs, where, backward=True)
            losses["backward"] = self.loss_of(scores, turned)
            logs["backward_accuracy"] = (scores.argmax(-1) == turned).float().mean()
        # detached: the decoder alone trains the encoder
        return self.output(losses, logs, features=pool(images).detach(), logits=logits, labels=words)

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

    def drawn_parallel(self, count: int) -> Tensor | None:
        """Draws which captions are predicted in parallel: `(count,)`, bool; None for none."""
        if not self.training or not self.task.parallel_share:
            return None
        return torch.rand(count, device=self.device) < self.task.parallel_share

    def without_prefix(self, labels: Tensor, parallel: Tensor | None) -> Tensor:
        """Returns labels `(B, L)` that are `IGNORED` in a random prefix. The end is always predicted, and so are all
        tokens in rows where `parallel` (`(B,)`, bool) is True."""
        options = {"device": labels.device, **drawn_by(self.generator())}
        length = torch.randint(self.task.prefix + 1, (len(labels), 1), **options)
        if parallel is not None:
            length = length.masked_fill(parallel[:, None], 0)
        last = (labels != IGNORED).sum(1, keepdim=True) - 1
        at = torch.arange(labels.shape[1], device=labels.device)
        return labels.masked_fill(at < torch.minimum(length, last), IGNORED)

    def decode(
        self,
        images: Tensor,
        inputs: Tensor,
        where: tuple[Tensor, Tensor],
        parallel: Tensor | None = None,
        backward: bool = False,
    ) -> Tensor:
        """Returns the logits of the predicted tokens, `(M, vocabulary)`.

        images: `(B, T, D)`, hidden states. inputs: `(B, L)`. where: rows and columns of the M predicted tokens, see
        `positions_of`. parallel: `(B,)`, True for captions of which the decoder sees no token. backward: adds the
        vector of the direction. Padding needs no mask: it comes last, and attention is causal."""
        given: dict[str, Tensor] = {"decoder_input_ids": inputs}
        if parallel is not None:
            given["decoder_input_ids"] = torch.where(parallel[:, None], self.task.mask_token_id, inputs)
            given["decoder_attention_mask"] = parallel_mask(parallel, inputs.shape[1], self.full_model)
        if backward:
            embedded = self.full_model.decoder.get_input_embeddings()(inputs)
            turned = F.pad(self.pretext_head["direction"][None], (0, 0, 0, inputs.shape[1] - 1))  # (L, D)
            given = {"decoder_inputs_embeds": embedded + turned.to(embedded.dtype)}
        head = self.full_model.decoder.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda module, arguments: (arguments[0][where], *arguments[1:]))
        try:
            outputs = BaseModelOutput(last_hidden_state=images)
            return self.full_model(encoder_outputs=outputs, use_cache=False, **given).logits
        finally:
            handle.remove()

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean cross-entropy, `()`: in training over the tokens of all ranks, whose captions differ in
        length. logits (`(M, vocabulary)`), labels (`(M,)`)."""
        if not self.training:
            return cross_entropy(logits, labels)
        loss, ranks = cross_entropy(logits, labels, self.task.label_smoothing), rank_and_ranks()[1]
        if ranks == 1:
            return loss
        count = torch.tensor(float(len(labels)), device=logits.device)
        dist.all_reduce(count)
        return loss * (len(labels) * ranks / count)

    # capabilities

    @torch.no_grad()
    def log_likelihood(self, input_ids: Tensor, attention_mask: Tensor | None = None, **images: Tensor) -> Tensor:
        """Returns the natural logarithm of the probability of each caption given its image, `(B,)`, in float32: the sum
        over its tokens and the end, from left to right. images: inputs of the image encoder."""
        hidden = self.full_model.encoder(**images).last_hidden_state
        where, words = predicted((pair := self.shifted(input_ids, attention_mask))[1])
        losses = F.cross_entropy(widened(self.decode(hidden, pair[0], where)), words, reduction="none")
        return torch.zeros(len(input_ids), device=losses.device, dtype=losses.dtype).index_add(0, where[0], -losses)

    @torch.no_grad()
    def describe(self, max_new_tokens: int, num_beams: int = 1, **images: Tensor) -> Tensor:
        """Returns captions as token ids `(B, L)`, with the start token, padded after the end. images: inputs of the
        image encoder. num_beams: of beam search; 1 takes the most probable token each time."""
        return self.full_model.generate(**images, max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False)


def predicted(labels: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Returns rows and columns of the labels `(B, L)` that are not `IGNORED`, and these labels, `(M,)`."""
    where = positions_of(labels != IGNORED)
    return where, labels[where]


def share(right: Tensor, counted: Tensor) -> Tensor:
    """Returns the share of True in `right` where `counted` is True, `()`; 0 if it nowhere is. Both `(M,)`, bool."""
    return (right & counted).sum() / counted.sum().clamp(min=1)


def set_tokens(full_model: VisionEncoderDecoderModel, tokens) -> None:
    """Writes the tokens to the configs of a model and of its generation, so that `generate` begins and ends captions as
    in training."""
    ids = {"decoder_start_token_id": tokens.start, "eos_token_id": tokens.end, "pad_token_id": tokens.pad}
    for name, value in ids.items():
        setattr(full_model.config, name, value)
    config = full_model.generation_config or GenerationConfig()
    config.update(bos_token_id=tokens.start, **ids)
    full_model.generation_config = config
