"""What is published of a run, on a Hub that behaves and on one that does not: in one commit, or not at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIGS, REPOSITORY
from finished import MODEL, READER, finished_run, online_hub, weights
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError
from loopback_hub import serve
from transformers import AutoModel, TrainingArguments

import hf_pretext
from hf_pretext.callbacks import Publisher
from hf_pretext.cards.push import push
from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.run.publish import publish_on_hub
from hf_pretext.trainer import PretextTrainer
from hf_pretext.utils.hub import explained

hub = pytest.fixture(online_hub)
run = pytest.fixture(finished_run)

SHARED = {"README.md", "config.json", "preprocessor_config.json", "results.json", "report.png"}


def test_a_push_is_one_commit_of_what_a_checkpoint_is_made_of(hub, run):
    said = []
    address = push(run, MODEL, say=said.append)
    assert address.startswith(hub.url) and len(said) == 1
    assert len(hub.commits("model", MODEL)) == 2  # the Hub's own first one, and ours
    files = hub.files("model", MODEL)
    assert files.keys() - weights(files) - {".gitattributes"} == SHARED
    assert len(weights(files)) > 2  # shards and their index
    assert files["config.json"] == (run / "config.json").read_bytes()


def test_its_card_loads_the_repository(hub, run):
    push(run, MODEL, say=lambda text: None)
    text = hub.files("model", MODEL)["README.md"].decode()
    assert f'AutoModel.from_pretrained("{MODEL}")' in text and str(run) not in text
    assert ModelCard(text).data.pipeline_tag == "image-feature-extraction"


def test_every_checkpoint_as_a_revision_and_the_state_of_training_where_asked_for(hub, run):
    push(run, MODEL, checkpoints="all", say=lambda text: None)
    assert set(hub.refs("model", MODEL)) == {"refs/heads/main", "refs/heads/checkpoint-2"}
    files = hub.files("model", MODEL, "checkpoint-2")
    assert weights(files) and not any(name.endswith((".pt", ".pth")) for name in files)
    assert "It was not evaluated." in files["README.md"].decode()
    push(run, MODEL, training_state=True, say=lambda text: None)
    pushed = {name for name in hub.files("model", MODEL) if name.startswith("checkpoint-2/")}
    assert {f"checkpoint-2/{name}" for name in ("optimizer.pt", "rng_state.pth", "stream.json")} <= pushed


def test_a_private_repository_is_made_one(hub, run):
    push(run, MODEL, private=True, say=lambda text: None)
    assert hub.repository("model", MODEL).private


@pytest.mark.parametrize("name", ["../model", "a/b/c", "tester/..", "tester/mo del", ""])
def test_what_is_no_name_of_a_repository(hub, run, name):
    with pytest.raises(ValueError, match="is not a valid repository name"):
        push(run, name)
    with pytest.raises(ValueError, match="no user or organisation. Give user/model"):
        push(run, "model")  # its card would load another repository
    with pytest.raises(ValueError, match=r"--revision 'a b' is not a branch name"):
        push(run, MODEL, revision="a b")
    assert hub.requests == 0
    assert not list(run.glob(".push-*"))


def test_weights_of_an_earlier_push_are_not_left_in_the_way(hub, run, tmp_path):
    push(run, MODEL, say=lambda text: None)
    for path in [*run.glob("*.safetensors"), *run.glob("*.index.json")]:
        path.unlink()
    model = hf_pretext.RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()))
    model.save_pretrained(run)
    theirs = {"embeddings.npy": b"x", ".eval_results/other.yaml": b"[]", "LICENSE": b"mine"}
    for name, content in theirs.items():
        HfApi().upload_file(repo_id=MODEL, path_in_repo=name, path_or_fileobj=content)
    push(run, MODEL, say=lambda text: None)
    assert weights(hub.files("model", MODEL)) == {"model.safetensors", "pretext.safetensors"}
    assert theirs.keys() <= hub.files("model", MODEL).keys()  # what its owner has put there


def test_private_is_not_promised_of_what_everybody_may_read(hub, run):
    push(run, MODEL, say=lambda text: None)
    before = hub.commits("model", MODEL)
    (run / "report.png").write_bytes(b"another")
    with pytest.raises(ValueError, match="already exists and is public"):
        push(run, MODEL, private=True, say=lambda text: None)
    assert hub.commits("model", MODEL) == before


def test_a_checkpoint_that_can_not_be_published_ends_no_training(hub, run, caplog):
    HfApi().create_repo(MODEL)
    torch.save({}, run / "ema.pt")
    Publisher("rotation", MODEL).push(run, "Training in progress", "step 2", token=hub.token).result()
    assert "Training continues" in caplog.text and len(hub.commits("model", MODEL)) == 1


def test_a_broken_upload_publishes_nothing_and_the_next_sends_what_is_missing(hub, run):
    hub.cut_upload_after = 2
    with pytest.raises(ValueError, match="connection failed.*Run the same command again"):
        push(run, MODEL, say=lambda text: None)
    assert hub.files("model", MODEL).keys() == {".gitattributes"}
    hub.cut_upload_after = None
    brought = len(hub.put)
    push(run, MODEL, say=lambda text: None)
    assert brought >= 1 and len(hub.put) == len(set(hub.put)) > brought
    assert weights(hub.files("model", MODEL))


def test_a_checkpoint_whose_upload_broke_leaves_no_revision_with_other_weights(hub, run):
    push(run, MODEL, say=lambda text: None)
    for path in (run / "checkpoint-2").glob("*.safetensors"):
        path.unlink()
    hf_pretext.RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]())).save_pretrained(
        run / "checkpoint-2", max_shard_size="6KB"
    )
    hub.cut_upload_after = 1
    with pytest.raises(ValueError, match="connection failed"):
        push(run, MODEL, checkpoints="all", say=lambda text: None)
    assert set(hub.refs("model", MODEL)) == {"refs/heads/main"}


def test_a_run_is_published_under_the_name_of_who_trained(hub, run):
    said = []
    args = SimpleNamespace(hub_model_id=None, hub_private_repo=True, hub_revision=None, hub_token=hub.token)
    publish_on_hub(args, run, said.append, None)
    assert said[-1].startswith(f"\nPushed to the Hub: {hub.url}/tester/run/")
    assert hub.repository("model", "tester/run").private
    text = hub.files("model", "tester/run")["README.md"].decode()
    assert 'from_pretrained("tester/run")' in text
    (run / "report.png").write_bytes(b"another")
    args.hub_token, args.hub_revision = READER, "dev"
    publish_on_hub(args, run, said.append, "tester/run")
    assert said[-1].endswith(f"hf-pretext push {run} tester/run --private --revision dev")


def test_offline_mode_has_another_fix(hub, run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"offline mode \(HF_HUB_OFFLINE\) is on"):
        push(run, MODEL, say=lambda text: None)


def test_a_token_that_the_hub_repeats_is_not_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "not-in-the-form-of-one")
    said = "hf_of_another_form and not-in-the-form-of-one are no good\x1b[2J"
    response = SimpleNamespace(status_code=400, headers={}, request=None)
    with pytest.raises(ValueError) as refused, explained(MODEL):
        raise HfHubHTTPError(said, response=response, server_message=said)
    assert str(refused.value) == f"{MODEL}: *** and *** are no good [2J"


def test_a_hub_that_is_not_well(hub, run):
    hub.fail_every = 1
    with pytest.raises(ValueError, match="the Hub has a server error"):
        push(run, MODEL, say=lambda text: None)
    hub.fail_every = 0
    push(run, MODEL, say=lambda text: None)
    assert weights(hub.files("model", MODEL))


def test_nothing_is_put_over_what_somebody_else_commits_meanwhile(hub, run):
    push(run, MODEL, say=lambda text: None)
    before = hub.commits("model", MODEL)
    (run / "report.png").write_bytes(b"another")
    hub.stale_commits = 1
    with pytest.raises(ValueError, match="another user or process has committed"):
        push(run, MODEL, say=lambda text: None)
    assert hub.commits("model", MODEL) == before


@pytest.mark.parametrize(("token", "reason"), [("hf_wrong_secret", "hf auth login"), (READER, "no write access")])
def test_a_token_that_is_wrong_or_may_not_write_is_never_shown(hub, run, token, reason, capsys):
    push(run, MODEL, say=lambda text: None)
    before = hub.commits("model", MODEL)
    (run / "report.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=reason) as refused:
        push(run, MODEL, token=token, say=lambda text: None)
    assert hub.commits("model", MODEL) == before
    assert token not in str(refused.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_push_to_hub_of_training_arguments(hub, emoji, tmp_path, strategy):
    torch.manual_seed(0)
    args = TrainingArguments(
        tmp_path / "mine", max_steps=4, save_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        push_to_hub=True, hub_model_id=MODEL, hub_strategy=strategy, hub_always_push=True, hub_token=hub.token,
    )  # fmt: skip
    model = hf_pretext.RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()))
    trainer = PretextTrainer(model, args, open_source(emoji(count=16)), Image(default_processor(32)))
    trainer.train()
    assert hub.commits("model", MODEL)[:2] == [f"Training in progress, step {step}" for step in (4, 2)]
    files = hub.files("model", MODEL)
    assert "It was not evaluated." in files["README.md"].decode() and "model.safetensors" in files
    assert "step 4 of an unfinished run" in files["README.md"].decode()
    assert ("last-checkpoint/optimizer.pt" in files) == (strategy == "checkpoint")
    assert ("checkpoint-4/optimizer.pt" in files) == (strategy == "all_checkpoints")
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth")) and "/" not in name]
    trainer.push_to_hub("After it")
    before = hub.commits("model", MODEL)
    assert "that goes on" not in hub.files("model", MODEL)["README.md"].decode()
    trainer.push_to_hub("The same")
    assert hub.commits("model", MODEL) == before  # of what is there already no commit is made
    torch.nn.init.zeros_(next(model.parameters()))
    trainer.push_to_hub("The end")
    assert hub.commits("model", MODEL) == ["The end", *before]


def test_other_ranks_than_the_first_push_nothing(hub, emoji, tmp_path, monkeypatch):
    args = TrainingArguments(tmp_path / "mine", max_steps=2, save_steps=1, use_cpu=True, report_to="none",
                             push_to_hub=True, hub_model_id=MODEL, hub_token=hub.token)  # fmt: skip
    monkeypatch.setattr(PretextTrainer, "is_world_process_zero", lambda self: False)
    model = hf_pretext.RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()))
    trainer = PretextTrainer(model, args, open_source(emoji(count=16)), Image(default_processor(32)))
    trainer.train()
    assert trainer.state.global_step == 2 and ("model", MODEL) not in hub.repositories


def test_a_hub_that_refuses_ends_a_run_before_it_begins(hub, emoji, tmp_path):
    args = TrainingArguments(tmp_path / "mine", push_to_hub=True, hub_model_id=MODEL, hub_token="hf_wrong_secret",
                             use_cpu=True, report_to="none", max_steps=1)  # fmt: skip
    model = hf_pretext.RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()))
    with pytest.raises(ValueError, match="hf auth login") as refused:
        PretextTrainer(model, args, open_source(emoji(count=16)), Image(default_processor(32)))
    assert "hf_wrong_secret" not in str(refused.value)


WITHOUT_US = f"""
import sys; sys.modules["hf_pretext"] = None
from transformers import AutoModel, pipeline
from PIL import Image
encoder = AutoModel.from_pretrained("{MODEL}")
print(type(encoder).__name__, encoder.num_parameters())
print(len(pipeline("image-feature-extraction", model="{MODEL}")(Image.new("RGB", (64, 64)))))
"""
READ = f"""
import {{ listFiles, downloadFile, modelInfo }} from "@huggingface/hub";
const hubUrl = process.env.HF_ENDPOINT, repo = {{ type: "model", name: "{MODEL}" }};
const names = [];
for await (const file of listFiles({{ repo, hubUrl, recursive: true }})) names.push(file.path);
const config = await downloadFile({{ repo, path: "config.json", hubUrl }});
const weights = await downloadFile({{ repo, path: names.find((n) => n.endsWith(".safetensors")), hubUrl }});
const info = await modelInfo({{ name: "{MODEL}", hubUrl, additionalFields: ["library_name"] }});
console.log(JSON.stringify({{ names, config: JSON.parse(await config.text()), bytes: weights.size, task: info.task,
  library: info.library_name }}));
