"""Image-text matching: predict whether a caption belongs to an image, from the tokens of both.

Li, Selvaraju, Gotmare, Joty, Xiong and Hoi, "Align before Fuse", NeurIPS 2021,
https://huggingface.co/papers/2107.07651. As in the paper, hard negatives are drawn by the scores of a contrastive loss
that is trained at the same time.

    pixel_values (B, 3, S, S), input_ids (B, L) -> two encoders -> tokens (B, P, D), (B, L, D) and embeddings
    embeddings -> contrastive loss, and 2 B drawn negatives
    tokens of B right and 2 B wrong pairs -> fusion transformer -> logits (3 B,) -> binary cross-entropy

The first token of the fusion transformer is a projection of the cosine of the two embeddings. The cosine separates many
pairs already, so the fusion transformer only learns what the tokens add to it.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..features import last_hidden, width
from ..modeling import PretextOutput
from ..modules.caption_cues import CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES
from ..modules.cues import COLOR_HISTOGRAM, CORNERS, SILHOUETTE, SMALL_THUMBNAIL
from ..modules.distributed import gather, gather_sequences
from ..modules.dual_encoder import TwoTowers, check_pairs, clamp_scale, image_inputs, normalised, pair_labels, scale_of
from ..modules.losses import softmax_loss_of_ranks
from ..modules.wrong_pairs import balanced_accuracy, balanced_cross_entropy, wrong_ones
from ..presets import Preset, pairs

PRESET = Preset(
    encoder=pairs.resnet_and_transformer,
    large=pairs.large_resnet_and_transformer,
    tiny=pairs.tiny_resnet_and_transformer,
    dataset="emoji",
    samples=51_000,
    settings={**pairs.SMALL, "negatives": "shuffled", "per_device_train_batch_size": 128},
    for_large={**pairs.LARGE, "negatives": "hard"},
    smoke={"fusion_width": 32, "fusion_heads": 2},
)


@strict
@dataclass
class MatchingTask:
    """Settings of image-text matching.

    negatives: how wrong pairs are drawn. hard: in proportion to the softmax of the contrastive scores, so that pairs
        that look right are drawn most often; shuffled: all with the same probability.
    contrastive_weight: weight of the contrastive loss of image embeddings and text embeddings. 0 leaves it out; hard
        negatives are then drawn by scores that are not trained.
    fusion_width: hidden size of the fusion transformer, which processes image tokens and text tokens together.
    fusion_layers: number of layers of the fusion transformer.
    fusion_heads: number of attention heads of the fusion transformer.
    """

    _argument_group_name: ClassVar[str] = "objective"

    negatives: Literal["hard", "shuffled"] = "hard"
    contrastive_weight: float = 1.0
    fusion_width: int = 192
    fusion_layers: int = 2
    fusion_heads: int = 3

    def validate_sizes(self):
        if min(self.fusion_width, self.fusion_layers, self.fusion_heads) < 1 or self.fusion_width % self.fusion_heads:
            raise ValueError(
                "fusion_width must be a multiple of fusion_heads, and fusion_width, fusion_heads and fusion_layers "
                f"must be at least 1, but are {self.fusion_width}, {self.fusion_heads} and {self.fusion_layers}."
            )
        if self.contrastive_weight < 0:
            raise ValueError(f"contrastive_weight must be at least 0, but is {self.contrastive_weight}.")


class MatchingForPreTraining(TwoTowers):
    """An image encoder and a text encoder, and a fusion transformer over the tokens of both that predicts whether image
    and caption belong together.

    `TwoTowers` lists the supported encoders. The checkpoint is the model of the two encoders; the fusion transformer is
    stored next to it, in pretext.safetensors.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`), labels (`(B,)`, integers: pairs
    with equal labels are no negatives of each other; default: all pairs are negatives of each other). In training, the
    batches of all ranks form one batch.

    Returns features (`(B, D)`: image embeddings), logits (`(3 B,)`: of the right pairs, of each image with a wrong
    caption, of each caption with a wrong image), labels (`(3 B,)`: 1 for right, 0 for wrong, `IGNORED` if the batch has
    no negative for the row). Logs: accuracy of matching, the mean over right and wrong pairs; contrastive_accuracy.

    Example:
        >>> model = MatchingForPreTraining.from_encoders(ViTConfig(image_size=64, patch_size=8), BertConfig())
        >>> model(pixel_values=torch.rand(4, 3, 64, 64), input_ids=torch.randint(1000, 2000, (4, 9))).logits.shape
        torch.Size([12])
    """

    objective = "matching"
    task_class = MatchingTask
    capabilities = ("embed", "match")
    cues = (COLOR_HISTOGRAM, SMALL_THUMBNAIL, SILHOUETTE)
    artefacts = (CORNERS, CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES)
    formula = (
        r"-\frac{1}{2}\left[\frac{1}{|R|}\sum_{(x, t) \in R} \log p_\theta(x, t) + \frac{1}{|W|}\sum_{(x, t) \in W} "
        r"\log\left(1 - p_\theta(x, t)\right)\right] + \lambda \mathcal L_{\text{contrastive}}, "
        r"\quad R \text{ right pairs}, W \text{ wrong ones}"
    )
    limits = (
        "Each image-text pair needs a separate forward pass of the fusion transformer. For search, select candidates "
        "by their embeddings first, and rank only these with the fusion transformer.",
        "Captions of other images count as wrong, even if they describe the image, unless both have the same label.",
        "The model hardly understands words that do not occur in its training texts.",
    )

    def __init__(self, full_model: PreTrainedModel, task: MatchingTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        towers = [width(self.encoders[kind]) for kind in self.inputs]
        self.pretext_head = Fusion(*towers, task.fusion_width, task.fusion_layers, task.fusion_heads)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Tensor,
    ) -> PretextOutput:
        patches, images = self.encode_images(pixel_values)
        words, texts = self.encode_texts(input_ids, attention_mask, **inputs)
        check_pairs(images, texts, labels, self.training)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.training:
            clamp_scale(self.full_model)
        labels = pair_labels(labels, len(images), images.device, self.training)
        with torch.autocast(images.device.type, enabled=False):
            contrastive, retrieved, wrong = self.contrast(images, texts, labels)
        logits = self.compare((patches, images), (words, texts, attention_mask), wrong)  # (3 B,)
        right = torch.cat([torch.ones_like(labels), *(index.clamp(max=0) for index in wrong)])
        losses = {"matching": balanced_cross_entropy(logits, right)}
        if self.task.contrastive_weight:
            losses["contrastive"] = self.task.contrastive_weight * contrastive
        logs = {"accuracy": balanced_accuracy(logits, right), "contrastive_accuracy": retrieved}
        return self.output(losses, logs, features=images, logits=logits, labels=right)

    def encode_images(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes images. Returns tokens `(B, P, D)`, and embeddings `(B, d)` of length 1."""
        outputs = self.full_model.get_image_features(**image_inputs(self.full_model, pixel_values))
        hidden = last_hidden(self.encoder, outputs)
        return hidden.flatten(2).mT if hidden.ndim == 4 else hidden, normalised(outputs.pooler_output)

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs) -> tuple[Tensor, Tensor]:
        """Encodes texts. Returns tokens `(B, L, D)`, and embeddings `(B, d)` of length 1."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        given = {name: value for name, value in given.items() if value is not None}
        outputs = self.full_model.get_text_features(**given)
        return outputs.last_hidden_state, normalised(outputs.pooler_output)

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Embeds images (pixel_values) or texts (input_ids, attention_mask, ...). Returns `(B, d)`, of length 1."""
        return (self.encode_images if kind == "image" else self.encode_texts)(**batch)[1]

    def match(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the matching logit of each image and its caption, `(B,)`: above 0 if they belong together."""
        patches, images = self.encode_images(pixel_values)
        words, texts = self.encode_texts(input_ids, attention_mask)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.pretext_head(patches, words, attention_mask, (images * texts).sum(1))

    def contrast(self, images: Tensor, texts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns the contrastive loss `()` over the pairs of all ranks, its accuracy `()`, and the negatives: a wrong
        caption for each image, and a wrong image for each caption, `(B,)` each.

        images, texts: embeddings `(B, d)`. Negatives are indices into the batch of all ranks (see `wrong_ones`)."""
        all_images, all_texts, all_labels = (gather(value, self.training) for value in (images, texts, labels))
        loss = softmax_loss_of_ranks(
            images, texts, all_images, all_texts, scale_of(self.full_model), labels, all_labels
        )
        with torch.no_grad():
            scores = [
                scale_of(self.full_model) * images @ all_texts.T,
                scale_of(self.full_model) * texts @ all_images.T,
            ]
            same, hard, generator = labels[:, None] == all_labels, self.task.negatives == "hard", self.generator()
            accuracy = same.gather(1, scores[0].argmax(1, keepdim=True)).float().mean()
            return loss, accuracy, [wrong_ones(one, same, hard, generator) for one in scores]

    def compare(
        self, of_images: tuple[Tensor, Tensor], of_texts: tuple[Tensor, Tensor, Tensor], wrong: list[Tensor]
    ) -> Tensor:
        """Returns the logits `(3 B,)` of the right pairs, of the pairs with a wrong caption, and of those with a wrong
        image.

        of_images: tokens and embeddings. of_texts: tokens, embeddings and attention mask. wrong: negatives, see
        `contrast`."""
        (patches, images), (words, texts, mask) = of_images, of_texts
        caption, image = (index.clamp(min=0) for index in wrong)
        # detached: only the contrastive loss trains the cosines, not the matching loss
        images, texts = images.detach(), texts.detach()
        all_images, all_texts = gather(images, self.training), gather(texts, self.training)
        cosines = [images * texts, images * all_texts[caption], all_images[image] * texts]
        all_patches = gather(patches, self.training)
        all_words, all_masks = gather_sequences(words, self.training), gather_sequences(mask, self.training)
        longer = (0, all_words.shape[1] - words.shape[1])
        words, mask = F.pad(words, (0, 0, *longer)), F.pad(mask, longer)
        return self.pretext_head(
            torch.cat([patches, patches, all_patches[image]]),
            torch.cat([words, all_words[caption], words]),
            torch.cat([mask, all_masks[caption], mask]),
            torch.cat(cosines).sum(1),
        )


class Fusion(nn.Module):
    """Fusion transformer over the tokens of an image and a text, with a head for the matching logit."""

    def __init__(self, image_width: int, text_width: int, width: int, layers: int, heads: int):
        super().__init__()
        self.of_images, self.of_texts = nn.Linear(image_width, width), nn.Linear(text_width, width)
        self.first = nn.Linear(1, width)
        options = dict(dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, patches: Tensor, words: Tensor, attention_mask: Tensor, cosine: Tensor) -> Tensor:
        """Returns the matching logits `(B,)`.

        patches: image tokens `(B, P, D)`. words: text tokens `(B, L, D)`. attention_mask: of the text, `(B, L)`, 0 for
        padding. cosine: of image embedding and text embedding, `(B,)`."""
        with torch.autocast(cosine.device.type, enabled=False):  # bf16 is too coarse for cosines of hard pairs
            first = self.first(cosine[:, None].to(self.first.weight.dtype))[:, None]
        parts = [first, self.of_images(patches), self.of_texts(words)]
        hidden = torch.cat(parts, dim=1)
        padding = F.pad(attention_mask == 0, (hidden.shape[1] - attention_mask.shape[1], 0))
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        return self.head(self.norm(hidden[:, 0]))[:, 0]
