"""Audio-visual correspondence: the losses of the papers written out, what is drawn as wrong, and what is refused."""

import json
import math

import pytest
import torch
import transformers
from clips import AUDIO, clips, model_of
from conftest import CONFIGS, IMAGE
from contract import check_contract
from host_syncs import host_syncs
from safetensors.torch import load_file
from transformers import AutoModel

from hf_pretext import AudioVisualForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.matching import threshold
from hf_pretext.evaluation.retrieval import retrieval
from hf_pretext.features import encode
from hf_pretext.modules.composite import CompositeModel
from hf_pretext.modules.correspondence import HEAT, Distance, heat_maps
from hf_pretext.modules.masking import IGNORED
from hf_pretext.modules.shifted import DIFFERENT, near, same_sounds
from hf_pretext.modules.wrong_pairs import SOURCE_BATCHES
from hf_pretext.objectives import audio_visual
from hf_pretext.objectives.audio_visual import AudioVisualTask

SETTINGS = {
    "contrastive": {},
    "distance": {"fusion": "distance"},
    "margin": {"fusion": "distance", "margin": 0.99},
    "concat": {"fusion": "concat"},
    "locate": {"fusion": "distance", "locate": True},
    "locate, margin": {"fusion": "distance", "locate": True, "margin": 0.9},
    "shifted contrastive": {"negatives": "shifted", "easy_until": 0.0},
    "shifted distance": {"fusion": "distance", "negatives": "shifted", "easy_until": 0.0},
    "shifted concat": {"fusion": "concat", "negatives": "shifted", "easy_until": 0.0},
}
NEXT = torch.tensor([1, 2, 3, 4, 5, 0])


@pytest.fixture
def next_clip(monkeypatch):
    """The wrong sound is that of the next clip."""
    monkeypatch.setattr(audio_visual, "wrong_ones", lambda scores, *_: torch.arange(1, len(scores) + 1) % len(scores))


def features_of(model, batch) -> dict[str, torch.Tensor]:
    """Features by each encoder, frame by frame and without padding."""
    audio, video = model.encoders.values()
    if "video_pixel_values" in batch:
        sounds, pixels = audio(pixel_values=batch["pixel_values"]).last_hidden_state.mean((2, 3)), "video_pixel_values"
    else:
        lengths, pixels = batch["attention_mask"].sum(1), "pixel_values"
        one_by_one = [audio(values[None, :n]).last_hidden_state.mean(1) for values, n in
                      zip(batch["input_values"], lengths, strict=True)]  # fmt: skip
        sounds = torch.cat(one_by_one)
    frames = [encode(video, pixel_values=frame)[-1] for frame in batch[pixels].unbind(1)]
    return {"audio": sounds, "video": torch.stack(frames).mean(0)}


def embeddings_of(model, batch) -> list[torch.Tensor]:
    made = []
    for kind, values in features_of(model, batch).items():
        first, _, second = model.pretext_head[kind]
        hidden = (values @ first.weight.T + first.bias).clamp(min=0)
        made.append(hidden @ second.weight.T + second.bias)
    return [values / values.norm(dim=1, keepdim=True) for values in made]


# losses


@pytest.mark.parametrize("audio", AUDIO)
@pytest.mark.parametrize("video", ["resnet", "vit"])
def test_contrastive_is_infonce_over_rows_and_columns(audio, video):
    model = model_of(audio, video, temperature=0.2).eval()
    batch = clips(model)
    sounds, frames = embeddings_of(model, batch)
    scores = frames @ sounds.T / 0.2
    expected = -(scores.log_softmax(0).diagonal() + scores.log_softmax(1).diagonal()).mean() / 2
    output = model(**batch)
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.features, sounds, atol=1e-5, rtol=1e-4)
    assert output.logs.keys() == {"accuracy"} and output.logits is None
    assert output.logs["accuracy"] == (scores.argmax(1) == torch.arange(6)).float().mean()


