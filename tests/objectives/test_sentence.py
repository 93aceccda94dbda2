"""SimCSE and TSDAE: their formulas, what the decoder sees, which words are deleted, and what is refused."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import transformers
from contract import check_bfloat16, check_contract
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel

import hf_pretext
from hf_pretext import SentenceForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.features import pool
from hf_pretext.interop.sentence_transformers import write_modules
from hf_pretext.modules.masking import IGNORED, positions_of
from hf_pretext.modules.text_decoder import decode
from hf_pretext.objectives.sentence import SentenceTask

VOCABULARY, PAD, FIRST, LAST = 60, 0, 2, 3
SHAPE = dict(vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
CONFIGS = {
    "bert": lambda **more: transformers.BertConfig(**SHAPE, pad_token_id=PAD, **more),
    "roberta": lambda: transformers.RobertaConfig(**SHAPE, pad_token_id=1, max_position_embeddings=66),
    "electra": lambda: transformers.ElectraConfig(**SHAPE, embedding_size=16, pad_token_id=PAD),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=24, n_layers=2, n_heads=2, hidden_dim=32, pad_token_id=PAD
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SHAPE, pad_token_id=PAD, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3, mlp_dropout=0.1
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3
    ),
}
TSDAE = dict(method="tsdae", start_token_id=FIRST, end_token_id=LAST, pad_token_id=PAD)


def model_of(name: str = "bert", **settings) -> SentenceForPreTraining:
    torch.manual_seed(0)
    return SentenceForPreTraining.from_encoder(CONFIGS[name](), **settings)


def without_dropout(model: SentenceForPreTraining) -> SentenceForPreTraining:
    """In training, but each pass gives the same."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def texts(lengths=(12, 7, 9, 4), pad: int = PAD, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random texts of these lengths in tokens, with the tokens around them; each second token begins a word."""
    random = torch.Generator().manual_seed(seed)
    input_ids = torch.full((len(lengths), max(lengths)), pad)
    for row, length in zip(input_ids, lengths, strict=True):
        row[:length] = torch.randint(5, VOCABULARY, (length,), generator=random)
        row[0], row[length - 1] = FIRST, LAST
    at = torch.arange(max(lengths))
    present = at < torch.tensor(lengths)[:, None]
    starts = (at % 2 == 1) | ~present | (input_ids == LAST)
    starts[:, 0] = True
    return {"input_ids": input_ids, "attention_mask": present.long(), "word_starts": starts}


