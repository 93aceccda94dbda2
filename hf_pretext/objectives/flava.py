"""Masked multimodal modelling: mask patches and tokens, predict them from the rest of the image and its caption, and
predict which caption belongs to which image.

Singh, Hu, Goswami, Couairon, Galuba, Rohrbach and Kiela, "FLAVA: A Foundational Language And Vision Alignment Model",
CVPR 2022, https://huggingface.co/papers/2112.04482

    pixel_values (B, 3, S, S) -> masked patches -> image encoder -> visual tokens of masked patches         mim
    input_ids (B, L)          -> masked tokens  -> text encoder  -> masked tokens                           mlm
    both, masked -> both encoders -> multimodal encoder -> masked patches and tokens, matching logits       mmm, itm
    both         -> both encoders -> embeddings (B, D), (B, D) -> scores (B, B)                             contrastive
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import FlavaModel, PreTrainedConfig, PreTrainedModel

from ..features import pool
from ..modeling import PretextOutput
from ..modules.distributed import gather, gather_sequences
from ..modules.dual_encoder import check_counts, check_pairs, clamp_scale, normalised, pair_labels, scale_of
from ..modules.losses import cross_entropy, softmax_loss_of_ranks
from ..modules.masked_pairs import MaskedPairs, MaskedPairsTask
from ..modules.masking import IGNORED, check_share, masked_prediction, prediction_head
from ..modules.patches import random_patches
from ..modules.wrong_pairs import wrong_ones
from ..presets import Preset, pairs

PRESET = Preset(
    encoder=pairs.flava,
    large=pairs.large_flava,
    tiny=pairs.tiny_flava,
    dataset="emoji",
    samples=128_000,
    settings={**pairs.SMALL, "per_device_train_batch_size": 128, "learning_rate": 2e-3},
    for_large=pairs.LARGE,
    smoke={"codebook_size": 64, "codebook_patches": 4000},
)

WEIGHTS = ("mim", "mlm", "mmm_image", "mmm_text", "itm", "contrastive")


@strict
@dataclass
class FlavaTask(MaskedPairsTask):
    """Settings of FLAVA's pretraining.

    mim_weight: weight of masked image modelling: predict the masked patches of images without captions.
    mlm_weight: weight of masked language modelling: predict the masked tokens of texts without images.
    mmm_image_weight: weight of masked multimodal modelling of images: predict the masked patches of image-text pairs.
    mmm_text_weight: weight of masked multimodal modelling of texts: predict the masked tokens of image-text pairs.
    itm_weight: weight of image-text matching: predict whether a caption belongs to its image.
    contrastive_weight: weight of the contrastive loss: predict which caption of the batch belongs to which image.
    mismatch_ratio: share of the image-text pairs that get the caption of another pair, for image-text matching. Their
        masked patches and tokens are not predicted. The contrastive loss uses the original captions of all pairs.
    negatives: how the captions for mismatched pairs are drawn. shuffled: all with the same probability; hard: in
        proportion to the softmax of the contrastive scores, so that captions that look right are drawn most often.
    """

    mim_weight: float = 1.0
    mlm_weight: float = 1.0
    mmm_image_weight: float = 1.0
    mmm_text_weight: float = 1.0
    itm_weight: float = 1.0
    contrastive_weight: float = 1.0
    mismatch_ratio: float = 0.5
    negatives: Literal["shuffled", "hard"] = "shuffled"

    def validate_weights(self):
        check_share("mismatch_ratio", self.mismatch_ratio)
        weights = {name: getattr(self, f"{name}_weight") for name in WEIGHTS}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"Weights of losses must be at least 0, and one of them above 0, but are {weights}.")


USAGE = """
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("{{ folder }}")
model = AutoModel.from_pretrained("{{ folder }}")
image = Image.new("RGB", (200, 100), "red")  # or your image: Image.open("image.png").convert("RGB")
images = processor(images=[image], return_tensors="pt")
texts = processor(text=["a cat", "a red car"], padding=True, return_tensors="pt")
with torch.no_grad():
    image_embeds = model.get_image_features(**images).pooler_output[:, 0]  # class token
    text_embeds = model.get_text_features(**texts).pooler_output[:, 0]
    hidden = model.image_model(**images).last_hidden_state
