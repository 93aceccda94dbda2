"""Captioning: transformers' own loss, directions, parallel prediction, tokens of three tokenizers, and generation."""

import io
import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import transformers
from caption_models import (
    CAPTIONS,
    DECODERS,
    IDS,
    batch_of,
    captioned,
    labels_of,
    model_of,
    reversed_captions,
    tokenizer_like,
)
from conftest import CONFIGS, IMAGE, TEXT
from contract import check_contract
from PIL import Image as Pixels
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, VisionEncoderDecoderModel

import hf_pretext
from hf_pretext import CaptioningForPreTraining, load
from hf_pretext.data.decoding import BadSample
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.modules.captioner import captioner
from hf_pretext.modules.dual_encoder import blank
from hf_pretext.objectives.captioning import CaptioningTask

# losses


@pytest.mark.parametrize("decoder", DECODERS)
def test_equals_transformers_own_loss(decoder):
    """Compares loss and all gradients; padding, which the head skips, changes neither."""
    model, batch = model_of(decoder).eval(), batch_of()
    found = []
    for call in (
        lambda: model(**batch).loss,
        lambda: model.full_model(pixel_values=batch["pixel_values"], labels=labels_of(batch["input_ids"])).loss,
    ):
        model.zero_grad()
        loss = call()
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > 40
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_head_sees_predicted_tokens_only():
    model, batch, seen = model_of().train(), batch_of(), []
    head = model.full_model.decoder.get_output_embeddings()
    head.register_forward_hook(lambda module, arguments, logits: seen.append(logits.shape))
    output = model(**batch)
    tokens = int((labels_of(batch["input_ids"]) >= 0).sum())
    assert seen == [(tokens, 50)] and output.logits.shape == (tokens, 50) and tokens < batch["input_ids"].numel() - 8
    assert torch.equal(output.labels, labels_of(batch["input_ids"])[labels_of(batch["input_ids"]) >= 0])


@pytest.mark.parametrize("decoder", DECODERS)
def test_backward_equals_forward_on_reversed_captions(decoder):
    """As long as the learned vector of the direction is 0, which it is at first."""
    model, batch = model_of(decoder, backward=True).eval(), batch_of()
    turned = {**batch, "input_ids": reversed_captions(batch["input_ids"])}
    ours, theirs = model(**batch), model(**turned)
    torch.testing.assert_close(ours.losses["backward"], theirs.losses["forward"], atol=1e-6, rtol=0)
    assert abs(ours.losses["backward"] - ours.losses["forward"]) > 1e-5
    torch.testing.assert_close(ours.loss, ours.losses["forward"] + ours.losses["backward"])
    model.train()(**batch).loss.backward()
    assert model.pretext_head["direction"].grad.abs().sum() > 0
    with torch.no_grad():
        model.pretext_head["direction"].normal_()
    moved = model.eval()(**batch)
    assert torch.equal(moved.losses["forward"], ours.losses["forward"])
    assert (moved.losses["backward"] - ours.losses["backward"]).abs() > 1e-5


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_parallel_pass_sees_no_token_of_the_caption(decoder):
    """The gradient of its logits is 0 at the embedding of each token of the captions, but not at the mask token's."""
    model, batch = model_of(decoder, parallel_share=1.0, mask_token_id=4).train(), batch_of()
    table = model.full_model.decoder.get_input_embeddings()
    of_inputs = []
    table.register_forward_hook(lambda module, arguments, out: of_inputs.append(arguments[0]))
    head = model.full_model.decoder.get_output_embeddings()
    if head.weight is table.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())  # gradients of inputs alone
    model.eval().training = True  # without dropout
    model(**batch).loss.backward()
    (ids,) = of_inputs
    assert (ids == 4).all()
    seen = table.weight.grad.abs().sum(1)
    assert seen[4] > 0 and seen[[i for i in range(50) if i != 4]].sum() == 0


