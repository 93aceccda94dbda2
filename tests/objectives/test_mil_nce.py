"""MIL-NCE: its loss is the paper's formula, equal and missing narrations are no negatives, and what is refused."""

import json
import math

import pytest
import torch
from conftest import CONFIGS
from contract import check_contract
from narrated import BAG, TEXTS, VECTORS, as_double, model_of, narrated_clips
from safetensors.torch import load_file
from transformers import AutoModel

import hf_pretext
from hf_pretext import MilNceForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.modules import losses
from hf_pretext.modules.composite import CompositeConfig, CompositeModel
from hf_pretext.modules.losses import numbered_rows, shared, softmax_loss
from hf_pretext.objectives.mil_nce import MilNceTask, mil_nce
from hf_pretext.run.build import Blueprint, Start
from hf_pretext.utils.settings import make_settings


def embeddings_of(model, batch) -> tuple[torch.Tensor, list[list[torch.Tensor | None]]]:
    """Embeddings of the clips, and of each narration or None, one frame and one text at a time."""
    video, heads = model.encoders["video"], model.pretext_head
    if hasattr(video.config, "num_frames"):
        features = video(pixel_values=batch["pixel_values"]).last_hidden_state.mean(1)
    else:
        frames = [video(pixel_values=frame).last_hidden_state for frame in batch["pixel_values"].unbind(1)]
        features = torch.stack([f.flatten(2).mean(2) if f.ndim == 4 else f.mean(1) for f in frames]).mean(0)
    clips = features @ heads["video"].weight.T + heads["video"].bias

    def embedded(tokens):
        if "text" not in model.encoders:
            words = heads["text"]
            hidden = (words.vectors.weight[tokens] @ words.hidden.weight.T + words.hidden.bias).clamp(min=0)
            made = hidden.max(0).values @ words.output.weight.T + words.output.bias
        else:
            pooled = model.encoders["text"](input_ids=tokens[None]).last_hidden_state.mean(1)[0]
            made = heads["text"].weight @ pooled + heads["text"].bias
        return made / made.norm()

    texts = [[embedded(torch.tensor(text)) if text else None for text in bag] for bag in texts_of(batch)]
    return clips / clips.norm(dim=1, keepdim=True), texts


def texts_of(batch) -> list[list[tuple[int, ...]]]:
    """The tokens of each narration; none for a missing one."""
    pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [[tuple(one[: int(m.sum())].tolist()) for one, m in zip(bag, mask, strict=True)] for bag, mask in pairs]


def double_loop(clips, embedded, texts, temperature: float) -> list[torch.Tensor]:
    """The loss of each clip with narration, as the paper writes it."""

    def score(clip, text):
        return torch.exp(clip @ text / temperature)

    made = []
    for i, bag in enumerate(texts):
        right, wrong = 0, 0
        for k, text in enumerate(bag):
            if not text:
                continue
            right = right + score(clips[i], embedded[i][k])
            for j, others in enumerate(texts):
                if j != i and text not in others:
                    wrong = wrong + score(clips[j], embedded[i][k])
        for j, others in enumerate(texts):
            for k, text in enumerate(others):
                if j != i and text and text not in bag:
                    wrong = wrong + score(clips[i], embedded[j][k])
        if any(bag):
            made.append(-torch.log(right / (right + wrong)))
    return made