print("cosines", torch.nn.functional.cosine_similarity(image_embeds, text_embeds))
print("features of the image", hidden.mean(1).shape)  # from the image encoder alone, as under "Transfer"
# for the six losses and the matching score: hf_pretext.load("{{ folder }}")
"""


class FlavaForPreTraining(MaskedPairs):
    """transformers' `FlavaModel` (image encoder, text encoder and multimodal encoder), trained by six losses.

    The checkpoint is a `FlavaModel`, which `AutoModel` loads. A batch contains image-text pairs, only images or only
    texts; each of the three has different losses. In training, images are compared with the captions of all ranks.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`), or one of the two; labels (`(B,)`,
    integers: pairs with equal labels belong together; default: no two pairs do).

    Returns features (`(B, D)`): pooled tokens of the image encoder; for texts alone, of the text encoder. Logs, by kind
    of batch: accuracy of masked patches (mim_accuracy, mmm_image_accuracy), of masked tokens (mlm_accuracy,
    mmm_text_accuracy), of image-text matching (itm_accuracy), and of predicting the caption (contrastive_accuracy).

    Example:
        >>> model = FlavaForPreTraining.from_encoder(FlavaConfig(), mask_token_id=103)
        >>> model.codebook.fit([torch.rand(4, 3, 224, 224)])
        >>> sorted(model(pixel_values=torch.rand(4, 3, 224, 224)).losses)
        ['mim']
    """

    objective = "flava"
    task_class = FlavaTask
    formula = (
        r"\sum_k \lambda_k \mathcal L_k, \quad k \in \lbrace \text{mim}, \text{mlm}, \text{mmm image}, "
        r"\text{mmm text}, \text{itm}, \text{contrastive} \rbrace; \quad "
        r"\mathcal L_{\text{masked}} = -\frac{1}{|M|}\sum_{i \in M} "
        r"\log p_\theta\left(z_i \mid x_{\setminus M}, t_{\setminus M}\right)"
    )
    limits = (
        "Six losses share one model. With few training steps, the model learns each of the six tasks less well than a "
        "model that is trained on this task alone.",
        "If the codebook clusters pixels, its visual tokens represent colours and edges rather than objects.",
        "The model hardly understands words that do not occur in its training texts.",
    )
    encoder_class = FlavaModel
    usage = USAGE

    def __init__(self, full_model: PreTrainedModel, task: FlavaTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        codebook = self.new_codebook()
        self.pretext_head = nn.ModuleDict({**new_heads(full_model.config, codebook.size), "codebook": codebook})
        self.post_init()

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """As `MaskedPairs.native`. Also calls `draw_bare_vectors` on a new model, built from a config."""
        full_model = super().native(encoder)
        if isinstance(encoder, PreTrainedConfig):
            draw_bare_vectors(full_model)
        return full_model

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The image encoder and the text encoder, without the multimodal encoder."""
        return {"image": self.full_model.image_model, "text": self.full_model.text_model}

    def trained_encoders(self) -> list[PreTrainedModel]:
        return [*super().trained_encoders(), self.full_model.multimodal_model]

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> PretextOutput:
        if pixel_values is None and input_ids is None:
            raise ValueError("A batch needs pixel_values, input_ids, or both, but has neither.")
        if input_ids is None:
            return self.learn_from_images(pixel_values)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if pixel_values is None:
            return self.learn_from_texts(input_ids, attention_mask)
        return self.learn_from_pairs(pixel_values, input_ids, attention_mask, labels)

    def learn_from_images(self, pixel_values: Tensor) -> PretextOutput:
        hidden, codes = self.hide_patches(pixel_values)
        tokens, _ = self.encode_images(pixel_values, hidden)
        return self.output(*self.predict({"mim": (tokens[:, 1:], codes)}), features=pool(tokens))

    def learn_from_texts(self, input_ids: Tensor, attention_mask: Tensor) -> PretextOutput:
        seen, words = self.hide_tokens(input_ids, attention_mask, self.task.text_mask_ratio)
        tokens, _ = self.encode_texts(seen, attention_mask)
        return self.output(*self.predict({"mlm": (tokens, words)}), features=pool(tokens, attention_mask))

    def learn_from_pairs(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None
    ) -> PretextOutput:
        check_counts(pixel_values, input_ids)
        count, device = len(pixel_values), pixel_values.device
        hidden, codes = self.hide_patches(pixel_values)
        seen, words = self.hide_tokens(input_ids, attention_mask, self.task.text_mask_ratio)
        # one forward pass for both: the first half of the rows is not masked, the second half is
        images, image_states = self.encode_images(
            pixel_values.repeat(2, 1, 1, 1), torch.cat([torch.zeros_like(hidden), hidden])
        )
        texts, text_states = self.encode_texts(torch.cat([input_ids, seen]), attention_mask.repeat(2, 1))
        embedded = [self.embedding(images[:count], "image"), self.embedding(texts[:count], "text")]
        check_pairs(*embedded, labels, self.training)
        labels = pair_labels(labels, count, device, self.training)
        with torch.autocast(device.type, enabled=False):
            contrastive, accuracy, partner = self.contrast(*embedded, labels)
        right = partner < 0
        states = self.full_model.text_to_mm_projection(text_states[count:])
        states, mask = with_partners(states, attention_mask, partner, self.training)
        fused = self.fuse(image_states[count:], states, mask)
        patches = codes.shape[1]
        image, caption = fused[:, 2 : 2 + patches], fused[:, 2 + patches : 2 + patches + words.shape[1]]
        codes, words = (targets.masked_fill(~right[:, None], IGNORED) for targets in (codes, words))
        losses, logs = self.predict({"mmm_image": (image, codes), "mmm_text": (caption, words)})
        matched = self.pretext_head["itm"](fused[:, 0])
        losses |= self.weighted({"itm": cross_entropy(matched, right.long()), "contrastive": contrastive})
        logs |= {"itm_accuracy": (matched.argmax(1) == right).float().mean(), "contrastive_accuracy": accuracy}
        # detached: without a contrastive loss the last norm gets no gradient, but DDP would wait for one
        return self.output(losses, logs, features=pool(images[:count]).detach())

    def predict(self, terms: dict[str, tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns weighted losses and accuracies. terms: hidden states `(B, T, D)` and labels `(B, T)`, by loss."""
        results = {name: masked_prediction(self.pretext_head[name], *term) for name, term in terms.items()}
        losses = self.weighted({name: loss for name, (loss, _) in results.items()})
        return losses, {f"{name}_accuracy": value for name, (_, value) in results.items()}

    def weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the losses times their weights. Losses with weight 0 are left out."""
        weights = {name: getattr(self.task, f"{name}_weight") for name in losses}
        return {name: weights[name] * loss for name, loss in losses.items() if weights[name]}

    # capabilities

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Embeds images (pixel_values) or texts (input_ids, attention_mask). Returns `(B, d)`, of length 1."""
        return self.embedding((self.encode_images if kind == "image" else self.encode_texts)(**batch)[0], kind)

    def match(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the matching logit of each image and its caption, `(B,)`: above 0 if they belong together."""
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        fused = self.encode_pairs(pixel_values, input_ids, attention_mask)
        wrong, right = self.pretext_head["itm"](fused[:, 0]).unbind(1)
        return right - wrong

    def predict_tokens(
        self, masked: Tensor, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None = None
    ) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the masked tokens, predicted from the text and, if given, the image.
        masked: `(B, L)`, bool. input_ids: `(B, L)`, with the masked tokens replaced already."""
        if pixel_values is None:
            return self.pretext_head["mlm"](self.encode_texts(input_ids, attention_mask)[0][masked])
        fused = self.encode_pairs(pixel_values, input_ids, attention_mask)
        return self.pretext_head["mmm_text"](fused[:, -masked.shape[1] :][masked])

    # encoders

    def encode_pairs(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encodes image-text pairs with all three encoders. Returns the tokens of `fuse`, `(B, 1 + 1 + N + L, D)`."""
        states = self.full_model.text_to_mm_projection(self.encode_texts(input_ids, attention_mask)[1])
        return self.fuse(self.encode_images(pixel_values)[1], states, attention_mask)

    def encode_images(self, pixel_values: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns image tokens after the last norm and before it, `(B, 1 + N, D)` each, with the class token first.
        hidden: `(B, N)`, bool, True for patches that are replaced by the mask token; None for no patch."""
        outputs = self.full_model.image_model(pixel_values, bool_masked_pos=hidden, output_hidden_states=True)
        return outputs.last_hidden_state, outputs.hidden_states[-1]

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns text tokens after the last norm and before it, `(B, L, D)` each."""
        outputs = self.full_model.text_model(input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return outputs.last_hidden_state, outputs.hidden_states[-1]

    def fuse(self, image_states: Tensor, text_states: Tensor, attention_mask: Tensor) -> Tensor:
        """Runs the multimodal encoder. Returns its class token, image tokens and text tokens: `(B, 1 + 1 + N + L, D)`.

        image_states: `(B, 1 + N, D)`, before the last norm of the image encoder. text_states: `(B, L, D)`, before the
        last norm of the text encoder, projected to the multimodal width already. attention_mask: of the text."""
        images = self.full_model.image_to_mm_projection(image_states)
        mask = F.pad(attention_mask, (1 + images.shape[1], 0), value=1)
        tokens = torch.cat([images, text_states], 1)
        return self.full_model.multimodal_model(tokens, attention_mask=mask).last_hidden_state

    def embedding(self, tokens: Tensor, kind: Literal["image", "text"]) -> Tensor:
        """Projects the first of the tokens `(B, T, D)` of an image or text. Returns embeddings `(B, d)` of length 1."""
        return normalised(getattr(self.full_model, f"{kind}_projection")(tokens[:, 0]))

    # comparison

    def contrast(self, images: Tensor, texts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the contrastive loss `()` over the pairs of all ranks, its accuracy `()`, and the drawn captions
        `(B,)`: the index of another caption in the batch of all ranks, -1 for images that keep their caption.
        images, texts: embeddings `(B, d)`. labels: `(B,)`."""
        if self.training:
            clamp_scale(self.full_model)
        scale = scale_of(self.full_model)
        all_images, all_texts, all_labels = (gather(value, self.training) for value in (images, texts, labels))
        loss = softmax_loss_of_ranks(images, texts, all_images, all_texts, scale, labels, all_labels)
        with torch.no_grad():
            scores, same = scale * images @ all_texts.T, labels[:, None] == all_labels
            accuracy = same.gather(1, scores.argmax(1, keepdim=True)).float().mean()
            generator = self.generator()
            wrong = wrong_ones(scores, same, self.task.negatives == "hard", generator)
            some = random_patches(1, len(images), self.task.mismatch_ratio, images.device, generator)[0]
            return loss, accuracy, torch.where(some & bool(self.task.itm_weight), wrong, -1).clamp(min=-1)


def new_heads(config: PreTrainedConfig, codes: int) -> dict[str, nn.Module]:
    """Returns new heads, by the name of their loss: for visual tokens (`codes` classes), text tokens and matching."""
    image, text, fusion = config.image_config, config.text_config, config.multimodal_config
    width = fusion.hidden_size
    return {
        "mim": prediction_head(image.hidden_size, codes),
        "mlm": prediction_head(text.hidden_size, text.vocab_size),
        "mmm_image": prediction_head(width, codes),
        "mmm_text": prediction_head(width, text.vocab_size),
        "itm": nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)),
    }


def draw_bare_vectors(full_model: FlavaModel) -> None:
    """Initialises the class tokens, the mask token and the position embeddings of a new model, as `ViTModel` does.

    transformers initialises those of FLAVA with zeros. The gradient of a layer norm is very large at zero, so gradient
    clipping would shrink the gradients of all other parameters."""
    image = full_model.image_model.embeddings
    bare = [image.cls_token, image.mask_token, image.position_embeddings]
    if full_model.multimodal_model.use_cls_token:
        bare.append(full_model.multimodal_model.cls_token)
    for vector in bare:
        nn.init.trunc_normal_(vector, std=full_model.config.initializer_range)


def with_partners(states: Tensor, mask: Tensor, partner: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    """Replaces text states and attention mask of some rows by those of another text.

    states: `(B, L, D)`, of the multimodal width. mask: `(B, L)`. partner: `(B,)`, the index of the other text in the
    batch of all ranks, -1 for rows that stay unchanged. Returns states and mask, padded to the longest text of all
    ranks."""
    all_states, all_masks = gather_sequences(states, training), gather_sequences(mask, training)
    longer = all_states.shape[1] - states.shape[1]
    states, mask = F.pad(states, (0, 0, 0, longer)), F.pad(mask, (0, longer))
    index, swapped = partner.clamp(min=0), (partner >= 0)[:, None]
    return torch.where(swapped[..., None], all_states[index], states), torch.where(swapped, all_masks[index], mask)
