"""Replaced token detection: losses of transformers' own classes, labels, shared embeddings, packing, checkpoints."""

import json
import subprocess
import sys

import pytest
import test_masked_lm
import torch
import transformers
from contract import check_contract
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_masked_lm import FIRST, IGNORED, LAST, MASK, PAD, SETTINGS, SHAPE, VOCABULARY, texts
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining, ElectraForPreTraining

import hf_pretext
from hf_pretext import ReplacedTokenForPreTraining
from hf_pretext.modules.electra import AutoDiscriminator
from hf_pretext.objectives.replaced_token import ReplacedTokenTask

CONFIGS = {
    **test_masked_lm.CONFIGS,
    "narrow electra": lambda: transformers.ElectraConfig(**SHAPE, embedding_size=16, pad_token_id=PAD),
}
SURE = 1e-6  # a temperature at which the most probable token is sampled
WORD = 9  # the token that texts_of_one_word repeat


def model_of(name: str = "narrow electra", dropout: bool = False, attention: str = "sdpa", **settings):
    torch.manual_seed(0)
    native = AutoDiscriminator.from_config(CONFIGS[name](), attn_implementation=attention)
    model = ReplacedTokenForPreTraining.from_encoder(native, **{**SETTINGS, **settings})
    for module in model.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
    return model


def masked(lengths=(12, 7), pad=PAD) -> dict[str, torch.Tensor]:
    return test_masked_lm.masked(lengths, pad)


def texts_of_one_word() -> dict[str, torch.Tensor]:
    batch = texts((12, 7))
    words = (batch["attention_mask"] == 1) & (batch["input_ids"] != FIRST) & (batch["input_ids"] != LAST)
    return {**batch, "input_ids": batch["input_ids"].masked_fill(words, WORD)}


def always_guessing(model: ReplacedTokenForPreTraining, token: int) -> ReplacedTokenForPreTraining:
    with torch.no_grad():
        model.token_generator.get_output_embeddings().bias[token] = 1e4
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_contract(name, tmp_path):
    full_model = model_of(name).full_model
    check_contract(ReplacedTokenForPreTraining, full_model, texts(pad=full_model.config.pad_token_id), tmp_path,
                   **SETTINGS)  # fmt: skip
    folder = json.loads((tmp_path / "config.json").read_text())
    assert folder["architectures"] == [
        "ElectraForPreTraining" if "electra" in name else type(AutoModel.from_config(CONFIGS[name]())).__name__
    ]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_losses_are_those_of_transformers_own_classes(name, attention):
    """The generator's is that of its `...ForMaskedLM`; for ELECTRA, the encoder's is that of `ElectraForPreTraining`.
    Else it is the formula of the paper."""
    model = model_of(name, attention=attention, discriminator_weight=3.0).eval()
    batch = masked(pad=model.encoder.config.pad_token_id)
    output = model(**batch)
    config = model.token_generator.config
    if "electra" in name:
        assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (6, 1, 8)
    else:
        assert (config.num_hidden_layers, config.hidden_size) == (1, 24)
    generator = AutoModelForMaskedLM.from_config(config, attn_implementation=attention).eval()
    generator.load_state_dict(model.token_generator.state_dict())
    expected = generator(**batch)
    torch.testing.assert_close(output.losses["generator"], expected.loss, atol=1e-5, rtol=0)
    hidden = batch["labels"] != IGNORED
    right = (expected.logits.argmax(-1) == batch["labels"])[hidden].float().mean()
    torch.testing.assert_close(output.logs["generator_accuracy"], right)
    filled = batch["input_ids"].clone()
    filled[hidden] = model.sample(
        model.guess(hidden.nonzero(as_tuple=True), **without_labels(batch)), model.generator()
    )
    original = torch.where(hidden, batch["labels"], batch["input_ids"])
    labels, real = (filled != original).long(), batch["attention_mask"] == 1
    assert labels[hidden].any() and torch.equal(output.labels, labels.masked_fill(~real, IGNORED))
    if "electra" in name:
        own = ElectraForPreTraining(model.full_model.config).eval()
        own.load_state_dict(model.full_model.state_dict())
        theirs = own(filled, attention_mask=batch["attention_mask"], labels=labels)
        torch.testing.assert_close(output.logits, theirs.logits, atol=1e-5, rtol=0)
        loss = theirs.loss
    else:
        chance = model.pretext_head(model.encoder(filled, batch["attention_mask"]).last_hidden_state)[..., 0].sigmoid()
        loss = -torch.where(labels == 1, chance, 1 - chance)[real].log().mean()
    torch.testing.assert_close(output.losses["discriminator"], 3 * loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.loss, expected.loss + 3 * loss, atol=2e-5, rtol=0)