def test_attention_of_the_parallel_pass_is_not_causal_and_hides_the_length():
    model = model_of(parallel_share=1.0, mask_token_id=4).eval()
    model.training = True  # draws, without dropout
    batch = batch_of(2)
    batch["input_ids"][1] = batch["input_ids"][0]
    batch["pixel_values"][1] = batch["pixel_values"][0]
    batch["input_ids"][1, 2:] = torch.tensor([2, 0, 0, 0, 0, 0])  # one word
    batch["attention_mask"] = (batch["input_ids"] > 0).long()
    logits = model(**batch).logits
    torch.testing.assert_close(logits[-2:], logits[:2])  # of the caption with one word and its end
    longer = {**batch, "input_ids": F.pad(batch["input_ids"], (0, 1))}
    longer["input_ids"][0] = torch.tensor([1, 5, 6, 7, 8, 9, 10, 11, 2])
    longer["attention_mask"] = (longer["input_ids"] > 0).long()
    assert (model(**longer).logits[0] - logits[0]).abs().max() > 1e-5  # the first token sees one more after it


def test_captions_in_parallel_and_others_of_one_batch():
    """The others have the loss of a batch without parallel captions."""
    model, batch = model_of(parallel_share=0.5, mask_token_id=4).eval(), batch_of(8)
    plain = model(**batch)
    assert plain.logs.keys() == {"accuracy"}
    model.training = True
    torch.manual_seed(3)
    output = model(**batch)
    torch.manual_seed(3)
    parallel = torch.rand(8) < 0.5
    assert 0 < parallel.sum() < 8 and output.logs.keys() == {"accuracy", "parallel_accuracy"}
    rows = labels_of(batch["input_ids"]).ge(0).nonzero()[:, 0]
    others = ~parallel[rows]
    torch.testing.assert_close(output.logits[others], plain.logits[others], atol=1e-5, rtol=1e-5)
    assert (output.logits[~others] - plain.logits[~others]).abs().max() > 1e-3


def test_without_captions_from_left_to_right_their_accuracy_is_not_logged():
    model = model_of(parallel_share=1.0, mask_token_id=4).train()
    assert model(**batch_of()).logs.keys() == {"parallel_accuracy"}


def test_a_prefix_is_seen_but_not_predicted():
    model, batch = model_of(prefix=3).eval(), batch_of()
    labels = labels_of(batch["input_ids"])
    plain = model(**batch)
    assert len(plain.labels) == (labels >= 0).sum()
    model.training, counts = True, set()
    for _ in range(12):
        output = model(**batch)
        scores = iter(plain.logits)  # in the same order: what is predicted sees the prefix
        assert all(any(torch.allclose(ours, score, atol=1e-5) for score in scores) for ours in output.logits)
        kept = (labels >= 0).sum() - len(output.labels)
        counts.add(int(kept))
        assert 0 <= kept <= 3 * len(labels)
        assert output.labels[-1] == 2  # the end is always predicted
    assert len(counts) > 3
    only_ends = model_of(prefix=200).eval()
    only_ends.training = True
    torch.manual_seed(0)
    assert len(only_ends(**batch).labels) < 10


def test_label_smoothing_is_pytorchs_and_only_of_training():
    model, batch = model_of(label_smoothing=0.2).eval(), batch_of()
    exact = model(**batch)
    torch.testing.assert_close(exact.loss, cross_entropy(exact.logits, exact.labels))
    model.training = True
    output = model(**batch)
    wanted = cross_entropy(output.logits, output.labels, label_smoothing=0.2)
    torch.testing.assert_close(output.loss, wanted, atol=1e-6, rtol=0)
    grads = [torch.autograd.grad(loss, output.logits, retain_graph=True)[0] for loss in (output.loss, wanted)]
    torch.testing.assert_close(*grads, atol=1e-7, rtol=0)


