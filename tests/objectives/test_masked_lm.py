import json
import subprocess
import sys

import pytest
import torch
import transformers
from contract import check_contract
from safetensors import safe_open
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining

import hf_pretext
from hf_pretext import MaskedLMForPreTraining
from hf_pretext.modules.masking import IGNORED, without_special

VOCABULARY, PAD, MASK, FIRST, LAST = 60, 0, 4, 2, 3  # FIRST and LAST are the first and last token of a text
SHAPE = dict(vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SHAPE, pad_token_id=PAD),
    "roberta": lambda: transformers.RobertaConfig(**SHAPE, pad_token_id=1, max_position_embeddings=66),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=24, n_layers=2, n_heads=2, hidden_dim=32, pad_token_id=PAD
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **{**SHAPE, "num_hidden_layers": 4}, local_attention=8, global_attn_every_n_layers=2, pad_token_id=PAD
    ),
    "electra": lambda: transformers.ElectraConfig(**SHAPE, embedding_size=24, pad_token_id=PAD),
}
SETTINGS = dict(mask_token_id=MASK, special_token_ids=[PAD, FIRST, LAST])


def native(name: str, attention: str = "sdpa"):
    torch.manual_seed(0)
    return AutoModelForMaskedLM.from_config(CONFIGS[name](), attn_implementation=attention)


def texts(lengths=(12, 7), pad=PAD) -> dict[str, torch.Tensor]:
    """Returns random texts of the given lengths in tokens, padded."""
    random = torch.Generator().manual_seed(1)
    input_ids = torch.full((len(lengths), max(lengths)), pad)
    for row, length in zip(input_ids, lengths, strict=True):
        row[:length] = torch.randint(5, VOCABULARY, (length,), generator=random)
        row[0], row[length - 1] = FIRST, LAST
    there = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": input_ids, "attention_mask": there.long()}


def masked(lengths=(12, 7), pad=PAD) -> dict[str, torch.Tensor]:
    """Returns texts with every fourth token masked, and labels."""
    batch = texts(lengths, pad)
    hidden = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    hidden[:, 2::4] = True
    hidden &= (batch["attention_mask"] == 1) & (batch["input_ids"] != LAST)
    labels = batch["input_ids"].masked_fill(~hidden, IGNORED)
    return {**batch, "input_ids": batch["input_ids"].masked_fill(hidden, MASK), "labels": labels}


