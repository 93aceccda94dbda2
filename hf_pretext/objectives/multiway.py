"""Masked data modelling: mask patches of images, tokens of texts and both of image-text pairs, and predict them. One
Transformer encodes all three and has an expert for each (see `modules/multiway.py`).

BEiT-3: Wang et al., "Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language Tasks", 2022,
https://huggingface.co/papers/2208.10442

    pixel_values (B, 3, S, S) and input_ids (B, L), or one of them -> masked patches and tokens -> Multiway Transformer
    -> logits of M masked patches (M, codes), logits of K masked tokens (K, vocabulary)
"""

from dataclasses import dataclass

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..features import pool
from ..modeling import PretextOutput
from ..modules.distributed import gather
from ..modules.dual_encoder import check_pairs, clamp_scale, normalised, pair_labels, scale_of
from ..modules.losses import softmax_loss_of_ranks
from ..modules.masked_pairs import MaskedPairs, MaskedPairsTask
from ..modules.masking import check_share, masked_prediction, prediction_head, without_special
from ..modules.multiway import MultiwayModel
from ..presets import Preset, pairs

PRESET = Preset(
    encoder=pairs.multiway,
    large=pairs.large_multiway,
    tiny=pairs.tiny_multiway,
    dataset="emoji",
    samples=128_000,
    settings={
        **pairs.SMALL,
        "per_device_train_batch_size": 128,
        "learning_rate": 2e-3,
        "contrastive_weight": 1.0,
    },
    for_large=pairs.LARGE,
    smoke={"codebook_size": 64, "codebook_patches": 4000},
)

FRESH_SCALE = 1 / 0.07  # initial logit scale, as in CLIP


@strict
@dataclass
class MultiwayTask(MaskedPairsTask):
    """Settings of masked data modelling.

    pair_text_mask_ratio: share of the tokens that are masked in captions of image-text pairs; text_mask_ratio is for
        texts without images. The default is higher, because the image helps to predict the tokens.
    contrastive_weight: weight of the contrastive loss, in which images and captions are encoded separately: predict
        which caption belongs to which image. 0 leaves it out, as the paper does in pretraining.
    """

    pair_text_mask_ratio: float = 0.5
    contrastive_weight: float = 0.0

    def validate_pairs(self):
        check_share("pair_text_mask_ratio", self.pair_text_mask_ratio)
        if self.contrastive_weight < 0:
            raise ValueError(f"contrastive_weight must be at least 0, but is {self.contrastive_weight}.")


