"""The metrics of `evaluate` equal the functions of hf_pretext, for any batches."""

import numpy as np
import pytest
import torch

from hf_pretext.evaluation.retrieval import retrieval
from hf_pretext.evaluation.zero_shot import zero_shot
from hf_pretext.interop.evaluate_metrics import Retrieval, ZeroShot

IDS = [f"{i % 20:02}" for i in range(60)], [f"{i:02}" for i in range(25)]  # three images of a text, 5 of none


def pairs(noise=0.5):
    centres = torch.randn(25, 6)
    of_images, of_texts = ([int(one) for one in ids] for ids in IDS)
    return centres[of_images] + noise * torch.randn(60, 6), centres[of_texts] + noise * torch.randn(25, 6)


@pytest.fixture(params=["memory", "disk"])
def options(request, tmp_path):
    return {"cache_dir": str(tmp_path), "keep_in_memory": request.param == "memory"}


@pytest.mark.parametrize("kind", [lambda ids: ids, lambda ids: [int(one) for one in ids]])
def test_retrieval_over_batches_is_retrieval(options, kind):
    (images, texts), (image_ids, text_ids) = pairs(), map(kind, IDS)
    metric, expected = Retrieval(**options), retrieval(images, texts, image_ids, text_ids)
    for _ in range(2):  # compute() resets the metric
        for begin in range(0, 60, 16):
            some, other = slice(begin, begin + 16), slice(begin // 2, begin // 2 + 8)
            metric.add_batch(
                images=images[some], image_ids=image_ids[some], texts=texts[other], text_ids=text_ids[other]
            )
        assert metric.compute() == expected
    assert 0 < expected["image_to_text_r1"] < 1 and expected["text_to_image_left_out"] == 5


def test_retrieval_of_one_side_after_the_other_and_at_once(options):
    images, texts = pairs()
    metric, expected = Retrieval(**options), retrieval(images, texts, *IDS, ks=(2,))
    metric.add_batch(texts=texts.numpy(), text_ids=np.array(IDS[1]))
    metric.add_batch(images=images.tolist(), image_ids=IDS[0])
    assert metric.compute(ks=(2,)) == expected
    assert metric.compute(images=images, image_ids=IDS[0], texts=texts, text_ids=IDS[1], ks=(2,)) == expected


def test_retrieval_one_by_one(options):
    images, texts = pairs()
    metric = Retrieval(**options)
    for image, one in zip(images, IDS[0], strict=True):
        metric.add(images=image, image_ids=one)
    for text, one in zip(texts, IDS[1], strict=True):
        metric.add(texts=text, text_ids=one)
    assert metric.compute() == retrieval(images, texts, *IDS)


def test_half_precision_and_what_still_has_a_gradient(options):
    images, texts = (side.bfloat16().requires_grad_() for side in pairs())
    metrics = Retrieval(**options).compute(images=images, image_ids=IDS[0], texts=texts, text_ids=IDS[1])
    assert metrics == retrieval(images.detach(), texts.detach(), *IDS)


def test_retrieval_refuses_what_the_function_refuses(tmp_path):
    (images, texts), numbers = pairs(), [int(one) for one in IDS[1]]
    with pytest.raises(ValueError, match="60 images have 0 image_ids"):
        Retrieval(cache_dir=str(tmp_path)).add_batch(images=images)
    with pytest.raises(ValueError, match="of these types: int, str"):  # "07" is not 7
        Retrieval(cache_dir=str(tmp_path)).compute(images=images, image_ids=IDS[0], texts=texts, text_ids=numbers)
    with pytest.raises(ValueError, match="NaN or infinity"):
        Retrieval(cache_dir=str(tmp_path)).compute(images=images, image_ids=IDS[0], texts=texts / 0, text_ids=IDS[1])


def test_zero_shot_over_batches_is_zero_shot(options):
    classes, labels = torch.randn(8, 6), torch.randint(8, (50,))
    images = classes[labels] + 0.8 * torch.randn(50, 6)
    metric, expected = ZeroShot(**options), zero_shot(images, classes, labels)
    for _ in range(2):
        for some in torch.arange(50).split(16):
            metric.add_batch(predictions=images[some], references=labels[some])
        assert metric.compute(classes=classes) == expected
    assert metric.compute(predictions=images.tolist(), references=labels.tolist(), classes=classes.numpy()) == expected
    assert 0 < expected["top1"] < expected["top5"]


def test_zero_shot_refuses_what_the_function_refuses(tmp_path):
    with pytest.raises(ValueError, match="Label 3 is out of range: there are 3 classes"):
        ZeroShot(cache_dir=str(tmp_path)).compute(predictions=torch.eye(3), references=[0, 1, 3], classes=torch.eye(3))


def test_metrics_describe_themselves(tmp_path):
    for metric in (Retrieval(cache_dir=str(tmp_path)), ZeroShot(cache_dir=str(tmp_path))):
        assert metric.citation.startswith("https://huggingface.co/papers/")
        assert (
            "Raises `ValueError`" in metric.inputs_description and metric.inputs_description in metric.compute.__doc__
        )