def without_labels(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


@pytest.mark.parametrize("training", [True, False])
def test_a_guess_that_is_right_is_labelled_original(training):
    batch = texts_of_one_word()
    output = always_guessing(model_of(), WORD).train(training)(**batch)
    assert output.logs["generator_accuracy"] == 1 and output.logs["replaced"] == 0
    assert torch.equal(output.labels, torch.where(batch["attention_mask"] == 1, 0, IGNORED))


@pytest.mark.parametrize("training", [True, False])
def test_a_guess_that_is_wrong_is_labelled_replaced(training):
    batch = texts_of_one_word()
    output = always_guessing(model_of(mask_ratio=0.5), WORD + 1).train(training)(**batch)
    assert (output.labels == 1).sum(1).tolist() == [5, 3]  # half of 10 and of 5 words, rounded
    assert (batch["input_ids"][output.labels == 1] == WORD).all()
    assert output.logs["generator_accuracy"] == 0
    assert output.logs["replaced"].item() == pytest.approx(8 / 19)


def test_the_encoder_gets_the_samples_and_no_mask_token():
    model, seen = always_guessing(model_of(mask_ratio=0.5), WORD + 1).eval(), []
    model.encoder.register_forward_pre_hook(lambda m, a, given: seen.append(given["input_ids"]), with_kwargs=True)
    batch = texts_of_one_word()
    output = model(**batch)
    expected = batch["input_ids"].masked_fill(output.labels == 1, WORD + 1)
    assert len(seen) == 1 and torch.equal(seen[0], expected)


def test_the_question_is_that_of_the_loss():
    model, batch = model_of().eval(), texts((12, 7))
    output, question = model(**batch), model.ask(**batch)
    asked = question.labels != IGNORED
    logits = model.answer(asked=asked, **question.inputs)
    assert torch.equal(question.labels, output.labels) and question.classes == logits.shape[1] == 2
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], output.logits[asked])
    assert not torch.equal(question.inputs["input_ids"], batch["input_ids"])


def test_special_tokens_are_neither_masked_nor_sampled():
    """RoBERTa counts positions from the tokens that are no padding, so a sampled one would shift all others."""
    for special in SETTINGS["special_token_ids"] + [MASK]:
        model, seen = always_guessing(model_of("roberta", mask_ratio=0.9), special).eval(), []
        model.encoder.register_forward_pre_hook(lambda m, a, given, s=seen: s.append(given["input_ids"]),
                                                with_kwargs=True)  # fmt: skip
        batch = texts((40, 30))
        model(**batch)
        was = torch.isin(batch["input_ids"], torch.tensor([*SETTINGS["special_token_ids"], MASK]))
        now = torch.isin(seen[0], torch.tensor([*SETTINGS["special_token_ids"], MASK]))
        assert torch.equal(was, now)


