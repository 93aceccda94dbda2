"""What a checkpoint holds of the stream, and what a run may go on from."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamed import Counter, batches, numbered, numbers

from hf_pretext.data.sources import open_source
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.reader import make_order
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.stream.state import STREAM_STATE, check_length, difference, load_state, state_of
from hf_pretext.utils.paths import hashed


def test_what_changed_is_said():
    old = [{"name": "d", "files": {"a": 1, "b": 2}, "rows": 5, "pieces": "x"}]
    assert difference(old, old) == ""
    new = [{"name": "d", "files": {"a": 3, "c": 2}, "rows": 6, "pieces": "y"}]
    assert difference(old, new) == "b is missing; c is new; a had 1 bytes and has 3; d had 5 rows and has 6"
    assert difference(old, [{**old[0], "pieces": "y"}]) == "the rows of d are divided into other pieces"
    assert difference(old, old * 2) == "1 datasets before, 2 now"


def test_the_state_is_one_integer(tmp_path):
    """Windows, seed and samples seen are all that a run needs to go on; and they are JSON."""
    unbroken, loader = batches(20)
    state = json.loads(json.dumps({"start": 80, "windows": [o.window for o in loader.reader.order.orders]}))
    rest, _ = batches(10, **state)
    assert numbers(rest) == numbers(unbroken)[80:]


@pytest.fixture
def saved(tmp_path):
    """A checkpoint's state, its data, and what writes changes of it."""
    data, settings = Mixture(numbered()), StreamSettings(parts=16)
    state = state_of(data, make_order(data.sources, None, settings, 3), settings)

    def save(**changes):
        (tmp_path / STREAM_STATE).write_text(json.dumps({**state, **changes}))
        return tmp_path, data, settings

    return save


def test_a_state_that_agrees_is_given_back_as_it_was(saved):
    checkpoint, data, settings = saved(watched={"first": 0, "bad": []})
    state = load_state(checkpoint, data, settings, seed=3)
    assert state["windows"] == [256] and state["watched"] == {"first": 0, "bad": []}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, "with seed 4, not 3.*Give --seed 4"),
        ({"parts": 8}, "with parts 8, not 16.*Give --parts 8"),  # 16 is given
        ({"mixture_weights": [1, 2]}, "with mixture_weights .*, not None"),
        ({"together": 64}, "with 64 samples per step, but this run has 1"),
    ],
)
def test_another_order_is_refused(saved, changes, said):
    with pytest.raises(ValueError, match=said):
        load_state(*saved(**changes), seed=3)


def test_the_number_of_parts_is_that_of_the_run_unless_another_one_is_asked_for(saved):
    checkpoint, data, _ = saved(parts=64)
    assert load_state(checkpoint, data, StreamSettings(), seed=3)["parts"] == 64
    assert load_state(checkpoint, data, StreamSettings(parts=64), seed=3)["parts"] == 64
    with pytest.raises(ValueError, match="with parts 64, not 32.*Give --parts 64"):
        load_state(checkpoint, data, StreamSettings(parts=32), seed=3)


def test_other_data_is_refused_or_seen_in_an_order_of_its_own(saved):
    checkpoint, _, settings = saved(watched={"first": 0, "bad": []})
    other = Mixture(numbered(rows=99))
    with pytest.raises(ValueError, match="had 101 rows and has 99.*--allow_changed_source"):
        load_state(checkpoint, other, settings, seed=3)
    state = load_state(checkpoint, other, StreamSettings(allow_changed_source=True), seed=3)
    assert state["windows"] is None and state["watched"] is None and state["seed"] == 3


def test_changed_files_of_the_same_size_are_refused_by_name_and_a_copy_is_resumed(tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        for name in ("a", "b"):
            table = pa.table({"text": [f"{folder.name}{i}" for i in range(50)]})
            pq.write_table(table, folder / f"{name}.parquet", compression="none", use_dictionary=False)

    def opened() -> Mixture:
        return Mixture([open_source(str(folder), needed=("text",)) for folder in folders], [0.5, 0.5])

    def load(**options) -> dict:
        return load_state(tmp_path, data := opened(), StreamSettings(**options), seed=3) | {"now": data.contents()}

    data, settings = opened(), StreamSettings()
    state = state_of(data, make_order(data.sources, data.weights, settings, 3), settings)
    state |= {"contents": data.contents(), "watched": None}
    (tmp_path / STREAM_STATE).write_text(json.dumps(state))
    copy = folders[0] / "a.parquet"
    os.utime(copy, (1, 1))
    loaded = load()
    assert loaded["windows"] == state["windows"]
    assert loaded["now"][0] == {**state["contents"][0], "a.parquet": ["1.0", state["contents"][0]["a.parquet"][1]]}
    changed = folders[1] / "b.parquet"
    changed.write_bytes(changed.read_bytes().replace(b"second7", b"SECOND7"))
    os.utime(changed, (1, 1))
    with pytest.raises(
        ValueError, match="other data: 1/b.parquet has the same size and other content.*--allow_changed"
    ):
        load()
    accepted = load(allow_changed_source=True)
    assert accepted["windows"] is None
    assert accepted["now"][1]["b.parquet"][1] != state["contents"][1]["b.parquet"][1]  # of the data since then
    (tmp_path / STREAM_STATE).write_text(json.dumps({**state, "contents": None}))  # of an earlier version
    assert load()["windows"] == state["windows"]


def test_a_folder_that_is_no_whole_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no stream\.json"):
        load_state(tmp_path, Mixture(numbered()), StreamSettings(), seed=3)


def test_no_more_than_five_changes_are_listed():
    sizes = ({f"{i}": size for i in range(9)} for size in (1, 2))
    before, now = ([{"name": "d", "files": files, "rows": 1, "pieces": "x"}] for files in sizes)
    assert difference(before, now).count(" bytes and has ") == 5 and difference(before, now).endswith("; and 4 more")


def test_data_without_a_length_is_not_counted_in_epochs():
    endless = Mixture(open_source(Counter()))
    check_length(endless, 10), check_length(Mixture(numbered()), -1)
    with pytest.raises(ValueError, match="has no known length.*--max_steps"):
        check_length(endless, -1)
    with pytest.raises(ValueError, match="--max_steps 0 trains nothing. Give at least 1"):
        check_length(Mixture(numbered()), 0)


def test_a_pushed_state_with_hashes_of_names_is_compared_with_the_names_of_this_machine(saved):
    files = {"jane.parquet": 1, "joe.parquet": 2}
    source = {**saved()[1].fingerprint()[0], "files": {hashed(name): size for name, size in files.items()}}
    checkpoint, data, settings = saved(source=[source])
    data.sources[0].rows.files = dict(files)
    assert load_state(checkpoint, data, settings, seed=3)["windows"] == [256]
    data.sources[0].rows.files = {"jane.parquet": 5}
    missing = hashed("joe.parquet")
    with pytest.raises(ValueError, match=f"{missing} is missing; jane.parquet had 1 bytes and has 5"):
        load_state(checkpoint, data, settings, seed=3)