def test_concat_is_an_mlp_over_both_features_with_two_classes(next_clip):
    model = model_of(fusion="concat", embedding_dim=24).eval()
    batch = clips(model)
    of, score = features_of(model, batch), model.pretext_head["score"]
    logits = []
    for sounds in (of["audio"], of["audio"][NEXT]):
        hidden = (torch.cat([sounds, of["video"]], 1) @ score.hidden.weight.T + score.hidden.bias).clamp(min=0)
        logits.append(hidden @ score.logit.weight[0] + score.logit.bias)
    assert score.hidden.weight.shape == (24, 32 + 16)
    logits = torch.cat(logits)
    two = torch.stack([torch.zeros_like(logits), logits], 1)  # of the paper's two logits, their difference matters
    labels = torch.tensor([1] * 6 + [0] * 6)
    output = model(**batch)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(two, labels), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=1e-4)
    assert torch.equal(output.labels, labels)


def test_distance_is_a_threshold_with_cross_entropy(next_clip):
    model = model_of(fusion="distance").eval()
    batch, score = clips(model), model.pretext_head["score"]
    assert math.isclose(math.log1p(math.exp(score.slope.item())), 4.0, rel_tol=1e-5)
    with torch.no_grad():
        score.slope.fill_(0.7), score.threshold.fill_(1.1)
    sounds, frames = embeddings_of(model, batch)
    distances = torch.cat([(sounds - frames).norm(dim=1), (sounds[NEXT] - frames).norm(dim=1)])
    chance = 1 / (1 + torch.exp(-math.log1p(math.exp(0.7)) * (1.1 - distances)))
    expected = -(chance[:6].log().sum() + (1 - chance[6:]).log().sum()) / 12
    output = model(**batch)
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=1e-5)
    right = ((chance > 0.5) == torch.tensor([True] * 6 + [False] * 6)).float()
    assert output.logs["accuracy"].item() == pytest.approx(right.mean().item())


@pytest.mark.parametrize("margin", [0.99, 0.4])
def test_the_margin_is_that_of_avts(next_clip, margin):
    model = model_of(fusion="distance", margin=margin).eval()
    batch = clips(model)
    sounds, frames = embeddings_of(model, batch)
    right, wrong = (sounds - frames).norm(dim=1), (sounds[NEXT] - frames).norm(dim=1)
    expected = (right.square().sum() + (margin - wrong).clamp(min=0).square().sum()) / 12
    torch.testing.assert_close(model(**batch).loss, expected, atol=1e-5, rtol=1e-4)
    assert "score" not in "".join(name for name, _ in model.pretext_head.named_parameters())
    same = model.pretext_head["score"].loss(torch.zeros(2), torch.tensor([1, 0]))  # both at the border
    torch.testing.assert_close(same, torch.tensor((margin / 2) ** 2))


@pytest.mark.parametrize("video", ["resnet", "vit", "timm_vit_tiny"])
def test_locate_scores_the_nearest_place_of_all_frames(next_clip, video):
    model = model_of(video=video, fusion="distance", locate=True).eval()
    batch = clips(model)
    sounds, _ = embeddings_of(model, batch)
    encoder = model.encoders["video"]
    hidden = encoder(pixel_values=batch["pixel_values"].flatten(0, 1)).last_hidden_state
    places = hidden.flatten(2).mT if hidden.ndim == 4 else hidden[:, 1:]  # without the class token
    places = model.pretext_head["video"](places)
    places = (places / places.norm(dim=2, keepdim=True)).unflatten(0, (6, 2)).flatten(1, 2)
    nearest = torch.cat([(each[:, None] - places).norm(dim=2).amin(1) for each in (sounds, sounds[NEXT])])
    torch.testing.assert_close(model(**batch).logits, 4.0 * (1.2 - nearest), atol=1e-4, rtol=1e-4)


# shifted sounds