def test_metrics_of_detected_tokens():
    model = model_of(mask_ratio=0.5).eval()
    output = model(**texts((40, 30)))
    real = output.labels != IGNORED
    labels, detected = output.labels[real] == 1, output.logits[real] > 0
    right = (labels & detected).sum()
    assert 0 < right < labels.sum() and 0 < detected.sum() < real.sum()
    recalls = right / labels.sum(), (~labels & ~detected).sum() / (~labels).sum()
    expected = {"recall": recalls[0], "precision": right / detected.sum(), "accuracy": sum(recalls) / 2,
                "replaced": labels.float().mean()}  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(output.logs[name], value)


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_are_one_parameter_and_stored_once(name, tmp_path):
    model = model_of(name)
    words = model.encoder.get_input_embeddings().weight
    assert model.token_generator.get_input_embeddings().weight is words
    assert model.token_generator.get_output_embeddings().weight is words
    assert sum(parameter is words for _, parameter in model.named_parameters()) == 1
    gradients = []
    for term in ("generator", "discriminator", None):
        model.zero_grad()
        output = model.eval()(**masked(pad=model.encoder.config.pad_token_id))
        (output.losses[term] if term else output.loss).backward()
        gradients.append(words.grad.clone())
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients[:2])
    torch.testing.assert_close(gradients[0] + gradients[1], gradients[2], atol=1e-5, rtol=1e-4)
    model.save_pretrained(tmp_path)
    shapes = {}
    for file in ("model.safetensors", "pretext.safetensors"):
        with safe_open(tmp_path / file, "pt") as opened:
            shapes[file] = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    table = tuple(words.shape)
    assert list(shapes["model.safetensors"].values()).count(table) == 1
    assert table not in shapes["pretext.safetensors"].values()
    of_generator = [key for key in shapes["pretext.safetensors"] if ".embeddings." in key]
    others = {"bert": 4, "roberta": 4, "distilbert": 3, "modernbert": 1}  # of positions, of types, of the norm
    assert len(of_generator) == others.get(name, 0)
    assert any(key.startswith("pretext_head.") for key in shapes["pretext.safetensors"]) == ("electra" not in name)
    loaded = hf_pretext.load(tmp_path)
    table = loaded.encoder.get_input_embeddings().weight
    assert loaded.token_generator.get_input_embeddings().weight is table
    assert loaded.token_generator.get_output_embeddings().weight is table


def test_embeddings_stay_shared_in_another_dtype():
    model = model_of().to(torch.bfloat16)
    words = model.encoder.get_input_embeddings().weight
    assert words.dtype == torch.bfloat16 and model.token_generator.get_output_embeddings().weight is words
    assert torch.isfinite(model(**texts()).loss)


def test_the_generator_gets_no_gradient_through_the_sample():
    """Its weights have the same gradient for any weight of the encoder's loss."""
    gradients = []
    for weight in (1.0, 50.0):
        model = model_of(discriminator_weight=weight).eval()
        model(**masked()).loss.backward()
        shared = {id(parameter) for parameter in model.encoder.parameters()}
        own = [p.grad for p in model.token_generator.parameters() if id(p) not in shared]
        assert len(own) > 30 and all(gradient is not None for gradient in own)
        gradients.append(torch.cat([gradient.flatten() for gradient in own]))
    torch.testing.assert_close(*gradients, atol=0, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other(name, attention):
    lengths, pad = (22, 9, 14), CONFIGS[name]().pad_token_id
    apart = masked(lengths, pad)
    there = apart["attention_mask"] == 1
    packed = {key: torch.cat([apart[key][there], torch.full((3,), fill)])[None]
              for key, fill in (("input_ids", pad), ("labels", IGNORED))}  # fmt: skip
    documents = torch.repeat_interleave(torch.tensor([1, 2, 3, 0]), torch.tensor([*lengths, 3]))[None]
    model = model_of(name, attention=attention, temperature=SURE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim == 2 else 1)  # else fresh weights hardly look at other tokens
    one, other = model(**apart), model(**packed, document_ids=documents)
    for term in ("generator", "discriminator"):
        torch.testing.assert_close(other.losses[term], one.losses[term], atol=1e-4, rtol=0)
    assert torch.equal(other.labels[0, :45], one.labels[there]) and (other.labels[0, 45:] == IGNORED).all()
    torch.testing.assert_close(other.logits[0, :45], one.logits[there], atol=1e-5, rtol=0)
    for i, term in enumerate(("generator", "discriminator")):  # the comparison detects leaks of each of the two
        inputs = model.packings[i].inputs
        model.packings[i].inputs = lambda ids, mask, given=inputs: {**given(ids), "attention_mask": ids.clamp(max=1)}
        leaking = model(**packed, document_ids=documents).losses[term]
        assert (leaking - one.losses[term]).abs() > 2e-4
        model.packings[i].inputs = inputs


@pytest.mark.parametrize("name", CONFIGS)
def test_who_packs_is_found_out(name):
    model = model_of(name).train()
    assert model.packs(length=60) and model.training
    model.packings[0].works = lambda length: False
    assert not model.packs(length=60)


@pytest.mark.parametrize("name", ["narrow electra", "bert"])
def test_gradient_checkpointing_changes_no_gradient(name):
    gradients, batch = [], masked()
    for checkpointing in (False, True):
        model = model_of(name, temperature=SURE).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            for each in (model.encoder, model.token_generator):
                assert any(getattr(module, "gradient_checkpointing", False) for module in each.modules())
        model(**batch).loss.backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["narrow electra", "modernbert"])
