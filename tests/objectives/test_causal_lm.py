import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from contract import check_bfloat16, check_contract
from made_texts import source
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

import hf_pretext
from hf_pretext import CausalLMForPreTraining
from hf_pretext.data.corpus import BatchedTexts, PackedTexts, tokenised
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.modalities.text import Corpus
from hf_pretext.modules.masking import IGNORED
from hf_pretext.objectives.causal_lm import CausalLMTask

VOCABULARY, PAD, FIRST, LAST = 60, 0, 2, 3
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    pad_token_id=PAD, bos_token_id=FIRST, eos_token_id=LAST,
)  # fmt: skip
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, num_key_value_heads=1),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=2, n_positions=64, bos_token_id=FIRST, eos_token_id=LAST
    ),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE, num_key_value_heads=1),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, num_key_value_heads=1, head_dim=12),
    "mistral": lambda: transformers.MistralConfig(**SHAPE, num_key_value_heads=1, sliding_window=6),
    "gemma2": lambda: transformers.Gemma2Config(**SHAPE, num_key_value_heads=1, head_dim=12, sliding_window=6),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=24, word_embed_proj_dim=24, num_hidden_layers=2, ffn_dim=32,
        num_attention_heads=2, pad_token_id=PAD, bos_token_id=FIRST, eos_token_id=LAST, dropout=0.0,
    ),
}  # fmt: skip
NAMED = ["llama", "gpt2", "qwen2", "qwen3"]


def native(name: str, attention: str = "sdpa"):
    """Without dropout, which GPT-2 has."""
    torch.manual_seed(0)
    attention = "eager" if name == "gemma2" else attention  # transformers has no other for it
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def texts(lengths=(12, 7)) -> dict[str, torch.Tensor]:
    """Returns random texts of the given lengths in tokens, padded."""
    random = torch.Generator().manual_seed(1)
    input_ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(input_ids, lengths, strict=True):
        row[:length] = torch.randint(5, VOCABULARY, (length,), generator=random)
        row[0], row[length - 1] = FIRST, LAST
    present = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": input_ids, "attention_mask": present.long()}


