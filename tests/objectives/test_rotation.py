import math

import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS, IMAGE, IMAGE_ENCODERS, encoder_inputs
from contract import check_contract
from torch import nn

from hf_pretext.encoders import build_encoder
from hf_pretext.objectives.rotation import RotationForPreTraining, moved, rotate


def reference(encoder, head, images):
    """The published method, as in the code of its authors: four rotated copies, one cross-entropy."""
    batch, labels = [], []
    for turn in range(4):
        for image in images:
            copy = image.clone()
            for _ in range(turn):
                copy = copy.transpose(1, 2).flip(1)  # a counter-clockwise quarter turn
            batch.append(copy)
            labels.append(turn)
    labels = torch.tensor(labels)
    hidden = encoder(torch.stack(batch)).last_hidden_state
    scores = head(hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden.mean(1))
    return F.cross_entropy(scores, labels), (scores.argmax(1) == labels).float().mean()


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_contract(name, tmp_path):
    encoder = build_encoder(CONFIGS[name]())
    check_contract(RotationForPreTraining, encoder, encoder_inputs(encoder), tmp_path)


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_reference(name, training):
    model = RotationForPreTraining.from_encoder(build_encoder(CONFIGS[name]())).train(training)
    images = torch.rand(5, 3, IMAGE, IMAGE)
    output = model(pixel_values=images)
    loss, accuracy = reference(model.encoder, model.pretext_head, images)
    torch.testing.assert_close(output.loss, loss)
    assert output.logs["accuracy"] == accuracy


def test_output_is_turn_by_turn():
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"]()).eval()
    images = torch.rand(3, 3, IMAGE, IMAGE)
    output = model(pixel_values=images)
    assert output.features.shape == (12, 16)
    assert output.logits.shape == (12, 4)
    assert output.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    upright = model.encoder(images).last_hidden_state.mean((2, 3))
    torch.testing.assert_close(output.features[:3], upright)


def test_labels_count_counter_clockwise_quarter_turns():
    marked = torch.zeros(1, 1, 4, 4)
    marked[..., 0, 3] = 1  # top right
    turned, labels = rotate(marked)
    places = {0: (0, 3), 1: (0, 0), 2: (3, 0), 3: (3, 3)}  # counter-clockwise: top left, bottom left, bottom right
    for image, label in zip(turned, labels.tolist(), strict=True):
        assert image[0][places[label]] == 1


def test_two_rotations_are_upright_and_upside_down():
    images = torch.rand(2, 3, 8, 8)
    turned, labels = rotate(images, num_rotations=2)
    assert labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(turned[2:], images.flip(2, 3))
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), num_rotations=2)
    assert model(pixel_values=torch.rand(3, 3, IMAGE, IMAGE)).logits.shape == (6, 2)


@pytest.mark.parametrize(("num_rotations", "k"), [(4, 1), (4, 2), (4, 3), (2, 1)])
def test_rotations_per_image_draws_different_ones(num_rotations, k):
    images = torch.rand(200, 1, 4, 4)
    turned, labels = rotate(images, num_rotations, per_image=k)
    assert turned.shape == (200 * k, 1, 4, 4)
    by_image = labels.view(k, 200)
    assert all(len(set(column.tolist())) == k for column in by_image.T)
    every, _ = rotate(images, num_rotations)
    every = every.view(num_rotations, 200, 1, 4, 4)
    for draw in range(k):
        for image in range(200):
            assert torch.equal(turned.view(k, 200, 1, 4, 4)[draw, image], every[by_image[draw, image], image])
    counts = torch.bincount(labels, minlength=num_rotations) / len(labels)
    spread = 4 * math.sqrt(1 / num_rotations / len(labels))
    assert (counts - 1 / num_rotations).abs().max() < spread  # all rotations are drawn about equally often


def test_drawing_differs_in_training_and_repeats_in_eval():
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), rotations_per_image=1)
    images = torch.rand(64, 3, IMAGE, IMAGE)
    assert not torch.equal(model(pixel_values=images).labels, model(pixel_values=images).labels)
    model.eval()
    assert torch.equal(model(pixel_values=images).labels, model(pixel_values=images).labels)


@pytest.mark.parametrize(("head_dim", "layers"), [(256, (16, 256, 4)), (32, (16, 32, 4)), (0, (16, 4))])
def test_head(head_dim, layers):
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), head_dim=head_dim)
    linear = [m for m in model.pretext_head.modules() if isinstance(m, nn.Linear)]
    assert [linear[0].in_features, *(m.out_features for m in linear)] == list(layers)
    assert len([m for m in model.pretext_head.modules() if isinstance(m, nn.ReLU)]) == len(linear) - 1


def test_images_that_are_not_square_are_refused():
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"]())
    with pytest.raises(ValueError, match="square images, but got 32x48"):
        model(pixel_values=torch.rand(2, 3, 32, 48))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_turns_are_made_where_the_batch_is():
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), rotations_per_image=2).cuda()
    output = model(pixel_values=torch.rand(4, 3, IMAGE, IMAGE, device="cuda"))
    assert output.loss.is_cuda and output.labels.is_cuda
    output.loss.backward()


def test_moved_images_keep_their_pixels_and_repeat_their_border():
    images = torch.rand(200, 3, 8, 8)
    results = moved(images, 2, torch.Generator().manual_seed(0))
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    offsets = [
        [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[i, :, y : y + 8, x : x + 8], result)]
        for i, result in enumerate(results)
    ]
    assert all(len(each) == 1 for each in offsets)
    assert len({each[0] for each in offsets}) == 25  # every place occurs
    assert torch.equal(moved(images, 0), images)


def test_moved_images_keep_their_label():
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), max_shift=0.2).eval()
    ramp = torch.arange(IMAGE).float().expand(6, 3, IMAGE, IMAGE).contiguous()  # brighter to the right
    question = model.ask(ramp)
    images = question.inputs["pixel_values"]
    across, down = images.diff(dim=3).mean((1, 2, 3)), images.diff(dim=2).mean((1, 2, 3))
    signs = torch.stack([across.sign(), down.sign()], dim=1).tolist()
    assert signs == [[1, 0]] * 6 + [[0, -1]] * 6 + [[-1, 0]] * 6 + [[0, 1]] * 6
    assert len({tuple(image[0, 0].tolist()) for image in images[:6]}) > 1
    assert torch.equal(images, model.ask(ramp).inputs["pixel_values"])  # the same draws in each evaluation
    assert not torch.equal(images, model.train().ask(ramp).inputs["pixel_values"])
