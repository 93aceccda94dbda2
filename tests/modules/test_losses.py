"""The same loss and gradients as PyTorch's, in a fraction of the memory."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from towers import same

from hf_pretext.modules import losses
from hf_pretext.modules.losses import cross_entropy, numbered, sigmoid_loss, softmax_loss


@pytest.mark.parametrize("tile", [1, 50, 230, 10_000])  # a row, some rows, not a whole number of tiles, one tile
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_equals_pytorchs(dtype, tolerance, tile, monkeypatch):
    monkeypatch.setattr(losses, "TILE", tile)
    random = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(17, 23, generator=random)).to(dtype)
    labels = torch.randint(23, (17,), generator=random)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    exact = torch.promote_types(dtype, torch.float32)
    loss, expected = cross_entropy(ours, labels), F.cross_entropy(theirs.to(exact), labels)
    (3 * loss).backward()
    (3 * expected).backward()
    assert loss.dtype == exact
    assert torch.allclose(loss, expected, atol=1e-6 if exact == torch.float32 else 1e-12)
    assert ours.grad.dtype == dtype
    assert torch.allclose(ours.grad, theirs.grad, rtol=tolerance, atol=1e-7 * (dtype != torch.float64))


def test_large_scores_do_not_overflow():
    logits = torch.tensor([[1e4, 0.0], [-1e4, 1e4]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert torch.equal(logits.grad, torch.tensor([[0.0, 0.0], [-0.5, 0.5]]))


def test_thousands_of_pairs_in_tiles_equal_all_scores_at_once(monkeypatch):
    monkeypatch.setattr(losses, "TILE", 300 * 2000)
    random = torch.Generator().manual_seed(0)
    rows, columns = (F.normalize(torch.randn(2000, 512, generator=random), dim=1).requires_grad_() for _ in range(2))
    scale, bias, labels = torch.tensor(14.3).requires_grad_(), torch.tensor(-10.0).requires_grad_(), torch.arange(2000)
    given, scores = (rows, columns, scale, bias), scale * rows @ columns.T
    plain = (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2
    plain = plain - F.logsigmoid((scores + bias) * (2 * torch.eye(2000) - 1)).sum() / 2000
    ours = softmax_loss(*given[:3], labels, labels) + sigmoid_loss(*given, labels, labels)
    found, expected = ([loss.detach(), *torch.autograd.grad(loss, given)] for loss in (ours, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(found[1:3], expected[1:3], strict=True):  # whose elements are some 1e-5
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_labels_are_numbered_as_unique_numbers_them():
    for labels in (torch.arange(5), torch.randint(-9, 9, (200,)), torch.tensor([7, 7, 2**40, -1]), torch.zeros(3)):
        assert torch.equal(numbered(labels), labels.unique(return_inverse=True)[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("tile", [2000, 2**26])
def test_pairs_are_compared_alike_on_a_gpu(tile, monkeypatch):
    monkeypatch.setattr(losses, "DEVICE_TILE", tile)
    random = torch.Generator().manual_seed(0)
    rows, columns = (F.normalize(torch.randn(300, 32, generator=random), dim=1) for _ in range(2))
    labels = torch.randint(200, (300,), generator=random)
    found = []
    for device in ("cpu", "cuda"):
        given = [v.to(device).requires_grad_() for v in (rows, columns, torch.tensor(9.0), torch.tensor(-5.0))]
        theirs = labels.to(device)
        loss = softmax_loss(*given[:3], theirs, theirs, 0.1) + sigmoid_loss(*given, theirs, theirs)
        found.append([loss.detach().cpu(), *(gradient.cpu() for gradient in torch.autograd.grad(loss, given))])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


SCRIPT = """
import sys, torch, torch.nn.functional as F
from hf_pretext.modules.losses import cross_entropy, softmax_loss, sigmoid_loss
def peak():  # of this process: getrusage counts what the one that started it held, too
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

which, ours = sys.argv[1], sys.argv[2] == "ours"
if which == "vocabulary":
    logits = torch.randn(1500, 40_000, dtype=torch.bfloat16).requires_grad_()
    labels = torch.randint(40_000, (1500,))
    run = (lambda: cross_entropy(logits, labels)) if ours else (lambda: F.cross_entropy(logits.float(), labels))
