"""Conversion from and to open_clip: features, folders, tokenizers, and errors for unsupported models."""

import json

import open_clip
import pytest
import timm
import torch
import transformers
from conftest import VIT, Processor
from timm.models import register_model
from timm.models.vision_transformer import _create_vision_transformer
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipModel

from hf_pretext.data.tokenizer import tokenizer_of
from hf_pretext.interop.open_clip import from_open_clip, to_open_clip
from hf_pretext.interop.open_clip_configs import siglip_tower
from hf_pretext.objectives.contrastive import ContrastiveForPreTraining

SIDE, WIDTH, LENGTH, WORDS = 32, 32, 16, 60
VISION = dict(image_size=SIDE, patch_size=8, width=WIDTH, layers=2, head_width=16, mlp_ratio=2.0)
TEXT = dict(context_length=LENGTH, vocab_size=WORDS, width=WIDTH, heads=2, layers=2, mlp_ratio=2.0)
NAME = "vit_tiny_patch8_siglip_32"


@register_model
def vit_tiny_patch8_siglip_32(pretrained=False, **kwargs):
    """Registers a small SigLIP tower in timm, since open_clip loads its towers from timm by name."""
    sizes = dict(img_size=SIDE, patch_size=8, embed_dim=WIDTH, depth=2, num_heads=2, mlp_ratio=2.0)
    options = dict(class_token=False, global_pool="map", act_layer="gelu_tanh")
    return _create_vision_transformer("vit_base_patch16_siglip_224", pretrained=False, **{**sizes, **options, **kwargs})


def their_clip(**changes):
    torch.manual_seed(0)
    vision, text = {**VISION, **changes.pop("vision", {})}, {**TEXT, **changes.pop("text", {})}
    return open_clip.model.CLIP(24, vision, text, **changes).eval()


def their_siglip(**changes):
    torch.manual_seed(0)
    vision = dict(image_size=SIDE, timm_model_name=NAME, timm_pool="map", timm_proj="none")
    text = dict(**TEXT, no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs={"eps": 1e-6})
    model = open_clip.model.CustomTextCLIP(WIDTH, vision, {**text, **changes}, init_logit_bias=-10).eval()
    torch.nn.init.normal_(model.visual.trunk.attn_pool.latent)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(1, WORDS - 1, (3, LENGTH), generator=random)
    ids[torch.arange(3), torch.tensor([5, 9, 15])] = WORDS - 1  # the end of each text
    return torch.randn(3, 3, SIDE, SIDE, generator=random), ids


@torch.no_grad()
def same_features(ours, theirs):
    pixels, ids = inputs()
    pairs = [
        (ours.get_image_features(pixels).pooler_output, theirs.encode_image(pixels)),
        (ours.get_text_features(ids).pooler_output, theirs.encode_text(ids)),
    ]
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)
    assert pairs[0][0].std() > 1e-3
    assert pairs[1][0].std() > 1e-3
    assert ours.logit_scale.item() == pytest.approx(theirs.logit_scale.item())


CLIPS = {
    "gelu": {},
    "quick_gelu": {"quick_gelu": True},
    "pooled at a token": {"text": {"pool_type": "eos", "eos_id": WORDS - 1}},
    "another eps": {"vision": {"norm_kwargs": {"eps": 1e-3}}},
}


@pytest.mark.parametrize("kind", CLIPS)
def test_their_clip_gives_equal_features_here(kind):
    theirs = their_clip(
        **{name: dict(value) if isinstance(value, dict) else value for name, value in CLIPS[kind].items()}
    )
    ours = from_open_clip(theirs)
    assert type(ours) is CLIPModel
    same_features(ours, theirs)
    model = ContrastiveForPreTraining.from_encoder(ours)  # and can be trained further
    assert model(inputs()[0], inputs()[1]).loss.isfinite()


def test_their_siglip_gives_equal_features_here():
    theirs = their_siglip()
    ours = from_open_clip(theirs)
    assert type(ours) is SiglipModel
    same_features(ours, theirs)
    assert ours.logit_bias.item() == pytest.approx(-10)


def our_clip(act: str = "gelu", eos: int = WORDS - 1):
    torch.manual_seed(0)
    common = dict(hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, hidden_act=act)
    text = dict(vocab_size=WORDS, max_position_embeddings=LENGTH, eos_token_id=eos, bos_token_id=0, pad_token_id=0)
    return CLIPModel(
        CLIPConfig(
            vision_config={**common, "image_size": SIDE, "patch_size": 8},
            text_config={**common, **text},
            projection_dim=24,
        )
    ).eval()


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i for i in range(2, WORDS - 1)}, "[END]": WORDS - 1}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )


@pytest.mark.parametrize(("act", "eos"), [("gelu", WORDS - 1), ("quick_gelu", 2)])
def test_open_clip_loads_our_clip_from_its_folder(act, eos, tokenizer, tmp_path):
    ours = ContrastiveForPreTraining.from_encoder(our_clip(act, eos))
    processor = Processor(tokenizer, side=SIDE)
    folder = to_open_clip(ours, processor, tmp_path / "model")
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    same_features(ours.full_model, theirs.eval())
    assert {p.name for p in folder.iterdir()} >= {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "tokenizer.json",
    }
    from PIL import Image

    image = Image.radial_gradient("L").convert("RGB")
    pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
    assert (transform(image) - pixels).abs().max() < 0.05  # of normalised pixels
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(["w3 w4 w9"])
    assert ids.shape == (1, LENGTH)
    assert ids[0, :3].tolist() == [3, 4, 9]


