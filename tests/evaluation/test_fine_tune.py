"""Fine-tuning: what is trained, at which rate, on what, and that nothing else changes."""

import copy
import json
import types

import numpy as np
import pytest
import torch
from conftest import CONFIGS, EMOJI, IMAGE, IMAGE_ENCODERS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModel, PreTrainedTokenizerFast

import hf_pretext
from hf_pretext.cli import main
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.comparison import random_transfer
from hf_pretext.evaluation.fine_tune import (
    FINE_TUNE,
    SMALLEST,
    Classifier,
    FineTuning,
    batches_of,
    check_in_memory,
    cropped,
    depths,
    fine_tune,
    parameter_groups,
)
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.standalone import evaluate
from hf_pretext.evaluation.transfer import METHODS, Labels, chosen_together
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor

COUNTS = {"train": 96, "validation": 32, "test": 64}
ROWS = 60


@pytest.fixture(scope="module")
def stripes():
    """Images of horizontal or vertical stripes at a random place: the mean of their pixels says nothing."""
    random, inputs = np.random.default_rng(0), Inputs(Image(default_processor(IMAGE)))
    labels = {split: random.integers(0, 2, count) for split, count in COUNTS.items()}
    waves = np.sin(2 * np.pi * (np.arange(IMAGE) / 8 + random.random((sum(COUNTS.values()), 1))))
    lit = np.broadcast_to(waves[:, :, None], (*waves.shape, IMAGE))
    vertical = np.concatenate(list(labels.values())) == 1
    lit = np.where(vertical[:, None, None], lit.transpose(0, 2, 1), lit)
    pixels = torch.from_numpy(np.broadcast_to((lit * 90 + 128)[:, None], (len(lit), 3, IMAGE, IMAGE)).astype(np.uint8))
    splits = dict(zip(COUNTS, pixels.split(list(COUNTS.values())), strict=True))

    def batches(split, kind):
        return [inputs.by_name[kind].finish({"pixel_values": splits[split]})]

    return types.SimpleNamespace(
        pixels=splits, inputs=inputs, batches=batches, labels=Labels(labels, ["a", "b"]), name="stripes"
    )


def built(name: str):
    torch.manual_seed(0)
    return build_encoder(CONFIGS[name]())


# what is learned


@pytest.mark.parametrize(("name", "epochs"), [("resnet", 6), ("vit", 12)])
def test_it_learns_changes_nothing_else_and_is_the_same_once_more(name, epochs, stripes):
    encoder, settings = built(name), FineTuning(epochs, (3e-3,), 16)
    before, random_state = copy.deepcopy(encoder.state_dict()), torch.get_rng_state()
    measured = fine_tune(encoder, stripes, settings)
    assert measured["test"]["top1"] > 0.85 and measured["learning_rate"] in settings.learning_rates
    assert set(measured) == {"validation", "test", "learning_rate"} and set(measured["test"]) == {"top1", "mean_class"}
    assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in before.items())
    assert not any(parameter.grad is not None for parameter in encoder.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.manual_seed(5)  # the caller's random numbers do not matter
    assert fine_tune(encoder, stripes, settings) == measured


@pytest.mark.slow
def test_the_rate_is_the_one_that_is_best_on_validation(stripes):
    encoder = built("resnet")
    rates = {rate: fine_tune(encoder, stripes, FineTuning(3, (rate,), 16)) for rate in (1e-7, 1e-2)}
    assert rates[1e-2]["validation"]["top1"] > rates[1e-7]["validation"]["top1"]
    assert fine_tune(encoder, stripes, FineTuning(3, (1e-7, 1e-2), 16)) == rates[1e-2]


def test_bf16(stripes):
    measured = fine_tune(built("vit"), stripes, FineTuning(8, (3e-3,), 16, bf16=True))
    assert measured["test"]["top1"] > 0.7


def test_random_encoders_with_batch_norm_are_fine_tuned_once(stripes):
    variants = random_transfer(
        lambda: built("resnet"), stripes, "image", methods={"knn": METHODS["knn"]}, fine_tuning=FineTuning(1, (1e-3,))
    )
    assert {who: list(measured) for who, measured in variants.items()} == {
        "initial statistics": ["knn", FINE_TUNE], "recomputed statistics": ["knn"],
    }  # fmt: skip
    (chosen,) = chosen_together([variants])
    tuned = chosen[FINE_TUNE]
    assert (tuned["layer"], tuned["variant"]) == (-1, "initial statistics") and list(tuned["layers"]) == ["-1"]
    assert tuned["test"] == variants["initial statistics"][FINE_TUNE]["test"]


# rates of the layers


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("vit", {"embeddings.cls_token": 3, "embeddings.position_embeddings": 3, "layers.0.mlp.fc1.weight": 2,
                 "layers.1.attention.q_proj.bias": 1, "layernorm.weight": 0}),
        ("resnet", {"embedder.embedder.convolution.weight": 3,
                    "encoder.stages.0.layers.0.layer.0.convolution.weight": 2,
                    "encoder.stages.1.layers.0.shortcut.convolution.weight": 1}),
        ("timm_resnet18", {"timm_model.conv1.weight": 5, "timm_model.layer1.1.bn2.bias": 4,
                           "timm_model.layer3.0.conv1.weight": 2, "timm_model.layer4.1.conv2.weight": 1}),
    ],
)  # fmt: skip
def test_each_layer_has_its_rate(name, rates):
    """rates: how many layers a parameter is below the classifier."""
    model, settings = Classifier(built(name), 4), FineTuning(5)
    groups = parameter_groups(model, torch.randn(2, 3, IMAGE, IMAGE), settings, 2.0)
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    for parameter, below in rates.items():
        assert group_of[id(named[f"encoder.{parameter}"])]["lr"] == pytest.approx(2.0 * 0.75**below), parameter
    assert group_of[id(model.head.weight)]["lr"] == group_of[id(model.head.bias)]["lr"] == 2.0
    assert all((group["weight_decay"] > 0) == (p.ndim in (2, 4)) for group in groups for p in group["params"])


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_every_encoder_has_rising_depths_and_trains_all_that_its_output_depends_on(name):
    encoder = built(name)
    found, top = depths(encoder, torch.randn(2, 3, IMAGE, IMAGE))
    order = [found[key] for key, _ in encoder.named_parameters() if key in found]
    assert order == sorted(order) and order[0] == 0 and order[-1] >= top - 1 >= 2
    encoder(pixel_values=torch.randn(2, 3, IMAGE, IMAGE)).last_hidden_state.sum().backward()
    assert {key for key, parameter in encoder.named_parameters() if parameter.grad is not None} == found.keys()


