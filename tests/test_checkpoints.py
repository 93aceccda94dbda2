"""Promise 2: what is saved is a native transformers checkpoint and nothing but that, for every objective and every
architecture that it takes; one process that can't import hf_pretext loads them all."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import CONFIGS, IMAGE, IMAGE_ENCODERS, TEXT, VIT, encoder_inputs
from loopback_hub import online
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

import hf_pretext
from hf_pretext.checkpoints import PRETEXT_WEIGHTS
from hf_pretext.encoders import build_encoder, encoder_config
from hf_pretext.features import last_hidden, pool, width
from hf_pretext.modeling import PretextModel
from hf_pretext.modules.composite import CompositeModel, TwoEncoders
from hf_pretext.modules.multiway import MultiwayConfig
from hf_pretext.objectives.rotation import RotationForPreTraining, RotationTask

PLAIN_PROCESS = """
import json, os, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_pretext":
            raise ImportError("hf_pretext is not installed here")

sys.meta_path.insert(0, Blocked())
import torch, transformers
from safetensors.torch import load_file, save_file

def look(auto, folder):
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    said = {"class": type(model).__name__, "missing": sorted(info["missing_keys"])}
    return model.eval(), {**said, "unexpected": sorted(info["unexpected_keys"])}

for folder in sys.argv[1:]:
    config = json.load(open(folder + "/config.json"))
    model, native = look(getattr(transformers, config["architectures"][0]), folder)
    with torch.no_grad():
        outputs = model(**load_file(folder + "/inputs.safetensors"))
    first = next(value for value in outputs.to_tuple() if isinstance(value, torch.Tensor))
    save_file({"output": first.contiguous()}, folder + "/output.safetensors")
    json.dump({"native": native, "auto": look(transformers.AutoModel, folder)[1]}, open(folder + "/report.json", "w"))