def with_negatives(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    others = texts((5, 8, 6, 11)[: len(batch["input_ids"])], seed=2)
    names = ("input_ids", "attention_mask")
    return {**batch, **{f"negative_{name}": others[name] for name in names}}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("settings", [{}, TSDAE], ids=["simcse", "tsdae"])
def test_contract(name, settings, tmp_path):
    torch.manual_seed(0)
    encoder = build_encoder(CONFIGS[name]())
    settings = {**settings, **({"tied": "none"} if settings and name == "electra" else {})}
    check_contract(SentenceForPreTraining, encoder, texts(pad=1 if name == "roberta" else 0), tmp_path, **settings)


def test_bfloat16_changes_the_loss_by_rounding_only():
    check_bfloat16(model_of(**TSDAE), texts())
    model = model_of().eval()
    with torch.autocast("cpu", torch.bfloat16):
        lower = model(**texts()).loss
    assert lower.dtype == torch.float32
    torch.testing.assert_close(lower, model(**texts()).loss, rtol=5e-2, atol=5e-2)


# simcse


def loss_by_hand(first, second, negatives, temperature):
    """Equation 5 of the paper, one text after the other."""
    losses = []
    for i in range(len(first)):
        cosine = [F.cosine_similarity(first[i], other, dim=0) / temperature for other in (*second, *negatives)]
        losses.append(-torch.log(torch.exp(cosine[i]) / sum(map(torch.exp, cosine))))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("negatives", [False, True], ids=["texts of the batch", "hard negatives"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("mlp_head", [True, False], ids=["head", "no head"])
def test_simcse_is_the_formula_of_the_paper_with_its_gradient(negatives, pooling, mlp_head):
    model = model_of(pooling=pooling, mlp_head=mlp_head, temperature=0.1).double().train()
    batch = with_negatives(texts()) if negatives else texts()
    torch.manual_seed(3)
    output = model(**batch)
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    torch.manual_seed(3)  # the same dropout
    ids, mask = batch["input_ids"], batch["attention_mask"]
    passes = [(ids.repeat(2, 1), mask.repeat(2, 1))]
    passes += [(batch["negative_input_ids"], batch["negative_attention_mask"])] if negatives else []
    vectors = []
    for ids, mask in passes:
        hidden = model.encoder(ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].double()
        vectors.append(hidden[:, 0] if pooling == "cls" else (hidden * weight).sum(1) / weight.sum(1))
    if mlp_head:
        linear = model.pretext_head[0]
        vectors = [torch.tanh(each @ linear.weight.T + linear.bias) for each in vectors]
    first, second = vectors[0].chunk(2)
    assert (first - second).abs().max() > 1e-3, "both passes are equal"
    expected = loss_by_hand(first, second, vectors[1] if negatives else [], 0.1)
    expected.backward()
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=0)
    assert len(gradients) > 30
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, atol=1e-5, rtol=1e-5)


def test_a_hard_negative_that_equals_its_text_costs_most():
    model = without_dropout(model_of())
    batch, others = texts(), with_negatives(texts())
    same = {**batch, **{f"negative_{name}": batch[name] for name in ("input_ids", "attention_mask")}}
    assert model(**same).loss > model(**others).loss > model(**batch).loss


def test_features_in_eval_are_the_vectors_of_the_folder_and_dropout_stays_in_the_loss():
    model = model_of().eval()
    batch = texts()
    with torch.no_grad():
        hidden = model.encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        output = model(**batch)
    torch.testing.assert_close(output.features, pool(hidden, batch["attention_mask"]))
    assert not model.encoder.training
    equal = model_of()
    without_dropout(equal)
    assert equal.eval()(**batch).loss.item() != pytest.approx(output.loss.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_an_encoder_without_dropout_is_refused(name):
    config = CONFIGS[name]()
    for key in config.to_dict():
        if "drop" in key:
            setattr(config, key, 0.0)
    with pytest.raises(ValueError, match=r"need dropout.*(hidden_dropout_prob|mlp_dropout)=0\.0.*method='tsdae'"):
        SentenceForPreTraining.from_encoder(config)
    SentenceForPreTraining.from_encoder(config, **TSDAE)


def test_a_batch_of_one_and_hard_negatives_of_another_number_are_refused():
    model = model_of().train()
    with pytest.raises(ValueError, match="global batch of 1"):
        model(**texts((7,)))
    assert model.eval()(**texts((7,))).loss.item() == pytest.approx(0.0, abs=1e-6)  # the last batch of an evaluation
    with pytest.raises(ValueError, match="4 texts came with 2 hard negatives"):
        model(**{**texts(), "negative_input_ids": texts()["input_ids"][:2]})
    with pytest.raises(ValueError, match="which method='tsdae' does not use"):
        model_of(**TSDAE)(**with_negatives(texts()))


def test_the_first_token_of_a_causal_encoder_is_refused():
    with pytest.raises(ValueError, match="GPT2Model gives all texts .* Set pooling='mean'"):
        model_of("gpt2", pooling="cls")


# tsdae


def corrupted(model, batch, **changed):
    """Ids without deleted words and their mask."""
    batch = {**batch, **changed}
    first, count = torch.ones(len(batch["input_ids"]), dtype=torch.long), batch["attention_mask"].sum(1) - 2
    present = batch["attention_mask"].bool()
    return model.corrupt(batch["input_ids"], present, first, count, batch["word_starts"])


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.95])
def test_words_are_deleted_in_order_and_at_least_one_is_left(ratio):
    model = model_of(**TSDAE, delete_ratio=ratio).train()
    batch = texts((62, 42, 4, 3))
    seen_lengths = set()
    for _ in range(20):
        ids, mask = corrupted(model, batch)
        assert (ids[mask == 0] == PAD).all() and (mask[:, :-1] >= mask[:, 1:]).all()
        for row, given in enumerate(batch["input_ids"]):
            given = given[: int(batch["attention_mask"][row].sum())].tolist()
            left = ids[row][mask[row] == 1].tolist()
            assert left[0] == FIRST and left[-1] == LAST and len(left) > 2
            words = [tuple(given[i : min(i + 2, len(given) - 1)]) for i in range(1, len(given) - 1, 2)]
            kept = left[1:-1]
            for word in words:  # all of a word, or none of it, in order
                if tuple(kept[: len(word)]) == word:
                    kept = kept[len(word) :]
            assert not kept
            goal = max((len(given) - 2) * (1 - ratio), 1)
            assert abs(len(left) - 2 - goal) <= 1.0 + 1e-6
        seen_lengths.add(tuple(ids[0].tolist()))
    assert len(seen_lengths) > 10


