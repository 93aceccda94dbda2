"""XDC: losses by hand, classes that one kind learns from the other, codes by key, and runs killed within a round."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from contract import check_bfloat16, check_contract
from sklearn.metrics import normalized_mutual_info_score
from toy_clips import Toy, resnet, toy_batches, toy_rows
from transformers import TrainerCallback, TrainingArguments

from hf_pretext import load
from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.modules.composite import CompositeModel
from hf_pretext.objectives import xdc
from hf_pretext.objectives.xdc import XdcForPreTraining
from hf_pretext.trainer import PretextTrainer

SCRIPT = Path(__file__).parent / "toy_clips.py"
ROWS, STEPS = 40, 14
OPTIONS = dict(
    rows=ROWS, max_steps=STEPS, per_device_train_batch_size=8, logging_steps=1, save_steps=1, save_total_limit=3,
    seed=3, learning_rate=3e-3, use_cpu=True, disable_tqdm=True, report_to="none",
)  # fmt: skip


def made(labels: str = "cross", rows: int = 40, clusters: int = 4, **settings) -> XdcForPreTraining:
    settings = dict(labels=labels, num_clusters=clusters, **settings)
    model = XdcForPreTraining.from_encoders(audio=resnet(1), video=resnet(3), **settings)
    model.set_rows(rows)
    return model


def in_order(rows: int) -> tuple[torch.Tensor, list[dict]]:
    classes, sounds, films = toy_rows(rows)
    return classes, list(toy_batches(sounds, films, torch.arange(rows)))


def cluster(model: XdcForPreTraining, batches: list[dict]) -> dict[str, float]:
    return model.before_round(dict(batch) for batch in batches)


def agreement(codes: torch.Tensor, classes: torch.Tensor) -> float:
    return normalized_mutual_info_score(codes.numpy(), classes.numpy())


@pytest.mark.parametrize("labels", ["cross", "own", "both", "joint"])
def test_contract(labels, tmp_path, monkeypatch):
    encoder = CompositeModel.of(audio=build_encoder(resnet(1)), video=build_encoder(resnet(3)))
    _, batches = in_order(16)
    build = XdcForPreTraining.from_encoder

    def with_clusters(*args, **settings):
        model = build(*args, **settings)
        model.set_rows(16)
        cluster(model, batches)
        return model

    monkeypatch.setattr(XdcForPreTraining, "from_encoder", with_clusters)
    batch = {name: value[:6] for name, value in batches[0].items()}
    check_contract(XdcForPreTraining, encoder, batch, tmp_path, labels=labels, num_clusters=4)
    loaded = load(tmp_path)
    for name in loaded.clusters.widths:
        assert loaded.clusters.codes(name).dtype == torch.int32 and (loaded.clusters.codes(name) >= 0).all()
    assert int(loaded.clusters.rounds) == 1 and loaded.parts == {"rows": 16}


def by_hand(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of sounds, and of films averaged over their frames."""
    sounds = model.encoders["audio"](batch["pixel_values"]).last_hidden_state.mean((2, 3))
    frames = [model.encoders["video"](frame).last_hidden_state for frame in batch["video_pixel_values"].unbind(1)]
    return sounds, torch.stack(frames).mean(0).mean((2, 3))


@pytest.mark.parametrize(
    ("labels", "terms"),
    [
        ("cross", [("audio", "video"), ("video", "audio")]),
        ("own", [("audio", "audio"), ("video", "video")]),
        ("both", [("audio", "audio"), ("audio", "video"), ("video", "video"), ("video", "audio")]),
        ("joint", [("audio", "joint"), ("video", "joint")]),
    ],
)
def test_the_loss_is_the_cross_entropy_with_the_codes_of_the_rows(labels, terms):
    model = made(labels)
    _, batches = in_order(40)
    cluster(model, batches)
    batch = {name: value[torch.randperm(32)[:9]] for name, value in batches[0].items()}
    output = model.eval()(**batch)
    features = dict(zip(("audio", "video"), by_hand(model, batch), strict=True))
    expected = {}
    for kind, name in terms:
        head = model.pretext_head[f"{kind}_to_{name}"]
        chances = (features[kind] @ head.weight.T + head.bias).softmax(1)
        codes = model.clusters.codes(name)[batch["keys"]].tolist()
        expected[f"{kind}_to_{name}"] = -sum(chances[i, code].log() for i, code in enumerate(codes)) / 9
        accuracy = sum(int(chances[i].argmax()) == code for i, code in enumerate(codes)) / 9
        assert output.logs[f"{kind}_to_{name}_accuracy"] == pytest.approx(accuracy)
    assert output.losses.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(output.losses[name], loss)
    torch.testing.assert_close(output.loss, sum(expected.values()))
    assert output.logits.shape == (9 * len(terms), 4) and output.labels.shape == (9 * len(terms),)