def test_an_encoder_without_hidden_states_has_one_depth():
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 1)

        def forward(self, pixel_values, output_hidden_states):
            out = self.second(self.first(pixel_values))
            return types.SimpleNamespace(hidden_states=None, last_hidden_state=out)

    found, top = depths(Flat(), torch.randn(1, 3, 4, 4))
    assert set(found.values()) == {0} and len(found) == 4 and top == 0


# batches


def test_batches_hold_every_row_once_and_none_has_a_single_image():
    rows = batches_of(129, 64, torch.Generator().manual_seed(0))
    assert [len(some) for some in rows] == [43, 43, 43] and sorted(torch.cat(rows).tolist()) == list(range(129))


def test_crops_lie_inside_and_half_of_them_are_flipped():
    side, count = 64, 400
    ramp = torch.linspace(0, 1, side)
    images = torch.stack([ramp[None].expand(side, -1), ramp[:, None].expand(-1, side)]).expand(count, -1, -1, -1)
    crops = cropped(images, torch.rand(count, 5, generator=torch.Generator().manual_seed(0)))
    assert crops.shape == images.shape and crops.min() >= 0 and crops.max() <= 1
    across = (crops[:, 0, :, -1] - crops[:, 0, :, 0]).mean(1)
    down = (crops[:, 1, -1] - crops[:, 1, 0]).mean(1)
    assert (down > 0).all() and 0.4 < (across < 0).float().mean() < 0.6  # flipped from left to right alone
    shares = across.abs() * down * (side / (side - 1)) ** 2
    assert shares.min() > 0.85 * SMALLEST and shares.max() < 1.05 and shares.max() - shares.min() > 0.3


def test_a_crop_of_the_full_image_is_the_image_and_a_flip_its_mirror():
    images = torch.rand(2, 3, 8, 8)
    crops = cropped(images, torch.tensor([[1.0, 0.5, 0.3, 0.7, 0.9], [1.0, 0.5, 0.3, 0.7, 0.1]]))
    torch.testing.assert_close(crops, torch.stack([images[0], images[1].flip(-1)]))


# what is refused


def test_images_that_are_not_in_memory(monkeypatch):
    monkeypatch.setattr("hf_pretext.evaluation.labelled_set.KEPT_BYTES", 1000)
    with pytest.raises(ValueError, match="emoji is too large. Give a smaller --eval_rows"):
        check_in_memory(LabelledSet(str(EMOJI), Inputs(Image(default_processor(16))), "group", limit=30))


# from the command line


@pytest.mark.slow
def test_a_saved_encoder_from_the_command_line(tmp_path, capsys):
    hf_pretext.RotationForPreTraining.from_encoder(built("resnet")).save_pretrained(tmp_path / "ours")
    default_processor(IMAGE).save_pretrained(tmp_path / "ours")
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(tmp_path / "ours"), "--dataset", str(EMOJI), "--label", "group", "--rows", str(ROWS),
              "--fine_tune", "1", "--output", str(tmp_path / "metrics.json")])  # fmt: skip
    assert not ended.value.code and "fine-tuning (1 epoch): no verdict" in capsys.readouterr().out
    transfer = json.loads((tmp_path / "metrics.json").read_text())["transfer"]
    assert transfer["methods"] == ["linear_probe", "knn", FINE_TUNE]
    assert transfer[FINE_TUNE]["epochs"] == 1 and transfer[FINE_TUNE]["bf16"] is False
    figures = transfer["figures"]
    assert len(figures["random"]["fine_tune_top1"]["values"]) == 3
    assert figures["pixels"]["fine_tune_top1"]["mean"] is None and figures["majority"]["fine_tune_top1"]["mean"] > 0


def test_a_text_encoder_is_refused_before_the_labelled_set_is_read(tmp_path):
    AutoModel.from_config(CONFIGS["bert"]()).save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3, "c": 4}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="--fine_tune 1 trains only image encoders, but this encoder takes text"):
        evaluate(tmp_path, str(tmp_path / "nothing"), fine_tune=1)
