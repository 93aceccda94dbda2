"""Masked multimodal modelling: hide patches and words, tell them from what is left of the picture and of its caption;
and tell which caption belongs to which picture.

Singh, Hu, Goswami, Couairon, Galuba, Rohrbach and Kiela, "FLAVA: A Foundational Language And Vision Alignment Model",
CVPR 2022, https://huggingface.co/papers/2112.04482

    pixel_values (B, 3, S, S) alone -> hidden patches -> image encoder -> their visual tokens               mim
    input_ids (B, L) alone          -> hidden tokens  -> text encoder  -> which they were                   mlm
    both -> both hidden -> both encoders -> multimodal encoder -> patches, tokens, whether they match       mmm, itm
    both -> both encoders -> embeddings (B, D), (B, D) -> which belong together                             contrastive
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import FlavaModel, PreTrainedConfig, PreTrainedModel

from ..features import pool
from ..modeling import PretextOutput
from ..modules.distributed import gather, gather_sequences
from ..modules.dual_encoder import check_counts, check_pairs, clamp_scale, normalised, own_labels, scale_of
from ..modules.losses import cross_entropy, softmax_loss_of_ranks
from ..modules.masked_pairs import MaskedPairs
from ..modules.masking import masked_prediction, prediction_head
from ..modules.patches import random_patches
from .matching import wrong_ones

WEIGHTS = ("mim", "mlm", "mmm_image", "mmm_text", "itm", "contrastive")


@strict
@dataclass
class FlavaTask:
    """Settings of FLAVA's pretraining.

    mim_weight, mlm_weight: of hidden patches of pictures alone, and of hidden tokens of texts alone.
    mmm_image_weight, mmm_text_weight: of hidden patches and of hidden tokens of pairs.
    itm_weight: of telling whether a caption belongs to its picture.
    contrastive_weight: of telling which caption belongs to which picture.
    image_mask_ratio, text_mask_ratio: shares of patches and of tokens that are hidden, drawn one by one. (The paper
        hides patches in blocks.)
    mismatch_ratio: share of the pairs that are shown with another's caption, for itm; nothing is told of what is hidden
        there. (The contrastive loss is of all pairs, by their own captions.)
    negatives: that caption is any (shuffled), or one that the contrastive scores take for right (hard).
    codebook: what tells a patch's visual token: a FlavaImageCodebook, or an encoder whose features are clustered (a
        folder or Hub id); by itself the patch's pixels are.
    codebook_size: how many visual tokens, where they are clustered.
    codebook_patches: of how many patches; at least as many as codes.
    mask_token_id, special_token_ids: as of masked language modelling; a recipe takes them from the tokenizer.
    """

    _argument_group_name: ClassVar[str] = "objective"

    mim_weight: float = 1.0
    mlm_weight: float = 1.0
    mmm_image_weight: float = 1.0
    mmm_text_weight: float = 1.0
    itm_weight: float = 1.0
    contrastive_weight: float = 1.0
    image_mask_ratio: float = 0.4
    text_mask_ratio: float = 0.15
    mismatch_ratio: float = 0.5
    negatives: Literal["shuffled", "hard"] = "shuffled"
    codebook: str | None = None
    codebook_size: int = 512
    codebook_patches: int = 200_000
    mask_token_id: int | None = None
    special_token_ids: list[int] | None = None

    def validate_shares(self):
        for name in ("image_mask_ratio", "text_mask_ratio", "mismatch_ratio"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, but is {getattr(self, name)}.")
        if not 2 <= self.codebook_size <= self.codebook_patches:
            raise ValueError(
                f"codebook_size must be at least 2 and at most codebook_patches={self.codebook_patches}, but is "
                f"{self.codebook_size}."
            )
        weights = {name: getattr(self, f"{name}_weight") for name in WEIGHTS}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"Weights must be at least 0, and one of them above, but are {weights}.")


class FlavaForPreTraining(MaskedPairs):
    """transformers' `FlavaModel`: a picture encoder, a text encoder and one over both, trained by six losses.

    The checkpoint is `FlavaModel`'s, which `AutoModel` loads. A batch is of pairs, of pictures alone or of texts alone;
    each kind has its own losses. Captions of all ranks are what a picture's own is told from.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`), or either; labels (`(B,)`, whole
    numbers: pairs with the same one belong together; each pair is by itself where there are none).

    Returns features (`(B, D)`: the picture encoder's tokens, or the text encoder's, pooled). Logs, by kind of batch:
    the share of hidden patches (mim_accuracy, mmm_image_accuracy) and of hidden tokens (mlm_accuracy,
    mmm_text_accuracy) that are told, of pairs that are told from mismatched ones (itm_accuracy), and of captions that
    are told from all others (contrastive_accuracy).

    Example:
        >>> model = FlavaForPreTraining.from_encoder(FlavaConfig(), mask_token_id=103)
        >>> model.codebook.fit([torch.rand(4, 3, 224, 224)])
        >>> sorted(model(pixel_values=torch.rand(4, 3, 224, 224)).losses)
        ['mim']
    """

    objective = "flava"
    task_class = FlavaTask
    modality = "image_text"
    formula = (
        r"\sum_k \lambda_k \mathcal L_k, \quad k \in \lbrace \text{mim}, \text{mlm}, \text{mmm image}, "
        r"\text{mmm text}, \text{itm}, \text{contrastive} \rbrace; \quad "
        r"\mathcal L_{\text{masked}} = -\frac{1}{|M|}\sum_{i \in M} "
        r"\log p_\theta\left(z_i \mid x_{\setminus M}, t_{\setminus M}\right)"
    )
    limits = (
        "Six losses share one model: with few steps each is learned less than it would be alone.",
        "Visual tokens made of pixels tell colours and edges rather than things.",
        "Words that training never saw mean hardly anything to it.",
    )
    encoder_class = FlavaModel
    usage = """
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("{folder}")
model = AutoModel.from_pretrained("{folder}")
picture = Image.new("RGB", (200, 100), "red")  # yours: Image.open("picture.png").convert("RGB")
pictures = processor(images=[picture], return_tensors="pt")
texts = processor(text=["a cat", "a red car"], padding=True, return_tensors="pt")
with torch.no_grad():
    image = model.get_image_features(**pictures).pooler_output[:, 0]  # of the class token
    text = model.get_text_features(**texts).pooler_output[:, 0]
    hidden = model.image_model(**pictures).last_hidden_state