@pytest.mark.parametrize("labels", ["cross", "joint"])
def test_codes_are_the_nearest_centres_of_unit_vectors(labels):
    model = made(labels)
    _, batches = in_order(40)
    cluster(model, batches)
    together = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    with torch.no_grad():
        features = dict(zip(("audio", "video"), by_hand(model.eval(), together), strict=True))
    units = {kind: F.normalize(values - values.mean(0)) for kind, values in features.items()}
    units["joint"] = torch.cat([units["audio"], units["video"]], 1)
    for name in model.clusters.widths:
        centres = getattr(model.clusters, f"centres_{name}")
        distances = (units[name][:, None] - centres).square().sum(2)
        assert torch.equal(distances.argmin(1), model.clusters.codes(name).long())
        for code in range(4):  # and each centre is the mean of its points, as of k-means that has settled
            torch.testing.assert_close(
                units[name][model.clusters.codes(name) == code].mean(0), centres[code], atol=0.2, rtol=0
            )


def test_a_batch_without_keys_gets_the_clusters_of_its_features():
    """As of a labelled set: for the very rows, and before training, they are the codes of the rows."""
    model = made()
    _, batches = in_order(40)
    cluster(model, batches)
    model.eval()
    keyed, alone = model(**batches[0]), model(**{k: v for k, v in batches[0].items() if k != "keys"})
    assert torch.equal(keyed.labels, alone.labels) and torch.equal(keyed.loss, alone.loss)
    fresh = made().eval()(**{k: v for k, v in batches[0].items() if k != "keys"})
    assert not fresh.labels.any() and fresh.loss.requires_grad


def train_a_round(model, sounds, films, optimizer, epochs: int = 4) -> None:
    model.train()
    for _ in range(epochs):
        for batch in toy_batches(sounds, films, torch.randperm(len(sounds))):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()


