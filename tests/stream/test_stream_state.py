"""What a checkpoint holds of the stream, and what a run may go on from."""

import json

from streamed import batches, numbers

from hf_pretext.stream.state import difference


def test_what_changed_is_said():
    old = [{"name": "d", "files": {"a": 1, "b": 2}, "rows": 5, "pieces": "x"}]
    assert difference(old, old) == ""
    new = [{"name": "d", "files": {"a": 3, "c": 2}, "rows": 6, "pieces": "y"}]
    assert difference(old, new) == "b is gone; c is new; a had 1 bytes and has 3; d had 5 rows and has 6"
    assert difference(old, [{**old[0], "pieces": "y"}]) == "the rows of d are cut into other pieces"
    assert difference(old, old * 2) == "1 datasets then, 2 now"


def test_the_state_is_one_integer(tmp_path):
    """Windows, seed and samples seen are all that a run needs to go on; and they are JSON."""
    unbroken, loader = batches(20)
    state = json.loads(json.dumps({"start": 80, "windows": [o.window for o in loader.reader.order.orders]}))
    rest, _ = batches(10, **state)
    assert numbers(rest) == numbers(unbroken)[80:]