@pytest.mark.parametrize("fusion", ["distance", "concat"])
def test_shifted_sounds_replace_those_of_other_clips(next_clip, monkeypatch, fusion):
    model = model_of(fusion=fusion, negatives="shifted", shifted_share=0.5).eval()
    batch, plain = clips(model), model_of(fusion=fusion).eval()
    plain.load_state_dict(model.state_dict())
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.tensor([4, 0, 2, 1, 3, 5])[:count])
    moved = {name: batch[name][:, 1] for name in ("input_values", "attention_mask")}
    first = {name: values[:, 0] if name in moved else values for name, values in batch.items()}
    logits = model(**batch).logits
    torch.testing.assert_close(logits[:6], plain.match(**first))
    others, shifted = plain.match(**shuffled(first, NEXT)), plain.match(**{**first, **moved})
    expected = torch.where(torch.tensor([1, 0, 1, 0, 1, 0]) == 1, shifted, others)
    torch.testing.assert_close(logits[6:], expected)
    assert model(**batch).labels.tolist() == [1] * 6 + [0] * 6
    batch["sound_start"][2] = torch.tensor([1.0, 1.4])  # too near: not wrong
    expected[2] = others[2]
    output = model(**batch)
    torch.testing.assert_close(output.logits[6:], expected)
    assert output.logs["shifted"].item() == pytest.approx(2 / 6)


def shuffled(batch: dict, order: torch.Tensor) -> dict:
    """The same frames with the sounds of other clips."""
    return {name: values if name.startswith("pixel") else values[order] for name, values in batch.items()}


def one_view(batch: dict, view: int) -> dict:
    """The batch with one of the two sounds of each clip."""
    return {name: values if name.startswith("pixel") else values[:, view] for name, values in batch.items()}


def test_shifted_sounds_are_more_candidates_for_frames(monkeypatch):
    model = model_of(negatives="shifted", shifted_share=0.5).eval()
    batch = clips(model)
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.tensor([4, 0, 2, 1, 3, 5])[:count])
    with torch.no_grad():
        first, second = (one_view(batch, view) for view in (0, 1))
        sounds, frames = embeddings_of(model, first)
        moved, _ = embeddings_of(model, second)

    def expected(rows):
        of_frames = (torch.cat([frames @ sounds.T, frames @ moved[rows].T], 1) / 0.07).log_softmax(1).diagonal()
        return -(of_frames + (sounds @ frames.T / 0.07).log_softmax(1).diagonal()).mean() / 2

    torch.testing.assert_close(model(**batch).loss, expected([4, 0, 2]), atol=1e-4, rtol=1e-5)
    gradients = []
    for same in (False, True):  # a sound without another time is right, so that nothing pushes it away
        if same:
            batch["sound_start"][:, 1] = batch["sound_start"][:, 0]
            batch["input_values"][:, 1], batch["attention_mask"][:, 1] = batch["input_values"][:, 0], 1
            batch["attention_mask"][:, 0] = 1
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append(model.encoders["audio"].encoder.layers[0].attention.k_proj.weight.grad.clone())
    plain = model_of().eval()
    plain.load_state_dict(model.state_dict())
    loss = plain(**one_view(batch, 0)).loss
    output = model(**batch)
    assert output.logs["shifted"] == 0 and output.loss > loss  # by the share of the second right one
    assert output.loss - loss < math.log(2) / 2 + 1e-4


def test_the_curriculum_begins_with_other_clips():
    model = model_of(fusion="distance", negatives="shifted", easy_until=0.5, shifted_share=0.4).train()
    passes = []
    model.encoders["audio"].register_forward_hook(lambda *_, **__: passes.append(1))
    sizes = []
    model.encoders["audio"].register_forward_pre_hook(
        lambda _, args, inputs: sizes.append(len(inputs["input_values"])), with_kwargs=True
    )
    batch, shares = clips(model, 10), []
    for model.progress in (0.0, 0.49, 0.5, 0.9, 1.0):
        shares.append(round(model(**batch).logs["shifted"].item(), 4))
    assert shares == [0, 0, 0.4, 0.4, 0.4]
    assert sizes == [10, 10, 14, 14, 14] and len(passes) == 5  # unused sounds are not encoded
    model.progress = 0.0
    assert model.eval()(**batch).logs["shifted"].item() == pytest.approx(0.4)
    paper = AudioVisualTask(negatives="shifted")
    assert abs(paper.easy_until - 50 / 90) < 0.01 and paper.shifted_share == 0.25
    assert (
        model_of(negatives="shifted").num_shifted(2) == 0 and model_of(negatives="shifted").eval().num_shifted(2) == 1
    )