@pytest.mark.parametrize("labels", ["cross", "own"])
def test_films_learn_the_classes_from_sounds_and_not_from_films_alone(labels):
    """Clusters of the sounds are the classes. Clusters of the films are not: noise and brightness hide the classes."""
    rows = 160
    classes, sounds, films = toy_rows(rows)
    unseen, new_sounds, new_films = toy_rows(80, seed=7)
    model = made(labels, rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for number in range(3):
        values = cluster(model, list(toy_batches(sounds, films, torch.arange(rows))))
        history.append([agreement(model.clusters.codes(kind), classes) for kind in ("audio", "video")])
        codes = [model.clusters.codes(kind).numpy() for kind in ("audio", "video")]
        assert values["nmi_of_kinds"] == pytest.approx(normalized_mutual_info_score(*codes))
        assert values["audio_used"] == values["video_used"] == 1.0
        assert ("video_nmi_last" in values) == (number > 0)
        train_a_round(model, sounds, films, optimizer)
    assert history[0][0] > 0.95 and history[0][1] < 0.35
    with torch.no_grad():
        features = model.eval().features_of({"pixel_values": new_sounds, "video_pixel_values": new_films})
    found = agreement(model.clusters.assign("video", features["video"]), unseen)
    if labels == "cross":
        assert history[1][1] > 0.8 and history[2][1] > 0.9 and found > 0.8, (history, found)
    else:
        assert history[2][1] < 0.35 and found < 0.35, (history, found)


def test_rows_without_a_code_do_not_count():
    model = made()
    _, batches = in_order(40)
    known = [{name: value[batch["keys"] % 4 > 0] for name, value in batch.items()} for batch in batches]
    cluster(model, known)
    for kind in ("audio", "video"):
        assert (model.clusters.codes(kind)[::4] == -1).all() and (model.clusters.codes(kind)[1::4] >= 0).all()
    model.eval()
    some = {name: value[batches[0]["keys"] % 4 > 0] for name, value in batches[0].items()}
    torch.testing.assert_close(model(**batches[0]).loss, model(**some).loss)
    none = {name: value[batches[0]["keys"] % 4 == 0] for name, value in batches[0].items()}
    assert model(**none).loss == 0


def test_codes_do_not_depend_on_the_order_of_the_rows():
    _, sounds, films = toy_rows(64)
    torch.manual_seed(1)
    model = made(rows=64, clusters=6, cluster_rows=20)
    found = []
    for order in (torch.arange(64), torch.randperm(64)):
        model.clusters.rounds.zero_()
        cluster(model, list(toy_batches(sounds, films, order)))
        found.append({kind: model.clusters.codes(kind).clone() for kind in ("audio", "video")})
    assert torch.equal(found[0]["audio"], found[1]["audio"]) and torch.equal(found[0]["video"], found[1]["video"])


def test_centres_are_fitted_to_a_sample_of_the_rows(monkeypatch):
    from hf_pretext.modules import clusters

    seen, fit = [], clusters.k_means
    monkeypatch.setattr(clusters, "k_means", lambda points, *rest: seen.append(points) or fit(points, *rest))
    model = made(rows=64, cluster_rows=20)
    _, batches = in_order(64)
    cluster(model, batches)
    cluster(model, batches)
    assert [len(points) for points in seen] == [20] * 4  # of two kinds in two rounds
    assert not torch.equal(seen[0], seen[2])  # other rows
    assert all((model.clusters.codes(kind) >= 0).all() for kind in ("audio", "video"))


def test_k_means_gets_distinct_points_with_their_number(monkeypatch):
    from hf_pretext.modules import clusters

    seen, fit = [], clusters.k_means
    monkeypatch.setattr(clusters, "k_means", lambda *given: seen.append(given[:2]) or fit(*given))
    model = made()
    _, batches = in_order(40)
    sounds = batches[0]["pixel_values"][:10].repeat(4, 1, 1, 1)
    cluster(model, [{name: torch.cat([b[name] for b in batches]) for name in batches[0]} | {"pixel_values": sounds}])
    for (points, weights), (count, each) in zip(seen, ((10, 4), (40, 1)), strict=True):
        assert len(points) == len(points.unique(dim=0)) == count
        assert weights.tolist() == [each] * count


def test_rounds_that_share_no_row_are_not_compared():
    model = made()
    _, batches = in_order(40)
    even, odd = ([{k: v[b["keys"] % 2 == rest] for k, v in b.items()} for b in batches] for rest in (0, 1))
    cluster(model, even)
    values = cluster(model, odd)
    assert values.keys() == {"audio_used", "video_used", "nmi_of_kinds"}
    assert "audio_nmi_last" in cluster(model, odd)


def test_other_rows_begin_without_clusters():
    model = made()
    _, batches = in_order(40)
    cluster(model, batches)
    model(**batches[0])
    model.set_rows(36)
    assert int(model.clusters.rounds) == 0 and model.prepared() == {}
    with pytest.raises(ValueError, match="The rows have no clusters yet"):
        model(**batches[0])


@pytest.mark.parametrize("different", [1, 3])
def test_fewer_different_features_than_clusters_leave_clusters_empty(different, monkeypatch):
    """An encoder that has collapsed: the run goes on, and a warning says how many clusters are used."""
    warnings = []
    monkeypatch.setattr(xdc.log, "warning", warnings.append)
    model = made(rows=40, clusters=8)
    _, batches = in_order(40)
    sounds = batches[0]["pixel_values"]
    for batch in batches:
        batch["pixel_values"] = sounds[batch["keys"] % different]
    values = cluster(model, batches)
    assert values["audio_used"] == different / 8 and values["video_used"] > 0.8
    assert len(warnings) == 1
    assert warnings[0].startswith(f"Only {different / 8:.0%} of the 8 clusters of audio have rows")
    assert model.train()(**batches[0]).loss.isfinite()


def test_heads_are_drawn_again_in_each_round_in_the_same_way():
    torch.manual_seed(5)
    model = made()
    _, batches = in_order(40)
    first = {name: value.clone() for name, value in model.pretext_head.state_dict().items()}
    cluster(model, batches)
    drawn = {name: value.clone() for name, value in model.pretext_head.state_dict().items()}
    state = torch.get_rng_state()
    cluster(model, batches)
    assert torch.equal(state, torch.get_rng_state()), "a resumed run does not cluster again and must draw the same"
    again = model.pretext_head.state_dict()
    for name, value in drawn.items():
        assert not torch.equal(first[name], value) and not torch.equal(value, again[name])
    for head in model.pretext_head.values():  # PyTorch's initial distribution of a linear layer
        assert 0.8 < head.weight.abs().max() * 4 <= 1 and head.bias.abs().max() * 4 <= 1


def test_bfloat16():
    model = made()
    _, batches = in_order(40)
    cluster(model, batches)
    check_bfloat16(model, batches[0])
    half = model.bfloat16()
    half.follow_full_model()
    assert half.clusters.centres_audio.dtype == half.clusters.means_video.dtype == torch.float32
    assert half.pretext_head["audio_to_video"].bias.dtype == torch.bfloat16
    batch = {name: v.bfloat16() if v.is_floating_point() else v for name, v in batches[0].items()}
    assert half.train()(**batch).loss.dtype == torch.float32


def test_what_can_not_work_is_refused():
    with pytest.raises(ValueError, match="num_clusters must be at least 2 and at most cluster_rows=3, but is 4"):
        made(cluster_rows=3)
    with pytest.raises(ValueError, match="round_epochs must be at least 1, but is 0"):
        made(round_epochs=0)
    with pytest.raises(ValueError, match="labels"):
        made("others")
    with pytest.raises(ValueError, match="num_clusters is 4, but the data has only 3 rows.*fewer clusters"):
        made(rows=3)
    model, (_, batches) = made(), in_order(40)
    with pytest.raises(ValueError, match="xdc needs keys in a batch of training"):
        model(**{k: v for k, v in batches[0].items() if k != "keys"})
    with pytest.raises(ValueError, match="The rows have no clusters yet. Train with PretextTrainer"):
        model(**batches[0])
    with pytest.raises(ValueError, match="the data has only 3 rows that can be used"):
        cluster(model, [{name: value[:3] for name, value in batches[0].items()}])


# in a trainer


def trained(folder, model, steps: int = 7, callback=None, **options) -> PretextTrainer:
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=8, max_steps=steps, use_cpu=True, disable_tqdm=True,
        report_to="none", save_strategy="no", learning_rate=1e-2, lr_scheduler_type="constant", seed=1, **options,
    )  # fmt: skip
    data = open_source([{"text": str(i)} for i in range(40)], needed=("text",))
    trainer = PretextTrainer(model, args, data, Toy(40))
    if callback is not None:
        trainer.add_callback(callback)
    trainer.train()
    return trainer


