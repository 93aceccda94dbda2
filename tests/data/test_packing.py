import numpy as np
import pytest

from hf_pretext.data.packing import best_fit, pieces


def offsets(*lengths) -> np.ndarray:
    return np.cumsum([0, *lengths])


def test_short_documents_stay_whole_and_empty_ones_have_no_piece():
    assert pieces(offsets(3, 0, 5), 5).tolist() == [[0, 3], [3, 8]]


@pytest.mark.parametrize("length", [6, 10, 11, 99, 1000])
@pytest.mark.parametrize("words", [False, True])
def test_long_documents_lose_nothing(length, words):
    starts = np.random.default_rng(length).random(length + 7) < 0.4 if words else None
    found = pieces(offsets(4, length, 3), 5, starts)
    assert found[0].tolist() == [0, 4] and found[-1].tolist() == [4 + length, 7 + length]
    assert (found[1:, 0] == found[:-1, 1]).all()
    assert np.diff(found).max() <= 5 and np.diff(found).min() >= 1


@pytest.mark.parametrize("room", [1, 2, 3])
def test_the_shortest_sequences_hold_everything_too(room):
    for starts in ([1, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]):
        found = pieces(offsets(4), room, np.array(starts, bool))
        assert found[0, 0] == 0 and found[-1, 1] == 4 and (found[1:, 0] == found[:-1, 1]).all()
        assert np.diff(found).min() >= 1 and np.diff(found).max() <= room


def test_long_documents_are_cut_between_words_and_leave_no_crumbs():
    assert np.diff(pieces(offsets(101), 50)).ravel().tolist() == [50, 45, 6]
    starts = np.zeros(101, bool)
    starts[::10] = True
    found = pieces(offsets(101), 50, starts)
    assert starts[found[:, 0]].all() and len(found) == 3


def test_every_piece_is_packed_once_and_fits():
    lengths = np.random.default_rng(0).integers(1, 129, 5000)
    members, ends = best_fit(lengths, 128)
    assert sorted(members.tolist()) == list(range(5000))
    sums = [lengths[part].sum() for part in np.split(members, ends[:-1])]
    assert max(sums) <= 128 and min(map(len, np.split(members, ends[:-1]))) >= 1
    assert len(ends) <= 11 / 9 * lengths.sum() / 128 + 1
    assert lengths.sum() / (128 * len(ends)) > 0.97


def test_the_tightest_room_is_taken():
    members, ends = best_fit([6, 7, 3, 4], 10)
    assert [part.tolist() for part in np.split(members, ends[:-1])] == [[1, 2], [0, 3]]


def test_a_too_long_piece_is_refused():
    with pytest.raises(ValueError, match="A piece of 11 tokens does not fit into sequences of 10"):
        best_fit([3, 11], 10)
    assert [len(part) for part in best_fit([], 10)] == [0, 0]
