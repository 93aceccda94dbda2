"""A run locks its output folder once, for its trainers too, and removes the lock when it fails."""

import pytest

from hf_pretext.stream.sole_run import sole_run
from hf_pretext.utils.lock import LOCK


def test_a_run_that_fails_leaves_no_lock_and_its_trainers_use_its_own(tmp_path):
    with pytest.raises(KeyError), sole_run(str(tmp_path / "run")):
        inode = (tmp_path / "run" / LOCK).stat().st_ino
        with sole_run(tmp_path / "run"), sole_run(tmp_path / "run" / "seed-1"):
            assert (tmp_path / "run" / LOCK).stat().st_ino == inode
        assert (tmp_path / "run" / LOCK).exists() and not (tmp_path / "run" / "seed-1").exists()
        raise KeyError
    assert not (tmp_path / "run").exists()
