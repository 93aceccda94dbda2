"""Timm encoders of runs in timm: same features on the same pixels, weights that load strictly, timm's own format."""

import json

import pytest
import timm
import torch
import transformers
from conftest import CONFIGS, IMAGE
from PIL import Image
from timm.data import create_transform, resolve_data_config
from transformers import AutoModel, ViTImageProcessor

from hf_pretext import RotationForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.interop.timm import save_timm, to_timm
from hf_pretext.modalities.image import default_processor

NAMES = ["timm_resnet18", "timm_vit_tiny"]


@pytest.fixture(params=NAMES)
def trained(request) -> RotationForPreTraining:
    """A model whose weights, running means and variances are not those of a new one."""
    model = RotationForPreTraining.from_encoder(build_encoder(CONFIGS[request.param]()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        model(pixel_values=torch.rand(4, 3, IMAGE, IMAGE)).loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def check_same(ours: RotationForPreTraining, theirs) -> None:
    pixels = torch.randn(3, 3, IMAGE, IMAGE)
    output = ours.encoder.eval()(pixels)
    torch.testing.assert_close(theirs.forward_features(pixels), output.last_hidden_state, atol=1e-6, rtol=0)
    torch.testing.assert_close(theirs(pixels), output.pooler_output, atol=1e-6, rtol=0)


def test_a_model_and_its_encoder_give_the_same_features(trained):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    for source in (trained, trained.encoder):
        theirs = to_timm(source)
        assert type(theirs) is type(trained.encoder.timm_model) and not theirs.training
        check_same(trained, theirs)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    theirs.reset_classifier(7)
    assert theirs(torch.randn(2, 3, IMAGE, IMAGE)).shape == (2, 7)


def test_a_folder_is_written_in_the_format_of_timm(trained, tmp_path):
    trained.save_pretrained(tmp_path / "run")
    default_processor(IMAGE).save_pretrained(tmp_path / "run")
    check_same(trained, to_timm(tmp_path / "run"))
    folder = save_timm(tmp_path / "run", tmp_path / "timm")
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    check_same(trained, theirs)
    back = AutoModel.from_pretrained(folder)
    assert type(back).__name__ == "TimmWrapperModel"
    image = Image.effect_noise((50, 40), 60).convert("RGB")
    pixels = create_transform(**resolve_data_config(model=theirs))(image)
    ours = default_processor(IMAGE)(image, return_tensors="pt")["pixel_values"][0]
    assert pixels.shape == ours.shape == (3, IMAGE, IMAGE)
    assert (pixels - ours).abs().max() < 0.06 and "pretext" not in json.loads((folder / "config.json").read_text())


def test_sizes_without_a_crop_are_kept(tmp_path):
    model = RotationForPreTraining.from_encoder(CONFIGS["timm_resnet18"]())
    folder = save_timm(model, tmp_path / "timm", ViTImageProcessor(size={"height": 32, "width": 48}))
    prepared = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert prepared["input_size"] == [3, 32, 48] and prepared["crop_mode"] == "squash"


def test_other_encoders_and_folders_with_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has a ViTModel of transformers, which timm has no architecture for"):
        to_timm(AutoModel.from_config(CONFIGS["vit"]()))
    (tmp_path / "config.json").write_text("{}")
    model = RotationForPreTraining.from_encoder(CONFIGS["timm_resnet18"]())
    with pytest.raises(ValueError, match="exists and is not empty"):
        save_timm(model, tmp_path)
    padded = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False)
    with pytest.raises(ValueError, match="does not support the preprocessing of this ViTImageProcessor"):
        save_timm(model, tmp_path / "timm", padded)
    assert not (tmp_path / "timm").exists()