def test_autocast_to_bfloat16(name):
    """For given labels and samples, losses differ by rounding; they stay in float32."""
    model, batch = always_guessing(model_of(name).train(), WORD), masked()
    exact = model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        lower = model(**batch)
    assert lower.loss.dtype == torch.float32 and torch.equal(lower.labels, exact.labels)
    torch.testing.assert_close(lower.losses["discriminator"], exact.losses["discriminator"], rtol=1e-2, atol=0)
    assert lower.losses["discriminator"] != exact.losses["discriminator"]
    lower.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", CONFIGS)
def test_saving_loading_and_saving_gives_equal_files(name, tmp_path):
    model_of(name, generator_size=0.5).save_pretrained(tmp_path / "one")
    hf_pretext.load(tmp_path / "one").save_pretrained(tmp_path / "two")
    for file in ("model.safetensors", "pretext.safetensors"):
        one, two = (load_file(tmp_path / folder / file) for folder in ("one", "two"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    one, two = (json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("one", "two"))
    key, value = ("hidden_size", 12) if "electra" in name else ("num_hidden_layers", 2 if name == "modernbert" else 1)
    assert one == two and one["pretext"]["parts"]["generator"][key] == value


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_a_checkpoint_that_lacks_a_weight_of_the_generator_is_refused(change, tmp_path):
    model_of().save_pretrained(tmp_path)
    file = tmp_path / "pretext.safetensors"
    weights = load_file(file)
    if change == "missing":
        del weights["token_generator.generator_lm_head.bias"]
    else:
        weights["token_generator.generator_lm_head.weight"] = torch.zeros(VOCABULARY, 16)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"{'lacks 1 weights' if change == 'missing' else 'has 1 weights'}.*lm_head"):
        hf_pretext.load(tmp_path)


@pytest.mark.parametrize("name", ["narrow electra", "bert"])
def test_plain_transformers_loads_it_where_hf_pretext_is_not_installed(name, tmp_path):
    model, batch = model_of(name).eval(), texts()
    model.save_pretrained(tmp_path)
    hidden = model.encoder(**batch).last_hidden_state
    save_file({**batch, "hidden": hidden, "logits": model.discriminate(**batch)[1]}, tmp_path / "seen.safetensors")
    code = f"""
import sys
sys.modules["hf_pretext"] = None
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining
seen = load_file({str(tmp_path / "seen.safetensors")!r})
batch = {{name: seen[name] for name in ("input_ids", "attention_mask")}}
encoder = AutoModel.from_pretrained({str(tmp_path)!r}).eval()
torch.testing.assert_close(encoder(**batch).last_hidden_state, seen["hidden"])
if {"electra" in name}:
    model, info = AutoModelForPreTraining.from_pretrained({str(tmp_path)!r}, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    torch.testing.assert_close(model.eval()(**batch).logits, seen["logits"])
print(type(encoder).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == type(model.encoder).__name__


def test_encoders_keep_their_weights():
    torch.manual_seed(0)
    for name in CONFIGS:
        encoder = AutoModel.from_config(CONFIGS[name]())
        model = ReplacedTokenForPreTraining.from_encoder(encoder, **SETTINGS)
        state = model.encoder.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
    discriminator = AutoModelForPreTraining.from_config(CONFIGS["electra"]())
    assert ReplacedTokenForPreTraining.from_encoder(discriminator, **SETTINGS).full_model is discriminator


@pytest.mark.parametrize("size", [0.1, 0.25, 0.5, 1.0])
def test_sizes_of_the_generator(size):
    shape = dict(hidden_size=96, num_hidden_layers=6, num_attention_heads=6, intermediate_size=200)
    config = transformers.ElectraConfig(vocab_size=VOCABULARY, embedding_size=96, **shape)
    model = ReplacedTokenForPreTraining.from_encoder(config, generator_size=size)
    sizes, made = model.parts["generator"], model.token_generator.config
    assert sizes["num_attention_heads"] == made.num_attention_heads == max(round(6 * size), 1)
    assert sizes["hidden_size"] % sizes["num_attention_heads"] == 0
    assert sizes["hidden_size"] == made.hidden_size == pytest.approx(96 * size, abs=1)
    assert sizes["intermediate_size"] == made.intermediate_size == 200 * size and made.num_hidden_layers == 6
    model = ReplacedTokenForPreTraining.from_encoder(
        transformers.BertConfig(vocab_size=VOCABULARY, **shape), generator_size=size
    )
    assert model.parts["generator"] == {"num_hidden_layers": max(round(6 * size), 1)}
    made = model.token_generator
    assert len(made.bert.encoder.layer) == max(round(6 * size), 1) and made.config.hidden_size == 96


def test_a_generator_of_other_sizes():
    parts = dict(model_of().parts["generator"], num_hidden_layers=1, hidden_size=8)
    model = ReplacedTokenForPreTraining.from_encoder(CONFIGS["narrow electra"](), {"generator": parts}, **SETTINGS)
    assert model.token_generator.config.hidden_size == 8 and len(model.token_generator.electra.encoder.layer) == 1
    assert model(**texts()).loss.isfinite()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            dict(generator_size=1.5),
            r"generator_size must be above 0 and at most 1, but is 1.5: a generator larger than",
        ),
        (dict(generator_size=0.0), "generator_size must be above 0 and at most 1, but is 0.0"),
        (dict(mask_ratio=1.0), "mask_ratio must lie between 0 and 1"),
        (dict(temperature=0.0), "temperature must be above 0, but is 0.0"),
        (dict(discriminator_weight=-1.0), "discriminator_weight must be above 0, but is -1.0"),
        (dict(unit="sentence"), "unit"),
        (dict(mask_token_id=VOCABULARY), "mask_token_id: the token 60 is not in the encoder's vocabulary of 60 tokens"),
        (dict(special_token_ids=[0, 70]), "special_token_ids: the token 70 is not in the encoder's vocabulary"),
        (
            dict(parts={"generator": {"vocab_size": 50}}),
            "generator of ElectraModel can't have another vocab_size",
        ),
        (dict(parts={"generator": {"hidden_size": 48}}), r"hidden_size is 48, .*\(ElectraModel\) is 24.*not be larger"),
        (dict(parts={"generator": {"num_hidden_layers": 3}}), "num_hidden_layers is 3, .* is 2"),
    ],
)
def test_bad_settings(settings, words):
    changed = settings.get("parts", {}).get("generator", {})
    parts = {"generator": {**model_of().parts["generator"], **changed}}
    settings = {name: value for name, value in settings.items() if name != "parts"}
    with pytest.raises(ValueError, match=words):
        ReplacedTokenForPreTraining.from_encoder(CONFIGS["narrow electra"](), parts, **{**SETTINGS, **settings})


def test_encoders_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="text encoder must accept text inputs, but ViTModel"):
        ReplacedTokenForPreTraining.from_encoder(
            transformers.ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
        )
    with pytest.raises(ValueError, match="must be a transformers model"):
        ReplacedTokenForPreTraining.from_encoder(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="model without a head.* BertForMaskedLM"):
        ReplacedTokenForPreTraining.from_encoder(test_masked_lm.native("bert"))
    canine = transformers.CanineConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, num_hash_functions=2
    )
    with pytest.raises(ValueError, match="CanineModel has no table of token embeddings"):
        ReplacedTokenForPreTraining.from_encoder(canine)
    llama = transformers.LlamaConfig(**SHAPE)
    with pytest.raises(ValueError, match=r"no llama model for replaced token detection \(AutoModelForMaskedLM\)"):
        ReplacedTokenForPreTraining.from_encoder(llama)
    with pytest.raises(ValueError, match="generator of BertModel can't have another hidden_size"):
        ReplacedTokenForPreTraining.from_encoder(CONFIGS["bert"](), {"generator": {"hidden_size": 12}})


def test_a_tokenizer_without_a_mask_token_is_refused():
    class Tokenizer:
        mask_token_id, all_special_ids = None, [0]

    with pytest.raises(ValueError, match="The tokenizer .* has no mask token"):
        ReplacedTokenForPreTraining.complete(ReplacedTokenTask(), {"text": Tokenizer()})
    Tokenizer.mask_token_id, Tokenizer.all_special_ids = MASK, [PAD, MASK]
    task = ReplacedTokenForPreTraining.complete(ReplacedTokenTask(), {"text": Tokenizer()})
    assert task.mask_token_id == MASK and task.special_token_ids == [PAD, MASK]


def test_what_the_batch_lacks_is_said():
    with pytest.raises(ValueError, match="unit='word' needs word_starts in the batch, but got None"):
        model_of(unit="word")(**texts())
    with pytest.raises(ValueError, match="mask_token_id is not set"):
        ReplacedTokenForPreTraining.from_encoder(CONFIGS["electra"]())(**texts())


def test_words_are_replaced_together():
    model = always_guessing(model_of(unit="word", mask_ratio=0.3), WORD + 1).eval()
    batch = texts_of_one_word()
    starts = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    starts[:, [0, 1, 4, 7, 10]] = True  # words of three tokens
    replaced = model(**batch, word_starts=starts).labels == 1
    assert replaced[0, 1:10].view(3, 3).all(1).sum() == 1 and replaced[0].sum() == 3


def test_a_batch_without_words_has_no_loss_of_the_generator():
    batch = {"input_ids": torch.tensor([[FIRST, LAST]]), "num_bytes": torch.tensor([0])}
    output = model_of()(**batch)
    assert output.losses["generator"] == 0 and output.losses["discriminator"] > 0
    output.loss.backward()
    assert all(value.isfinite() for value in output.logs.values())


@pytest.mark.slow
def test_it_learns():
    """Texts that count upwards: a replaced token breaks the order, so that it can be detected."""
    torch.manual_seed(0)
    model = model_of("narrow electra", temperature=2.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    accuracies = []
    for _ in range(150):
        output = model(input_ids=torch.randint(5, 40, (16, 1)) + torch.arange(16))
        optimizer.zero_grad()
        output.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        accuracies.append(output.logs["accuracy"].item())
    assert sum(accuracies[:30]) / 30 < 0.55 and sum(accuracies[-30:]) / 30 > 0.6  # chance is 0.5
    assert output.logs["replaced"] < 0.15


def test_a_generator_of_an_architecture_with_a_value_for_each_layer():
    config = transformers.LongformerConfig(**SHAPE, attention_window=[4, 4], pad_token_id=1)
    model = ReplacedTokenForPreTraining.from_encoder(config, mask_token_id=MASK, special_token_ids=[1, FIRST, LAST])
    assert model.token_generator.config.attention_window == [4] and model(**texts(pad=1)).loss.isfinite()
