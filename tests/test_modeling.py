"""Promise 2: what is saved is the encoder's own transformers checkpoint, on every architecture."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import CONFIGS, IMAGE_ENCODERS, encoder_inputs
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, BertConfig, PreTrainedConfig, PreTrainedModel, ViTConfig

import hf_pretext
from hf_pretext.encoders import build_encoder
from hf_pretext.features import last_hidden, pool, width
from hf_pretext.modeling import BARE_PREFIX, PretextModel
from hf_pretext.objectives.rotation import RotationForPreTraining, RotationTask

PLAIN_PROCESS = """
import json, sys, builtins
real_import = builtins.__import__
def guarded(name, *args, **kwargs):
    if name.split(".")[0] == "hf_pretext": raise ImportError("hf_pretext is not installed here")
    return real_import(name, *args, **kwargs)
builtins.__import__ = guarded
import torch
from safetensors.torch import save_file, load_file
from transformers import AutoModel
for folder in sys.argv[1:]:
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    model.eval()
    with torch.no_grad():
        output = model(**load_file(folder + "/inputs.safetensors")).last_hidden_state
    save_file({"output": output.contiguous()}, folder + "/output.safetensors")
    save_file({k: v.clone().contiguous() for k, v in model.state_dict().items()}, folder + "/weights.safetensors")
    json.dump({"class": type(model).__name__, "missing": sorted(info["missing_keys"]),
               "unexpected": sorted(info["unexpected_keys"])}, open(folder + "/report.json", "w"))
assert "hf_pretext" not in sys.modules
"""


class AnyEncoderForPreTraining(PretextModel):
    """The least an objective can be, for encoders of any modality."""

    objective = "any_encoder"
    task_class = RotationTask

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config, encoder)
        self.pretext_head = nn.Linear(width(self.encoder), 3)
        self.post_init()

    def forward(self, **batch):
        features = pool(last_hidden(self.encoder, self.encoder(**batch)))
        loss = self.pretext_head(features).pow(2).mean()
        return self.output({"square": loss}, {}, features=features)


def any_encoder(encoder: PreTrainedModel) -> AnyEncoderForPreTraining:
    AnyEncoderForPreTraining.modality = "".join(encoder.input_modalities)  # a tuple of one, or a string
    return AnyEncoderForPreTraining.from_encoder(encoder).eval()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Every architecture: wrapped, saved, then loaded and run by a process that can't import hf_pretext."""
    root, models = tmp_path_factory.mktemp("checkpoints"), {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        encoder = build_encoder(config())
        models[name] = any_encoder(encoder)
        models[name].save_pretrained(root / name)
        save_file(encoder_inputs(encoder), root / name / "inputs.safetensors")
    folders = [str(root / name) for name in models]
    done = subprocess.run([sys.executable, "-c", PLAIN_PROCESS, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root, models


@pytest.mark.parametrize("name", CONFIGS)
class TestEveryArchitecture:
    def test_plain_automodel_loads_the_encoder(self, checkpoints, name):
        root, models = checkpoints
        encoder = models[name].encoder
        report = json.loads((root / name / "report.json").read_text())
        assert report["class"] == type(encoder).__name__
        assert not report["missing"]
        assert all("pretext_head" in key for key in report["unexpected"])
        weights = load_file(root / name / "weights.safetensors")
        assert weights.keys() == encoder.state_dict().keys()
        for key, value in encoder.state_dict().items():
            assert torch.equal(weights[key], value), key
        with torch.no_grad():
            expected = encoder(**encoder_inputs(encoder)).last_hidden_state
        torch.testing.assert_close(load_file(root / name / "output.safetensors")["output"], expected)

    def test_own_class_loads_encoder_and_heads(self, checkpoints, name):
        root, models = checkpoints
        again = AnyEncoderForPreTraining.from_pretrained(root / name).eval()
        for key, value in models[name].state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key
        batch = encoder_inputs(again.encoder)
        torch.testing.assert_close(again(**batch).loss, models[name](**batch).loss)

    def test_names_on_disk_are_those_of_the_native_class(self, checkpoints, name, tmp_path):
        root, models = checkpoints
        encoder = models[name].encoder
        encoder.save_pretrained(tmp_path / "native")
        AnyEncoderForPreTraining.from_pretrained(root / name).save_pretrained(tmp_path / "again")
        prefix = models[name].base_model_prefix
        prefix = "" if prefix == BARE_PREFIX else f"{prefix}."
        expected = {f"{prefix}{key}" for key in names(tmp_path / "native")}
        assert expected | {"pretext_head.weight", "pretext_head.bias"} == names(root / name)
        assert names(tmp_path / "again") == names(root / name)  # also after a round trip

    def test_config_is_the_encoders_with_one_more_entry(self, checkpoints, name, tmp_path):
        root, models = checkpoints
        models[name].encoder.save_pretrained(tmp_path)
        native, ours = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, root / name))
        assert ours.pop("pretext") == {
            "objective": "any_encoder", "num_rotations": 4, "rotations_per_image": None, "head_dim": 256,
        }  # fmt: skip
        assert ours == native

    def test_wrapping_keeps_every_weight(self, checkpoints, name):
        root, _ = checkpoints
        pretrained = AutoModel.from_pretrained(root / name)
        before = {key: value.clone() for key, value in pretrained.state_dict().items()}
        model = any_encoder(pretrained)
        assert model.encoder is pretrained
        for key, value in model.encoder.state_dict().items():
            assert torch.equal(before[key], value), key


def names(folder) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("architecture", ["timm_resnet18", "timm_efficientnet_b0", "timm_vit_tiny"])
def test_fresh_timm_keeps_timms_initialisation(architecture):
    import timm

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


@pytest.mark.parametrize("lost", ["vit.embeddings.cls_token", "pretext_head.0.weight"])
def test_missing_weight_is_an_error(tmp_path, lost):
    RotationForPreTraining.from_encoder(CONFIGS["vit"]()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=lost):
        RotationForPreTraining.from_pretrained(tmp_path)


def test_plain_checkpoint_is_refused_with_the_mend(tmp_path):
    AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path)
    for loader in (hf_pretext.load, RotationForPreTraining.from_pretrained):
        with pytest.raises(ValueError, match="no `pretext` entry.*from_encoder"):
            loader(tmp_path)


def test_checkpoint_of_another_objective_is_refused(tmp_path):
    any_encoder(AutoModel.from_config(CONFIGS["vit"]())).save_pretrained(tmp_path)
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
    ],
)
def test_bad_setting_names_the_known_ones(settings, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Its settings: num_rotations"):
        RotationForPreTraining.from_encoder(CONFIGS["vit"](), **settings)


def test_what_is_no_image_encoder_is_refused():
    with pytest.raises(ValueError, match="image.*BertModel.*takes text"):
        RotationForPreTraining.from_encoder(BertConfig(num_hidden_layers=1))
    with pytest.raises(ValueError, match="timm_wrapper"):
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
    model = RotationForPreTraining.from_encoder(ViTConfig(**{**CONFIGS["vit"]().to_dict()}))
    assert model.freeze_unused(encoder_inputs(model.encoder)) == ["vit.pooler.dense.weight", "vit.pooler.dense.bias"]


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
    found = {}
    monkeypatch.setattr(PreTrainedModel, "push_to_hub", lambda self, repo, **options: found.update(options, repo=repo))
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"]())
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, private=True, commit_message="one", token="t")
    assert found == {"repo": "mine", "private": True, "commit_message": "one", "token": "t"}