@pytest.mark.parametrize("name", CONFIGS)
def test_contract(name, tmp_path):
    check_contract(MaskedLMForPreTraining, native(name), texts(), tmp_path, **SETTINGS)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_and_gradients_are_those_of_transformers_own_class(name, attention):
    theirs = native(name, attention).eval()
    batch = masked()
    expected = theirs(**batch)
    expected.loss.backward()
    gradients = {key: p.grad.clone() for key, p in theirs.named_parameters() if p.grad is not None}
    theirs.zero_grad()
    ours = MaskedLMForPreTraining.from_encoder(theirs, **SETTINGS).eval()
    output = ours(**batch)
    output.loss.backward()
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=0)
    hidden = batch["labels"] != IGNORED
    torch.testing.assert_close(output.logits, expected.logits[hidden], atol=1e-5, rtol=0)
    assert torch.equal(output.labels, batch["labels"][hidden])
    assert {key for key, p in theirs.named_parameters() if p.grad is not None} == set(gradients)
    for key, p in theirs.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, gradients[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other(name, attention):
    lengths = (22, 9, 14)
    pad = CONFIGS[name]().pad_token_id
    apart = masked(lengths, pad)
    there = apart["attention_mask"] == 1
    packed = {key: torch.cat([apart[key][there], torch.full((3,), fill)])[None]
              for key, fill in (("input_ids", pad), ("labels", IGNORED))}  # fmt: skip
    documents = torch.repeat_interleave(torch.tensor([1, 2, 3, 0]), torch.tensor([*lengths, 3]))[None]
    model = MaskedLMForPreTraining.from_encoder(native(name, attention), **SETTINGS).eval()
    one, other = model(**apart), model(**packed, document_ids=documents)
    torch.testing.assert_close(other.loss, one.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.logits, one.logits, atol=1e-5, rtol=0)
    leaking = model(**packed, attention_mask=documents.clamp(max=1), **positions_of(model, documents))
    assert (leaking.logits - one.logits).abs().max() > 1e-4  # the comparison detects leaks


def positions_of(model, documents) -> dict[str, torch.Tensor]:
    """Positions that restart in each document, so that only attention can leak."""
    return {k: v for k, v in model.packing.inputs(documents).items() if k == "position_ids"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_documents_do_not_see_each_other_on_a_gpu(name):
    """In training, a packed batch gives the same loss and gradients as the texts in separate rows."""
    batch = {key: value.cuda() for key, value in masked((22, 9, 14), CONFIGS[name]().pad_token_id).items()}
    there = batch["attention_mask"] == 1
    documents = torch.arange(1, 4, device="cuda")[:, None].expand_as(there)[there][None]
    packed = {key: batch[key][there][None] for key in ("input_ids", "labels")}
    found = []
    for given in (batch, {**packed, "document_ids": documents}):
        model = MaskedLMForPreTraining.from_encoder(native(name), **SETTINGS).cuda().train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loss = model(**given).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_who_packs_is_found_out(name):
    model = MaskedLMForPreTraining.from_encoder(native(name), **SETTINGS).train()
    assert model.packs(length=60) and model.training
    assert model.packs(length=2)


def test_who_does_not_pack_is_found_out():
    """DeBERTa builds its mask from a two-dimensional one, so it can't separate documents."""
    config = transformers.DebertaV2Config(**SHAPE, relative_attention=True, pos_att_type=["c2p", "p2c"])
    assert not MaskedLMForPreTraining.from_encoder(config, **SETTINGS).packs(length=60)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_checkpoint_is_transformers_own(name, tmp_path):
    whole = native(name)
    whole.save_pretrained(tmp_path / "theirs")
    MaskedLMForPreTraining.from_encoder(whole, **SETTINGS).save_pretrained(tmp_path / "ours")
    kept = []
    for folder in ("theirs", "ours"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            kept.append({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["architectures"] == [type(whole).__name__]
    loaded, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    batch = texts()
    torch.testing.assert_close(loaded.eval()(**batch).logits, whole.eval()(**batch).logits)
    again = hf_pretext.load(tmp_path / "ours")
    assert again.full_model.get_output_embeddings() is None or (
        (again.full_model.get_output_embeddings().weight is again.full_model.get_input_embeddings().weight)
        == (whole.get_output_embeddings().weight is whole.get_input_embeddings().weight)
    )  # tied weights stay tied


def test_a_bare_encoder_keeps_its_weights_and_gets_a_head():
    torch.manual_seed(0)
    encoder = AutoModel.from_config(CONFIGS["bert"]())
    model = MaskedLMForPreTraining.from_encoder(encoder, **SETTINGS)
    state = model.encoder.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items() if "pooler" not in key)
    assert type(model.full_model) is transformers.BertForMaskedLM


def test_what_has_no_such_class_is_refused():
    with pytest.raises(ValueError, match="transformers has no vit model for masked language modelling"):
        MaskedLMForPreTraining.from_encoder(transformers.ViTConfig(), mask_token_id=1)
    with pytest.raises(ValueError, match="must be a transformers model"):
        MaskedLMForPreTraining.from_encoder(torch.nn.Linear(2, 2), mask_token_id=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(mask_ratio=0.0), "mask_ratio must lie between 0 and 1"),
        (dict(mask_ratio=1.0), "mask_ratio must lie between 0 and 1"),
        (dict(replaced_by_mask=0.8, replaced_by_random=0.3), "sum to at most 1, but are 0.8 and 0.3"),
        (dict(unit="sentence"), "unit"),
        (dict(masks=3), "has no setting masks"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), mask_token_id=MASK, **settings)


def test_what_the_batch_lacks_is_said():
    model = MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), mask_token_id=MASK, unit="word")
    with pytest.raises(ValueError, match="unit='word' needs word_starts in the batch, but got None"):
        model(**texts())
    with pytest.raises(ValueError, match="mask_token_id is not set"):
        MaskedLMForPreTraining.from_encoder(CONFIGS["bert"]())(**texts())


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.6])
def test_as_many_tokens_are_hidden_as_asked_and_never_special_ones(ratio):
    model = MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), **SETTINGS, mask_ratio=ratio)
    batch = texts(lengths=(102, 52, 3, 12))
    for _ in range(20):
        seen, labels = model.corrupt(
            batch["input_ids"],
            without_special(batch["input_ids"], batch["attention_mask"] == 1, model.task.special_token_ids),
            None,
        )
        hidden = labels != IGNORED
        assert hidden.sum(1).tolist() == [round(100 * ratio), round(50 * ratio), 1, max(round(10 * ratio + 1e-9), 1)]
        assert not (hidden & torch.isin(batch["input_ids"], torch.tensor(SETTINGS["special_token_ids"]))).any()
        assert torch.equal(seen[~hidden], batch["input_ids"][~hidden])