def test_the_likelihood_of_a_caption_is_the_sum_over_its_tokens():
    model, batch = model_of("bert").eval(), batch_of()
    labels = labels_of(batch["input_ids"])
    logits = model.full_model(pixel_values=batch["pixel_values"], labels=labels).logits
    wanted = [-cross_entropy(*row, reduction="sum") for row in zip(logits, labels, strict=True)]
    found = model.log_likelihood(**{k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values")})
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-4, rtol=1e-5)
    condensed = model.condense("image", pixel_values=batch["pixel_values"])
    texts = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(model.log_likelihood(**texts, **condensed), found)
    plain = model.full_model.generate(pixel_values=batch["pixel_values"], max_new_tokens=5)
    assert torch.equal(model.describe(5, **condensed), plain)
    count = (labels >= 0).sum()
    torch.testing.assert_close(-found.sum() / count, model(**batch).loss)


# tokens of tokenizers


@pytest.mark.parametrize("name", ["bert", "gpt2", "ours"])
def test_start_end_and_padding_of_a_tokenizer(name):
    tokenizer = tokenizer_like(name)
    task = CaptioningForPreTraining.complete(CaptioningTask(), {"text": tokenizer})
    ends = {"bert": ("[CLS]", "[SEP]", "[PAD]"), "gpt2": ("<|endoftext|>",) * 3, "ours": ("[CLS]", "[SEP]", "[PAD]")}
    start, end, pad = tokenizer.convert_tokens_to_ids(ends[name])
    assert (task.start_token_id, task.end_token_id, task.pad_token_id) == (start, end, pad)
    ids = {f"{k}_token_id": getattr(task, f"{k}_token_id") for k in ("start", "end", "pad")}
    model, batch = model_of(words=len(tokenizer), **ids).eval(), captioned(tokenizer)
    inputs, labels = model.shifted(batch["input_ids"], batch["attention_mask"])
    turned, backward = model.shifted(batch["input_ids"], batch["attention_mask"], backward=True)
    for row, text in enumerate(CAPTIONS):
        words = tokenizer(text, add_special_tokens=False)["input_ids"]
        rest = inputs.shape[1] - len(words) - 1
        assert inputs[row].tolist() == [start, *words, *[pad] * rest]
        assert labels[row].tolist() == [*words, end, *[-100] * rest]
        assert turned[row].tolist() == [start, *words[::-1], *[pad] * rest]
        assert backward[row].tolist() == [*words[::-1], end, *[-100] * rest]
    config, generation = model.full_model.config, model.full_model.generation_config
    for each in (config, generation):
        assert (each.decoder_start_token_id, each.eos_token_id, each.pad_token_id) == (start, end, pad)
    wanted = model.full_model(pixel_values=batch["pixel_values"], labels=labels).loss
    torch.testing.assert_close(model(**batch).loss, wanted, atol=1e-5, rtol=0)


def test_captions_without_an_attention_mask_end_at_their_first_end_token():
    """Also where rows are filled with the end token, as by CLIP's tokenizer."""
    batch = batch_of()
    exact = model_of()
    for pad in (0, 2):
        ids = batch["input_ids"].masked_fill(batch["input_ids"] == 0, pad)
        model = model_of(pad_token_id=pad)
        for first, second in zip(
            model.shifted(ids, None), exact.shifted(batch["input_ids"], batch["attention_mask"]), strict=True
        ):
            assert torch.equal(first.masked_fill(first == pad, 0), second.masked_fill(second == pad, 0))


def test_a_caption_without_words_is_its_end():
    batch = batch_of(2)
    batch["attention_mask"][1] = 0
    inputs, labels = model_of().shifted(batch["input_ids"], batch["attention_mask"])
    assert inputs[1].tolist() == [1, *[0] * 6] and labels[1].tolist() == [2, *[-100] * 6]


def test_a_tokenizer_without_mask_or_end_token():
    tokenizer = tokenizer_like("gpt2")
    with pytest.raises(ValueError, match="parallel_share=0.5 needs a mask token"):
        CaptioningForPreTraining.complete(CaptioningTask(parallel_share=0.5), {"text": tokenizer})
    done = CaptioningForPreTraining.complete(CaptioningTask(parallel_share=0.5, mask_token_id=3), {"text": tokenizer})
    assert done.mask_token_id == 3
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no token that ends a text"):
        CaptioningForPreTraining.complete(CaptioningTask(), {"text": tokenizer})


# checkpoints


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.filterwarnings("ignore:.*requires_grad")
def test_contract(decoder, backward, tmp_path):
    full = captioner(CONFIGS["vit"](), DECODERS[decoder]())
    settings = dict(**IDS, backward=backward, parallel_share=0.5, prefix=2, label_smoothing=0.1, mask_token_id=4)
    check_contract(CaptioningForPreTraining, full, batch_of(), tmp_path, **settings)


@pytest.mark.parametrize("name", ["dinov2", "clip_vision", "siglip_vision", "swin", "timm_vit_tiny"])
def test_other_image_encoders(name, tmp_path):
    full = captioner(CONFIGS[name](), DECODERS["bert"]())
    check_contract(CaptioningForPreTraining, full, batch_of(), tmp_path, **IDS)


WRITES = """
import sys
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

assert "hf_pretext" not in sys.modules
processor = AutoProcessor.from_pretrained(sys.argv[1])
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
greedy = model.generate(pixel_values=images, max_new_tokens=6)
beams = model.generate(pixel_values=images, max_new_tokens=6, num_beams=3)
torch.manual_seed(0)
sampled = [model.generate(pixel_values=images, max_new_tokens=6, do_sample=True).tolist() for _ in range(2)]
prompt = processor.tokenizer(["a small"] * 2, add_special_tokens=False, return_tensors="pt").input_ids
prompted = model.generate(pixel_values=images, decoder_input_ids=prompt, max_new_tokens=3)
assert not {"hf_pretext"} & set(sys.modules)
print([greedy.tolist(), beams.tolist(), sampled, prompted.tolist()])
"""


SLOWER = [pytest.param(name, "gpt2", marks=pytest.mark.slow) for name in ("gpt2", "ours")]


@pytest.mark.parametrize("name, decoder", [("bert", "bert"), *SLOWER])
def test_generation_from_the_folder_without_the_package(name, decoder, tmp_path):
    tokenizer = tokenizer_like(name)
    task = CaptioningForPreTraining.complete(CaptioningTask(), {"text": tokenizer})
    ids = {f"{k}_token_id": getattr(task, f"{k}_token_id") for k in ("start", "end", "pad")}
    model = model_of(decoder, words=len(tokenizer), backward=True, **ids)
    train_a_little(model, captioned(tokenizer))
    model.save_pretrained(tmp_path)
    inputs = Inputs(Image(default_processor(IMAGE)), Text(tokenizer, 12))
    inputs.combine(model.config).save_pretrained(tmp_path)
    command = [sys.executable, "-W", "error::UserWarning", "-c", WRITES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    greedy, beams, sampled, prompted = json.loads(done.stdout)
    start, end = ids["start_token_id"], ids["end_token_id"]
    for rows in (greedy, beams, *sampled):
        assert all(row[0] == start for row in rows)
    assert sampled[0] != sampled[1]
    words = tokenizer("a small", add_special_tokens=False)["input_ids"]
    assert all(row[: 1 + len(words)] == [start, *words] for row in prompted)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.eval()
    assert model.describe(6, pixel_values=images).tolist() == greedy
    assert model.describe(6, num_beams=3, pixel_values=images).tolist() == beams
    assert any(end in row[1:] for row in greedy)  # after a little training, captions end


def train_a_little(model, batch):
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        model.train()(**batch).loss.backward()
        optimizer.step()


@pytest.mark.slow
def test_it_learns_its_captions():
    """And writes them: forward, also while it learns backward and parallel prediction."""
    tokenizer = tokenizer_like("bert")
    task = CaptioningForPreTraining.complete(CaptioningTask(parallel_share=0.3), {"text": tokenizer})
    ids = {name: getattr(task, name) for name in vars(task) if name.endswith("_token_id")}
    model = model_of(words=len(tokenizer), backward=True, parallel_share=0.3, **ids)
    batch = captioned(tokenizer)
    for _ in range(5):
        train_a_little(model, batch)
    written = model.eval().describe(10, pixel_values=batch["pixel_values"])
    assert tokenizer.batch_decode(written, skip_special_tokens=True) == CAPTIONS


def test_the_random_state_of_a_text_model_does_not_matter_where_weights_are_given():
    plain = AutoModelForCausalLM.from_config(DECODERS["gpt2"]())
    assert not plain.config.add_cross_attention
    model = CaptioningForPreTraining.from_encoders(CONFIGS["vit"](), plain, **IDS)
    decoder = model.full_model.decoder
    assert decoder is not plain and decoder.config.add_cross_attention
    weights = decoder.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())
    headless = transformers.AutoModel.from_config(DECODERS["bert"]())
    joined = CaptioningForPreTraining.from_encoders(CONFIGS["vit"](), headless, **IDS).full_model.decoder
    weights = joined.base_model.state_dict()
    shared = [name for name in headless.state_dict() if "pooler" not in name]
    assert all(torch.equal(weights[name], headless.state_dict()[name]) for name in shared)
    again = CaptioningForPreTraining.from_encoders(CONFIGS["vit"](), joined, **IDS)
    assert again.full_model.decoder is joined  # it has cross-attention: trained in place


def test_full_model_is_kept_and_configs_make_new_ones():
    full = captioner(CONFIGS["vit"](), DECODERS["bert"]())
    full.config.decoder_start_token_id, full.config.eos_token_id, full.config.pad_token_id = 1, 2, 0
    model = CaptioningForPreTraining.from_encoder(full)
    assert model.full_model is full and model.tokens.end == 2
    fresh = CaptioningForPreTraining.from_encoder(full.config)
    assert type(fresh.full_model) is VisionEncoderDecoderModel and fresh.tokens == model.tokens
    assert fresh.encoders.keys() == {"image"} and fresh.readers.keys() == {"image", "text"}


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_frozen_side(name):
    model = model_of(frozen=name)
    model.train()(**batch_of()).loss.backward()
    encoder, decoder = model.full_model.encoder, model.full_model.decoder
    moved = {n for n, p in decoder.named_parameters() if p.grad is not None}
    if name == "image":
        assert not encoder.training and all(p.grad is None for p in encoder.parameters())
        assert len(moved) == len(list(decoder.parameters())) and decoder.training
    else:
        assert not decoder.training and encoder.training and moved and all("cross" in n for n in moved)
        assert any(p.grad is not None for p in encoder.parameters())


def test_a_head_with_weights_of_its_own_is_taken_from_the_text_model_and_trained_next_to_a_frozen_one():
    given = transformers.AutoModelForMaskedLM.from_config(DECODERS["bert"]())
    torch.nn.init.normal_(given.cls.predictions.transform.dense.weight, std=5.0)
    model = CaptioningForPreTraining.from_encoders(CONFIGS["vit"](), given, frozen="text", **IDS)
    head = model.full_model.decoder.cls.predictions
    assert torch.equal(head.transform.dense.weight, given.cls.predictions.transform.dense.weight)
    model.train()(**batch_of()).loss.backward()
    moved = {n for n, p in model.full_model.decoder.named_parameters() if p.grad is not None and "cross" not in n}
    assert "cls.predictions.transform.dense.weight" in moved and all("cls" in name for name in moved)
    assert head.decoder.weight.grad is None  # the embeddings


def test_gradient_checkpointing_changes_no_gradient():
    model, batch, found = model_of().eval(), batch_of(), []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()
            for module in model.modules():
                if isinstance(module, transformers.modeling_layers.GradientCheckpointingLayer):
                    module.training = True
        model.zero_grad()
        model(**batch).loss.backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-4)