class Updates(TrainerCallback):
    """Gradients and changes of the parameters in each step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.before = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters()}

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        changes = {name: p.detach() - self.before[name] for name, p in model.named_parameters()}
        self.steps.append((self.gradients, changes))


def test_the_first_update_of_new_heads_follows_their_gradient_alone(tmp_path):
    """Adam's first update is the sign of the gradient. Rounds begin before steps 0 and 5; encoders keep moments."""
    updates = Updates()
    trained(tmp_path, made(), callback=updates)
    for step, (gradients, changes) in enumerate(updates.steps):
        of_heads = [name for name in changes if name.startswith("pretext_head")]
        signs = [
            torch.allclose(change[large], -1e-2 * gradients[name][large].sign(), atol=1e-5)
            for name, change in changes.items()
            for large in [gradients[name].abs() > 1e-4]
            if name in of_heads
        ]
        assert len(signs) == 4 and all(signs) == (step in (0, 5)), step
    gradients, changes = updates.steps[5]
    encoder = next(name for name in changes if name.endswith("convolution.weight"))
    assert not torch.allclose(changes[encoder], -1e-2 * gradients[encoder].sign(), atol=1e-4)


def test_features_are_extracted_under_autocast_and_clustered_in_float32(tmp_path, monkeypatch):
    from hf_pretext.modules import clusters

    seen, points, fit, model = [], [], clusters.k_means, made()
    monkeypatch.setattr(clusters, "k_means", lambda *given: points.append(given[0].dtype) or fit(*given))
    near = clusters.nearest
    scores = []
    monkeypatch.setattr(
        clusters, "nearest", lambda *given: scores.append(torch.is_autocast_enabled("cpu")) or near(*given)
    )
    for encoder in model.encoders.values():
        convolution = next(module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d))
        convolution.register_forward_hook(lambda module, given, output: seen.append((module.training, output.dtype)))
    trained(tmp_path, model, steps=1, bf16=True)
    assert (False, torch.bfloat16) in seen and (True, torch.bfloat16) in seen
    assert {dtype for _, dtype in seen} == {torch.bfloat16}
    assert points == [torch.float32] * 2 and scores and not any(scores)