def test_sounds_are_the_same_up_to_their_loudness():
    sounds = torch.randn(5, 2, 400)
    sounds[1, 1] = 0.3 * sounds[1, 0]
    sounds[2, 1] = sounds[2, 0] + 7.0  # log-mel: a factor is added
    sounds[3] = 0
    sounds[4, 1] = sounds[4, 0] + 0.01 * torch.randn(400)
    assert same_sounds(sounds).tolist() == [False, True, True, True, True]
    sounds[4, 1] = sounds[4, 0] + 2 * DIFFERENT**0.5 * torch.randn(400)
    assert not same_sounds(sounds)[4]
    assert same_sounds(sounds.view(5, 2, 20, 20)).tolist() == [False, True, True, True, False]


def test_sounds_are_near_below_the_least_shift():
    starts = torch.tensor([[0.0, 0.05], [9.0, 8.51], [9.0, 8.5], [7200.0, 7200.5], [3.0, 3.0], [0.0, 3.0]])
    assert near(starts, 0.5).tolist() == [True, True, False, False, True, False]
    assert near(starts, 2.0).tolist() == [True] * 5 + [False]


def test_clips_without_another_time_are_refused_before_training():
    model = model_of(negatives="shifted", min_shift=0.2)
    batch = clips(model)
    model.prepare(iter([batch]))
    batch["sound_start"] = torch.tensor([[0.05, 0.0]]).repeat(6, 1)  # of files of 2.1 s, with --seconds 2
    with pytest.raises(ValueError, match=r"at least 0.2 seconds apart \(--min_shift\), but in a batch.*at most 0.05"):
        model.prepare(iter([batch]))
    batch["sound_start"][0, 0] = 0.2
    model.prepare(iter([batch]))
    model_of().prepare(iter([]))


@pytest.mark.parametrize("fusion", ["distance", "concat", "contrastive"])
def test_near_sounds_are_not_wrong_also_where_random_changes_differ(fusion):
    """Two sounds of one time have other random changes, so that their values differ."""
    model = model_of(fusion=fusion, negatives="shifted", easy_until=0.0, shifted_share=1.0).train()
    batch = clips(model)
    assert model(**batch).logs["shifted"] == 1
    batch["sound_start"][:, 1] = batch["sound_start"][:, 0] + 0.05
    assert not same_sounds(batch["input_values"]).any() and model(**batch).logs["shifted"] == 0


def test_one_clip_in_evaluation_has_its_shifted_sound_as_a_wrong_one():
    model = model_of(fusion="distance", negatives="shifted").eval()
    batch = clips(model, 1)
    output = model(**batch)
    assert output.logs["shifted"] == 1 and output.labels.tolist() == [1, 0]
    expected = model_of(fusion="distance").eval()
    expected.load_state_dict(model.state_dict())
    torch.testing.assert_close(output.logits, torch.cat([expected.match(**one_view(batch, view)) for view in (0, 1)]))
    batch["sound_start"][:, 1] = 0.0
    output = model(**batch)
    assert output.logs["shifted"] == 0 and output.labels.tolist() == [1, IGNORED]


# wrong sounds


@pytest.mark.slow
def test_wrong_sounds_are_of_the_same_source_where_there_is_one():
    model, labels = model_of(fusion="distance", negatives="same_source").train(), torch.tensor([5, 5, 8, 9, 9, 9])
    drawn = []
    taken = audio_visual.wrong_ones
    try:
        audio_visual.wrong_ones = lambda *arguments: drawn.append(taken(*arguments)) or drawn[-1]
        for _ in range(60):
            model(**clips(model), labels=labels)
        assert model(**clips(model), labels=labels).logs["same_source"].item() == pytest.approx(5 / 6)
        drawn.pop()
        output = model.eval()(**clips(model))  # evaluation has no labels
        assert output.labels.tolist() == [1] * 6 + [0] * 6 and "same_source" not in output.logs
    finally:
        audio_visual.wrong_ones = taken
    seen = [set(column) for column in torch.stack(drawn[:-1]).T.tolist()]
    assert seen == [{1}, {0}, {0, 1, 3, 4, 5}, {4, 5}, {3, 5}, {3, 4}]


