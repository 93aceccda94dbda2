"""Errors of writing a checkpoint. Kills while it is written are in test_resume.py and test_chaos.py."""

import errno

import pytest
from safetensors import SafetensorError

from hf_pretext.stream.branch import STAGING
from hf_pretext.stream.saving import explained_write


def test_an_error_of_writing_names_the_last_checkpoint_and_leaves_nothing_half_written(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="There is no checkpoint yet"), explained_write(tmp_path, "the model"):
        raise full
    (tmp_path / "checkpoint-2").mkdir()
    for error in (full, SafetensorError("I/O error"), RuntimeError("PytorchStreamWriter failed writing file")):
        (tmp_path / STAGING / "checkpoint-4").mkdir(parents=True)
        words = (
            r"^step 4 can't be written to .* \(free disk space: [\d,]+ MB\): .* is .*/checkpoint-2: resume with --res"
        )
        with pytest.raises(ValueError, match=words), explained_write(tmp_path, "step 4"):
            raise error
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    with pytest.raises(RuntimeError, match="CUDA"), explained_write(tmp_path, "step 4"):
        raise RuntimeError("CUDA error")
