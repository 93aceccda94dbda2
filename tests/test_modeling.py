"""The one abstraction: encoders are kept, settings checked, heads follow; what is saved is in test_checkpoints.py."""

import pytest
import timm
import torch
import torchvision
import transformers
from conftest import CONFIGS, IMAGE, IMAGE_ENCODERS, encoder_inputs
from torch import nn
from transformers import AutoModel, BertConfig, PreTrainedModel

import hf_pretext
from hf_pretext.encoders import build_encoder, check_encoder
from hf_pretext.objectives.rotation import RotationForPreTraining, RotationTask


@pytest.mark.parametrize("name", CONFIGS)
def test_wrapping_keeps_every_weight(name):
    class Any(RotationForPreTraining):
        inputs = ({"bert": "text", "modernbert": "text", "ast": "audio", "videomae": "video"}.get(name, "image"),)

    encoder = build_encoder(CONFIGS[name]())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    model = Any.from_encoder(encoder)
    assert model.encoder is model.full_model is encoder and model.encoders == {Any.inputs[0]: encoder}
    assert model.config is encoder.config and not hasattr(encoder.config, "pretext")
    assert all(torch.equal(before[key], value) for key, value in model.encoder.state_dict().items())


@pytest.mark.parametrize("architecture", ["timm_resnet18", "timm_efficientnet_b0", "timm_vit_tiny"])
def test_fresh_timm_keeps_timms_initialisation(architecture):

    config = CONFIGS[architecture]()
    torch.manual_seed(0)
    ours = RotationForPreTraining.from_encoder(config).encoder.timm_model
    torch.manual_seed(0)
    theirs = timm.create_model(config.architecture, num_classes=0, **(config.model_args or {}))
    for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if b.numel() == 1 or b.std() == 0:
            torch.testing.assert_close(a, b, msg=key)
        else:  # drawn at another point of the random sequence: the same spread, not the same numbers
            assert 0.75 < a.std() / b.std() < 1.33, key


def test_fresh_encoder_keeps_its_librarys_initialisation():
    config = CONFIGS["vit"]()
    torch.manual_seed(0)
    theirs = AutoModel.from_config(config).state_dict()
    torch.manual_seed(0)
    ours = RotationForPreTraining.from_encoder(config).encoder.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_load_reads_which_class(tmp_path):
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), num_rotations=2)
    model.save_pretrained(tmp_path)
    again = hf_pretext.load(tmp_path)
    assert type(again) is RotationForPreTraining
    assert again.task == RotationTask(num_rotations=2)


def test_the_callers_config_is_left_alone():
    config = CONFIGS["vit"]()
    RotationForPreTraining.from_encoder(config)
    assert not hasattr(config, "pretext")


def test_plain_checkpoint_is_refused_with_the_mend(tmp_path):
    AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path)
    for loader in (hf_pretext.load, RotationForPreTraining.from_pretrained):
        with pytest.raises(ValueError, match="no `pretext` entry.*from_encoder"):
            loader(tmp_path)