def vectors(count: int, bag: int = BAG, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of clips `(B, D)` and texts `(B, K, D)` that depend on them, in double precision."""
    random = torch.Generator().manual_seed(seed)
    clips = torch.randn(count, 5, generator=random, dtype=torch.float64)
    texts = 0.3 * clips[:, None] + torch.randn(count, bag, 5, generator=random, dtype=torch.float64)
    return torch.nn.functional.normalize(clips, dim=-1), torch.nn.functional.normalize(texts, dim=-1)


def of_one_rank(clips, texts, numbers=None, present=None, scale: float = 10.0) -> torch.Tensor:
    """`mil_nce` of one process; without numbers, all texts differ."""
    numbers = torch.arange(texts[..., 0].numel()).view(texts.shape[:2]) if numbers is None else numbers
    present = torch.ones_like(numbers, dtype=torch.bool) if present is None else present
    scale = torch.tensor(scale, dtype=clips.dtype)
    return mil_nce(clips, texts, clips, texts.flatten(0, 1), scale, numbers, present, slice(len(clips)))


# loss


@pytest.mark.parametrize(("video", "text"), [("resnet", "bert"), ("vit", "clip_text"), ("videomae", "bert"),
                                             ("resnet", None)])  # fmt: skip
def test_the_loss_is_a_double_loop_over_the_formula(video, text):
    model = model_of(video, text, temperature=0.2).eval()
    batch = as_double(model, narrated_clips(model))
    clips, embedded = embeddings_of(model, batch)
    by_clip = double_loop(clips, embedded, texts_of(batch), 0.2)
    assert len(by_clip) == 5  # of 6: one has no narration
    output = model(**batch)
    torch.testing.assert_close(output.loss, torch.stack(by_clip).mean(), atol=1e-6, rtol=0)
    torch.testing.assert_close(output.features, clips, atol=1e-6, rtol=0)
    assert output.logs.keys() == {"accuracy", "narrations"}
    assert output.logs["narrations"].item() == pytest.approx((6 * BAG - 4) / 6)


def test_accuracy_is_of_the_nearest_narration():
    model = model_of().eval()
    batch = as_double(model, narrated_clips(model))
    clips, embedded = embeddings_of(model, batch)
    texts, right = texts_of(batch), []
    for clip, bag in zip(clips, texts, strict=True):
        scores = {(j, k): clip @ e for j, some in enumerate(embedded) for k, e in enumerate(some) if e is not None}
        j, k = max(scores, key=scores.get)
        right += [texts[j][k] in bag] if any(bag) else []
    assert model(**batch).logs["accuracy"].item() == pytest.approx(sum(right) / 5)


@pytest.mark.parametrize("tile", [1, 7, 40, 2**22])
def test_tiles_change_neither_loss_nor_gradients(monkeypatch, tile):
    monkeypatch.setattr(losses, "TILE", tile)
    clips, texts = (values.requires_grad_() for values in vectors(7))
    numbers = torch.arange(21).view(7, 3)
    numbers[4, 2], numbers[5, 1], numbers[2, 0] = numbers[0, 0], numbers[5, 0], numbers[6, 2]
    present = torch.ones(7, 3, dtype=torch.bool)
    present[3], present[1, 2] = False, False
    names = [[(int(n),) if p else () for n, p in zip(*row, strict=True)] for row in zip(numbers, present, strict=True)]
    expected = torch.stack(double_loop(clips, texts, names, 0.1))
    made = of_one_rank(clips, texts, numbers, present)
    torch.testing.assert_close(made[[0, 1, 2, 4, 5, 6]], expected, atol=1e-10, rtol=0)
    assert made[3] == 0
    weights = torch.rand(6, dtype=torch.float64)
    wanted = torch.autograd.grad((weights * expected).sum(), (clips, texts))
    given = torch.autograd.grad((weights * made[[0, 1, 2, 4, 5, 6]]).sum(), (clips, texts))
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
    assert not given[1][~present].any()


def test_one_text_a_clip_is_infonce_of_both_directions_in_one_denominator():
    """The paper's loss is not the mean of both cross-entropies, which is contrastive.py's: the negatives of both are in
    one denominator, with the right pair once. exp(loss) is the sum of both exp(cross-entropy), minus 1."""
    clips, texts = vectors(8, 1)
    scale, numbers = torch.tensor(10.0, dtype=torch.float64), torch.arange(8)

    def infonce(i: int, rows, columns):
        return softmax_loss(rows[i : i + 1], columns, scale, numbers[i : i + 1], numbers, symmetric=False)

    ways = (clips, texts[:, 0]), (texts[:, 0], clips)
    denominators = [[infonce(i, *way).exp() for way in ways] for i in range(8)]  # divided by the right one
    expected = torch.stack([(first + second - 1).log() for first, second in denominators])
    torch.testing.assert_close(of_one_rank(clips, texts), expected, atol=1e-12, rtol=0)
    one_way = torch.stack([infonce(i, *ways[0]) for i in range(8)])
    torch.testing.assert_close(one_way.mean(), softmax_loss(*ways[0], scale, numbers, numbers, symmetric=False))
    assert (of_one_rank(clips, texts) > one_way).all()  # negatives of both directions


def test_the_released_code_differs_as_it_counts_positives_twice():
    clips, texts = vectors(8)
    scores = 10 * (clips @ texts.flatten(0, 1).T).view(8, 8, BAG)
    right = (scores * torch.eye(8)[:, :, None]).sum(1).logsumexp(1)
    everything = torch.cat((scores, scores.permute(1, 0, 2)), 1).view(8, -1).logsumexp(1)
    released, ours = everything - right, of_one_rank(clips, texts)
    assert (released > ours).all() and released.mean() > ours.mean() + 0.1
    torch.testing.assert_close(released, (ours.exp() + 1).log(), atol=1e-10, rtol=0)


def test_the_nearest_narration_alone_is_a_bag_of_one():
    model = model_of(positives="nearest").eval()
    batch = narrated_clips(model)
    first = {name: values if name == "pixel_values" else values[:, :1] for name, values in batch.items()}
    plain = {name: values if name == "pixel_values" else values[:, 0] for name, values in batch.items()}
    bag = model_of(bag_size=1).eval()
    bag.load_state_dict(model.state_dict())
    assert model(**batch).loss == model(**first).loss == model(**plain).loss == bag(**first).loss
    assert model(**batch).loss != model_of(bag_size=3).eval()(**batch).loss
    assert MilNceForPreTraining.views_of(model.task) == {"text": 1}
    assert MilNceForPreTraining.views_of(MilNceTask()) == {"text": 5}


# equal and missing narrations


def test_rows_are_numbered_by_their_content():
    rows = torch.tensor([[5, 2, 0], [5, 2, 1], [5, 2, 0], [2, 5, 0], [2**31, 2**31, 0], [2**31, 2**31, 0], [0, 0, 5]])
    numbers = numbered_rows(rows).tolist()
    assert numbers[0] == numbers[2] and numbers[4] == numbers[5] and len(set(numbers)) == 5
    random = torch.randint(0, 3, (400, 4), generator=torch.Generator().manual_seed(0))
    same = (random[:, None] == random).all(2)
    numbers = numbered_rows(random)
    assert torch.equal(numbers[:, None] == numbers, same) and 400 < same.sum() < 160_000
    assert shared(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2], [5], [4]])).tolist() == [
        [True, False, False], [False, False, True]]  # fmt: skip


def test_clips_of_one_text_have_nothing_to_distinguish():
    model = model_of().train()
    batch = narrated_clips(model)
    batch["input_ids"], batch["attention_mask"] = (
        batch[name][:1, :1].expand(6, -1, -1) for name in ("input_ids", "attention_mask")
    )
    output = model(**batch)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(0, abs=1e-6) and output.logs["accuracy"] == 1
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_texts_are_equal_by_the_tokens_that_are_not_masked():
    model = model_of().eval()
    batch = as_double(model, narrated_clips(model))
    other = {name: value.clone() for name, value in batch.items()}
    other["input_ids"][batch["attention_mask"] == 0] = 44  # any padding, and anything in missing narrations
    torch.testing.assert_close(model(**other).loss, model(**batch).loss, atol=1e-10, rtol=0)
    other["input_ids"][3, 0, 1] = 45  # no longer a text of clip 0
    assert abs(model(**other).loss - model(**batch).loss) > 1e-3


def test_missing_narrations_add_nothing():
    model = model_of().train()
    batch = as_double(model, narrated_clips(model))
    more = {"pixel_values": batch["pixel_values"]}
    for name in ("input_ids", "attention_mask"):
        more[name] = torch.cat([batch[name], torch.zeros_like(batch[name][:, :2])], 1)
    grads = []
    for some in (batch, more):
        model.zero_grad()
        model(**some).loss.backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert len(grads[0]) > 30
    for name, value in grads[0].items():
        torch.testing.assert_close(grads[1][name], value, atol=1e-10, rtol=1e-8)


def test_a_clip_without_narration_has_no_loss_but_is_wrong_for_others():
    clips, texts = vectors(5)
    present = torch.ones(5, BAG, dtype=torch.bool)
    present[2] = False
    numbers = torch.arange(15).view(5, 3)
    kept = torch.tensor([0, 1, 3, 4])
    without = of_one_rank(clips[kept], texts[kept])
    made = of_one_rank(clips, texts, numbers, present)
    assert made[2] == 0 and (made[kept] > without).all()


@pytest.mark.parametrize("text", ["bert", None])
def test_a_batch_without_narration_has_no_loss_and_no_gradient(text):
    model = model_of(text=text).train()
    batch = narrated_clips(model)
    batch["attention_mask"] = torch.zeros_like(batch["attention_mask"])
    output = model(**batch)
    output.loss.backward()
    assert output.loss == 0 and output.logs["accuracy"] == 0 and output.logs["narrations"] == 0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


# word vectors


def test_with_word_vectors_only_the_video_encoder_is_published(tmp_path):
    model = model_of(text=None).eval()
    assert list(model.encoders) == ["video"] and model.capabilities == ("embed", "match")
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "pretext.safetensors", "video"]
    names = load_file(tmp_path / "pretext.safetensors")
    assert names["pretext_head.text.vectors.weight"].shape == (50, 6)
    assert names["pretext_head.text.hidden.weight"].shape == (10, 6)
    plain, info = AutoModel.from_pretrained(tmp_path, subfolder="video", output_loading_info=True)
    assert type(plain).__name__ == "ResNetModel" and not info["missing_keys"] and not info["unexpected_keys"]
    batch, loaded = narrated_clips(model), hf_pretext.load(tmp_path)
    assert torch.equal(loaded(**batch).loss, model(**batch).loss) and loaded.task == model.task
    again = MilNceForPreTraining.from_encoder(AutoModel.from_pretrained(tmp_path), **VECTORS)  # to train on
    assert torch.equal(again.encoder.state_dict()["embedder.embedder.convolution.weight"],
                       model.encoder.state_dict()["embedder.embedder.convolution.weight"])  # fmt: skip


def test_word_vectors_replace_the_text_encoder_of_a_config_and_a_model():
    encoders = {"video": CONFIGS["resnet"]().to_diff_dict(), "text": CONFIGS["bert"]().to_diff_dict()}
    config = CompositeConfig(encoders=encoders)
    assert list(MilNceForPreTraining.from_encoder(config, **VECTORS).encoders) == ["video"]
    both = CompositeModel.of(video=build_encoder(CONFIGS["resnet"]()), text=build_encoder(CONFIGS["bert"]()))
    model = MilNceForPreTraining.from_encoder(both, **VECTORS)
    assert list(model.encoders) == ["video"] and model.encoder is both.encoders["video"]


class Tokens:
    """What settings take from a tokenizer."""

    def __init__(self, size: int, *names: str):
        self.size, self.model_input_names = size, names or ["input_ids", "attention_mask"]

    def __len__(self) -> int:
        return self.size


def test_bags_need_a_tokenizer_that_marks_missing_narrations():
    siglip = {"text": Tokens(50, "input_ids")}
    with pytest.raises(ValueError, match="gives no attention_mask .*missing texts.*--positives nearest"):
        MilNceForPreTraining.complete(MilNceTask(), siglip)
    for task in (MilNceTask(positives="nearest"), MilNceTask(bag_size=1)):
        assert MilNceForPreTraining.complete(task, siglip) == task


def test_the_number_of_word_vectors_is_that_of_the_tokenizer():
    tokenizer = Tokens(123)
    assert MilNceForPreTraining.complete(MilNceTask(word_dim=5), {"text": tokenizer}).num_words == 123
    assert MilNceForPreTraining.complete(MilNceTask(word_dim=5, num_words=7), {"text": tokenizer}).num_words == 7
    assert MilNceForPreTraining.complete(MilNceTask(), {"text": tokenizer}).num_words is None


# checkpoints


@pytest.mark.parametrize(("video", "text"), [("resnet", "bert"), ("videomae", "clip_text")])
def test_contract(video, text, tmp_path):
    encoders = {"video": build_encoder(CONFIGS[video]()), "text": build_encoder(TEXTS[text]())}
    native = CompositeModel.of(**encoders)
    batch = narrated_clips(MilNceForPreTraining.from_encoder(native))
    check_contract(MilNceForPreTraining, native, batch, tmp_path)
    for kind, encoder in encoders.items():
        plain, info = AutoModel.from_pretrained(tmp_path, subfolder=kind, output_loading_info=True)
        assert type(plain) is type(encoder) and not info["missing_keys"] and not info["unexpected_keys"]
        assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in plain.state_dict().items())
    assert json.loads((tmp_path / "config.json").read_text())["pretext"]["objective"] == "mil_nce"
    assert all(key.startswith("pretext_head.") for key in load_file(tmp_path / "pretext.safetensors"))


def test_a_learned_temperature_comes_back(tmp_path):
    for learned in (True, False):
        model = model_of(temperature=0.1, learned_temperature=learned).train()
        output = model(**narrated_clips(model))
        output.loss.backward()
        assert (model.pretext_head["score"].logit_scale.grad is not None) == learned
        assert output.logs["scale"].item() == pytest.approx(10)
        model.save_pretrained(tmp_path / str(learned))
        scale = hf_pretext.load(tmp_path / str(learned)).pretext_head["score"].logit_scale
        assert scale.requires_grad == learned and math.isclose(scale.exp().item(), 10, rel_tol=1e-5)


@pytest.mark.parametrize("text", ["bert", None])
def test_bfloat16_changes_little_and_the_loss_stays_in_float32(text):
    model = model_of(text=text).eval()
    batch = narrated_clips(model)
    exact = model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        lower = model(**batch)
    assert lower.loss.dtype == torch.float32 and not torch.equal(lower.loss, exact.loss)
    torch.testing.assert_close(lower.loss, exact.loss, rtol=2e-2, atol=1e-2)


def test_gradient_checkpointing_changes_no_gradient():
    model = model_of("vit").train()
    batch, made = as_double(model, narrated_clips(model)), []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch).loss.backward()
        made.append({key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None})
    assert made[0].keys() == made[1].keys() and len(made[0]) > 30
    for key, value in made[0].items():
        torch.testing.assert_close(made[1][key], value, msg=lambda m, key=key: f"{key}: {m}")


# capabilities


@pytest.mark.parametrize("text", ["bert", None])
def test_match_is_the_cosine_of_the_nearest_narration(text):
    model = model_of(text=text).eval()
    batch = as_double(model, narrated_clips(model))
    clips, embedded = embeddings_of(model, batch)
    cosines = [[clip @ e for e in bag if e is not None] for clip, bag in zip(clips, embedded, strict=True)]
    expected = torch.stack([max(bag) if bag else clips.new_tensor(-1.0) for bag in cosines])
    torch.testing.assert_close(model.match(**batch), expected, atol=1e-6, rtol=0)
    one = {name: values if name == "pixel_values" else values[:, 0] for name, values in batch.items()}
    first = torch.stack([bag[0] if bag else clips.new_tensor(-1.0) for bag in cosines])
    torch.testing.assert_close(model.match(**one), first, atol=1e-6, rtol=0)


def test_embeddings_of_both_kinds_have_length_1():
    model = model_of().eval()
    batch = narrated_clips(model)
    videos = model.embed("video", pixel_values=batch["pixel_values"])
    texts = model.embed("text", input_ids=batch["input_ids"][:, 0], attention_mask=batch["attention_mask"][:, 0])
    assert videos.shape == texts.shape == (6, 128)
    for values in (videos, texts):
        torch.testing.assert_close(values.norm(dim=1), torch.ones(6))
    mask = torch.ones_like(batch["input_ids"][:, 0])
    ids = batch["input_ids"][:, 0]
    torch.testing.assert_close(model.embed("text", input_ids=ids), model.embed("text", input_ids=ids,
                                                                               attention_mask=mask))  # fmt: skip


# bad inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"input_ids": b["input_ids"][0, 0]}, r"must be \(B, K, L\).*but are \(7,\)"),
        (
            lambda b: {"attention_mask": b["attention_mask"][:, :2]},
            r"attention_mask \(6, 2, 7\) must have.*\(6, 3, 7\)",
        ),
        (lambda b: {"pixel_values": b["pixel_values"][:4]}, "4 clips came with narrations of 6"),
        (lambda b: {"pixel_values": None}, "has no pixel_values for the video encoder"),
        (lambda b: {name: value[:1] for name, value in b.items()}, "but the batch has 1 clip"),
    ],
)
def test_bad_batches_are_refused(change, message):
    model = model_of().train()
    batch = narrated_clips(model)
    batch |= change(batch)
    with pytest.raises(ValueError, match=message):
        model(**{name: value for name, value in batch.items() if value is not None})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bag_size": 0}, "bag_size must be at least 1, but is 0"),
        ({"word_dim": 0}, "word_dim must be at least 1"),
        ({"temperature": 0.001}, "temperature must be at least 0.01, but is 0.001"),
        ({"positives": "nearest", "bag_size": 4}, "bag_size=4 is for positives=bag"),
        ({"temporal_layers": -1}, "temporal_layers must be at least 0, but is -1"),
        ({"word_hidden": 8}, "word_hidden=8 is for word vectors, which need word_dim"),
        ({"num_words": 8}, "num_words=8 is for word vectors"),
        ({"positives": "all"}, "positives"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_settings(MilNceTask, **settings)


def test_a_bag_of_one_fits_the_nearest_narration():
    assert make_settings(MilNceTask, positives="nearest", bag_size=1).bag_size == 1


def test_temporal_layers_see_the_order_of_frames():
    for layers in (0, 1):
        model = model_of(temporal_layers=layers).eval()
        frames = narrated_clips(model)["pixel_values"]
        forward, backward = model.embed("video", pixel_values=frames), model.embed("video", pixel_values=frames.flip(1))
        assert torch.allclose(forward, backward, atol=1e-5) == (layers == 0)


def test_temporal_layers_learn_and_come_back(tmp_path):
    model = model_of(temporal_layers=2).train()
    batch = narrated_clips(model)
    model(**batch).loss.backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.pretext_head["frames"].parameters())
    model.save_pretrained(tmp_path)
    again, columns = hf_pretext.load(tmp_path).eval(), {"pixel_values": batch["pixel_values"]}
    torch.testing.assert_close(again.embed("video", **columns), model.eval().embed("video", **columns))
    with pytest.raises(ValueError, match="temporal_layers=1 is for an encoder of images, but VideoMAEModel"):
        model_of("videomae", temporal_layers=1)


def test_models_without_a_way_to_read_texts_are_refused():
    video = CONFIGS["resnet"]()
    with pytest.raises(ValueError, match="give text="):
        MilNceForPreTraining.from_encoders(video=video)
    with pytest.raises(ValueError, match="replace the text encoder: give video= alone"):
        MilNceForPreTraining.from_encoders(video=video, text=CONFIGS["bert"](), **VECTORS)
    with pytest.raises(ValueError, match="word_dim=6 needs num_words"):
        MilNceForPreTraining.from_encoders(video=video, word_dim=6)
    with pytest.raises(ValueError, match="has no text encoder. Give one, or word vectors"):
        MilNceForPreTraining.from_encoder(CompositeModel.of(video=build_encoder(video)))
    with pytest.raises(ValueError, match="needs a CompositeModel of video and text, not a ResNetModel"):
        MilNceForPreTraining.from_encoder(video)
    with pytest.raises(ValueError, match="must accept video inputs, but BertModel"):
        MilNceForPreTraining.from_encoders(video=CONFIGS["bert"](), text=CONFIGS["bert"]())


def test_a_text_encoder_next_to_word_vectors_is_refused():
    encoders = {"video": CONFIGS["resnet"]().to_diff_dict(), "text": CONFIGS["bert"]().to_diff_dict()}
    start = Start(towers={"text": "some/bert"})
    blueprint = Blueprint(MilNceForPreTraining, MilNceTask(**VECTORS), CompositeConfig(encoders=encoders), start)
    with pytest.raises(ValueError, match="--text_encoder some/bert: mil_nce has no text encoder with these settings"):
        blueprint.fresh(0)
