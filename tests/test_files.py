"""Whole or not at all."""

import pytest

from hf_pretext.files import whole, write_json


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"x": 1})
    with pytest.raises(ValueError), whole(tmp_path / "deep" / "a.json") as temporary:
        temporary.write_text("half")
        raise ValueError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "deep" / "a.json", {"x": float("nan")})
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.json"]
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n  "x": 1\n}\n'
