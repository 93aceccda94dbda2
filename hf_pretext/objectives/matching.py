"""Image-text matching: predict whether a caption belongs to an image, from the tokens of the two.

Li, Selvaraju, Gotmare, Joty, Xiong and Hoi, "Align before Fuse", NeurIPS 2021,
https://huggingface.co/papers/2107.07651. There, wrong captions are those that a contrastive loss, learned beside, takes
for right (`negatives` hard).

    pixel_values (B, 3, S, S), input_ids (B, L) -> two towers -> tokens (B, P, D), (B, L, D), embeddings -> B right
    pairs and 2 B wrong ones, mined -> fusion transformer -> a logit each -> binary cross-entropy; and contrastive loss

The first token of the fusion transformer is made of the cosine of the embeddings, which tells much already: it is left
to learn what the tokens tell beyond.
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
from ..modules.distributed import gather, gather_sequences
from ..modules.dual_encoder import TwoTowers, check_pairs, clamp_scale, image_inputs, normalised, pair_labels, scale_of
from ..modules.losses import softmax_loss_of_ranks
from ..modules.masking import IGNORED


@strict
@dataclass
class MatchingTask:
    """Settings of image-text matching.

    negatives: wrong pairs are those that the contrastive scores take for right (hard), or any (shuffled).
    contrastive_weight: of the contrastive loss beside; 0 leaves it out, and hard negatives are then drawn by towers
        that never learned to tell them.
    fusion_width, fusion_layers, fusion_heads: of the transformer that sees both.
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
                "fusion_width must be a multiple of fusion_heads, and both and fusion_layers at least 1, but they are "
                f"{self.fusion_width}, {self.fusion_heads} and {self.fusion_layers}."
            )
        if self.contrastive_weight < 0:
            raise ValueError(f"contrastive_weight must be at least 0, but is {self.contrastive_weight}.")