def test_single_tokens_are_deleted_without_word_starts():
    model = model_of(**TSDAE).train()
    _, mask = corrupted(model, texts((62, 62)), word_starts=None)
    assert mask.sum(1).tolist() == [2 + 24] * 2


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2"])
def test_tsdae_is_the_likelihood_of_the_text_given_the_vector(name):
    """Written out: one text after the other, with transformers' own loss of the decoder."""
    model = without_dropout(model_of(name, **TSDAE)).eval()
    batch = texts()
    ids, mask = corrupted(model, batch)
    losses, count = 0.0, 0
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        left = int(mask[row].sum())
        vector = model.encoder(ids[row : row + 1, :left]).last_hidden_state.mean(1)
        words = batch["input_ids"][row, :length]
        scores = model.decoder(words[None, :-1], encoder_hidden_states=vector[None]).logits[0]
        losses += F.cross_entropy(scores, words[1:], reduction="sum")
        count += length - 1
    output = model(**batch)
    assert len(output.labels) == count
    torch.testing.assert_close(output.loss, losses / count, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_question_of_tsdae_is_that_of_the_loss(name):
    model, batch = model_of(name, **TSDAE).eval(), texts()
    output, question = model(**batch), model.ask(**batch)
    asked = question.labels != IGNORED
    assert torch.equal(question.labels[asked], output.labels) and not asked[:, 0].any()
    torch.testing.assert_close(model.answer(asked=asked, **question.inputs), output.logits)
    assert torch.equal(question.inputs["input_ids"][asked], output.labels)  # each label is in its place
    assert model.capabilities == ("ask",) and not model_of().capabilities


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_decoder_sees_the_vector_of_a_text_alone(pooling):
    """The gradient of its loss passes through the vector; other hidden states of the encoder change nothing."""
    model = without_dropout(model_of(**TSDAE, pooling=pooling)).eval()
    model.corrupt = lambda ids, present, *others: (ids, present.long())  # all of the words are left
    states = []

    def keep(module, arguments, outputs):
        if outputs.last_hidden_state.requires_grad:  # in eval(), features need no gradient
            outputs.last_hidden_state.retain_grad()
            states.append(outputs.last_hidden_state)

    handle = model.encoder.register_forward_hook(keep)
    model(**texts()).loss.backward()
    handle.remove()
    (gradient,) = (state.grad for state in states)
    assert gradient[:, 0].abs().sum() > 0
    if pooling == "cls":
        assert not gradient[:, 1:].any()
    else:  # the same for each token of a text
        there = texts()["attention_mask"][..., None]
        torch.testing.assert_close(gradient, gradient[:, :1] * there)

    batch = texts()
    inputs = batch["input_ids"][:, :-1]
    where = positions_of(torch.ones_like(inputs, dtype=torch.bool))
    vectors = model.encode(batch["input_ids"], batch["attention_mask"])
    scores = decode(model.decoder, vectors, inputs, where)
    assert torch.equal(scores, decode(model.decoder, vectors.clone(), inputs, where))
    other = decode(model.decoder, vectors + 10 * torch.randn(vectors.shape), inputs, where)
    assert (other - scores).abs().max() > 1e-3
    loss = model(**batch).loss

    def other_tokens(module, arguments, outputs):
        hidden = outputs.last_hidden_state
        if pooling == "cls":
            outputs["last_hidden_state"] = torch.cat([hidden[:, :1], torch.randn_like(hidden[:, 1:])], 1)
        else:  # with the same mean
            outputs["last_hidden_state"] = torch.cat([hidden[:, [1, 0]], hidden[:, 2:]], 1)
        return outputs

    handle = model.encoder.register_forward_hook(other_tokens)
    torch.testing.assert_close(model(**batch).loss, loss)
    handle.remove()


def test_a_token_does_not_see_those_after_it():
    model = model_of(**TSDAE).eval()
    ids = texts()["input_ids"]
    vectors = torch.randn(4, 24)
    where = positions_of(torch.ones_like(ids, dtype=torch.bool))
    scores = decode(model.decoder, vectors, ids, where).view(*ids.shape, -1)
    changed = ids.clone()
    changed[:, 6:] = 7
    other = decode(model.decoder, vectors, changed, where).view(*ids.shape, -1)
    torch.testing.assert_close(scores[:, :6], other[:, :6])


SHARED = {"none": 0, "embeddings": 1, "all": 30}


@pytest.mark.parametrize("tied", SHARED)
def test_shared_weights_are_shared_and_stored_once(tied, tmp_path):
    model = model_of(**TSDAE, tied=tied)
    of_encoder = {id(p) for p in model.encoder.parameters()}
    shared = [name for name, p in model.decoder.named_parameters() if id(p) in of_encoder]
    assert (len(shared) == SHARED[tied]) or (tied == "all" and len(shared) >= SHARED[tied])
    cross = [name for name, p in model.decoder.named_parameters() if "cross" in name]
    assert cross and not {*cross} & {*shared}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "pretext.safetensors")
    assert not {f"decoder.{name}" for name in shared} & {*stored} and f"decoder.{cross[0]}" in stored
    loaded = hf_pretext.load(tmp_path)
    of_encoder = {id(p) for p in loaded.encoder.parameters()}
    assert {name for name, p in loaded.decoder.named_parameters() if id(p) in of_encoder} == {*shared}
    assert torch.equal(loaded(**texts()).loss, model.eval()(**texts()).loss)


