"""NaN and infinity in weights: of a model, and of files that are read a part at a time."""

import pytest
import torch
from safetensors.torch import save_file

from hf_pretext.utils import finite
from hf_pretext.utils.finite import check_finite_weights, not_finite, not_finite_in


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(dtype, value):
    good, bad = torch.full((3, 4), 1e4, dtype=dtype), torch.ones(3, 4, dtype=dtype)
    bad[1, 2] = value
    state = {"good": good, "bad": bad, "steps": torch.ones(2, dtype=torch.long), "empty": torch.ones(0, dtype=dtype)}
    assert not_finite(state) == ["bad"]
    state.pop("bad")
    assert not_finite(state) == []


def test_large_weights_are_finite():
    assert not_finite({"large": torch.full((1000,), 3e38)}) == []  # the sum of their squares is not


def test_a_file_is_read_a_part_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(finite, "READ_TOGETHER", 20)
    bad = torch.ones(50, 6)
    bad[49, 5] = float("inf")
    values = {"bad": bad, "good": torch.ones(50, 6), "wide": torch.ones(2, 90), "scalar": torch.tensor(float("nan"))}
    values |= {"small": torch.ones(7, 2).to(torch.float8_e4m3fn), "counts": torch.ones(3, dtype=torch.long)}
    save_file({**values, "none": torch.ones(0, 3)}, tmp_path / "model.safetensors")
    read, isfinite = [], torch.isfinite
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda part: read.append(part.numel()) or isfinite(part))
    assert not_finite_in(tmp_path / "model.safetensors") == ["bad", "scalar"]
    assert max(read) == 90 and read.count(18) >= 16  # one row, where it is longer than what fits


def test_a_folder_is_checked_with_its_encoders_but_not_its_checkpoints(tmp_path):
    for folder, value in {".": 1.0, "audio": 1.0, "checkpoint-2": float("nan"), "seed-1": float("nan")}.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        save_file({"weight": torch.tensor([value])}, tmp_path / folder / "model.safetensors")
    check_finite_weights(tmp_path)
    save_file({"weight": torch.tensor([float("nan")])}, tmp_path / "audio" / "model.safetensors")
    with pytest.raises(ValueError, match="audio.model.safetensors has weights that are NaN or infinite: weight"):
        check_finite_weights(tmp_path)