def test_shares_of_mask_random_and_kept():
    model = MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), **SETTINGS, mask_ratio=0.5)
    batch = texts(lengths=(2000,) * 10)
    seen, labels = model.corrupt(
        batch["input_ids"],
        without_special(batch["input_ids"], batch["attention_mask"] == 1, model.task.special_token_ids),
        None,
    )
    hidden = labels != IGNORED
    as_mask = (seen[hidden] == MASK).float().mean().item()
    kept = (seen[hidden] == labels[hidden]).float().mean().item()
    assert as_mask == pytest.approx(0.8 + 0.1 / VOCABULARY, abs=0.02)
    assert kept == pytest.approx(0.1 + 0.1 / VOCABULARY, abs=0.02)


def test_the_same_seed_gives_the_same_masks():
    model = MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), **SETTINGS)
    batch = texts(lengths=(40, 30))
    there = batch["attention_mask"] == 1
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(torch.cat(model.corrupt(batch["input_ids"], there, None)))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_bits_per_byte():
    model = MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), **SETTINGS).eval()
    output = model(**masked(), num_bytes=torch.tensor([50, 26]))
    expected = output.loss.item() / 0.6931472 * (19 - 4) / 76  # the first and last token of each text are special
    assert output.logs["bits_per_byte"].item() == pytest.approx(expected, rel=1e-5)