def test_a_decoder_that_shares_all_learns_with_its_encoder():
    model = model_of(**TSDAE, tied="all").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model.eval()(**texts()).loss.item()
    for _ in range(30):
        model.train()(**texts()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert model.eval()(**texts()).loss.item() < first - 1


def test_a_text_longer_than_the_decoder_is_refused():
    model = model_of("gpt2", **TSDAE, tied="all")
    batch = {"input_ids": torch.randint(5, VOCABULARY, (2, 64))}
    with pytest.raises(ValueError, match="64 tokens and its end need 65 positions, but the decoder has 64"):
        model(**batch)
    assert model_of("gpt2", **TSDAE)(**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("bert", dict(method="tsdae", delete_ratio=1.0), "delete_ratio must lie between 0 and 1"),
        ("bert", dict(temperature=0.0), "temperature must be above 0"),
        ("bert", dict(decoder_layers=2), "decoder_layers=2 has no effect with method='simcse'"),
        ("bert", dict(method="tsdae", temperature=0.1), "temperature=0.1 has no effect with method='tsdae'"),
        ("bert", dict(method="tsdae", negative_column="n"), "negative_column='n' has no effect with method='tsdae'"),
        ("bert", dict(**TSDAE, tied="all", decoder_layers=2), "no effect with tied='all'"),
        ("bert", dict(**TSDAE, decoder_layers=0), "decoder_layers must be at least 1"),
        ("bert", dict(method="tsdae", pad_token_id=0), "start_token_id, end_token_id of the texts are not set"),
        ("bert", dict(**{**TSDAE, "end_token_id": 60}), "end_token_id=60.*vocabulary of 60"),
        ("bert", dict(method="word2vec"), "method"),
        ("electra", TSDAE, "tied='embeddings' needs token embeddings of shape"),
        ("modernbert", dict(**TSDAE, tied="all"), "tied='all' needs a decoder like the encoder"),
    ],
)
def test_bad_settings(name, settings, words):
    with pytest.raises(ValueError, match=words):
        model_of(name, **settings)