def test_sources_of_one_clip_each_are_refused_before_training():
    model, batch = model_of(fusion="distance", negatives="same_source"), {}
    read = []

    def batches(labels):
        for some in labels:
            read.append(some)
            yield {**batch, "labels": torch.tensor(some)}

    model.prepare(batches([[1, 2, 3], [4, 5, 4], [6, 6, 6]]))
    assert read == [[1, 2, 3], [4, 5, 4]]  # no more than needed
    read.clear()
    with pytest.raises(ValueError, match="has no effect: of the first 24 clips, none has another.*--pair_label"):
        model.prepare(batches([3 * i, 3 * i + 1, 3 * i + 2] for i in range(10**6)))
    assert len(read) == SOURCE_BATCHES


def test_wrong_sounds_are_never_of_the_clip_and_of_all_others():
    model, seen = model_of(fusion="distance").train(), []
    for _ in range(60):
        sounds = torch.eye(6)
        logits = torch.zeros(0)
        model.pretext_head["score"].forward = lambda first, _: seen.append(first.argmax(1)) or first.sum(1)
        logits = model.classify(sounds, sounds, None, None)[2]["logits"]
    assert len(logits) == 12
    wrong = torch.stack(seen[1::2])
    assert all(set(column) == {*range(6)} - {i} for i, column in enumerate(wrong.T.tolist()))


def test_a_batch_of_one_clip_has_no_wrong_pair_in_evaluation():
    model = model_of(fusion="distance").eval()
    output = model(**clips(model, 1))
    assert output.labels.tolist() == [1, IGNORED] and torch.isfinite(output.loss)
    assert model_of().eval()(**clips(model, 1)).loss.item() == pytest.approx(0, abs=1e-6)


# sign


def synthetic(seed: int, count: int = 64):
    """Sounds and frames of hidden causes: a clip's frames and sound are two linear views of its cause, and noise."""
    random = torch.Generator().manual_seed(seed)
    causes = torch.randn(count, 4, generator=random)
    of_sounds, of_frames = torch.randn(2, 4, 16, generator=random)
    noise = 0.1 * torch.randn(2, count, 16, generator=random)
    return causes @ of_sounds + noise[0], causes @ of_frames + noise[1]


def trained(seed: int, name: str = "distance", sign_bound: bool = True, steps: int = 150):
    """Heads trained on features. sign_bound: False for a slope of any sign that begins as the wrong one. Returns
    accuracy on unseen pairs with a threshold at 0 (contrastive: chosen on pairs of training), and R@10 in both
    directions."""
    torch.manual_seed(seed)
    model = model_of(**SETTINGS[name], embedding_dim=16).train()
    heads = [torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16)) for _ in range(2)]
    score = model.pretext_head["score"]
    if not sign_bound:
        slope = torch.nn.Parameter(torch.tensor([-2.0]))
        score.slope = slope
        score.of_places = lambda a, v: slope * (score.threshold - (a[:, None] - v).square().sum(2).add(1e-8).sqrt())
    parameters = [*heads[0].parameters(), *heads[1].parameters(), *score.parameters()]
    optimizer = torch.optim.Adam(parameters, 3e-3)
    sounds, frames = synthetic(seed, 512)

    def embedded(rows):
        pairs = zip(heads, (sounds[rows], frames[rows]), strict=True)
        return [torch.nn.functional.normalize(head(values), dim=1) for head, values in pairs]

    for _ in range(steps):
        rows = torch.randint(0, 384, (64,))
        pairs = embedded(rows)
        loss, *_ = model.contrast(*pairs, None) if name == "contrastive" else model.classify(*pairs, None, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        (audio, video), known = embedded(slice(384, 512)), embedded(slice(384))
        right, wrong = score(audio, video), score(audio.roll(1, 0), video)
        of_known = (score(*known).numpy(), score(known[0].roll(1, 0), known[1]).numpy())
        at = threshold(*of_known) if name == "contrastive" else 0.0
        accuracy = ((right > at).float().mean() + (wrong <= at).float().mean()) / 2
    ids = [*range(128)]
    found = retrieval(audio, video, ids, ids, ks=(10,))
    return accuracy.item(), [found[f"{way}_r10"] for way in ("image_to_text", "text_to_image")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contrastive", "distance", "margin"])
def test_accuracy_and_retrieval_never_disagree_in_sign(name):
    for seed in range(4):
        accuracy, recalls = trained(seed, name)
        assert accuracy > 0.8 and min(recalls) > 3 * 10 / 128, (seed, accuracy, recalls)


def test_a_slope_of_any_sign_can_be_accurate_with_retrieval_below_chance():
    """Why the slope is bound."""
    accuracy, recalls = trained(0, sign_bound=False)
    assert accuracy > 0.6 and max(recalls) < 10 / 128


def test_no_weights_make_far_mean_the_same():
    score = Distance()
    sounds, near = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]])
    for slope in (-50.0, -3.0, 0.0, 8.0):
        with torch.no_grad():
            score.slope.fill_(slope)
        assert score(sounds, near) > score(sounds, -near) or slope == -50.0
        assert score(sounds, near) >= score(sounds, -near)


