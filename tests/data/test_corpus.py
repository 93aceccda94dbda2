"""Texts are tokenised once, packed, streamed and trained on."""

import datasets
import numpy as np
import pytest
import torch
from made_texts import corpus, source
from transformers import BertConfig

from hf_pretext import MaskedLMForPreTraining
from hf_pretext.data import corpus as texts_module
from hf_pretext.data.corpus import (
    LONGEST_WORD,
    BatchedTexts,
    PackedTexts,
    fingerprint,
    source_of,
    tokenised,
    word_begins,
)
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer, trained
from hf_pretext.modalities.text import Corpus
from hf_pretext.stream.loader import StreamLoader


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hf_pretext" / "texts"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(source(corpus()), size=120)


def test_tokens_words_and_bytes(tokenizer):
    contents = ["The film", "  ", "電影 was a Größe", None]
    found = tokenised(source(contents), tokenizer)
    assert len(found) == 2  # without blank and missing texts
    for i, text in enumerate((contents[0], contents[2])):
        part = slice(found.offsets[i], found.offsets[i + 1])
        assert found.tokens[part].tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found.starts[part].sum() == len(set(tokenizer(text, add_special_tokens=False).word_ids()))
        assert found.starts[part][0]
    assert found.sizes.tolist() == [8, len(contents[2].encode())]


def test_a_corpus_is_tokenised_once(tokenizer, monkeypatch, cache):
    tokenised(source(corpus()), tokenizer)
    monkeypatch.setattr(texts_module, "write", None)  # would fail
    tokenised(source(corpus()), tokenizer)
    with pytest.raises(TypeError):
        tokenised(source(corpus(seed=1)), tokenizer)  # as many texts, but others
    assert len(list(cache.iterdir())) == 1  # nothing half-written


def test_another_tokenizer_is_another_corpus(tokenizer):
    other = train_tokenizer(source(corpus()), size=100)
    assert fingerprint(other) != fingerprint(tokenizer)
    tokenizer("a", truncation=True, max_length=5)
    before = fingerprint(tokenizer)
    tokenizer("a", padding="max_length", max_length=9)
    assert fingerprint(tokenizer) == before


@pytest.mark.parametrize("contents", [["", "  "], [None]])
def test_no_text_is_an_error(contents, tokenizer, cache):
    data = datasets.Dataset.from_dict({"text": contents}, datasets.Features({"text": datasets.Value("string")}))
    with pytest.raises(ValueError, match="has no text in its column 'text'"):
        tokenised(open_source(data, needed=("text",)), tokenizer)
    assert not list(cache.iterdir())


def test_packed_sequences_contain_every_document_once(tokenizer):
    texts = tokenised(source(corpus(200)), tokenizer)
    packed = PackedTexts(texts, tokenizer, max_length=64)
    assert packed.padding < 0.05
    cls, sep, held, num_bytes = tokenizer.cls_token_id, tokenizer.sep_token_id, [], 0.0
    for row in (packed[i] for i in range(len(packed))):
        assert len(row["input_ids"]) <= 64 and len(row["document_ids"]) == len(row["word_starts"])
        num_bytes += row["num_bytes"]
        for number in range(1, row["document_ids"].max() + 1):
            ids = row["input_ids"][row["document_ids"] == number].tolist()
            assert ids[0] == cls and ids[-1] == sep and cls not in ids[1:] and sep not in ids[:-1]
            held.append(ids[1:-1])
    assert sum(map(len, held)) == len(texts.tokens)
    whole = [texts.tokens[a:b].tolist() for a, b in zip(texts.offsets, texts.offsets[1:], strict=False)]
    assert all(document in held for document in whole if len(document) <= 62)
    assert num_bytes == pytest.approx(texts.sizes.sum())
    with pytest.raises(IndexError):
        packed[len(packed)]


def test_too_short_sequences_are_refused(tokenizer):
    with pytest.raises(ValueError, match="max_length 2 leaves no room for text: a text has 2 special tokens"):
        PackedTexts(tokenised(source(corpus()), tokenizer), tokenizer, 2)