def test_open_clip_loads_our_siglip_from_its_folder(tokenizer, tmp_path):
    ours = from_open_clip(their_siglip())
    processor = Processor(tokenizer, transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}))
    folder = to_open_clip(ours, processor, tmp_path / "model")
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    same_features(ours, theirs.eval())
    assert (
        json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]["timm_model_name"] == NAME
    )
    assert theirs.logit_bias.item() == pytest.approx(-10)


def test_a_clip_that_learned_with_a_sigmoid_keeps_its_bias(tokenizer, tmp_path):
    ours = ContrastiveForPreTraining.from_encoder(our_clip(), loss="sigmoid")
    ours.bias.data.fill_(-7.5)
    folder = to_open_clip(ours, Processor(tokenizer, side=SIDE), tmp_path / "model")
    assert open_clip.create_model(f"local-dir:{folder}").logit_bias.item() == pytest.approx(-7.5)


def test_weights_are_never_random(tmp_path):
    with pytest.raises(ValueError, match="would be random. Give a checkpoint"):
        from_open_clip("ViT-B-32")
    with pytest.raises(ValueError, match="already has weights. Leave the checkpoint out"):
        from_open_clip(f"local-dir:{tmp_path}", tmp_path / "other.pt")


def test_to_open_clip_and_back_is_the_same(tokenizer, tmp_path):
    ours = our_clip()
    folder = to_open_clip(ours, Processor(tokenizer, side=SIDE), tmp_path / "model")
    back = from_open_clip(f"local-dir:{folder}")
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in back.state_dict().items())


@pytest.mark.slow
def test_a_checkpoint_file_is_loaded(tmp_path):
    theirs = open_clip.create_model("ViT-B-32", load_weights=False)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "epoch_1.pt")
    ours = from_open_clip("ViT-B-32", tmp_path / "epoch_1.pt")
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            ours.get_image_features(pixels).pooler_output, theirs.eval().encode_image(pixels), atol=1e-4, rtol=1e-4
        )


def test_towers_of_timm_are_chosen_by_their_sizes():
    assert siglip_tower(SiglipConfig().vision_config) == "vit_base_patch16_siglip_224"
    assert "vit_so400m_patch14_siglip_384" in timm.list_models("vit_*siglip_*")
    with pytest.raises(ValueError, match="timm has no SigLIP tower of width 32 with 3 layers"):
        siglip_tower(transformers.SiglipVisionConfig(**{**VIT, "num_hidden_layers": 3}, patch_size=8))


def test_what_transformers_cannot_express_is_refused():
    for changes, words in {
        "resnet": (dict(vision={"layers": (1, 1, 1, 1), "width": 16}), "transformers' CLIPModel has a ViT"),
        "average": (dict(vision={"pool_type": "avg"}), "features of images differ"),
        "scaled": (dict(vision={"ls_init_value": 0.1}), "only one model has the weights"),
        "every token": (dict(text={"no_causal_mask": True}), "features of texts differ"),
    }.values():
        with pytest.raises(ValueError, match=words):
            from_open_clip(their_clip(**changes))
    with pytest.raises(ValueError, match="does not support the text tower"):
        from_open_clip(their_siglip(proj_bias=False))


def test_what_open_clip_cannot_express_is_refused(tokenizer, tmp_path):
    mixed = our_clip()
    mixed.config.text_config.hidden_act = "relu"
    with pytest.raises(ValueError, match="gelu for images and relu for texts"):
        to_open_clip(mixed, Processor(tokenizer, side=SIDE), tmp_path / "a")
    from conftest import CONFIGS

    pair = ContrastiveForPreTraining.from_encoders(CONFIGS["vit"](), CONFIGS["bert"](), 16)
    with pytest.raises(ValueError, match="no architecture for VisionTextDualEncoderModel"):
        to_open_clip(pair, Processor(tokenizer, side=SIDE), tmp_path / "a")
    lanczos = CLIPImageProcessor(resample=1)
    with pytest.raises(ValueError, match="resample=1. open_clip needs 2"):
        to_open_clip(our_clip(), Processor(tokenizer, lanczos), tmp_path / "a")
    larger = CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": SIDE, "width": SIDE})
    with pytest.raises(ValueError, match="does not support the preprocessing of this"):
        to_open_clip(our_clip(), Processor(tokenizer, larger), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_their_tokenizer_gives_the_same_tokens_here(tmp_path):
    texts = ["a photo of a cat", "Woman's hand: medium-dark skin tone!", "  two   spaces, 123 & more "]
    ours, theirs = tokenizer_of("ViT-B-32"), open_clip.get_tokenizer("ViT-B-32")
    ours.save_pretrained(tmp_path)
    for tokenizer in (ours, AutoTokenizer.from_pretrained(tmp_path)):
        for text, ids in zip(texts, theirs(texts).tolist(), strict=True):
            assert tokenizer(text)["input_ids"] == ids[: ids.index(tokenizer.eos_token_id) + 1]
    with pytest.raises(ValueError, match="open_clip has no model ViT-Z"):
        tokenizer_of("ViT-Z")
