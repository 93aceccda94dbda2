"""MIL-NCE in models of transformers that embed videos and texts: their embeddings, their scale, their checkpoints."""

import math

import pytest
import torch
import transformers
from conftest import IMAGE, VIT
from contract import check_contract
from narrated import TEXTS, narrated_clips
from tokenizers import Tokenizer
from tokenizers import models as of_tokens
from torch import nn
from towers import ENDS, WORDS
from transformers import AutoModel, PreTrainedTokenizerFast

import hf_pretext
from hf_pretext import MilNceForPreTraining
from hf_pretext.cards.usage import lines, printed_by
from hf_pretext.encoders import build_encoder, takes_images
from hf_pretext.features import encode
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.modules.composite import CompositeModel

FRAMES = 4
LAYERS = {"num_spatial_layers": 2, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
PIXELS = {"xclip": "pixel_values", "videoprism": "pixel_values_videos"}


def config_of(name: str):
    vision = {**VIT, "num_frames": FRAMES}
    if name == "videoprism":
        vision.pop("num_hidden_layers")
        return transformers.VideoPrismConfig(vision_config={**vision, **LAYERS, "tubelet_size": (1, 8, 8)},
                                             text_config=WORDS)  # fmt: skip
    mit = {"mit_hidden_size": 24, "mit_intermediate_size": 48, "mit_num_attention_heads": 2}
    return transformers.XCLIPConfig(
        vision_config={**vision, **mit, "patch_size": 8}, text_config={**WORDS, **ENDS}, projection_dim=24,
        prompt_num_attention_heads=2,
    )  # fmt: skip


def clips_for(name: str, model: MilNceForPreTraining) -> dict[str, torch.Tensor]:
    batch = narrated_clips(model)
    return {PIXELS[name]: batch.pop("pixel_values"), **batch}


def own_embeddings(model, name: str, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers' class returns for the clips `(B, D)` and each narration `(B, K, D)`; 0 for a missing one."""
    clips = model.get_video_features(batch[PIXELS[name]]).pooler_output.flatten(1)
    texts = torch.zeros(*batch["input_ids"].shape[:2], clips.shape[1])
    for i, bag in enumerate(batch["attention_mask"].sum(2).tolist()):
        for k, length in enumerate(bag):
            if length:
                ids = batch["input_ids"][i, k, None, :length]
                mask = torch.ones_like(ids)  # VideoPrism's text encoder is causal only with one
                texts[i, k] = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output[0]
    return clips, texts


@pytest.mark.parametrize("name", PIXELS)
def test_the_checkpoint_is_of_the_class_and_gives_the_same_embeddings(name, tmp_path):
    native = build_encoder(config_of(name))
    batch = clips_for(name, MilNceForPreTraining.from_encoder(native))
    check_contract(MilNceForPreTraining, native, batch, tmp_path)
    model, plain = hf_pretext.load(tmp_path), AutoModel.from_pretrained(tmp_path)
    assert type(plain) is type(native) and (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "pretext.safetensors").exists() == (name == "videoprism")  # its scale
    clips, texts = (nn.functional.normalize(values, dim=-1) for values in own_embeddings(plain, name, batch))
    torch.testing.assert_close(model.embed("video", **{PIXELS[name]: batch[PIXELS[name]]}), clips)
    columns = {key: batch[key].flatten(0, 1) for key in ("input_ids", "attention_mask")}
    present = columns["attention_mask"].any(1)
    torch.testing.assert_close(model.embed("text", **columns)[present], texts.flatten(0, 1)[present])
    best = torch.einsum("bd,bkd->bk", clips, texts).masked_fill(~present.view(6, -1), -1).amax(1)
    torch.testing.assert_close(model.match(**batch), best)


@pytest.mark.parametrize("name", PIXELS)
def test_the_loss_is_that_of_two_encoders_with_the_same_embeddings(name, monkeypatch):
    model = MilNceForPreTraining.from_encoder(config_of(name), temperature=0.2).eval()
    batch = clips_for(name, model)
    clips, texts = own_embeddings(model.full_model, name, batch)
    encoders = {"video": build_encoder(transformers.ResNetConfig()), "text": build_encoder(TEXTS["bert"]())}
    other = MilNceForPreTraining.from_encoder(CompositeModel.of(**encoders), temperature=0.2).eval()
    made = {"video": clips, "text": texts.flatten(0, 1)}
    monkeypatch.setattr(other, "embed", lambda kind, **_: nn.functional.normalize(made[kind], dim=-1))
    columns = {"pixel_values": batch[PIXELS[name]], **{k: v for k, v in batch.items() if k != PIXELS[name]}}
    torch.testing.assert_close(model(**batch).loss, other(**columns).loss, atol=1e-6, rtol=0)


def test_xclip_trains_all_but_its_prompts():
    model = MilNceForPreTraining.from_encoder(config_of("xclip"), learned_temperature=True)
    unused = model.freeze_unused(clips_for("xclip", model))
    assert unused and all(name.startswith("full_model.prompts_") for name in unused)
    fixed = MilNceForPreTraining.from_encoder(config_of("xclip"))
    assert not fixed.full_model.logit_scale.requires_grad and model.full_model.logit_scale.requires_grad
    whole = MilNceForPreTraining.from_encoder(config_of("videoprism"))
    assert whole.freeze_unused(clips_for("videoprism", whole)) == []


def test_the_scale_of_a_trained_xclip_is_kept(tmp_path):
    model = MilNceForPreTraining.from_encoder(config_of("xclip"), temperature=0.05)
    assert model.train()(**clips_for("xclip", model)).logs["scale"].item() == pytest.approx(20)
    model.save_pretrained(tmp_path)
    assert hf_pretext.load(tmp_path).task.temperature == 0.05
    native = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        native.logit_scale.fill_(math.log(30))
    again = MilNceForPreTraining.from_encoder(native, learned_temperature=True).train()
    assert again.full_model is native
    assert again(**clips_for("xclip", again)).logs["scale"].item() == pytest.approx(30)
    with pytest.raises(ValueError, match=r"temperature=0.05 is for models without a trained scale, and XCLIPModel has"):
        MilNceForPreTraining.from_encoder(native, temperature=0.05)


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("settings", [{"embedding_dim": 16}, {"word_dim": 5, "num_words": 50}])
def test_settings_of_two_encoders_are_refused(name, settings):
    with pytest.raises(ValueError, match="is for encoders of video and text, and not for the parts of"):
        MilNceForPreTraining.from_encoder(config_of(name), **settings)


# transfer


@pytest.mark.parametrize("name", PIXELS)
def test_features_of_every_layer_are_one_vector_of_each_video(name):
    model = MilNceForPreTraining.from_encoder(config_of(name)).eval()
    encoder, videos = model.encoders["video"], torch.randn(3, FRAMES, 3, IMAGE, IMAGE)
    assert takes_images(encoder) == (name == "xclip")
    features = encode(encoder, (-1, -2, -3), **{PIXELS[name]: videos})
    for i in range(3):
        alone = encode(encoder, (-1, -2, -3), **{PIXELS[name]: videos[i : i + 1]})
        for layer, values in features.items():
            assert values.shape == (3, 32)
            torch.testing.assert_close(values[i : i + 1], alone[layer], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PIXELS)
def test_features_of_a_text_do_not_depend_on_its_padding(name):
    encoder = MilNceForPreTraining.from_encoder(config_of(name)).eval().encoders["text"]
    ids = torch.randint(3, 50, (4, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    longer = {"input_ids": nn.functional.pad(ids, (0, 3)), "attention_mask": nn.functional.pad(mask, (0, 3))}
    for layer, values in encode(encoder, (-1, -2), input_ids=ids, attention_mask=mask).items():
        torch.testing.assert_close(encode(encoder, (-1, -2), **longer)[layer], values)


@pytest.mark.parametrize("name", PIXELS)
def test_another_number_of_frames_is_refused(name):
    encoder = MilNceForPreTraining.from_encoder(config_of(name)).encoders["video"]
    videos = Video(default_video_processor(IMAGE), FRAMES)
    videos.fit(encoder)
    assert videos.encoder_input == PIXELS[name]
    for frames in (2, 2 * FRAMES):
        with pytest.raises(ValueError, match=rf"Videos of {frames} frames.*do not fit.*Give --num_frames 4 --video_si"):
            Video(default_video_processor(IMAGE), frames).fit(encoder)


@pytest.mark.parametrize("name", PIXELS)
def test_the_code_of_a_card_gives_cosines_of_texts(name, tmp_path):
    config = config_of(name)
    tokens = Tokenizer(of_tokens.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]")
    model = MilNceForPreTraining.from_encoder(config)
    inputs = Inputs(Video(default_video_processor(IMAGE), FRAMES), Text(tokenizer, 8), views={"text": 3})
    inputs.combine(config)
    inputs.by_name["video"].fit(model.encoders["video"])
    model.save_pretrained(tmp_path)
    inputs.processor.save_pretrained(tmp_path)
    classes = {kind: {"class": type(encoder).__name__} for kind, encoder in model.encoders.items()}
    results = {
        "inputs": ["video", "text"], "objective": {"name": "mil_nce"}, "layout": "channels_first",
        "encoder": classes["video"], "encoders": classes, **inputs.facts(),
    }  # fmt: skip
    code = lines(results, tmp_path)
    assert "{" not in code.split("texts = {")[0] and printed_by(code).startswith("cosines tensor([")