"""


@pytest.mark.slow
def test_the_official_javascript_client_reads_what_was_pushed(hub, run, tmp_path):
    if not shutil.which("npm"):
        pytest.skip("there is no npm")
    installed = subprocess.run(["npm", "install", "--silent", "@huggingface/hub"], cwd=tmp_path, capture_output=True)
    if installed.returncode:
        pytest.skip("npm can't fetch @huggingface/hub")
    push(run, MODEL, say=lambda text: None)
    (tmp_path / "read.mjs").write_text(READ)
    done = subprocess.run(
        ["node", "read.mjs"], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "HF_ENDPOINT": hub.url}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["names"]) == set(hub.files("model", MODEL))
    assert found["config"] == json.loads((run / "config.json").read_text()) and found["bytes"] > 100
    assert (found["task"], found["library"]) == ("image-feature-extraction", "transformers")


@pytest.mark.slow
def test_from_a_dataset_on_the_hub_to_a_model_there_and_on(tmp_path, emoji):
    """Trained on a streamed dataset, published, loaded by who has no hf_pretext, also offline, and trained on."""
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        emoji(split).to_parquet(data / f"{split}.parquet")
    with serve(tmp_path / "hub") as hub:
        hub.add("dataset", "tester/emoji", data)
        environment = {**hub.environment(tmp_path / "home", hub.token), "OMP_NUM_THREADS": "1"}

        def python(*arguments, **more) -> str:
            done = subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, env={**environment, **more}
            )
            assert done.returncode == 0, done.stderr
            assert hub.token not in done.stdout + done.stderr
            return done.stdout

        recipe = str(REPOSITORY / "recipes" / "rotation_emoji.py")
        smoke = ("--smoke", "--use_cpu", "--dataset", "tester/emoji", "--eval_dataset", "tester/emoji", "--eval_label",
                 "group", "--license", "apache-2.0")  # fmt: skip
        python(recipe, *smoke, "--output_dir", "run")
        printed = python("-m", "hf_pretext.cli", "push", "run", MODEL)
        assert hub.url in printed
        card = ModelCard(hub.files("model", MODEL)["README.md"].decode())
        assert card.data.datasets == ["tester/emoji"] and card.data.license == "apache-2.0"
        revision = hub.refs("dataset", "tester/emoji")["refs/heads/main"]
        assert f"Revision of `tester/emoji`: {revision}" in card.text
        online = python("-c", WITHOUT_US)
        assert online == python("-c", WITHOUT_US, HF_HUB_OFFLINE="1") and "ResNetModel" in online
        assert "rotation" in python("-m", "hf_pretext.cli", "info", MODEL)
        python("-c", f"import hf_pretext; assert hf_pretext.load('{MODEL}').objective == 'rotation'")
        python(recipe, *smoke, "--encoder", MODEL, "--output_dir", "further", "--push_to_hub", "--hub_model_id",
               "tester/further")  # fmt: skip
        further = ModelCard(hub.files("model", "tester/further")["README.md"].decode())
        assert further.data.base_model == MODEL
        assert json.loads(Path(tmp_path / "further" / "results.json").read_text())["encoder"]["start"] == MODEL