# errors


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"parallel_share": 1.5}, "parallel_share must be from 0 to 1, but is 1.5"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, but is 1.0"),
        ({"prefix": -1}, "prefix must be at least 0, but is -1"),
        ({"prefix": 2, "parallel_share": 1.0, "mask_token_id": 4}, "prefix=2 has no effect with parallel_share=1"),
        ({"parallel_share": 0.5}, "parallel_share=0.5 needs mask_token_id, but it is not set"),
        ({"parallel_share": 0.5, "mask_token_id": 50}, "mask_token_id=50: the decoder has a vocabulary of 50 tokens"),
        ({"frozen": "audio"}, "frozen"),
        ({"start_token_id": None}, "start_token_id of the captions is not set"),
        ({"end_token_id": 50}, "end_token_id=50: the decoder has a vocabulary of 50 tokens"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        model_of(**settings)


@pytest.mark.parametrize(
    "text, message",
    [
        (lambda: transformers.LlamaConfig(**TEXT), r"LlamaForCausalLM \(llama\) has no cross-attention"),
        (lambda: transformers.T5Config(vocab_size=50), "transformers has no t5 model that writes text"),
        (lambda: AutoModelForCausalLM.from_config(transformers.LlamaConfig(**TEXT)), "has no cross-attention"),
    ],
)
def test_a_decoder_without_cross_attention(text, message):
    with pytest.raises(ValueError, match=message):
        CaptioningForPreTraining.from_encoders(CONFIGS["vit"](), text(), **IDS)


def test_a_decoder_that_ignores_images_in_silence():
    full = captioner(CONFIGS["vit"](), DECODERS["gpt2"]())
    for block in full.decoder.transformer.h:
        torch.nn.init.zeros_(block.crossattention.c_proj.weight)
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel \(gpt2\) has no cross-attention"):
        CaptioningForPreTraining.from_encoder(full, **IDS)


def test_image_encoders_that_give_maps():
    for name in ("resnet", "convnext", "timm_resnet18"):
        with pytest.raises(ValueError, match="gives a map of shape .* but a decoder reads a sequence"):
            CaptioningForPreTraining.from_encoders(CONFIGS[name](), DECODERS["gpt2"](), **IDS)
    with pytest.raises(ValueError, match="must accept image inputs"):
        CaptioningForPreTraining.from_encoders(CONFIGS["bert"](), DECODERS["gpt2"](), **IDS)
    with pytest.raises(ValueError, match="ViTModel is not a VisionEncoderDecoderModel"):
        CaptioningForPreTraining.from_encoder(hf_pretext.encoders.build_encoder(CONFIGS["vit"]()), **IDS)


def test_captions_longer_than_the_positions():
    model = model_of(length=7)
    model(**batch_of(length=8))
    with pytest.raises(ValueError, match="A caption of 7 tokens and its end need 8 positions, but the decoder has 7"):
        model(**batch_of(length=9))


def test_a_vocabulary_that_differs_from_the_tokenizers():
    tokenizer = tokenizer_like("bert")
    texts = Text(tokenizer, 12)
    texts.fit(model_of("gpt2", words=len(tokenizer)).readers["text"])
    assert not texts.padded
    for words in (len(tokenizer) + 1, len(tokenizer) - 1):
        with pytest.raises(ValueError, match="but the encoder has a vocabulary of"):
            texts.fit(model_of("gpt2", words=words).readers["text"])
    with pytest.raises(ValueError, match="--max_length 12 is more than the 10 positions"):
        texts.fit(model_of("gpt2", words=len(tokenizer), length=10).readers["text"])


def test_batches_and_rows_that_are_refused():
    model, batch = model_of(), batch_of()
    with pytest.raises(ValueError, match="4 images came with 3 captions"):
        model(**{**batch, "input_ids": batch["input_ids"][:3], "attention_mask": batch["attention_mask"][:3]})
    inputs = Inputs(Image(default_processor(IMAGE)), Text(tokenizer_like("bert"), 12))
    buffer = io.BytesIO()
    Pixels.new("RGB", (16, 16), "red").save(buffer, "PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    assert "input_ids" in inputs({"image": image, "text": "red cat"}, None)
    for text in (None, "  "):
        with pytest.raises(BadSample):  # counted, and replaced by another row
            inputs({"image": image, "text": text}, None)


def test_weights_of_another_shape_are_refused():
    text = AutoModelForCausalLM.from_config(DECODERS["gpt2"](length=8))
    decoder = model_of().full_model.decoder
    with pytest.raises(ValueError, match="has weights of other shapes than the decoder"):
        hf_pretext.modules.captioner.load_into(decoder, text)


def test_eval_of_a_loaded_folder_writes_the_same(tmp_path):
    model = model_of("bert", backward=True)
    model.save_pretrained(tmp_path)
    images = blank(model.encoder)
    loaded, plain = load(tmp_path), AutoModelForImageTextToText.from_pretrained(tmp_path)
    wanted = model.eval().describe(5, pixel_values=images)
    assert torch.equal(loaded.describe(5, pixel_values=images), wanted)
    assert torch.equal(plain.generate(pixel_values=images, max_new_tokens=5), wanted)
    assert os.path.exists(tmp_path / "generation_config.json")