else:
    rows, columns = (F.normalize(torch.randn(6144, 32), dim=1).requires_grad_() for _ in range(2))
    scale, bias, labels = torch.tensor(10.0).requires_grad_(), torch.tensor(-10.0).requires_grad_(), torch.arange(6144)
    def scores():
        return scale * rows @ columns.T
    run = {
        ("softmax", True): lambda: softmax_loss(rows, columns, scale, labels, labels),
        ("softmax", False): lambda: F.cross_entropy(scores(), labels) + F.cross_entropy(scores().T, labels),
        ("sigmoid", True): lambda: sigmoid_loss(rows, columns, scale, bias, labels, labels),
        ("sigmoid", False): lambda: -F.logsigmoid((scores() + bias) * (2 * torch.eye(6144) - 1)).sum() / 6144,
    }[which, ours]
before = peak()
run().backward()
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("which, share", [("vocabulary", 1 / 2), ("softmax", 1 / 4), ("sigmoid", 1 / 4)])
def test_holds_a_fraction_of_the_memory(which, share):
    """Of 120 MB of bf16 scores of a vocabulary: their gradient, and two tiles of 16 MB in float32 at most. Of the
    pairs' 151 MB of scores: tiles."""
    running = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, which, name], stdout=subprocess.PIPE)
        for name in ("ours", "theirs")
    ]
    ours, theirs = (float(process.communicate()[0]) for process in running)
    assert ours < theirs * share


def features(rows: int = 12, columns: int = 12, width: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    made = (torch.randn(n, width, generator=random, dtype=torch.float64) for n in (rows, columns))
    return tuple(F.normalize(value, dim=1).requires_grad_() for value in made)


def gradients(loss: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.fixture(params=[2**22, 30], ids=["one tile", "tiles of 2 rows"])
def tile(request, monkeypatch):
    monkeypatch.setattr(losses, "TILE", request.param)


def test_softmax_equals_open_clips(tile):
    images, texts = features()
    scale, labels = torch.tensor(14.3, dtype=torch.float64, requires_grad=True), torch.arange(12)
    ours = softmax_loss(images, texts, scale, labels, labels)
    theirs = ClipLoss()(images, texts, scale)
    same(gradients(ours, images, texts, scale), gradients(theirs, images, texts, scale))


def test_sigmoid_equals_open_clips(tile):
    images, texts = features()
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (10.0, -10.0))
    ours = sigmoid_loss(images, texts, scale, bias, torch.arange(12), torch.arange(12))
    theirs = SigLipLoss()(images, texts, scale, bias)
    same(gradients(ours, images, texts, scale, bias), gradients(theirs, images, texts, scale, bias))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("both", [True, False])
def test_softmax_with_several_right_ones(tile, smoothing, both):
    """UniCL's: the targets are one matrix, divided by its rows, or its columns."""
    images, texts = features(columns=15)
    row_labels, column_labels = torch.arange(12) % 5, torch.arange(15) % 5
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    ours = softmax_loss(images, texts, scale, row_labels, column_labels, smoothing, both)
    right = (row_labels[:, None] == column_labels).double()
    scores = scale * images @ texts.T
    ways = [(scores, right), (scores.T, right.T)][: 1 + both]
    theirs = sum(F.cross_entropy(s, r / r.sum(1, keepdim=True), label_smoothing=smoothing) for s, r in ways) / len(ways)
    same(gradients(ours, images, texts, scale), gradients(theirs, images, texts, scale))


def test_sigmoid_with_several_right_ones(tile):
    images, texts = features(columns=15)
    row_labels, column_labels = torch.arange(12) % 5, torch.arange(15) % 5
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (4.0, -2.0))
    ours = sigmoid_loss(images, texts, scale, bias, row_labels, column_labels)
    sign = 2.0 * (row_labels[:, None] == column_labels) - 1
    theirs = -F.logsigmoid(sign * (scale * images @ texts.T + bias)).sum() / 12
    same(gradients(ours, images, texts, scale, bias), gradients(theirs, images, texts, scale, bias))