def test_checkpoint_of_another_objective_is_refused(tmp_path):
    class AnyEncoder(RotationForPreTraining):
        objective = "any_encoder"

    AnyEncoder.from_encoder(CONFIGS["vit"]()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'any_encoder', not 'rotation'"):
        RotationForPreTraining.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="No objective 'any_encoder'.*rotation"):
        hf_pretext.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_rotation": 4}, "no setting num_rotation[.]"),
        ({"num_rotations": 3}, "num_rotations.*one of.*3"),
        ({"num_rotations": "4"}, "num_rotations"),
        ({"head_dim": -1}, "head_dim must be 0 or more, but is -1"),
        ({"rotations_per_image": 5}, "between 1 and num_rotations=4.*is 5"),
        ({"max_shift": 0.6}, "max_shift must be from 0 to 0.5, but is 0.6"),
    ],
)
def test_bad_setting_names_the_known_ones(settings, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Its settings: num_rotations"):
        RotationForPreTraining.from_encoder(CONFIGS["vit"](), **settings)


def test_what_is_no_image_encoder_is_refused():
    with pytest.raises(ValueError, match="image inputs, but BertModel .bert. does not.*: .*input_ids"):
        RotationForPreTraining.from_encoder(BertConfig(num_hidden_layers=1))
    with pytest.raises(ValueError, match="a Linear of torch: AutoModel could not load its checkpoint"):
        RotationForPreTraining.from_encoder(nn.Linear(2, 2))
    from transformers import ViTForImageClassification

    with pytest.raises(ValueError, match="ViTForImageClassification.*base_model"):
        RotationForPreTraining.from_encoder(ViTForImageClassification(CONFIGS["vit"]()))


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_unused_parts_are_frozen_and_the_rest_learns(name):
    model = RotationForPreTraining.from_encoder(CONFIGS[name]())
    batch = encoder_inputs(model.encoder)
    statistics = {key: value.clone() for key, value in model.named_buffers()}
    frozen = model.freeze_unused(batch)
    assert len(frozen) < 0.3 * len(list(model.parameters()))
    assert all(torch.equal(statistics[key], value) for key, value in model.named_buffers())
    model.train()(**batch).loss.backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_pooler_is_what_gets_frozen():
    model = RotationForPreTraining.from_encoder(CONFIGS["vit"]())
    pooler = ["full_model.pooler.dense.weight", "full_model.pooler.dense.bias"]
    assert model.freeze_unused(encoder_inputs(model.encoder)) == pooler


def test_bf16_checkpoint_goes_on_in_float32_where_asked(tmp_path):
    RotationForPreTraining.from_encoder(CONFIGS["vit"]()).to(torch.bfloat16).save_pretrained(tmp_path)
    assert RotationForPreTraining.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_heads_are_as_precise_as_their_encoder_and_a_fresh_encoder_is_in_float32(tmp_path):
    AutoModel.from_config(CONFIGS["resnet"]()).to(torch.bfloat16).save_pretrained(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert encoder.dtype == torch.bfloat16 and build_encoder(encoder.config).dtype == torch.float32
    output = RotationForPreTraining.from_encoder(encoder)(pixel_values=torch.rand(2, 3, 32, 32, dtype=torch.bfloat16))
    assert output.logits.dtype == torch.bfloat16


def test_what_is_said_of_a_push_reaches_the_hub(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(PreTrainedModel, "push_to_hub", lambda self, repo, **options: asked.update(options, repo=repo))
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"]())
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, private=True, commit_message="one", token="t")
    assert asked == {"repo": "mine", "private": True, "commit_message": "one", "token": "t"}


TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
STRIDED = dict(conv_dim=[16] * 3, conv_stride=[5, 4, 4], conv_kernel=[10, 4, 4], num_feat_extract_layers=3)
TRIED = {
    **CONFIGS,
    "timesformer": lambda: transformers.TimesformerConfig(**TINY, image_size=32, patch_size=8, num_frames=4),
    "vivit": lambda: transformers.VivitConfig(**TINY, image_size=32, num_frames=4, tubelet_size=[2, 8, 8]),
    "wav2vec2": lambda: transformers.Wav2Vec2Config(**TINY, **STRIDED),
    "wav2vec2_bert": lambda: transformers.Wav2Vec2BertConfig(**TINY),
    "roberta": lambda: transformers.RobertaConfig(**TINY, vocab_size=50),
}
KINDS = {
    "text": ("bert", "modernbert", "roberta"),
    "audio": ("ast", "wav2vec2", "wav2vec2_bert"),
    "video": ("videomae", "timesformer", "vivit"),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_encoder_is_tried_on_noise_of_each_kind_not_believed(device):
    for name, config in TRIED.items():
        with torch.device(device):
            encoder = AutoModel.from_config(config()).train()
        takes = next((kind for kind, names in KINDS.items() if name in names), "image")
        state, statistics = torch.get_rng_state(), {k: v.clone() for k, v in encoder.named_buffers()}
        for kind in ("image", "text", "audio", "video"):
            if kind == takes or (kind, takes) == ("video", "image"):  # an image encoder takes frames one by one
                check_encoder(encoder, kind)
            else:
                with pytest.raises(ValueError, match=f"{kind} inputs, but {type(encoder).__name__}"):
                    check_encoder(encoder, kind)
        assert torch.equal(torch.get_rng_state(), state) and encoder.training
        if device == "cpu":
            assert all(torch.equal(value, statistics[key]) for key, value in encoder.named_buffers())


def test_a_model_of_several_kinds_is_no_encoder_of_one():
    config = transformers.CLIPConfig(vision_config={**TINY, "image_size": 32, "patch_size": 8}, text_config=TINY)
    with pytest.raises(ValueError, match="image inputs, but CLIPModel"):
        RotationForPreTraining.from_encoder(config)


def test_gradient_checkpointing_acts_on_every_trained_encoder_and_names_one_that_can_not():
    model = RotationForPreTraining.from_encoder(CONFIGS["vit"]()).train()
    calls, batch = [], encoder_inputs(model.encoder)
    model.encoder.layers[0].attention.register_forward_hook(lambda *_: calls.append(1))
    for times, change in ((2, "enable"), (1, "disable")):
        getattr(model, f"gradient_checkpointing_{change}")()
        calls.clear()
        model(**batch).loss.backward()
        assert len(calls) == times
    towers = (CONFIGS["vit"](), CONFIGS["bert"]())
    model = hf_pretext.ContrastiveForPreTraining.from_encoders(*towers, 24, frozen="image")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    enabled = {kind: any(getattr(m, "gradient_checkpointing", False) for m in e.modules()) for kind, e in
               model.encoders.items()}  # fmt: skip
    assert enabled == {"image": False, "text": True}
    with pytest.raises(ValueError, match="ResNetModel can't use --gradient_checkpointing"):
        RotationForPreTraining.from_encoder(CONFIGS["resnet"]()).gradient_checkpointing_enable()


def test_dtype_and_attention_are_the_native_models_and_heads_follow(tmp_path):
    RotationForPreTraining.from_encoder(CONFIGS["vit"]()).save_pretrained(tmp_path)
    model = hf_pretext.load(tmp_path, dtype=torch.bfloat16, attn_implementation="eager", device_map="cpu")
    assert model.encoder.config._attn_implementation == "eager" and not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_labels_of_the_data_get_one_sentence_with_the_fix():
    model = RotationForPreTraining.from_encoder(CONFIGS["vit"]())
    images = torch.rand(2, 3, IMAGE, IMAGE)
    with pytest.raises(ValueError, match=r"RotationForPreTraining takes pixel_values, not labels\. .*AutoModelFor"):
        model(pixel_values=images, labels=torch.zeros(2))
    with pytest.raises(ValueError, match=r"takes pixel_values, not ids\. Leave it out\.$"):
        model(pixel_values=images, ids=torch.zeros(2))
    assert model(images).loss.item() > 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("resnet18", {}), ("resnet18", {"num_classes": 0}), ("vit_tiny_patch16_224", {"img_size": IMAGE})],
    ids=["classifier", "no classifier", "image size"],
)
def test_a_timm_model_is_wrapped_with_its_weights(name, arguments, tmp_path):
    module = timm.create_model(name, **arguments).eval()
    model = RotationForPreTraining.from_encoder(module).eval()
    images = torch.rand(2, 3, IMAGE, IMAGE)
    assert torch.equal(model.encoder(images).last_hidden_state, module.forward_features(images))
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(images).last_hidden_state, module.forward_features(images))


def test_a_model_of_another_library_gets_one_sentence_with_the_fix():
    with pytest.raises(ValueError, match=r"AutoConfig.for_model\('timm_wrapper', architecture='resnet18', model_args="):
        RotationForPreTraining.from_encoder(timm.create_model("resnet18", in_chans=1))
    with pytest.raises(ValueError, match="a ResNet of torchvision: AutoModel could not load its checkpoint. timm has"):
        RotationForPreTraining.from_encoder(torchvision.models.resnet18())
