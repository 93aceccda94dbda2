"""Sequences of words and visual words: layout token by token, steps, wrong pairs, and the tokenizer's new tokens."""

import pytest
import torch
from transformers import AutoTokenizer

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.modules.masking import IGNORED
from hf_pretext.modules.video_text import (
    TEXT_TYPE,
    VIDEO_TYPE,
    add_video_tokens,
    check_ends,
    every_nth,
    half_wrong,
    sequence_of,
    tokens_of,
)

PAD, CLS, SEP, MASK, VIDEO = 0, 2, 3, 4, 50
ENDS = (CLS, SEP, VIDEO)


def text(**columns):
    ids = torch.tensor([[CLS, 11, 12, 13, SEP], [CLS, 14, SEP, PAD, PAD]])
    return tokens_of(ids, TEXT_TYPE, ids != PAD, **columns)


def film(**columns):
    return tokens_of(torch.tensor([[51, 52, 53], [54, 55, 56]]), VIDEO_TYPE, **columns)


def rows(values: torch.Tensor, present: torch.Tensor) -> list[list[int]]:
    """The values of each row that are present, after checking that padding is at the end."""
    counts = present.sum(1).tolist()
    assert all(row[:count].all() and not row[count:].any() for row, count in zip(present, counts, strict=True))
    return [row[:count].tolist() for row, count in zip(values, counts, strict=True)]


def test_a_text_and_its_film_are_one_sequence():
    tokens = sequence_of(text(), film(), *ENDS)
    assert rows(tokens.ids, tokens.present) == [
        [CLS, 11, 12, 13, VIDEO, 51, 52, 53, SEP],
        [CLS, 14, VIDEO, 54, 55, 56, SEP],
    ]
    assert rows(tokens.types, tokens.present) == [[0] * 5 + [1] * 4, [0] * 3 + [1] * 4]
    assert (tokens.labels == IGNORED).all()


def test_visual_words_that_are_left_out_leave_no_gap():
    kept = torch.tensor([[True, False, True], [True, True, True]])
    tokens = sequence_of(text(), film(present=kept), *ENDS)
    assert rows(tokens.ids, tokens.present)[0] == [CLS, 11, 12, 13, VIDEO, 51, 53, SEP]


def test_labels_stay_with_their_tokens():
    words = torch.full((2, 5), IGNORED)
    words[0, 2], words[1, 1] = 12, 14
    visual = torch.tensor([[IGNORED, 52, IGNORED], [54, IGNORED, IGNORED]])
    tokens = sequence_of(text(labels=words), film(labels=visual), *ENDS)
    labelled = tokens.labels != IGNORED
    assert torch.equal(tokens.ids[labelled], tokens.labels[labelled])
    assert tokens.labels_of(TEXT_TYPE)[labelled].tolist() == [12, IGNORED, 14, IGNORED]
    assert tokens.labels_of(VIDEO_TYPE)[labelled].tolist() == [IGNORED, 52, IGNORED, 54]


def test_films_alone_and_texts_alone():
    tokens = sequence_of(None, film(), *ENDS)
    assert rows(tokens.ids, tokens.present) == [[CLS, VIDEO, 51, 52, 53, SEP], [CLS, VIDEO, 54, 55, 56, SEP]]
    assert tokens.types.tolist() == [[0, 0, 1, 1, 1, 1]] * 2
    alone = text()
    assert sequence_of(alone, None, *ENDS) is alone


def test_every_nth_word_is_kept_and_each_step_drawn():
    kept = every_nth(torch.zeros(3000, 8), 5, torch.Generator().manual_seed(0))
    expected = torch.stack([torch.arange(8) % step == 0 for step in range(1, 6)])
    matches = (kept[:, None] == expected).all(2)
    assert (matches.sum(1) == 1).all()
    torch.testing.assert_close(matches.float().mean(0), torch.full((5,), 0.2), rtol=0, atol=0.03)
    assert every_nth(torch.zeros(3, 8), 1).all()


@pytest.mark.parametrize("count", [2, 5, 8])
def test_half_of_the_pairs_are_wrong_and_never_by_an_equal_label(count):
    chosen = torch.zeros(count)
    for seed in range(200):
        wrong, partner = half_wrong(torch.arange(count), torch.Generator().manual_seed(seed))
        assert int(wrong.sum()) == count // 2 and torch.equal(wrong, partner != torch.arange(count))
        chosen += wrong
    assert (chosen > 50).all()  # any row may be wrong


def test_equal_texts_are_no_wrong_pairs():
    labels = torch.tensor([7, 7, 7, 7, 7, 8])
    for seed in range(50):
        wrong, partner = half_wrong(labels, torch.Generator().manual_seed(seed))
        assert int(wrong.sum()) == 3 and (labels[partner[wrong]] != labels[wrong]).all()
    assert not half_wrong(torch.zeros(4))[0].any() and not half_wrong(torch.zeros(1))[0].any()


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "texts.txt").write_text("go to the red ball\npick up the blue key\n" * 20)
    return train_tokenizer(open_source(str(tmp_path / "texts.txt"), needed=("text",)), size=200)


def test_a_saved_tokenizer_knows_the_new_tokens(tokenizer, tmp_path):
    before, known = tokenizer("go to the red ball")["input_ids"], len(tokenizer)
    assert add_video_tokens(tokenizer, 5) == (known, known + 1) == add_video_tokens(tokenizer, 5)
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert len(saved) == known + 6 and saved.convert_ids_to_tokens(known) == "[>]"
    assert saved("go to the red ball")["input_ids"] == before
    ids = [saved.cls_token_id, before[1], known, known + 1, known + 5, saved.sep_token_id]
    assert saved.decode(ids) == "[CLS] go [>] [v0] [v4] [SEP]"
    assert saved("[CLS] go [>] [v0] [v4] [SEP]", add_special_tokens=False)["input_ids"] == ids
    assert add_video_tokens(saved, 8) == (known, known + 1) and len(saved) == known + 9


def test_tokenizers_that_do_not_fit_are_refused(tokenizer):
    check_ends(tokenizer)
    tokenizer.add_tokens(["[v1]"])
    with pytest.raises(ValueError, match=r"some of the tokens \[v0\] to \[v4\] already"):
        add_video_tokens(tokenizer, 5)
    tokenizer.sep_token = "[MASK]"
    with pytest.raises(ValueError, match=r"texts are \[CLS\] text \[SEP\].* gives \['\[CLS\]', 'a', '\[SEP\]'\]"):
        check_ends(tokenizer)