def packed(apart: dict[str, torch.Tensor], padding: int = 3) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Returns texts in one sequence, with padding at its end, and the document of each token."""
    present = apart["attention_mask"] == 1
    numbers = torch.arange(1, len(present) + 1)[:, None].expand_as(present)[present]
    ids = torch.cat([apart["input_ids"][present], torch.full((padding,), PAD)])
    return {"input_ids": ids[None]}, torch.cat([numbers, torch.zeros(padding, dtype=torch.long)])[None]


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])  # the head of the others shares its only weight
def test_contract(name, tmp_path):
    check_contract(CausalLMForPreTraining, native(name), texts(), tmp_path)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_and_gradients_are_those_of_transformers_own_class(name, attention):
    theirs, batch = native(name, attention), texts()
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    batch["labels"][0, 4:6] = IGNORED
    expected = theirs(**batch)
    expected.loss.backward()
    gradients = {key: p.grad.clone() for key, p in theirs.named_parameters() if p.grad is not None}
    theirs.zero_grad()
    output = CausalLMForPreTraining.from_encoder(theirs)(**batch)
    output.loss.backward()
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=0)
    following = batch["labels"][:, 1:]
    torch.testing.assert_close(output.logits, expected.logits[:, :-1][following != IGNORED], atol=1e-5, rtol=0)
    assert torch.equal(output.labels, following[following != IGNORED]) and len(output.labels) == 11 + 6 - 2
    assert {key for key, p in theirs.named_parameters() if p.grad is not None} == set(gradients)
    for key, p in theirs.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, gradients[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMED)
def test_all_tokens_but_the_first_are_predicted_without_labels(name):
    model, batch = CausalLMForPreTraining.from_encoder(native(name)), texts()
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    torch.testing.assert_close(model(**batch).loss, model.full_model(**batch, labels=labels).loss)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other(name, attention):
    apart = texts((22, 9, 14, 2))
    together, documents = packed(apart)
    model = CausalLMForPreTraining.from_encoder(native(name, attention)).eval()
    if (name, attention) == ("opt", "eager"):  # makes its mask without looking at positions: trained without packing
        assert not model.packs(60)
        return
    assert model.packs(60)
    one, other = model(**apart), model(**together, document_ids=documents)
    assert len(other.labels) == 21 + 8 + 13 + 1 and torch.equal(one.labels, other.labels)
    torch.testing.assert_close(other.loss, one.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.logits, one.logits, atol=1e-5, rtol=0)
    model.packing.inputs = lambda ids, mask: {"attention_mask": ids.clamp(max=1)}
    leaking = model(**together, document_ids=documents)
    assert (leaking.logits - one.logits).abs().max() > 1e-4  # the comparison detects leaks


def test_gradients_of_packed_documents_are_those_of_the_documents():
    apart, found = texts((22, 9, 14)), []
    together, documents = packed(apart)
    for batch in (apart, {**together, "document_ids": documents}):
        model = CausalLMForPreTraining.from_encoder(native("llama"))
        model(**batch).loss.backward()
        found.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)


def test_given_labels_do_not_cross_documents():
    together, documents = packed(texts((5, 4)), padding=0)
    model = CausalLMForPreTraining.from_encoder(native("llama"))
    output = model(**together, document_ids=documents, labels=together["input_ids"])
    ids = together["input_ids"][0]
    assert output.labels.tolist() == [*ids[1:5].tolist(), *ids[6:9].tolist()]


@pytest.mark.parametrize("name", CONFIGS)
def test_these_architectures_pack(name):
    model = CausalLMForPreTraining.from_encoder(native(name)).train()
    assert model.packs(length=60) and model.training


def test_a_model_with_a_state_does_not_pack():
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = CausalLMForPreTraining.from_encoder(config).eval()
    assert not model.packs(length=60)
    batch = texts()
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    torch.testing.assert_close(model(**batch).loss, model.full_model(**batch, labels=labels).loss, atol=1e-5, rtol=0)


def test_the_head_runs_on_predicted_tokens_only():
    model, seen = CausalLMForPreTraining.from_encoder(native("llama")), []
    model.full_model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    model(**texts((12, 7, 3)))
    assert seen == [(1, 11 + 6 + 2, 24)]


def test_bfloat16():
    check_bfloat16(CausalLMForPreTraining.from_encoder(native("llama")), texts())


@pytest.mark.parametrize("name", NAMED)
def test_the_checkpoint_is_transformers_own(name, tmp_path):
    theirs = native(name)
    theirs.save_pretrained(tmp_path / "theirs")
    CausalLMForPreTraining.from_encoder(theirs).save_pretrained(tmp_path / "ours")
    kept = []
    for folder in ("theirs", "ours"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            kept.append({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    assert kept[0].keys() == kept[1].keys() and all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["architectures"] == [type(theirs).__name__] and config["pretext"]["objective"] == "causal_lm"
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(loaded.eval()(**texts()).logits, theirs.eval()(**texts()).logits)
    again = hf_pretext.load(tmp_path / "ours").full_model
    tied = [m.get_output_embeddings().weight is m.get_input_embeddings().weight for m in (theirs, again)]
    assert tied == [theirs.config.tie_word_embeddings] * 2


@pytest.mark.parametrize("name", NAMED)
def test_a_bare_encoder_keeps_its_weights_and_gets_a_head(name):
    encoder = AutoModel.from_config(CONFIGS[name]())
    model = CausalLMForPreTraining.from_encoder(encoder)
    assert type(model.full_model) is type(native(name))
    state = model.encoder.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


def test_what_can_not_predict_the_next_token_is_refused():
    with pytest.raises(ValueError, match="transformers has no vit model for causal language modelling"):
        CausalLMForPreTraining.from_encoder(transformers.ViTConfig())
    with pytest.raises(ValueError, match="must be a transformers model"):
        CausalLMForPreTraining.from_encoder(torch.nn.Linear(2, 2))
    bert = dict(vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    with pytest.raises(ValueError, match="BertModel sees later tokens"):
        CausalLMForPreTraining.from_encoder(transformers.BertConfig(**bert))
    CausalLMForPreTraining.from_encoder(transformers.BertConfig(**bert, is_decoder=True))


def test_documents_of_one_token():
    """They predict nothing, next to others; alone they are an error."""
    model = CausalLMForPreTraining.from_encoder(native("llama"))
    together, documents = packed(texts((1, 5, 1)), padding=0)
    assert model(**together, document_ids=documents).labels.tolist() == together["input_ids"][0, 2:6].tolist()
    with pytest.raises(ValueError, match="The batch of 1 sequences has no token to predict: each document has only"):
        model(**together, document_ids=torch.arange(1, 8)[None])
    with pytest.raises(ValueError, match="The batch of 2 sequences has no token to predict"):
        model(input_ids=torch.tensor([[5], [6]]))


def test_logs_and_likelihood():
    model, batch = CausalLMForPreTraining.from_encoder(native("llama")).eval(), texts()
    output = model(**batch, num_bytes=torch.tensor([50, 26]))
    expected = output.loss.item() / math.log(2) * 17 / 76
    assert output.logs["bits_per_byte"].item() == pytest.approx(expected, rel=1e-5)
    assert output.logs["perplexity"].item() == pytest.approx(math.exp(output.loss.item()), rel=1e-5)
    scores = model.log_likelihood(**batch)
    assert scores.shape == (2,) and scores.sum().item() == pytest.approx(-output.loss.item() * 17, rel=1e-5)
    alone = model.log_likelihood(batch["input_ids"][1:, :7], batch["attention_mask"][1:, :7])
    torch.testing.assert_close(alone, scores[1:], atol=1e-5, rtol=0)


def test_asks_what_forward_predicts():
    model, batch = CausalLMForPreTraining.from_encoder(native("llama")).eval(), texts((22, 9))
    question, output = model.ask(**batch), model(**batch)
    asked = question.labels != IGNORED
    assert torch.equal(question.labels[asked], batch["input_ids"][asked])
    assert torch.equal(question.labels[asked], output.labels)
    torch.testing.assert_close(model.answer(asked=asked, **question.inputs), output.logits)


# tokenizers


def tokenizer_of(start: bool = False, end: bool = False, **special) -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "<s>", "</s>", "the", "film", "is", "good", "and", "long"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    single = f"{'<s> ' * start}$A{' </s>' * end}"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 2), ("</s>", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", **special)


LIKE_GPT2, LIKE_LLAMA = {"eos_token": "</s>"}, {"eos_token": "</s>", "bos_token": "<s>", "start": True}


def test_tokens_come_from_the_tokenizer():
    complete = CausalLMForPreTraining.complete
    task = complete(CausalLMTask(), {"text": tokenizer_of(**LIKE_LLAMA)})
    assert task == CausalLMTask(bos_token_id=2, eos_token_id=3, pad_token_id=0)
    assert complete(CausalLMTask(), {"text": tokenizer_of(**LIKE_GPT2)}) == CausalLMTask(None, 3, 0)
    config = CONFIGS["llama"]()
    config.eos_token_id, config.bos_token_id = [9, 3], 8
    model = CausalLMForPreTraining.from_encoder(config, **vars(task))
    for config in (model.full_model.config, model.full_model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, [9, 3], 0)


def test_tokenizers_without_an_end_or_that_end_prompts_are_refused():
    complete = CausalLMForPreTraining.complete
    with pytest.raises(ValueError, match=r"has no end token \(eos_token\)"):
        complete(CausalLMTask(), {"text": tokenizer_of()})
    with pytest.raises(ValueError, match="adds </s> after each text, so prompts would end"):
        complete(CausalLMTask(), {"text": tokenizer_of(end=True, **LIKE_LLAMA)})


@pytest.mark.parametrize(("kind", "start"), [(LIKE_GPT2, []), (LIKE_LLAMA, [2])])
@pytest.mark.parametrize("packs", [True, False])
def test_each_document_ends_once_and_pieces_of_it_do_not(kind, start, packs, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    tokenizer, documents = tokenizer_of(**kind), ["the film", "is " * 25, "good", "and " * 8 + "long"]
    texts = tokenised(source(documents), tokenizer)
    rows = PackedTexts(texts, tokenizer, 12) if packs else BatchedTexts(texts, tokenizer, 12, 2)
    pieces = []
    for row in rows:
        assert row["input_ids"].shape[-1] <= 12
        ids, mask = row["input_ids"], row.get("attention_mask")
        if packs:
            pieces += [ids[row["document_ids"] == i].tolist() for i in np.unique(row["document_ids"])]
        else:
            pieces += [one[some == 1].tolist() for one, some in zip(ids, mask, strict=True)]
    assert sum(len(piece) for piece in pieces) == rows.pieces.lengths.sum()
    for document, words in enumerate(([4, 5], [6] * 25, [7], [8] * 8 + [9])):
        mine = [piece for piece in pieces if words[0] in piece]
        assert sum(piece[-1] == 3 for piece in mine) == 1 and sum(piece.count(3) for piece in mine) == 1
        assert sum(piece[: len(start)] == start for piece in mine) == (1 if start else len(mine))
        assert sum(piece.count(2) for piece in mine) == len(start)
        assert sum(len(piece) for piece in mine) == len(start) + len(words) + 1
        assert len(mine) == (3 if document == 1 else 1)


def test_a_document_of_one_word_predicts_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    tokenizer = tokenizer_of(**LIKE_GPT2)
    row = PackedTexts(tokenised(source(["good"] * 3), tokenizer), tokenizer, 12)[0]
    corpus = Corpus(tokenizer, 12)
    batch = {name: value[None] for name, value in corpus(row, None).items()}
    assert CausalLMForPreTraining.from_encoder(native("llama"))(**batch).labels.tolist() == [3, 3, 3]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_trained_tokenizer_ends_no_prompt(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    contents = source(["the film is good", "good films are long"] * 9)
    size = 300 if kind == "bpe" else 40
    usual, causal = (train_tokenizer(contents, kind, size, add_eos_token=adds) for adds in (True, False))
    ids = usual("the film")["input_ids"]
    assert causal("the film")["input_ids"] == ids[:-1] and ids[-1] == causal.eos_token_id
    assert causal.bos_token_id == ids[0] and causal.get_vocab() == usual.get_vocab()
    pair = causal("the", "film")["input_ids"]
    assert pair.count(causal.eos_token_id) == 1 and pair[-1] != causal.eos_token_id
    task = CausalLMForPreTraining.complete(CausalLMTask(), {"text": causal})
    assert (task.bos_token_id, task.eos_token_id) == (ids[0], ids[-1])
    assert causal.decode(ids, skip_special_tokens=True) == usual.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_text_generation_runs_where_hf_pretext_is_not_installed(name, tmp_path):
    tokenizer = tokenizer_of(**LIKE_LLAMA)
    tokenizer.save_pretrained(tmp_path)
    task = CausalLMForPreTraining.complete(CausalLMTask(), {"text": tokenizer})
    model = CausalLMForPreTraining.from_encoder(native(name), **vars(task))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sentence = torch.tensor([[2, 4, 5, 6, 7, 3]])  # "the film is good"
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=sentence).loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['hf_pretext'] = None\n"
        "from transformers import pipeline\n"
        f"generate = pipeline('text-generation', model={str(tmp_path)!r})\n"
        "print(generate('the film', max_new_tokens=20, do_sample=False)[0]['generated_text'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # no word more: it ends. The tokenizer keeps no spaces, so the pipeline has none after the prompt.
    assert done.stdout.strip().splitlines()[-1] == "the filmis good"


def test_padding_before_a_text_predicts_nothing():
    model = CausalLMForPreTraining.from_encoder(native("llama")).eval()
    text = torch.tensor([[2, 7, 8, 9, 3]])
    ids, mask = torch.cat([torch.full((1, 2), PAD), text], 1), torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    one, padded = model(input_ids=text), model(input_ids=ids, attention_mask=mask)
    assert padded.labels.tolist() == one.labels.tolist() == [7, 8, 9, 3]
    torch.testing.assert_close(padded.loss, one.loss)
    likely = [model.log_likelihood(*each) for each in ((text, torch.ones_like(text)), (ids, mask))]
    torch.testing.assert_close(*likely)


def test_mixture_of_experts():
    config = transformers.MixtralConfig(**SHAPE, num_key_value_heads=1, num_local_experts=2, num_experts_per_tok=1)
    native = AutoModelForCausalLM.from_config(config).eval()
    model, ids = CausalLMForPreTraining.from_encoder(native).eval(), torch.randint(5, 60, (2, 9))
    torch.testing.assert_close(model(input_ids=ids).loss, native(input_ids=ids, labels=ids).loss, atol=1e-5, rtol=0)
    assert model.packs(30)
    config.output_router_logits = True
    with pytest.raises(ValueError, match="output_router_logits=True, which adds a loss of the routers"):
        CausalLMForPreTraining.from_encoder(config)


def test_documents_that_an_architecture_mixes_are_refused():
    model = CausalLMForPreTraining.from_encoder(
        AutoModelForCausalLM.from_config(CONFIGS["opt"](), attn_implementation="eager")
    )
    ids, documents = torch.randint(5, 60, (1, 9)), torch.tensor([[1] * 4 + [2] * 5])
    with pytest.raises(ValueError, match="does not separate the documents of packed sequences. Give one document a"):
        model(input_ids=ids, document_ids=documents)