# checkpoints


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("audio", "video"), [("wav2vec2", "resnet"), ("resnet", "vit")])
def test_contract(name, audio, video, tmp_path):
    encoders = {"audio": build_encoder(AUDIO[audio]()), "video": build_encoder(CONFIGS[video]())}
    native = CompositeModel.of(**encoders)
    batch = clips(AudioVisualForPreTraining.from_encoder(native, **SETTINGS[name]))
    check_contract(AudioVisualForPreTraining, native, batch, tmp_path, **SETTINGS[name])
    for kind, encoder in encoders.items():
        plain, info = AutoModel.from_pretrained(tmp_path, subfolder=kind, output_loading_info=True)
        assert type(plain) is type(encoder) and not info["missing_keys"] and not info["unexpected_keys"]
        assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in plain.state_dict().items())
    assert json.loads((tmp_path / "config.json").read_text())["pretext"]["objective"] == "audio_visual"
    weights = load_file(tmp_path / "pretext.safetensors")
    assert all(key.startswith("pretext_head.") and value.ndim > 0 for key, value in weights.items())


@pytest.mark.parametrize("video", ["vit", "videomae"])
def test_a_video_encoder_and_ast_are_taken(video):
    model = AudioVisualForPreTraining.from_encoders(audio=CONFIGS["ast"](), video=CONFIGS[video]())
    frames = getattr(model.encoders["video"].config, "num_frames", 2)
    batch = {"input_values": torch.randn(3, 64, 32), "pixel_values": torch.randn(3, frames, 3, IMAGE, IMAGE)}
    assert torch.isfinite(model(**batch).loss)
    assert model.embed("video", pixel_values=batch["pixel_values"]).shape == (3, 128)


@pytest.mark.parametrize("name", SETTINGS)
def test_bfloat16_changes_little_and_the_loss_stays_in_float32(name):
    model = model_of(**SETTINGS[name]).eval()
    batch = clips(model)
    exact = model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        lower = model(**batch)
    assert lower.loss.dtype == torch.float32
    torch.testing.assert_close(lower.loss, exact.loss, rtol=2e-2, atol=1e-2)
    assert not torch.equal(lower.loss, exact.loss)


