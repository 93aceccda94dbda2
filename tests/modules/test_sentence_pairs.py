"""Pairs of segments: what is swapped or replaced, and what the labels say."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_pretext.modules.masking import IGNORED
from hf_pretext.modules.sentence_pairs import check_tokenizer_of_pairs, make_pairs, pair_prediction

FIRST, LAST = 2, 3
LENGTHS = (20, 17, 20, 9, 5, 4, 3)  # the last two are too short for two segments


def documents(lengths=LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns documents whose tokens are 100 times their row plus their position, and which tokens are present."""
    longest = max(lengths)
    ids = torch.arange(len(lengths))[:, None] * 100 + torch.arange(longest) + 100
    for row, length in zip(ids, lengths, strict=True):
        row[0], row[length - 1], row[length:] = FIRST, LAST, 0
    return ids, torch.arange(longest) < torch.tensor(lengths)[:, None]


def halves(ids: torch.Tensor, there: torch.Tensor, types: torch.Tensor) -> tuple[list[int], list[int]]:
    """Returns the two segments of a row, after a check of its special tokens and token types."""
    tokens, kinds = ids[there].tolist(), types[there].tolist()
    between = tokens.index(LAST)
    assert tokens[0] == FIRST and tokens[-1] == LAST and tokens.count(LAST) == 2 and tokens.count(FIRST) == 1
    assert kinds == [0] * (between + 1) + [1] * (len(tokens) - between - 1)
    return tokens[1:between], tokens[between + 1 : -1]


@pytest.mark.parametrize("pairs", ["order", "next"])
def test_segments_and_labels(pairs):
    ids, present = documents()
    seen = {0: 0, 1: 0}
    for seed in range(30):
        made = make_pairs(ids, present, None, pairs, 0, torch.Generator().manual_seed(seed))
        assert made.labels[5:].tolist() == [IGNORED, IGNORED]
        assert torch.equal(made.input_ids[5:], ids[5:]) and torch.equal(made.attention_mask[5:], present[5:])
        assert (made.token_type_ids[5:] == 0).all() and (made.input_ids[~made.attention_mask] == 0).all()
        for i in range(5):
            one, other = halves(made.input_ids[i], made.attention_mask[i], made.token_type_ids[i])
            assert one and other and len(one) + len(other) + 3 <= ids.shape[1]
            text, label = ids[i][1 : LENGTHS[i] - 1].tolist(), made.labels[i].item()
            seen[label] += 1
            if label == 0:
                assert one + other == text[: -1 if pairs == "order" else len(one) + len(other)]
            elif pairs == "order":
                assert other + one == text[:-1]
            else:
                row = other[0] // 100 - 1
                assert row != i and one == text[: len(one)]
                assert other == list(range(other[0], other[0] + len(other)))  # a segment of one other document
    assert (0.35 if pairs == "order" else 0.2) < seen[1] / sum(seen.values()) < 0.6


def test_the_length_does_not_say_whether_a_segment_is_replaced():
    ids, present = documents((20,) * 40)
    lengths: dict[int, list[int]] = {0: [], 1: []}
    for seed in range(30):
        made = make_pairs(ids, present, None, "next", 0, torch.Generator().manual_seed(seed))
        for label, length in zip(made.labels.tolist(), made.attention_mask.sum(1).tolist(), strict=True):
            lengths[label].append(length)
    assert min(map(len, lengths.values())) > 500
    one, other = (torch.tensor(some).float() for some in lengths.values())
    assert (
        abs(one.mean() - other.mean()) < 0.3 and abs((one == 20).float().mean() - (other == 20).float().mean()) < 0.05
    )


def test_segments_begin_at_words_of_the_middle_half():
    ids, present = documents((20, 20))
    words = torch.zeros_like(present)
    words[:, [0, 1, 3, 9, 16, 19]] = True
    for seed in range(10):
        made = make_pairs(ids, present, words, "order", 0, torch.Generator().manual_seed(seed))
        for i in range(2):
            one, other = halves(made.input_ids[i], made.attention_mask[i], made.token_type_ids[i])
            assert (one if made.labels[i] else other)[0] == ids[i, 9]
            assert made.word_starts[i, 1] and made.word_starts[i, len(one) + 1] and made.word_starts[i, len(one) + 2]


def test_one_document_has_no_other():
    ids, present = documents((20,))
    for seed in range(5):
        assert make_pairs(ids, present, None, "next", 0, torch.Generator().manual_seed(seed)).labels.tolist() == [0]


def test_documents_that_are_too_short_do_not_count():
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 0.0]]), torch.tensor([0, 0, IGNORED])
    loss, accuracy = pair_prediction(logits, labels)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[:2], labels[:2]))
    assert accuracy == 0.5
    assert pair_prediction(logits[2:], labels[2:])[0] == 0


def test_a_tokenizer_without_special_tokens_around_a_text_is_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ValueError, match="one special token before and one after a text, but it adds 0 and 0"):
        check_tokenizer_of_pairs(tokenizer)