print("cosines", torch.nn.functional.cosine_similarity(image, text))
print("features of the picture", hidden.mean(1).shape)  # by the picture encoder alone, as under "Transfer"
# all six losses, and its own matching score: hf_pretext.load("{folder}")
"""

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config, encoder)
        codebook = self.own_codebook()
        image, text, both = config.image_config, config.text_config, config.multimodal_config
        heads = {
            "mim": prediction_head(image.hidden_size, codebook.size),
            "mlm": prediction_head(text.hidden_size, text.vocab_size),
            "mmm_image": prediction_head(both.hidden_size, codebook.size),
            "mmm_text": prediction_head(both.hidden_size, text.vocab_size),
            "itm": nn.Sequential(
                nn.Linear(both.hidden_size, both.hidden_size), nn.Tanh(), nn.Linear(both.hidden_size, 2)
            ),
        }
        self.pretext_head = nn.ModuleDict({**heads, "codebook": codebook})
        self.post_init()

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """As `MaskedPairs.native`. The bare vectors of a fresh model are drawn as `ViTModel` draws its own:
        transformers leaves FLAVA's zero, where a norm's gradient is far larger than anywhere else, and clipping then
        takes it from all the others."""
        model = super().native(encoder)
        if isinstance(encoder, PreTrainedConfig):
            image = model.image_model.embeddings
            bare = [image.cls_token, image.mask_token, image.position_embeddings]
            if model.multimodal_model.use_cls_token:
                bare.append(model.multimodal_model.cls_token)
            for vector in bare:
                nn.init.trunc_normal_(vector, std=model.config.initializer_range)
        return model

    @property
    def encoder(self) -> PreTrainedModel:
        """The picture encoder: what is judged by transfer."""
        return self.whole.image_model

    def tower(self, name: Literal["vision", "text"]) -> nn.Module:
        """One of the encoders of one kind."""
        return self.whole.image_model if name == "vision" else self.whole.text_model

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
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if pixel_values is None:
            return self.learn_from_texts(input_ids, there)
        return self.learn_from_pairs(pixel_values, input_ids, there, labels)

    def learn_from_images(self, pixel_values: Tensor) -> PretextOutput:
        hidden, codes = self.hide_patches(pixel_values)
        tokens, _ = self.encode_images(pixel_values, hidden)
        return self.output(*self.tell({"mim": (tokens[:, 1:], codes)}), features=pool(tokens))

    def learn_from_texts(self, input_ids: Tensor, there: Tensor) -> PretextOutput:
        seen, words = self.hide_tokens(input_ids, there, self.task.text_mask_ratio)
        tokens, _ = self.encode_texts(seen, there)
        return self.output(*self.tell({"mlm": (tokens, words)}), features=pool(tokens, there))

    def learn_from_pairs(
        self, pixel_values: Tensor, input_ids: Tensor, there: Tensor, labels: Tensor | None
    ) -> PretextOutput:
        check_counts(pixel_values, input_ids)
        count, device = len(pixel_values), pixel_values.device
        hidden, codes = self.hide_patches(pixel_values)
        seen, words = self.hide_tokens(input_ids, there, self.task.text_mask_ratio)
        # as they are and with some hidden, side by side in one pass
        images, image_states = self.encode_images(
            pixel_values.repeat(2, 1, 1, 1), torch.cat([torch.zeros_like(hidden), hidden])
        )
        texts, text_states = self.encode_texts(torch.cat([input_ids, seen]), there.repeat(2, 1))
        embedded = [self.embedding(images[:count], "image"), self.embedding(texts[:count], "text")]
        check_pairs(*embedded, labels, self.training)
        labels = own_labels(labels, count, device, self.training)
        with torch.autocast(device.type, enabled=False):
            contrastive, told, partner = self.contrast(*embedded, labels)
        own = partner < 0
        states, seen_by = self.with_partners(text_states[count:], there, partner)
        both = self.encode_both(image_states[count:], states, seen_by)
        patches = codes.shape[1]
        picture, caption = both[own, 2 : 2 + patches], both[own][:, 2 + patches : 2 + patches + words.shape[1]]
        losses, logs = self.tell({"mmm_image": (picture, codes[own]), "mmm_text": (caption, words[own])})
        matched = self.pretext_head["itm"](both[:, 0])
        losses |= self.weighted({"itm": cross_entropy(matched, own.long()), "contrastive": contrastive})
        logs |= {"itm_accuracy": (matched.argmax(1) == own).float().mean(), "contrastive_accuracy": told}
        # detached: a norm that no loss asks for must not look as if it were used, or other processes wait for it
        return self.output(losses, logs, features=pool(images[:count]).detach())

    def tell(self, terms: dict[str, tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and accuracies of hidden patches and tokens: by term, their states `(B, T, D)`, labels `(B, T)`."""
        found = {name: masked_prediction(self.pretext_head[name], *term) for name, term in terms.items()}
        losses = self.weighted({name: loss for name, (loss, _) in found.items()})
        return losses, {f"{name}_accuracy": value for name, (_, value) in found.items()}

    def weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by their weights; those with none are left out."""
        weights = {name: getattr(self.task, f"{name}_weight") for name in losses}
        return {name: weights[name] * loss for name, loss in losses.items() if weights[name]}

    # what it can be asked

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """Pictures to embeddings of length 1, `(B, d)`."""
        return self.embedding(self.encode_images(pixel_values)[0], "image")

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Texts to embeddings of length 1, `(B, d)`."""
        return self.embedding(self.encode_texts(input_ids, attention_mask)[0], "text")

    def match(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """How much each picture and its caption belong together, `(B,)`: above 0 for yes."""
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        both = self.see_both(pixel_values, input_ids, there)
        wrong, right = self.pretext_head["itm"](both[:, 0]).unbind(1)
        return right - wrong

    def guess_tokens(
        self, hidden: Tensor, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None = None
    ) -> Tensor:
        """Logits of the tokens at `hidden` places (`(B, L)`, bool), `(M, vocabulary)`: from the text, in which they are
        replaced already, and from the picture where there is one."""
        if pixel_values is None:
            return self.pretext_head["mlm"](self.encode_texts(input_ids, attention_mask)[0][hidden])
        both = self.see_both(pixel_values, input_ids, attention_mask)
        return self.pretext_head["mmm_text"](both[:, -hidden.shape[1] :][hidden])

    def see_both(self, pixel_values: Tensor, input_ids: Tensor, there: Tensor) -> Tensor:
        """What the multimodal encoder makes of pictures and their texts (see `encode_both`)."""
        states = self.whole.text_to_mm_projection(self.encode_texts(input_ids, there)[1])
        return self.encode_both(self.encode_images(pixel_values)[1], states, there)

    # encoders

    def encode_images(self, pixel_values: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pictures' tokens, the class token first, `(B, 1 + N, D)`: after the last norm, and before it."""
        found = self.whole.image_model(pixel_values, bool_masked_pos=hidden, output_hidden_states=True)
        return found.last_hidden_state, found.hidden_states[-1]

    def encode_texts(self, input_ids: Tensor, there: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Texts' tokens, `(B, L, D)`: after the last norm, and before it."""
        found = self.whole.text_model(input_ids, attention_mask=there, output_hidden_states=True)
        return found.last_hidden_state, found.hidden_states[-1]

    def encode_both(self, image_states: Tensor, text_states: Tensor, there: Tensor) -> Tensor:
        """Class token, picture's tokens and text's, seen by each other: `(B, 1 + 1 + N + L, D)`.

        image_states: before the last norm (see `encode_images`). text_states: so too, of the multimodal width."""
        images = self.whole.image_to_mm_projection(image_states)
        seen = F.pad(there, (1 + images.shape[1], 0), value=1)
        return self.whole.multimodal_model(torch.cat([images, text_states], 1), attention_mask=seen).last_hidden_state

    def embedding(self, tokens: Tensor, kind: Literal["image", "text"]) -> Tensor:
        """Embeddings of length 1, `(B, d)`, from a kind's tokens."""
        return normalised(getattr(self.whole, f"{kind}_projection")(tokens[:, 0]))

    # comparison

    def contrast(self, images: Tensor, texts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The contrastive loss among all ranks' pairs, the share of captions that are told by it, and for some pictures
        another's caption, by its number among all ranks'; -1 for those that keep their own."""
        if self.training:
            clamp_scale(self.whole)
        scale = scale_of(self.whole)
        all_images, all_texts, all_labels = (gather(value, self.training) for value in (images, texts, labels))
        loss = softmax_loss_of_ranks(images, texts, all_images, all_texts, scale, labels, all_labels)
        with torch.no_grad():
            scores, same = scale * images @ all_texts.T, labels[:, None] == all_labels
            told = same.gather(1, scores.argmax(1, keepdim=True)).float().mean()
            generator = self.generator()
            wrong = wrong_ones(scores, same, self.task.negatives == "hard", generator)
            some = random_patches(1, len(images), self.task.mismatch_ratio, images.device, generator)[0]
            return loss, told, torch.where(some & bool(self.task.itm_weight), wrong, -1).clamp(min=-1)

    def with_partners(self, states: Tensor, there: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        """Text states of the multimodal width, those of another where there is a `partner`; and which of them are
        there."""
        states = self.whole.text_to_mm_projection(states)
        all_states, all_there = gather_sequences(states, self.training), gather_sequences(there, self.training)
        longer = all_states.shape[1] - states.shape[1]
        states, there = F.pad(states, (0, 0, 0, longer)), F.pad(there, (0, longer))
        index, another = partner.clamp(min=0), (partner >= 0)[:, None]
        return torch.where(another[..., None], all_states[index], states), torch.where(another, all_there[index], there)
