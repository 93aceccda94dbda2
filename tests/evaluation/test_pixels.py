import torch

from hf_pretext.evaluation.pixels import averaged


def test_large_images_are_compared_small():
    assert averaged(torch.rand(2, 3, 100, 80), 64).shape == (2, 3 * 64 * 64)
    small = torch.rand(2, 3, 16, 16)
    assert torch.equal(averaged(small, 64), small.flatten(1))
    checks = torch.zeros(1, 3, 32, 32)
    checks[..., ::2] = 1.0  # columns of pairs: each mean is a half
    assert torch.equal(averaged(checks, 16), torch.full((1, 3 * 16 * 16), 0.5))