# runs, as real processes


def run(folder: Path, ranks: int = 1, expect: int = 0, **options) -> str:
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d",
              "--rdzv_endpoint", "localhost:0"]  # fmt: skip
    given = {**OPTIONS, **options, "output_dir": folder}
    arguments = [word for name, value in given.items() for word in (f"--{name}", *str(value).split())]
    command = [sys.executable, *(launch if ranks > 1 else []), str(SCRIPT), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def without_speed(logs: list[dict]) -> list[dict]:
    return [{k: v for k, v in entry.items() if k not in ("samples_per_second", "data_wait")} for entry in logs]


def outcome(folder: Path, rank: int = 0) -> dict:
    return json.loads((folder / f"found-rank{rank}.json").read_text())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder)
    return folder


@pytest.mark.slow
def test_a_run_killed_within_a_round_resumes_bit_for_bit_without_clustering_again(unbroken, tmp_path):
    """40 rows are 5 steps: rounds begin before steps 0, 5 and 10. Killed in step 7, and in step 10 after clustering."""
    whole = outcome(unbroken)
    assert [len(keys) for keys in whole["read"]] == [ROWS - 2] * 3  # two rows are bad
    run(tmp_path, die_at=7, expect=-signal.SIGKILL)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*"))[-1] == "checkpoint-7"
    run(tmp_path, die_at=10, last=True, expect=-signal.SIGKILL)
    run(tmp_path, last=True)
    resumed = outcome(tmp_path)
    assert resumed["read"] == whole["read"][2:]  # the round that begins with the first step after the checkpoint
    for name in ("weights", "codes"):
        assert resumed[name] == whole[name], name
    assert without_speed(resumed["logs"]) == without_speed(whole["logs"])


@pytest.mark.slow
def test_values_of_each_round_are_logged(unbroken):
    rounds = [entry for entry in outcome(unbroken)["logs"] if "nmi_of_kinds" in entry]
    assert [entry["step"] for entry in rounds] == [0, 5, 10]
    assert "video_nmi_last" not in rounds[0]
    assert all({"audio_nmi_last", "video_nmi_last", "audio_used"} <= entry.keys() for entry in rounds[1:])
    assert rounds[0]["audio_used"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["cross", "joint"])
def test_two_ranks_give_each_row_the_code_that_one_process_gives_it(labels, tmp_path):
    options = dict(max_steps=1, clusters=6, labels=labels)
    run(tmp_path / "one", **options)
    run(tmp_path / "two", ranks=2, **{**options, "per_device_train_batch_size": 4})
    one, ranks = outcome(tmp_path / "one"), [outcome(tmp_path / "two", rank) for rank in range(2)]
    read = [set(of_rank["read"][0]) for of_rank in ranks]
    assert not read[0] & read[1] and read[0] | read[1] == set(range(ROWS)) - {7, 22} == set(one["read"][0])
    assert abs(len(read[0]) - len(read[1])) <= 2
    assert ranks[0]["codes"] == ranks[1]["codes"] == one["codes"]
    for codes in one["codes"].values():
        assert codes[7] == codes[22] == -1 and min(codes[:7]) >= 0 and len(set(codes)) == 7


@pytest.mark.slow
def test_two_ranks_killed_within_a_round_resume_bit_for_bit(tmp_path):
    options = dict(ranks=2, per_device_train_batch_size=4)
    run(tmp_path / "whole", **options)
    run(tmp_path / "cut", die_at=7, expect=1, **options)
    run(tmp_path / "cut", last=True, **options)
    for rank in range(2):
        whole, resumed = outcome(tmp_path / "whole", rank), outcome(tmp_path / "cut", rank)
        assert resumed["weights"] == whole["weights"] and resumed["codes"] == whole["codes"]
        assert resumed["read"] == whole["read"][2:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(fails=1), "failed on purpose"),
        (
            dict(clusters=6, bad=" ".join(map(str, range(36)))),
            "num_clusters is 6, but the data has only 4 rows that can be used",
        ),
    ],
)
def test_a_failure_of_one_rank_ends_all(options, reason, tmp_path):
    """Of rank 1, which reads its rows, and of the main process, which fits the centres."""
    output = run(tmp_path, ranks=2, expect=1, per_device_train_batch_size=4, **options)
    for rank in range(2):
        assert f"[rank{rank}]: ValueError: {reason}" in output