class MultiwayForPreTraining(MaskedPairs):
    """One Transformer that predicts masked patches and tokens of images, texts and image-text pairs.

    The checkpoint stores the image side as a `ViTModel` and the text side as a `RobertaPreLayerNormModel`;
    `AutoModel.from_pretrained(folder, subfolder="image")` and `subfolder="text"` load them. All other weights are
    stored in pretext.safetensors.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`), or one of the two; labels (`(B,)`,
    integers, for the contrastive loss: pairs with equal labels belong together; default: no two pairs do).

    Returns features (`(B, D)`): pooled image tokens; for texts alone, pooled text tokens. Logs:
    - images alone: image_accuracy, of predicting masked patches.
    - texts alone: text_accuracy, of predicting masked tokens.
    - pairs: pair_image_accuracy and pair_text_accuracy, the same for pairs; contrastive_accuracy, of predicting the
      caption among those of all ranks.

    Example:
        >>> model = MultiwayForPreTraining.from_encoder(MultiwayConfig(), mask_token_id=103)
        >>> sorted(model(input_ids=torch.randint(1000, 2000, (2, 9))).losses)
        ['text']
    """

    objective = "multiway"
    task_class = MultiwayTask
    formula = (
        r"-\frac{1}{|M|}\sum_{i \in M} \log p_\theta\left(z_i \mid x_{\setminus M}, t_{\setminus M}\right) + "
        r"\lambda \mathcal L_{\text{contrastive}}"
    )
    limits = (
        "If the codebook clusters pixels, its visual tokens represent colours and edges rather than objects.",
        "If `contrastive_weight` is 0, images and texts have no common embedding space, so images can't be searched by "
        "text embeddings.",
        "The model hardly understands words that do not occur in its training texts.",
    )
    encoder_class = MultiwayModel
    usage = """
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("{{ folder }}")
encoder = AutoModel.from_pretrained("{{ folder }}", subfolder="image")  # evaluated under "Transfer"
text_encoder = AutoModel.from_pretrained("{{ folder }}", subfolder="text")
image = Image.new("RGB", (200, 100), "red")  # or your image: Image.open("image.png").convert("RGB")
images = processor(images=[image], return_tensors="pt")
texts = processor(text=["a cat", "a red car"], padding=True, return_tensors="pt")
with torch.no_grad():
    features = encoder(**images).last_hidden_state.mean(1)
    tokens = text_encoder(**texts).last_hidden_state
print(encoder.__class__.__name__, features.shape, text_encoder.__class__.__name__, tokens.shape)
# for image-text pairs, as under "The full model": hf_pretext.load("{{ folder }}")
"""

    def __init__(self, full_model: PreTrainedModel, task: MultiwayTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        codebook, config = self.new_codebook(), full_model.config
        width = config.hidden_size
        self.pretext_head = nn.ModuleDict(
            {
                "image": prediction_head(width, codebook.size),
                "text": prediction_head(width, config.vocab_size),
                "codebook": codebook,
            }
        )
        if self.task.contrastive_weight:
            self.pretext_head["contrastive"] = Contrast(width)
        self.post_init()

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The same model for images and for texts."""
        return {"image": self.full_model, "text": self.full_model}

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> PretextOutput:
        if pixel_values is None and input_ids is None:
            raise ValueError("A batch needs pixel_values, input_ids, or both, but has neither.")
        inputs, targets, pair = {}, {}, pixel_values is not None and input_ids is not None
        if pixel_values is not None:
            hidden, targets["image"] = self.hide_patches(pixel_values)
            inputs |= {"pixel_values": pixel_values, "bool_masked_pos": hidden}
        if input_ids is not None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            ratio = self.task.pair_text_mask_ratio if pair else self.task.text_mask_ratio
            seen, targets["text"] = self.hide_tokens(input_ids, mask, ratio)
            inputs |= {"input_ids": seen, "attention_mask": attention_mask}
        output = self.full_model(**inputs)
        losses, logs = self.predict(output, targets, "pair_" if pair else "")
        features = pool(output.image_hidden_state) if pixel_values is not None else pool(output.last_hidden_state, mask)
        if pair and self.task.contrastive_weight:
            contrastive, logs["contrastive_accuracy"] = self.contrast(pixel_values, input_ids, attention_mask, labels)
            losses["contrastive"] = self.task.contrastive_weight * contrastive
        return self.output(losses, logs, features=features)

    def predict(self, output, wanted: dict[str, Tensor], kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns the losses and accuracies of predicting masked patches and tokens, by name.

        wanted: labels `(B, T)` by name ("image", "text"), `IGNORED` where not masked. kind: prefix of the names."""
        losses, logs = {}, {}
        for name, labels in wanted.items():
            states = output.image_hidden_state[:, 1:] if name == "image" else output.text_hidden_state
            loss, accuracy = masked_prediction(self.pretext_head[name], states, labels)
            losses[kind + name], logs[f"{kind}{name}_accuracy"] = loss, accuracy
        return losses, logs

    def contrast(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the contrastive loss `()` over the pairs of all ranks, and its accuracy `()`."""
        images = self.embed("image", pixel_values=pixel_values)
        texts = self.embed("text", input_ids=input_ids, attention_mask=attention_mask)
        check_pairs(images, texts, labels, self.training)
        labels = pair_labels(labels, len(images), images.device, self.training)
        with torch.autocast(images.device.type, enabled=False):
            all_images, all_texts, all_labels = (gather(value, self.training) for value in (images, texts, labels))
            head = self.pretext_head["contrastive"]
            if self.training:
                clamp_scale(head)
            scale = scale_of(head)
            loss = softmax_loss_of_ranks(images, texts, all_images, all_texts, scale, labels, all_labels)
            accuracy = (all_labels[(images @ all_texts.T).argmax(1)] == labels).float().mean()
        return loss, accuracy

    # capabilities

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Embeds images (pixel_values) or texts (input_ids, attention_mask). Returns `(B, D)`, of length 1.

        The embedding is the class token of the image or the first token of the text. It is projected if
        `contrastive_weight` is above 0."""
        first = self.full_model(**batch).last_hidden_state[:, 0]
        contrastive = self.pretext_head["contrastive"] if "contrastive" in self.pretext_head else {kind: nn.Identity()}
        return normalised(contrastive[kind](first))

    def predict_tokens(
        self, masked: Tensor, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None = None
    ) -> Tensor:
        """Returns the logits `(M, vocabulary)` of the masked tokens, predicted from the text and, if given, the image.

        masked: `(B, L)`, bool. input_ids: `(B, L)`, with the masked tokens replaced already."""
        output = self.full_model(pixel_values, input_ids, attention_mask)
        return self.pretext_head["text"](output.text_hidden_state[masked])

    def match(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the matching score of each image and its text, `(B,)`: above 0 if the image makes the text likelier.

        All tokens of the text are masked and predicted with the image and without it. The score is the sum over tokens
        of the difference in log probability."""
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = without_special(input_ids, attention_mask.bool(), self.task.special_token_ids)
        seen = input_ids.masked_fill(hidden, self.task.mask_token_id)
        words = input_ids[hidden][:, None]
        with_it, without = (
            self.predict_tokens(hidden, seen, attention_mask, pixels).float().log_softmax(-1).gather(1, words)[:, 0]
            for pixels in (pixel_values, None)
        )
        rows = hidden.nonzero()[:, 0]
        return with_it.new_zeros(len(input_ids)).index_add(0, rows, with_it - without)


class Contrast(nn.ModuleDict):
    """Projections of images and texts into one embedding space, and the logarithm of the logit scale."""

    def __init__(self, width: int):
        super().__init__({kind: nn.Linear(width, width, bias=False) for kind in ("image", "text")})
        self.logit_scale = nn.Parameter(torch.tensor(FRESH_SCALE).log())