class MatchingForPreTraining(TwoTowers):
    """A picture tower and a text tower (see `TwoTowers`), and a transformer over the tokens of both that tells whether
    they belong together. The checkpoint is that of the towers; the transformer lies beside.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`), labels (`(B,)`, whole numbers:
    pairs with the same one are no negatives of each other; each pair is by itself where there are none). In training
    all ranks' batches are one.

    Returns features (`(B, D)`, the pictures' embeddings), logits (`(3 B,)`: of the right pairs, of each picture with a
    wrong caption, of each caption with a wrong picture), labels (`(3 B,)`: 1 for right, 0 for wrong, `IGNORED` where
    the batch has nothing wrong to offer). Logs: accuracy, of right and wrong pairs alike; contrastive_accuracy.

    Example:
        >>> model = MatchingForPreTraining.from_encoders(ViTConfig(image_size=64, patch_size=8), BertConfig())
        >>> model(pixel_values=torch.rand(4, 3, 64, 64), input_ids=torch.randint(1000, 2000, (4, 9))).logits.shape
        torch.Size([12])
    """

    objective = "matching"
    task_class = MatchingTask
    capabilities = ("embed", "match")
    formula = (
        r"-\frac{1}{2}\left[\frac{1}{|R|}\sum_{(x, t) \in R} \log p_\theta(x, t) + \frac{1}{|W|}\sum_{(x, t) \in W} "
        r"\log\left(1 - p_\theta(x, t)\right)\right] + \lambda \mathcal L_{\text{contrastive}}, "
        r"\quad R \text{ right pairs}, W \text{ wrong ones}"
    )
    limits = (
        "Each pair of a picture and a text takes a pass of its own through the transformer over both: for search, take "
        "the embeddings first and let it rank the best.",
        "A caption counts as wrong for every picture but its own, also where it fits.",
        "Words that training never saw mean hardly anything to it.",
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
        """Pictures to tokens, `(B, P, D)`, and embeddings of length 1."""
        outputs = self.full_model.get_image_features(**image_inputs(self.full_model, pixel_values))
        hidden = last_hidden(self.encoder, outputs)
        return hidden.flatten(2).mT if hidden.ndim == 4 else hidden, normalised(outputs.pooler_output)

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs) -> tuple[Tensor, Tensor]:
        """Texts to tokens, `(B, L, D)`, and embeddings of length 1."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        given = {name: value for name, value in given.items() if value is not None}
        outputs = self.full_model.get_text_features(**given)
        return outputs.last_hidden_state, normalised(outputs.pooler_output)

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Images (pixel_values) or texts (input_ids, attention_mask, ...) to embeddings of length 1, `(B, D)`."""
        return (self.encode_images if kind == "image" else self.encode_texts)(**batch)[1]

    def match(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """How much each image and its caption belong together, `(B,)`: above 0 for yes."""
        patches, images = self.encode_images(pixel_values)
        words, texts = self.encode_texts(input_ids, attention_mask)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.pretext_head(patches, words, attention_mask, (images * texts).sum(1))

    def contrast(self, images: Tensor, texts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The contrastive loss among all ranks' pairs, the share of captions that are told by it, and for each picture
        a wrong caption and for each caption a wrong picture, by their numbers among all ranks' (see `wrong_ones`)."""
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
        """Logits of the right pairs, and of those with a wrong caption and a wrong image: `(3 B,)`.

        of_images: tokens and embeddings. of_texts: these, and the attention mask."""
        (patches, images), (words, texts, mask) = of_images, of_texts
        caption, image = (index.clamp(min=0) for index in wrong)
        # not to be moved by the loss of pairs: the contrastive loss alone says what a cosine means
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
    """A transformer over an image's and a text's tokens, and the logit of their belonging together."""

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
        """patches (`(B, P, D)`), words (`(B, L, D)`), attention_mask (`(B, L)`, 0 for padding), cosine (`(B,)`: of the
        embeddings). Returns `(B,)`."""
        with torch.autocast(cosine.device.type, enabled=False):  # cosines of hard pairs differ by little
            first = self.first(cosine[:, None].to(self.first.weight.dtype))[:, None]
        parts = [first, self.of_images(patches), self.of_texts(words)]
        hidden = torch.cat(parts, dim=1)
        padding = F.pad(attention_mask == 0, (hidden.shape[1] - attention_mask.shape[1], 0))
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        return self.head(self.norm(hidden[:, 0]))[:, 0]


def wrong_ones(scores: Tensor, same: Tensor, hard: bool, generator: torch.Generator | None = None) -> Tensor:
    """For each row a column that does not belong to it, `(b,)`; `IGNORED` for rows to which all belong.

    scores (`(b, n)`), same (`(b, n)`, bool: what belongs together). hard: drawn by the softmax of the scores, so that
    what is taken for right comes most often; else each alike."""
    none = same.all(1)
    chance = torch.where(same, -torch.inf, scores if hard else torch.zeros_like(scores)).float()
    chance = chance.masked_fill(none[:, None], 0.0).softmax(1)
    return torch.multinomial(chance, 1, generator=generator)[:, 0].masked_fill(none, IGNORED)


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, the mean of right pairs' (label 1) and wrong pairs' (label 0), however many there are of
    each. `()`; logits and labels `(n,)`."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits.dtype), reduction="none")
    return mean_of_classes(loss, labels)


def balanced_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of the shares of right and of wrong pairs that are predicted. `()`; logits and labels `(n,)`."""
    return mean_of_classes(((logits > 0) == (labels == 1)).float(), labels)


def mean_of_classes(values: Tensor, labels: Tensor) -> Tensor:
    """The mean of the means where the label is 1 and where it is 0; of a kind that does not occur, 0."""
    means = [(values * (labels == kind)).sum() / (labels == kind).sum().clamp(min=1) for kind in (0, 1)]
    return sum(means) / 2