def test_fill_mask_runs_where_hf_pretext_is_not_installed(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {
        word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", "good"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path)
    MaskedLMForPreTraining.from_encoder(CONFIGS["bert"](), **SETTINGS).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['hf_pretext'] = None\n"
        "from transformers import pipeline\n"
        f"print(len(pipeline('fill-mask', model={str(tmp_path)!r})('the film is [MASK]')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("5")


PAIRED = {
    "bert": lambda: transformers.BertConfig(**SHAPE, pad_token_id=PAD),
    "albert": lambda: transformers.AlbertConfig(**SHAPE, embedding_size=24, pad_token_id=PAD),
}


def native_of_pairs(name):
    torch.manual_seed(0)
    return AutoModelForPreTraining.from_config(PAIRED[name]())


@pytest.mark.parametrize(("name", "pairs"), [("bert", "next"), ("albert", "order")])
def test_contract_of_pairs(name, pairs, tmp_path):
    model = native_of_pairs(name)
    check_contract(MaskedLMForPreTraining, model, texts((30, 25, 28, 30)), tmp_path, pairs=pairs, **SETTINGS)
    assert type(model).__name__ == f"{name.capitalize()}ForPreTraining"


@pytest.mark.parametrize(("name", "pairs"), [("bert", "next"), ("albert", "order")])
def test_losses_of_pairs_are_those_of_transformers_own_class(name, pairs):
    model = native_of_pairs(name).eval()
    batch, truth = masked((12, 7)), torch.tensor([1, 0])
    batch["token_type_ids"] = (torch.arange(12) > 4).long().expand(2, -1)
    label = "next_sentence_label" if name == "bert" else "sentence_order_label"
    expected = model(**batch, **{label: truth}).loss
    ours = MaskedLMForPreTraining.from_encoder(model, pairs=pairs, **SETTINGS).eval()
    output = ours(**batch, pair_labels=truth)
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=0)
    assert set(output.losses) == {"masked_lm", "sentences"} and "sentence_accuracy" in output.logs
    with pytest.raises(ValueError, match="pairs needs pair_labels next to labels"):
        ours(**batch)


def test_masks_never_touch_the_special_tokens_of_pairs(monkeypatch):
    model = MaskedLMForPreTraining.from_encoder(PAIRED["bert"](), pairs="next", mask_ratio=0.9, **SETTINGS)
    seen = []
    monkeypatch.setattr(model, "predict", lambda where, **inputs: seen.append(inputs) or stop())
    with pytest.raises(StopIteration):
        model(**texts((30, 25, 28, 30)))
    ids = seen[0]["input_ids"]
    assert (ids[:, 0] == FIRST).all() and ((ids == LAST).sum(1) == 2).all() and (ids == MASK).sum() > 50


def stop():
    raise StopIteration


def test_pairs_are_not_packed():
    model = MaskedLMForPreTraining.from_encoder(PAIRED["bert"](), pairs="next", **SETTINGS)
    assert not model.packs(60)
    with pytest.raises(ValueError, match="pairs needs one document in each row"):
        model(texts()["input_ids"], document_ids=torch.ones(2, 12, dtype=torch.long))


def test_an_architecture_without_a_head_for_pairs_is_refused():
    with pytest.raises(ValueError, match="no roberta model with a head for pairs of segments"):
        MaskedLMForPreTraining.from_encoder(CONFIGS["roberta"](), pairs="order", **SETTINGS)
    with pytest.raises(ValueError, match="needs 2 token types, but type_vocab_size is 1"):
        one = transformers.BertConfig(**SHAPE, type_vocab_size=1)
        MaskedLMForPreTraining.from_encoder(one, pairs="order", **SETTINGS)


@pytest.mark.slow
def test_order_of_segments_is_learned():
    """Documents of ascending tokens: of a swapped pair, the first segment has the larger tokens."""
    torch.manual_seed(0)
    config = PAIRED["bert"]()
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = MaskedLMForPreTraining.from_encoder(config, pairs="order", mask_ratio=0.05, **SETTINGS).train()
    optimizer, found = torch.optim.AdamW(model.parameters(), 1e-2), []
    row = torch.cat([torch.tensor([FIRST]), torch.arange(10, 42), torch.tensor([LAST])]).repeat(16, 1)
    for _ in range(100):
        output = model(row)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        found.append(output.logs["sentence_accuracy"].item())
    assert sum(found[-10:]) / 10 > 0.9 > sum(found[:5]) / 5


def test_a_batch_without_words_has_no_loss():
    model = MaskedLMForPreTraining.from_encoder(native("bert"), **SETTINGS)
    output = model(input_ids=torch.tensor([[FIRST, LAST]]))
    assert output.loss == 0 and output.logs["accuracy"] == 0
    output.loss.backward()


def test_frozen_weights_of_an_encoder_stay_frozen():
    encoder = AutoModel.from_config(CONFIGS["bert"]())
    encoder.embeddings.requires_grad_(False)
    model = MaskedLMForPreTraining.from_encoder(encoder, **SETTINGS)
    frozen = {name for name, value in model.encoder.named_parameters() if not value.requires_grad}
    assert frozen == {f"embeddings.{name}" for name, _ in encoder.embeddings.named_parameters()}


def test_an_encoder_that_cannot_be_tried_is_not_packed():
    config = transformers.XLMConfig(vocab_size=60, emb_dim=24, n_layers=1, n_heads=2, max_position_embeddings=40)
    assert not MaskedLMForPreTraining.from_encoder(config, **SETTINGS).packs(40)


@pytest.mark.parametrize("pairs", [None, "order"])
def test_asks_what_forward_predicts(pairs):
    encoder = transformers.BertConfig(**SHAPE, pad_token_id=PAD)
    model = MaskedLMForPreTraining.from_encoder(encoder, pairs=pairs, mask_ratio=0.4, **SETTINGS).eval()
    batch = texts((30, 20))
    question, output = model.ask(**batch), model(**batch)
    asked = question.labels != IGNORED
    assert torch.equal(question.labels[asked], output.labels) and question.classes == VOCABULARY
    torch.testing.assert_close(model.answer(asked=asked, **question.inputs), output.logits)
    asked[0] = False
    torch.testing.assert_close(model.answer(asked=asked, **question.inputs), output.logits[-asked.sum() :])
