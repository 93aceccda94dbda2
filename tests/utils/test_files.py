"""Files and folders are written completely or not at all."""

import pytest

from hf_pretext.utils.files import atomic_path, made_once, write_json


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"x": 1})
    with pytest.raises(ValueError), atomic_path(tmp_path / "deep" / "a.json") as temporary:
        temporary.write_text("half")
        raise ValueError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "deep" / "a.json", {"x": float("nan")})
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.json"]
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n  "x": 1\n}\n'


def test_a_folder_is_made_once_and_the_first_of_two_makers_stays(tmp_path):
    def make(folder):
        if not (tmp_path / "kept").exists():  # another process creates it first
            made_once(tmp_path / "kept", lambda other: (other / "by").write_text("the other"))
        (folder / "by").write_text("this")

    assert (made_once(tmp_path / "kept", make) / "by").read_text() == "the other"
    made_once(tmp_path / "kept", lambda folder: 1 / 0)  # not called
    with pytest.raises(ZeroDivisionError):
        made_once(tmp_path / "new", lambda folder: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