"""
KINDS = {"bert": "text", "modernbert": "text", "ast": "audio", "videomae": "video"}  # the others take images
FUSION = dict(fusion_width=24, fusion_layers=1, fusion_heads=2)
MASKS = dict(mask_token_id=4, special_token_ids=[0, 1, 2])
POOLED = [name for name in IMAGE_ENCODERS if name not in ("resnet", "regnet")]  # these pool to maps


class AnyEncoderForPreTraining(PretextModel):
    """The least an objective can be, for encoders of one kind."""

    objective, task_class, inputs = "any_encoder", RotationTask, ("image",)

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.heads = nn.Linear(width(self.encoder), 3)
        self.scale = nn.Parameter(torch.rand(()))
        self.post_init()

    def forward(self, **batch):
        features = pool(last_hidden(self.encoder, self.encoder(**batch)))
        return self.output({"square": self.scale * self.heads(features).pow(2).mean()}, {}, features=features)


class SoundForPreTraining(AnyEncoderForPreTraining):
    objective, inputs = "sound", ("audio",)


class FilmForPreTraining(AnyEncoderForPreTraining):
    objective, inputs = "film", ("video",)


class SoundAndFilmForPreTraining(TwoEncoders):
    """Two encoders that transformers has no class for."""

    objective, task_class, inputs = "sound_and_film", RotationTask, ("audio", "video")

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.heads = nn.ModuleDict({kind: nn.Linear(width(encoder), 8) for kind, encoder in self.encoders.items()})
        self.post_init()

    def forward(self, **batch):
        hidden = {k: pool(e(**{n: batch[n] for n in names_of(e)}).last_hidden_state) for k, e in self.encoders.items()}
        one, other = (self.heads[kind](features) for kind, features in hidden.items())
        return self.output({"distance": (one - other).pow(2).mean()}, {}, features=hidden[self.inputs[0]])


class ImageAndSoundForPreTraining(SoundAndFilmForPreTraining):
    objective, inputs = "image_and_sound", ("image", "audio")


def names_of(encoder) -> list[str]:
    return [encoder.main_input_name]


def flava_config() -> transformers.FlavaConfig:
    return transformers.FlavaConfig(
        image_config={**VIT, "patch_size": 8, "vocab_size": 12}, text_config={**TEXT, "max_position_embeddings": 16},
        multimodal_config={**TEXT, "num_hidden_layers": 1}, hidden_size=32, projection_dim=24, init_codebook=False,
    )  # fmt: skip


def multiway_model():
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, num_fusion_layers=1)
    config = MultiwayConfig(**sizes, image_size=IMAGE, patch_size=8, vocab_size=50, max_position_embeddings=16)
    return hf_pretext.MultiwayForPreTraining.from_encoder(config, **MASKS, codebook_size=12, contrastive_weight=1.0)


def model_of(objective: str, architecture: str) -> PretextModel:
    if objective in ("contrastive", "matching"):
        settings = {"loss": "sigmoid"} if objective == "contrastive" else FUSION
        class_ = getattr(hf_pretext, f"{objective.title()}ForPreTraining")
        return class_.from_encoders(CONFIGS[architecture](), CONFIGS["bert"](), 24, **settings)
    if objective == "masked_lm":
        return hf_pretext.MaskedLMForPreTraining.from_encoder(CONFIGS[architecture](), **MASKS)
    if objective == "flava":
        return hf_pretext.FlavaForPreTraining.from_encoder(flava_config(), **MASKS, codebook_size=12)
    classes = {"rotation": RotationForPreTraining, "sound": SoundForPreTraining, "film": FilmForPreTraining}
    return classes[objective].from_encoder(CONFIGS[architecture]())


TAKEN = {
    "rotation": IMAGE_ENCODERS, "contrastive": POOLED, "matching": POOLED, "masked_lm": ["bert", "modernbert"],
    "flava": ["flava"], "sound": ["ast"], "film": ["videomae"],
}  # fmt: skip
CASES = [(objective, name) for objective, names in TAKEN.items() for name in names]


def inputs_of(model: PretextModel) -> dict[str, torch.Tensor]:
    if len(model.inputs) == 1:
        return encoder_inputs(model.encoder)
    ids = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    pixels = torch.randn(2, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Each objective with each architecture, saved, then loaded and run by one process without hf_pretext."""
    root, models = tmp_path_factory.mktemp("checkpoints"), {}
    torch.manual_seed(0)
    for objective, name in CASES:
        model = models[objective, name] = model_of(objective, name).eval()
        model.save_pretrained(root / objective / name)
        save_file(inputs_of(model), root / objective / name / "inputs.safetensors")
    folders = [str(root / objective / name) for objective, name in CASES]
    done = subprocess.run([sys.executable, "-I", "-c", PLAIN_PROCESS, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, models


@pytest.mark.parametrize(("objective", "name"), CASES)
def test_plain_transformers_loads_it_and_so_do_we(checkpoints, objective, name):
    root, models = checkpoints
    model, folder = models[objective, name], root / objective / name
    report = json.loads((folder / "report.json").read_text())
    assert report["native"] == {"class": type(model.full_model).__name__, "missing": [], "unexpected": []}
    heads = set(model.full_model.state_dict()) - {
        f"{model.full_model.base_model_prefix}.{name}" for name in model.encoder.state_dict()
    }
    poolers = [key for key in report["auto"]["missing"] if not key.startswith("pooler.")]
    assert not poolers and (objective == "masked_lm" or not report["auto"]["missing"])
    assert not report["auto"]["unexpected"] or (objective == "masked_lm" and set(report["auto"]["unexpected"]) <= heads)
    with torch.no_grad():
        outputs = model.full_model(**inputs_of(model))
    expected = next(value for value in outputs.to_tuple() if isinstance(value, torch.Tensor))
    torch.testing.assert_close(load_file(folder / "output.safetensors")["output"], expected, atol=1e-6, rtol=1e-5)
    loaded = type(model).from_pretrained(folder)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
    assert loaded.state_dict().keys() == model.state_dict().keys() and loaded.pretext == model.pretext
    assert (folder / PRETEXT_WEIGHTS).exists() == (objective != "masked_lm" and bool(model.kept_outside()))


def test_config_and_weights_are_what_the_native_class_writes(checkpoints, tmp_path):
    root, models = checkpoints
    for case in (
        ("rotation", "vit"),
        ("rotation", "timm_vit_tiny"),
        ("masked_lm", "bert"),
        ("contrastive", "convnext"),
    ):
        models[case].full_model.save_pretrained(tmp_path / case[1])
        ours, native = root.joinpath(*case), tmp_path / case[1]
        config = json.loads((ours / "config.json").read_text())
        assert config.pop("pretext") == models[case].pretext
        assert config == json.loads((native / "config.json").read_text())
        assert (ours / "model.safetensors").read_bytes() == (native / "model.safetensors").read_bytes()


REFUSED = [
    *[("rotation", name, "image inputs, but") for name in KINDS],
    *[("contrastive", name, "image inputs, but") for name in KINDS],
    *[(o, name, "example ViT, Swin, ConvNeXt") for name in ("resnet", "regnet") for o in ("contrastive", "matching")],
    *[("masked_lm", name, "for masked language modelling") for name in CONFIGS if KINDS.get(name) != "text"],
    ("film", "bert", "video inputs, but BertModel"),
    ("sound", "bert", "audio inputs, but BertModel"),
]


@pytest.mark.parametrize(("objective", "name", "message"), REFUSED)
def test_what_an_objective_can_not_take_is_refused(objective, name, message):
    with pytest.raises(ValueError, match=message):
        model_of(objective, name)


# composites


@pytest.mark.parametrize("class_", [SoundAndFilmForPreTraining, ImageAndSoundForPreTraining])
def test_composites_are_native_encoders_in_sub_folders(class_, tmp_path):
    names = {"audio": "ast", "video": "videomae", "image": "timm_resnet18"}
    encoders = {kind: build_encoder(CONFIGS[names[kind]]()) for kind in class_.inputs}
    model = class_.from_encoders(**encoders, num_rotations=2).eval()
    assert model.encoders == encoders and model.encoder is encoders[class_.inputs[0]]
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["config.json", PRETEXT_WEIGHTS, *class_.inputs])
    assert all(name.startswith("heads.") for name in load_file(tmp_path / PRETEXT_WEIGHTS))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "hf_pretext_composite" and config["pretext"]["objective"] == class_.objective
    for kind, encoder in encoders.items():
        save_file(encoder_inputs(encoder), tmp_path / kind / "inputs.safetensors")
    folders = [str(tmp_path / kind) for kind in encoders]
    done = subprocess.run([sys.executable, "-I", "-c", PLAIN_PROCESS, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for kind, encoder in encoders.items():
        report = json.loads((tmp_path / kind / "report.json").read_text())["auto"]
        assert report == {"class": type(encoder).__name__, "missing": [], "unexpected": []}
        expected = encoder(**encoder_inputs(encoder)).last_hidden_state
        torch.testing.assert_close(load_file(tmp_path / kind / "output.safetensors")["output"], expected)
    loaded = class_.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    loaded = class_.from_pretrained(tmp_path, attn_implementation="eager")
    assert all(
        e.config._attn_implementation == "eager" for e in loaded.encoders.values() if "Timm" not in type(e).__name__
    )
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
    assert type(AutoModel.from_pretrained(tmp_path)) is CompositeModel
    shutil.move(tmp_path, tmp_path.with_suffix(".in") / "side")
    again = class_.from_pretrained(tmp_path.with_suffix(".in"), subfolder="side")
    assert torch.equal(again.heads["audio"].weight, model.heads["audio"].weight)


def test_composites_that_can_not_be():
    ast, bert = CONFIGS["ast"](), CONFIGS["bert"]()
    with pytest.raises(ValueError, match="needs an encoder for each of audio, video: give video="):
        SoundAndFilmForPreTraining.from_encoders(audio=ast)
    with pytest.raises(ValueError, match="video inputs, but BertModel"):
        SoundAndFilmForPreTraining.from_encoders(audio=ast, video=bert)
    with pytest.raises(ValueError, match="needs a CompositeModel of audio and video, not a BertModel"):
        SoundAndFilmForPreTraining.from_encoder(bert)
    with pytest.raises(ValueError, match="all of the same dtype"):
        SoundAndFilmForPreTraining.from_encoders(audio=build_encoder(ast).bfloat16(), video=CONFIGS["videomae"]())


def test_the_sides_of_a_multiway_must_agree(tmp_path):
    model = multiway_model()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "text" / "model.safetensors")
    name = "encoder.layer.1.attention.self.query.weight"
    save_file({**weights, name: weights[name] + 1e-3}, tmp_path / "text" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="differ in 1 shared weights, for example layers.1.attention.q_proj"):
        hf_pretext.load(tmp_path)


# what is wrong with a folder


def test_missing_and_surplus_weights_are_errors(tmp_path):
    RotationForPreTraining.from_encoder(CONFIGS["vit"]()).save_pretrained(tmp_path)
    for file, lost in (("model.safetensors", "embeddings.cls_token"), (PRETEXT_WEIGHTS, "pretext_head.0.weight")):
        before = (tmp_path / file).read_bytes()
        weights = load_file(tmp_path / file)
        value = weights.pop(lost)
        save_file(weights, tmp_path / file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=f"lacks 1 weights of .*, which would stay random: {lost}"):
            hf_pretext.load(tmp_path)
        save_file({**weights, lost: value, "more": value.clone()}, tmp_path / file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match="has 1 weights that .* does not have: more"):
            hf_pretext.load(tmp_path)
        (tmp_path / file).write_bytes(before)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretext"]["head_dim"] = 17
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not match its config.json: pretext_head.* \(256.*, not \(17"):
        hf_pretext.load(tmp_path)
    (tmp_path / PRETEXT_WEIGHTS).unlink()
    with pytest.raises(ValueError, match="has no pretext.safetensors, so the weights of its heads are missing"):
        hf_pretext.load(tmp_path)


def test_a_folder_of_the_older_form_is_an_error_that_says_so(tmp_path):
    for model in (RotationForPreTraining.from_encoder(CONFIGS["vit"]()), multiway_model()):
        folder = tmp_path / model.objective
        model.save_pretrained(folder)
        heads = load_file(folder / PRETEXT_WEIGHTS)
        (folder / PRETEXT_WEIGHTS).unlink()
        encoder = {f"vit.{name}": value for name, value in model.encoder.state_dict().items()}
        save_file({**encoder, **heads}, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match="a checkpoint in an older format, with its heads in model.safetensors"):
            hf_pretext.load(folder)


def test_quantisation_is_refused_with_the_reason(tmp_path):
    RotationForPreTraining.from_encoder(CONFIGS["resnet"]()).save_pretrained(tmp_path)
    for option in ({"load_in_8bit": True}, {"quantization_config": transformers.BitsAndBytesConfig(load_in_4bit=True)}):
        with pytest.raises(ValueError, match="quantised weights can't be trained, so a pretext model can't be"):
            hf_pretext.load(tmp_path, **option)
    with pytest.raises(ValueError, match="output_loading_info is not supported: a missing or unexpected weight raises"):
        hf_pretext.load(tmp_path, output_loading_info=True)


# saving and loading in other ways


def test_shards_and_state_dicts(tmp_path):
    model = AnyEncoderForPreTraining.from_encoder(CONFIGS["vit"]())
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    doubled = {name: 2 * value for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "given", state_dict=doubled)
    model.save_pretrained(tmp_path / "empty", state_dict={})
    model.save_pretrained(tmp_path / "rank 1", state_dict={}, is_main_process=False)
    for folder, weights in (("shards", model.state_dict()), ("given", doubled), ("empty", model.state_dict())):
        loaded = AnyEncoderForPreTraining.from_pretrained(tmp_path / folder).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert not list((tmp_path / "rank 1").glob("*"))
    with pytest.raises(ValueError, match="The state_dict to save has 1 weights that AnyEncoder.* does not have: other"):
        model.save_pretrained(tmp_path / "bad", state_dict={**doubled, "other": torch.ones(1)})


def test_saving_over_heads_that_are_no_more(tmp_path):
    full_model = CONFIGS["clip_vision"]()
    model = hf_pretext.ContrastiveForPreTraining.from_encoders(full_model, CONFIGS["bert"](), 24, loss="sigmoid")
    model.save_pretrained(tmp_path)
    hf_pretext.ContrastiveForPreTraining.from_encoder(model.full_model).save_pretrained(tmp_path)
    assert not (tmp_path / PRETEXT_WEIGHTS).exists() and hf_pretext.load(tmp_path).task.loss == "softmax"


def test_what_is_pushed_loads_from_the_hub_at_its_revision(tmp_path, monkeypatch):
    with online(tmp_path / "hub", monkeypatch) as hub:
        from huggingface_hub import HfApi

        monkeypatch.setattr("transformers.utils.hub._hf_api", HfApi(endpoint=hub.url))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        for i in range(2):
            model = multiway_model()
            model.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="tester/mine", revision=f"v{i}")
        cache = {"cache_dir": tmp_path / "cache", "token": hub.token}
        loaded = [hf_pretext.load("tester/mine", revision=f"v{i}", **cache).state_dict() for i in range(2)]
    assert all(torch.equal(loaded[1][name], value) for name, value in model.state_dict().items())
    assert not torch.equal(loaded[0]["full_model.norm.weight"], 0 * loaded[0]["full_model.norm.weight"])
    name = "full_model.layers.0.attention.q_proj.weight"
    assert not torch.equal(loaded[0][name], loaded[1][name])


def test_a_missing_sub_folder_is_named(tmp_path):
    encoders = {kind: AutoModel.from_config(CONFIGS["vit"]()) for kind in ("image", "video")}
    CompositeModel.of(**encoders).save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "video")
    with pytest.raises(ValueError, match=r"lacks the sub-folder video/ with the config\.json of its video encoder"):
        CompositeModel.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["encoders"] = {"../outside": config["encoders"]["video"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"names the sub-folder '\.\./outside'.*not inside of it"):
        CompositeModel.from_pretrained(tmp_path)


def test_a_hostile_folder_is_refused_by_load(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("asks to run code"))
    (tmp_path / "config.json").write_text('{"a":' + "[" * 10**5 + "]" * 10**5 + "}")
    for read in (hf_pretext.load, RotationForPreTraining.from_pretrained, encoder_config):
        with pytest.raises(ValueError, match=r"config\.json is nested in more than"):
            read(str(tmp_path))
    code = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    with pytest.raises(ValueError, match="--encoder .* needs its own Python code"):
        encoder_config(str(tmp_path))