@pytest.mark.parametrize("name", ["contrastive", "locate", "shifted distance"])
def test_gradient_checkpointing_changes_no_gradient(name):
    model = model_of(video="vit", **SETTINGS[name]).double().train()
    model.generator = lambda: torch.Generator().manual_seed(0)
    batch = {key: value.double() if value.is_floating_point() else value for key, value in clips(model).items()}
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch).loss.backward()
        found.append({key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 30
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_never_waits_for_the_device(name):
    model = model_of("resnet", **SETTINGS[name]).train()
    batch = clips(model)
    model(**batch).loss.backward()
    with host_syncs() as seen:
        model(**batch).loss.backward()
    assert not seen, seen


def test_a_fixed_temperature_is_not_trained_also_after_loading(tmp_path):
    for learned in (True, False):
        model = model_of(temperature=0.1, learned_temperature=learned).train()
        model(**clips(model)).loss.backward()
        assert (model.pretext_head["score"].logit_scale.grad is not None) == learned
        model.save_pretrained(tmp_path / str(learned))
        loaded = AudioVisualForPreTraining.from_pretrained(tmp_path / str(learned))
        scale = loaded.pretext_head["score"].logit_scale
        assert scale.requires_grad == learned and math.isclose(scale.exp().item(), 10, rel_tol=1e-5)
    with torch.no_grad():
        model.pretext_head["score"].logit_scale.fill_(9.0)
    assert model.train()(**clips(model)).logs["scale"].item() == pytest.approx(100.0)


# capabilities


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [
        ("contrastive", ("embed", "match")),
        ("margin", ("embed", "match")),
        ("concat", ("match",)),
        ("locate", ("match", "illustrate")),
    ],
)
def test_capabilities_are_those_of_the_fusion(name, capabilities, tmp_path):
    model = model_of(**SETTINGS[name])
    model.save_pretrained(tmp_path)
    assert model.capabilities == AudioVisualForPreTraining.from_pretrained(tmp_path).capabilities == capabilities
    assert AudioVisualForPreTraining.capabilities == ("embed", "match", "illustrate")
    batch = clips(model)
    if "embed" not in capabilities:
        with pytest.raises(ValueError, match="has no embeddings.*Use match"):
            model.embed("audio", input_values=batch["input_values"])
    if "illustrate" not in capabilities:
        with pytest.raises(ValueError, match="no heat maps"):
            model.illustrate(**batch)


@pytest.mark.parametrize("name", [name for name in SETTINGS if "shifted" not in name])
def test_match_scores_the_pairs_of_forward(name, next_clip):
    model = model_of(**SETTINGS[name]).eval()
    batch = clips(model)
    right, wrong = model.match(**batch), model.match(**shuffled(batch, NEXT))
    assert right.shape == (6,)
    if name == "contrastive":
        sounds, frames = (model.embed(kind, **columns) for kind, columns in
                          audio_visual.columns_of(batch, model.encoders).items())  # fmt: skip
        torch.testing.assert_close(right, (sounds * frames).sum(1))
        torch.testing.assert_close(frames.norm(dim=1), torch.ones(6))
    else:
        torch.testing.assert_close(model(**batch).logits, torch.cat([right, wrong]))


@pytest.mark.parametrize("audio", AUDIO)
def test_a_heat_map_is_red_where_the_score_is_highest(audio):
    model = model_of(audio, fusion="distance", locate=True).eval()
    batch = clips(model, 3)
    pixels = batch["video_pixel_values" if audio == "resnet" else "pixel_values"]
    drawn = model.illustrate(**batch)
    assert list(drawn) == ["frames", "its sound", "another sound"]
    assert torch.equal(drawn["frames"], pixels) and all(each.shape == pixels.shape for each in drawn.values())
    assert not torch.equal(drawn["its sound"], drawn["another sound"])


@pytest.mark.parametrize("autocast", [False, True])
def test_heat_maps_of_a_bfloat16_model_are_those_of_float32(autocast):
    model = model_of("resnet", fusion="distance", locate=True).eval()
    batch = clips(model, 3)
    exact = model.illustrate(**batch)
    if not autocast:
        model, batch = model.bfloat16(), {name: values.bfloat16() for name, values in batch.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        drawn = model.illustrate(**batch)
    for title, pixels in exact.items():
        assert drawn[title].dtype == torch.float32
        assert (drawn[title] - pixels).abs().mean() < 0.1 * pixels.abs().mean()


def test_a_heat_map_has_one_scale_for_the_maps_of_a_clip():
    pixels = torch.rand(2, 1, 3, 8, 8) - 0.5
    first, second = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    first[0, 0, 1, 1], second[0, 0, 0, 0], second[1, 0, 0, 1] = 5.0, 2.5, -1.0
    drawn = heat_maps(pixels, {"first": first, "second": second})
    red = torch.stack([pixels.max(), pixels.min(), pixels.min()])[:, None, None]

    def blended(share, at):
        return torch.lerp(pixels[at], red.expand(1, 3, 8, 8), share)

    torch.testing.assert_close(drawn["first"][0, ..., 7, 7], blended(HEAT, 0)[..., 7, 7])
    torch.testing.assert_close(drawn["second"][0, ..., 0, 0], blended(HEAT / 2, 0)[..., 0, 0])
    torch.testing.assert_close(drawn["first"][0, ..., 0, 0], pixels[0, ..., 0, 0])
    torch.testing.assert_close(drawn["first"][1], blended(HEAT, 1))  # the lowest of the clip is in the other map
    torch.testing.assert_close(drawn["second"][1, ..., 0, 7], pixels[1, ..., 0, 7])


# errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "sum"}, "fusion"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, but is 0"),
        ({"fusion": "distance", "margin": 2.5}, "margin must be above 0 and at most 2.*but is 2.5"),
        ({"margin": 0.9}, "margin=0.9 is for fusion=distance, not for fusion=contrastive. Leave it at its default"),
        ({"fusion": "concat", "locate": True}, "locate=True is for fusion=distance, not for fusion=concat"),
        ({"locate": True}, "locate=True is for fusion=distance, not for fusion=contrastive"),
        ({"fusion": "distance", "temperature": 0.3}, "temperature=0.3 is for fusion=contrastive, not for fusion=dist"),
        ({"fusion": "concat", "learned_temperature": False}, "learned_temperature=False is for fusion=contrastive"),
        ({"easy_until": 0.1}, "easy_until=0.1 is for negatives=shifted, not for negatives=other"),
        ({"shifted_share": 0.9}, "shifted_share=0.9 is for negatives=shifted"),
        ({"fusion": "concat", "negatives": "same_source", "min_shift": 1.0}, "not for negatives=same_source"),
        ({"negatives": "shifted", "min_shift": 0.0}, "min_shift must be at least 0.01 seconds, but is 0.0"),
        ({"temperature": 0.001}, "temperature must be at least 0.01, but is 0.001"),
        ({"negatives": "shifted", "easy_until": 1.0}, "easy_until must be at least 0 and below 1"),
        ({"negatives": "shifted", "shifted_share": 0.0}, "shifted_share must be above 0"),
        ({"negatives": "same_source"}, "negatives='same_source' needs fusion='distance' or 'concat'"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        model_of(**settings)


def test_locate_without_a_map_of_frames_is_refused():
    with pytest.raises(ValueError, match="needs an image encoder for video.*but got VideoMAEModel.*--video_encoder"):
        model_of(video="videomae", fusion="distance", locate=True)
    config = transformers.ViTConfig(**{**CONFIGS["vit"]().to_diff_dict(), "image_size": (32, 40)})
    with pytest.raises(ValueError, match="no square map of patches"):
        AudioVisualForPreTraining.from_encoders(audio=AUDIO["wav2vec2"](), video=config, fusion="distance", locate=True)


def test_batches_that_are_refused():
    model = model_of(fusion="distance").train()
    batch, labels = clips(model), torch.arange(6)
    with pytest.raises(ValueError, match="no input_values for the audio encoder"):
        model(pixel_values=batch["pixel_values"])
    with pytest.raises(ValueError, match="4 clips came with 6 sounds"):
        model(**{**batch, "pixel_values": batch["pixel_values"][:4]})
    with pytest.raises(ValueError, match="labels of --pair_label have no effect with negatives='other'"):
        model(**batch, labels=labels)
    for fusion in ("distance", "concat", "contrastive"):
        with pytest.raises(ValueError, match="the batch has 1 clip.*--per_device_train_batch_size"):
            model_of(fusion=fusion).train()(**clips(model, 1))
    by_source = model_of(fusion="concat", negatives="same_source").train()
    with pytest.raises(ValueError, match="needs the source of each clip.*--pair_label"):
        by_source(**batch)
    with pytest.raises(ValueError, match="6 clips came with 5 labels"):
        by_source(**batch, labels=labels[:5])
    with pytest.raises(ValueError, match=r"two sounds of each clip, \(B, 2, ...\), but got the shape \(6, 1600\)"):
        model_of(negatives="shifted")(**batch)
    shifted = model_of(negatives="shifted")
    several = clips(shifted)
    for starts in ({}, {"sound_start": several.pop("sound_start")[:, 0]}):
        with pytest.raises(ValueError, match=r"needs the starts of both sounds.*\(B, 2\), but got (None|\(6,\))"):
            shifted(**several, **starts)


def test_views_are_those_of_the_settings():
    views_of = AudioVisualForPreTraining.views_of
    assert views_of(AudioVisualTask(negatives="shifted")) == {"audio": 2}
    assert views_of(AudioVisualTask()) == {} == AudioVisualForPreTraining.views
