"""Masked data modelling: hide patches of pictures, words of texts and both of pairs, tell them from what is left; one
Transformer for all three, with an expert for each (see `modules/multiway.py`).

BEiT-3: Wang et al., "Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language Tasks", 2022,
https://huggingface.co/papers/2208.10442

    pixel_values (B, 3, S, S) and input_ids (B, L), or either -> hidden patches and tokens -> Multiway Transformer
    -> visual tokens of hidden patches (M, codes), hidden tokens (K, vocabulary)
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

FRESH_SCALE = 1 / 0.07  # of contrastive scores, CLIP's


@strict
@dataclass
class MultiwayTask(MaskedPairsTask):
    """Settings of masked data modelling.

    pair_text_mask_ratio: share of tokens that are masked of pairs, whose text has an image to be predicted from;
        text_mask_ratio is of texts alone.
    contrastive_weight: of predicting which caption belongs to which image, each encoded alone; 0 leaves it out, as the
        paper does in pretraining.
    """

    pair_text_mask_ratio: float = 0.5
    contrastive_weight: float = 0.0

    def validate_pairs(self):
        check_share("pair_text_mask_ratio", self.pair_text_mask_ratio)
        if self.contrastive_weight < 0:
            raise ValueError(f"contrastive_weight must be at least 0, but is {self.contrastive_weight}.")


class MultiwayForPreTraining(MaskedPairs):
    """One Transformer that predicts what is masked of images, of texts and of pairs.

    Its sides for images and for texts are saved as a `ViTModel` and a `RobertaPreLayerNormModel`, that plain
    `AutoModel.from_pretrained(folder, subfolder="image")` and `"text"` load; all else lies in pretext.safetensors.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`), or either; labels (`(B,)`, whole
    numbers, of the contrastive loss: pairs with the same one belong together).

    Returns features (`(B, D)`: of pairs, the pictures' part, pooled). Logs, by kind of batch: the share of hidden
    patches (image_accuracy) and of hidden tokens (text_accuracy) that are told, of pairs pair_image_accuracy and
    pair_text_accuracy; contrastive_accuracy.

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
        "Visual tokens made of pixels tell colours and edges rather than things.",
        "Where `contrastive_weight` is 0, pictures and texts have no common space to be searched in.",
        "Words that training never saw mean hardly anything to it.",
    )
    encoder_class = MultiwayModel
    usage = """
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("{{ folder }}")
encoder = AutoModel.from_pretrained("{{ folder }}", subfolder="image")  # of pictures: see "Transfer"
text_encoder = AutoModel.from_pretrained("{{ folder }}", subfolder="text")
picture = Image.new("RGB", (200, 100), "red")  # yours: Image.open("picture.png").convert("RGB")
pictures = processor(images=[picture], return_tensors="pt")
texts = processor(text=["a cat", "a red car"], padding=True, return_tensors="pt")
with torch.no_grad():
    features = encoder(**pictures).last_hidden_state.mean(1)
    tokens = text_encoder(**texts).last_hidden_state
print(encoder.__class__.__name__, features.shape, text_encoder.__class__.__name__, tokens.shape)
# both together and their common space, as under "The full model": hf_pretext.load("{{ folder }}")
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
        """One that encodes each kind."""
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
        inputs, wanted, pair = {}, {}, pixel_values is not None and input_ids is not None
        if pixel_values is not None:
            hidden, wanted["image"] = self.hide_patches(pixel_values)
            inputs |= {"pixel_values": pixel_values, "bool_masked_pos": hidden}
        if input_ids is not None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            ratio = self.task.pair_text_mask_ratio if pair else self.task.text_mask_ratio
            seen, wanted["text"] = self.hide_tokens(input_ids, mask, ratio)
            inputs |= {"input_ids": seen, "attention_mask": attention_mask}
        output = self.full_model(**inputs)
        losses, logs = self.predict(output, wanted, "pair_" if pair else "")
        features = pool(output.image_hidden_state) if pixel_values is not None else pool(output.last_hidden_state, mask)
        if pair and self.task.contrastive_weight:
            contrastive, logs["contrastive_accuracy"] = self.contrast(pixel_values, input_ids, attention_mask, labels)
            losses["contrastive"] = self.task.contrastive_weight * contrastive
        return self.output(losses, logs, features=features)

    def predict(self, output, wanted: dict[str, Tensor], kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and accuracies of hidden patches and tokens, by name."""
        losses, logs = {}, {}
        for name, labels in wanted.items():
            states = output.image_hidden_state[:, 1:] if name == "image" else output.text_hidden_state
            loss, accuracy = masked_prediction(self.pretext_head[name], states, labels)
            losses[kind + name], logs[f"{kind}{name}_accuracy"] = loss, accuracy
        return losses, logs

    def contrast(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The contrastive loss among all ranks' pairs, and the share of captions that are told by it."""
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

    # what it can be asked

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Images alone (pixel_values) or texts alone (input_ids, attention_mask) to embeddings of length 1, `(B, D)`:
        the class token or the first one, projected where that was trained."""
        first = self.full_model(**batch).last_hidden_state[:, 0]
        contrastive = self.pretext_head["contrastive"] if "contrastive" in self.pretext_head else {kind: nn.Identity()}
        return normalised(contrastive[kind](first))

    def predict_tokens(
        self, masked: Tensor, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None = None
    ) -> Tensor:
        """Logits of the tokens at `masked` positions (`(B, L)`, bool), `(M, vocabulary)`: from the text, in which they
        are replaced already, and from the image where there is one."""
        output = self.full_model(pixel_values, input_ids, attention_mask)
        return self.pretext_head["text"](output.text_hidden_state[masked])

    def match(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """How much more likely a text's words are with its picture than without, all hidden at once: the sum of their
        log probabilities' differences, `(B,)`; above 0 where the picture speaks for them."""
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
    """Projections of pictures and of texts into one space, and the logarithm of the scale of scores there."""

    def __init__(self, width: int):
        super().__init__({kind: nn.Linear(width, width, bias=False) for kind in ("image", "text")})
        self.logit_scale = nn.Parameter(torch.tensor(FRESH_SCALE).log())
