"""Zero-shot classification against scikit-learn and a reference that counts with loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from hf_pretext.evaluation.zero_shot import DRAWINGS, TEMPLATES, classifier, prompts, templates_of, zero_shot


def blobs(classes=8, count=150, dim=6, noise=1.0):
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=random)
    labels = (torch.rand(count, generator=random) ** 2 * classes).long()  # the first classes are the commonest
    return 5 * (centres[labels] + noise * torch.randn(count, dim, generator=random)), centres, labels


def letters(texts: list[str]) -> torch.Tensor:
    """An embedding of a text: how often it has each letter, so of any length."""
    return torch.tensor([[float(text.lower().count(letter)) for letter in "abcdefghijklmnop"] for text in texts])


@pytest.mark.parametrize("classes", [2, 5, 6, 8])
def test_metrics_are_those_of_scikit_learn(classes):
    images, centres, labels = blobs(classes, noise=2.0)
    cosines = (images @ centres.T / images.norm(dim=1, keepdim=True) / centres.norm(dim=1)).numpy()
    metrics = zero_shot(images, centres, labels)
    assert set(metrics) == {"top1", "top5", "mean_class"}
    assert metrics["top1"] == pytest.approx((cosines.argmax(1) == labels.numpy()).mean())
    assert metrics["mean_class"] == pytest.approx(balanced_accuracy_score(labels, cosines.argmax(1)))
    if classes > 5:
        assert metrics["top5"] == pytest.approx(top_k_accuracy_score(labels, cosines, k=5))
        assert metrics["top1"] < metrics["top5"] < 1
    else:
        assert metrics["top5"] == 1.0
    assert abs(metrics["top1"] - metrics["mean_class"]) > 1e-3


def test_chunks_and_kinds_of_labels_change_nothing():
    images, centres, labels = blobs()
    expected = zero_shot(images, centres, labels)
    for kind in (labels.tolist(), labels.numpy().astype(np.uint16), labels.int()):
        assert zero_shot(images, centres, kind) == expected
    assert zero_shot(images, centres, labels, chunk=7) == expected


def test_only_classes_that_occur_count_in_the_mean():
    images = torch.eye(4)[[0, 0, 0, 1]]
    metrics = zero_shot(images, torch.eye(4), [0, 0, 0, 2])
    assert metrics == {"top1": 0.75, "top5": 1.0, "mean_class": 0.5}


def test_classes_that_lie_together_are_all_wrong():
    images, centres, labels = blobs(12)
    same = centres[:1].repeat(12, 1)
    assert zero_shot(images, same, labels) == {"top1": 0.0, "top5": 0.0, "mean_class": 0.0}
    twice = torch.eye(4)[[0, 0, 1, 2]]  # two names for one thing
    assert zero_shot(torch.eye(4)[:3], twice, [1, 2, 3])["top1"] == pytest.approx(2 / 3)


def test_prompts():
    assert prompts(["fire_truck", " sea  lion "], ("a photo of a {}.", "{}, {}")) == [
        ["a photo of a fire truck.", "fire truck, fire truck"],
        ["a photo of a sea lion.", "sea lion, sea lion"],
    ]
    assert prompts(["{x}"], ["the {size} {}"]) == [["the {size} {x}"]]  # other braces are text


def test_prompts_of_nonsense_are_refused():
    with pytest.raises(ValueError, match=r"Template 'a photo of it' has no \{\}"):
        prompts(["dog"], ["a {}", "a photo of it"])
    with pytest.raises(ValueError, match="name of class 1 is empty: '__'"):
        prompts(["dog", "__"], ["a {}"])
    for names, sentences in (([], ["{}"]), (["dog"], [])):
        with pytest.raises(ValueError, match="need names and templates"):
            prompts(names, sentences)


def test_a_language_stands_for_its_templates():
    assert templates_of(["de", "ein {}", "zh-drawings"]) == [*TEMPLATES["de"], "ein {}", *DRAWINGS["zh"]]
    for wrong in ("a photo of it", "xx", "de-", "de-cartoons", ""):
        with pytest.raises(ValueError, match=f"The prompt '{wrong}' is neither a template.*en-drawings"):
            templates_of(["{}", wrong])


@pytest.mark.parametrize("by_language", [TEMPLATES, DRAWINGS])
def test_templates_of_every_language_take_a_name_once(by_language):
    assert {"en", "de", "fr", "es", "zh", "ja"} <= set(by_language) and set(TEMPLATES) == set(DRAWINGS)
    for language, some in by_language.items():
        assert len(language) == 2 and len(set(some)) == len(some) >= 3
        assert all(template.count("{}") == 1 and template.replace("{}", "").strip() for template in some)
    assert TEMPLATES["en"][0] == "a photo of a {}."


def test_a_class_is_the_mean_of_its_normalised_prompts():
    names, sentences = ["dog", "fire_engine", "bee"], ("a {}", "my {} and a long palindrome", "{}")
    calls = []
    classes = classifier(lambda texts: calls.append(texts) or letters(texts), names, sentences)
    expected = []
    for name in ("dog", "fire engine", "bee"):
        mean = 0
        for template in sentences:
            one = letters([template.format(name)])[0].double()
            mean = mean + one / one.norm() / 3
        expected.append(mean / mean.norm())
    torch.testing.assert_close(classes, torch.stack(expected).float())
    assert len(calls) == 1 and len(calls[0]) == 9
    lengths = classes.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3))


def test_classifier_is_float32_without_gradient_and_classifies():
    names = ["dog", "bee", "golf club"]
    weight = torch.nn.Parameter(torch.ones(16))
    classes = classifier(lambda texts: (letters(texts) * weight).bfloat16(), names, TEMPLATES["en"])
    assert classes.dtype == torch.float32 and not classes.requires_grad
    images = classifier(letters, names, ("the {}",))
    assert zero_shot(images, classes, [0, 1, 2])["top1"] == 1.0


def test_classifier_refuses_embeddings_that_do_not_fit():
    with pytest.raises(ValueError, match="returned 1 embeddings for 4 texts"):
        classifier(lambda texts: torch.ones(1, 3), ["a", "b"], ["{}", "{}."])
    with pytest.raises(ValueError, match=r"embeddings must be \(examples, channels\)"):
        classifier(lambda texts: torch.ones(len(texts)), ["a", "b"], ["{}"])
    with pytest.raises(ValueError, match="NaN or infinity"):
        classifier(lambda texts: torch.full((len(texts), 3), float("nan")), ["a", "b"], ["{}"])


def test_nonsense_is_refused():
    images, centres, labels = blobs()
    spoilt = images.clone()
    spoilt[2, 2] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        zero_shot(spoilt, centres, labels)
    with pytest.raises(ValueError, match="NaN or infinity"):
        zero_shot(images, centres / 0, labels)
    with pytest.raises(ValueError, match="150 images have 149 labels"):
        zero_shot(images, centres, labels[1:])
    with pytest.raises(ValueError, match="0 images have 0 labels"):
        zero_shot(images[:0], centres, labels[:0])
    with pytest.raises(ValueError, match="images 6 and classes 4"):
        zero_shot(images, centres[:, :4], labels)
    for strange in (8, -1):
        wrong = labels.clone()
        wrong[5] = strange
        with pytest.raises(ValueError, match=f"Label {strange} is out of range: there are 8 classes, 0 to 7"):
            zero_shot(images, centres, wrong)
    for wrong in (labels.float(), labels[:, None], labels > 2):
        with pytest.raises(ValueError, match="labels must be integers"):
            zero_shot(images, centres, wrong)
