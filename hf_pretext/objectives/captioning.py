"""Captioning: predict the words of an image's caption, each from the image and the words before it.

Backward captions: Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
https://huggingface.co/papers/2006.06666. Parallel prediction: Tschannen, Kumar, Steiner, Zhai, Houlsby and Beyer,
"Image Captioners Are Scalable Vision Learners Too" (CapPa), NeurIPS 2023, https://huggingface.co/papers/2306.07915.
Prefixes: Wang, Yu, Yu, Dai, Tsvetkov and Cao, "SimVLM", ICLR 2022, https://huggingface.co/papers/2108.10904.

    pixel_values (B, 3, S, S) -> image encoder -> (B, T, D); input_ids (B, L) -> start, w1, w2, ... -> decoder, which
    sees the image by cross-attention -> head, on the M predicted tokens only -> logits (M, vocabulary) -> cross-entropy
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, VisionEncoderDecoderModel

from ..features import pool
from ..modeling import PretextOutput
from ..modules.caption_cues import CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES
from ..modules.caption_tokens import tokens_of
from ..modules.captioner import check_parallel, parallel_mask
from ..modules.cues import COLOR_HISTOGRAM, CORNERS, SILHOUETTE, SMALL_THUMBNAIL
from ..modules.distributed import over_all_ranks
from ..modules.draws import drawn_by
from ..modules.dual_encoder import check_counts
from ..modules.image_to_text import ImageToText, predicted
from ..modules.losses import cross_entropy
from ..modules.masking import IGNORED
from ..presets import Preset, pairs

PRESET = Preset(
    encoder=pairs.vit_and_gpt2,
    large=pairs.large_vit_and_gpt2,
    tiny=pairs.tiny_vit_and_gpt2,
    dataset="emoji",
    samples=64_000,
    settings={**pairs.SMALL, "vocab_size": 4000, "per_device_train_batch_size": 128, "learning_rate": 2e-3},
    for_large=pairs.LARGE,
)


@strict
@dataclass
class CaptioningTask:
    """Settings of captioning.

    backward: whether each caption is also predicted from right to left, with the same weight (VirTex). The same decoder
        predicts both; a learned vector, added to the start token, marks the direction.
    parallel_share: share of the captions of a training step whose tokens are all predicted at once, from the image
        alone (CapPa: 0.75): all inputs of the decoder are the mask token, and its attention is not causal.
    prefix: maximum number of tokens at the start of a caption that the decoder sees but does not predict, drawn evenly
        from 0 for each caption of a training step (SimVLM).
    label_smoothing: share of the target probability that is spread over the vocabulary in training.
    frozen: the model that is not trained: image encoder, or decoder except for its cross-attention and for a head with
        other weights than its embeddings; default: both are trained.
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


class CaptioningForPreTraining(ImageToText):
    """An image encoder and a decoder of texts that learn by predicting captions, as a `VisionEncoderDecoderModel`.

    `ImageToText` describes the checkpoint.

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
    cues = (COLOR_HISTOGRAM, SMALL_THUMBNAIL, SILHOUETTE)
    artefacts = (CORNERS, CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES)
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
        self.pretext_head = None
        if task.backward:
            width = full_model.decoder.get_input_embeddings().embedding_dim
            self.pretext_head = nn.ParameterDict({"direction": nn.Parameter(torch.zeros(width))})
        self.post_init()

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "CaptioningForPreTraining":
        """As `PretextModel.from_encoder`, for a `VisionEncoderDecoderModel` or its config. Also raises `ValueError` for
        token ids that are missing or not in the vocabulary, and for a decoder that can't predict in parallel, with
        `parallel_share`."""
        model = super().from_encoder(encoder, **settings)
        if model.task.parallel_share:
            mask, vocabulary = model.task.mask_token_id, model.full_model.config.decoder.vocab_size
            if mask is None:
                raise ValueError(f"parallel_share={model.task.parallel_share} needs mask_token_id, but it is not set.")
            if not 0 <= mask < vocabulary:
                raise ValueError(
                    f"mask_token_id={mask}: the decoder has a vocabulary of {vocabulary:,} tokens. Give the id of one "
                    "of them."
                )
            check_parallel(model.full_model)
        return model

    @classmethod
    def complete(cls, task: CaptioningTask, processors: Mapping[str, Any]) -> CaptioningTask:
        """Fills in the tokens that the tokenizer puts around a text, and its mask token.

        Raises `ValueError` for a tokenizer without an end token, and with `parallel_share`, without a mask token."""
        tokenizer = processors["text"]
        tokens = tokens_of(tokenizer)
        filled = {f"{name}_token_id": value for name, value in dataclasses.asdict(tokens).items()}
        if task.parallel_share:
            filled["mask_token_id"] = tokenizer.mask_token_id
            if task.mask_token_id is None and tokenizer.mask_token_id is None:
                raise ValueError(
                    f"parallel_share={task.parallel_share} needs a mask token, but the tokenizer "
                    f"({type(tokenizer).__name__}) has none. Give another --tokenizer, or the id of one of its tokens "
                    "as --mask_token_id."
                )
        return dataclasses.replace(task, **{k: v for k, v in filled.items() if getattr(task, k) is None})

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
            logs = {"accuracy": share(right, ~of)} if self.task.parallel_share < 1 else {}
            logs["parallel_accuracy"] = share(right, of)
        if self.task.backward:
            inputs, wanted = self.shifted(input_ids, attention_mask, backward=True)
            where, turned = predicted(wanted)
            scores = self.decode(images, inputs, where, backward=True)
            losses["backward"] = self.loss_of(scores, turned)
            logs["backward_accuracy"] = (scores.argmax(-1) == turned).float().mean()
        # detached: the decoder alone trains the encoder
        return self.output(losses, logs, features=pool(images).detach(), logits=logits, labels=words)

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
        """As `ImageToText.decode`. parallel: `(B,)`, True for captions of which the decoder sees no token. backward:
        adds the vector of the direction to the start token."""
        if backward:
            embedded = self.full_model.decoder.get_input_embeddings()(inputs)
            turned = F.pad(self.pretext_head["direction"][None], (0, 0, 0, inputs.shape[1] - 1))  # (L, D)
            return super().decode(images, None, where, decoder_inputs_embeds=embedded + turned.to(embedded.dtype))
        if parallel is None:
            return super().decode(images, inputs, where)
        mask = parallel_mask(parallel, inputs.shape[1], self.full_model)
        inputs = torch.where(parallel[:, None], self.task.mask_token_id, inputs)
        return super().decode(images, inputs, where, decoder_attention_mask=mask)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean cross-entropy, `()`: in training over the tokens of all ranks, whose captions differ in
        length. logits (`(M, vocabulary)`), labels (`(M,)`)."""
        if not self.training:
            return cross_entropy(logits, labels)
        return over_all_ranks(cross_entropy(logits, labels, self.task.label_smoothing), len(labels))


def share(right: Tensor, counted: Tensor) -> Tensor:
    """Returns the share of True in `right` where `counted` is True, `()`; 0 if it nowhere is. Both `(M,)`, bool."""
    return (right & counted).sum() / counted.sum().clamp(min=1)