def test_packed_texts_stream_and_resume_exactly(tokenizer):
    packed = PackedTexts(tokenised(source(corpus(300)), tokenizer), tokenizer, 64)
    columns = dict(input_ids="input_ids", document_ids="document_ids", word_starts="word_starts", num_bytes="num_bytes")

    def run(start, count, workers):
        rows = open_source(packed, columns=columns, needed=tuple(columns))
        loader = StreamLoader(rows, Corpus(tokenizer, 64), 4, start=start, num_workers=workers)
        found = [batch for _, batch in zip(range(count), forever(loader), strict=False)]
        loader.close()
        return found

    def forever(loader):
        while True:
            yield from loader

    whole, later = run(0, 60, 0), run(80, 40, 2)
    for a, b in zip(whole[20:], later, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    torch.manual_seed(0)
    model = MaskedLMForPreTraining.from_encoder(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        ),
        mask_token_id=tokenizer.mask_token_id,
        special_token_ids=tokenizer.all_special_ids,
        unit="word",
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for batch in whole:
        output = model(**batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert output.logs["bits_per_byte"] > 0


def test_batched_texts_contain_every_document_once_with_others_of_its_length(tokenizer):
    texts = tokenised(source(corpus(300)), tokenizer)
    batched = BatchedTexts(texts, tokenizer, max_length=64, batch_size=4)
    assert 0 < batched.padding < 0.05
    held, processing = [], Corpus(tokenizer, 64)
    for row in (batched[i] for i in range(len(batched))):
        assert row["input_ids"].size <= 4 * 64 and row["input_ids"].shape == row["word_starts"].shape
        there = row["attention_mask"] == 1
        assert (row["input_ids"][~there] == tokenizer.pad_token_id).all()
        held += [ids[one].tolist()[1:-1] for ids, one in zip(row["input_ids"], there, strict=True)]
        batch = processing.finish({name: value[None] for name, value in processing(row, None).items()})
        assert batch["input_ids"].tolist() == row["input_ids"].tolist() and batch["num_bytes"].shape == (len(there),)
    assert sorted(sum(held, [])) == sorted(texts.tokens.tolist())
    real = sum(there.sum() for there in (batched[i]["attention_mask"] for i in range(len(batched))))
    size = sum(batched[i]["input_ids"].size for i in range(len(batched)))
    assert batched.padding == pytest.approx(1 - real / size)


def test_a_run_does_not_resume_with_other_texts_or_another_tokenizer(tokenizer):
    texts = source(corpus())
    packed = PackedTexts(tokenised(texts, tokenizer), tokenizer, 64)
    rows = source_of(packed, texts, tokenizer)
    other = train_tokenizer(texts, size=100)
    assert rows.rows.fingerprint() == source_of(packed, texts, tokenizer).rows.fingerprint()
    assert rows.rows.fingerprint() != source_of(packed, texts, other).rows.fingerprint()
    assert len(rows) == len(packed) and rows.name == texts.name
    others = source(corpus(seed=1))
    for of, length in ((texts, 63), (others, 64)):  # also for an equal number of sequences
        packed = PackedTexts(tokenised(of, tokenizer), tokenizer, length)
        assert source_of(packed, of, tokenizer).rows.fingerprint()["files"] != rows.rows.fingerprint()["files"]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_languages_without_spaces_are_not_masked_whole(kind):
    characters = "電影很長我們在雨中走了很久沒有人說話但是光很美"
    random = np.random.default_rng(0)
    clauses = ["".join(random.choice(list(characters), 40)) for _ in range(200)]
    tokens = trained(source(clauses), kind, 150, False, "text", 512)
    encoded = tokens(clauses[0], add_special_tokens=False)
    starts = word_begins(encoded.word_ids())
    assert tokens.unk_token_id not in encoded["input_ids"]
    assert len(starts) / starts.sum() <= LONGEST_WORD
    if kind == "wordpiece":
        assert starts.all()  # each character is a word
    model = MaskedLMForPreTraining.from_encoder(
        BertConfig(vocab_size=150, hidden_size=12), mask_token_id=4, unit="word"
    )
    ids = torch.tensor(encoded["input_ids"])[None]
    _, labels = model.corrupt(ids, torch.ones_like(ids, dtype=torch.bool), torch.from_numpy(starts)[None])
    assert 0 < (labels != -100).float().mean() < 0.3