class Tokens:
    """As much of a tokenizer as is asked for its special tokens."""

    bos_token_id = cls_token_id = eos_token_id = sep_token_id = pad_token_id = None

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [7]}


def test_a_tokenizer_without_an_end_is_refused_and_another_gives_its_tokens():
    with pytest.raises(ValueError, match="has no token that ends a text"):
        SentenceForPreTraining.complete(SentenceTask(method="tsdae"), {"text": Tokens()})
    ended = Tokens()
    ended.eos_token_id = 3
    task = SentenceForPreTraining.complete(SentenceTask(method="tsdae"), {"text": ended})
    assert (task.start_token_id, task.end_token_id, task.pad_token_id) == (3, 3, 3)
    assert SentenceForPreTraining.complete(SentenceTask(), {"text": Tokens()}) == SentenceTask()


@pytest.mark.skipif(not find_spec("sentence_transformers"), reason="needs sentence-transformers")
def test_sentence_transformers_gives_the_features_where_hf_pretext_is_not_installed(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", "good"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=around)
    special = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    batch = tokenizer(["the film is good", "good"], padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ours = {}
    settings = {"mean": {}, "cls": {"pooling": "cls"}, "tsdae": TSDAE}
    for name, given in settings.items():
        pooling = given.get("pooling", "mean")
        model, folder = model_of(**given).eval(), tmp_path / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_modules(folder, 24, 12, pooling)
        ours[name] = model(**inputs).features
        hidden = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        torch.testing.assert_close(pool(hidden, batch["attention_mask"], pooling), ours[name])
    code = (
        "import json, sys; sys.modules['hf_pretext'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"for name in {list(settings)}:\n"
        "    model = SentenceTransformer(name, device='cpu')\n"
        "    print(json.dumps(model.encode(['the film is good', 'good']).tolist()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = [torch.tensor(json.loads(line)) for line in done.stdout.strip().splitlines()[-3:]]
    torch.testing.assert_close(theirs, [*ours.values()], atol=1e-5, rtol=1e-4)
    assert (theirs[0] - theirs[1]).abs().max() > 0.1


def test_the_matrix_of_a_decoder_that_shares_nothing_is_stored_once(tmp_path):
    model = model_of(**TSDAE, tied="none")
    model.save_pretrained(tmp_path)
    table = model.decoder.get_input_embeddings().weight
    with safe_open(tmp_path / "pretext.safetensors", "pt") as opened:
        shapes = [tuple(opened.get_slice(key).get_shape()) for key in opened.keys()]  # noqa: SIM118
    assert shapes.count(tuple(table.shape)) == 1
    decoder = hf_pretext.load(tmp_path).decoder
    assert torch.equal(decoder.get_input_embeddings().weight, table)
    assert torch.equal(decoder.get_output_embeddings().weight, table)


def test_a_decoder_next_to_an_encoder_of_long_texts_is_small():
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=131_072,
    )  # fmt: skip
    model = SentenceForPreTraining.from_encoder(config, **TSDAE)
    assert model.decoder.config.max_position_embeddings == 513
