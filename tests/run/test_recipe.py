"""A recipe from the command line to the results, and every mistake that a user can make on the way."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
import weakref

import datasets
import pytest
import torch
import transformers
from conftest import CONFIGS, EMOJI, REPOSITORY, VIT
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING

import hf_pretext
from hf_pretext import registry
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.features import extract
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.recipe import option_types
from hf_pretext.run.build import Blueprint
from hf_pretext.stream.sample_log import read_lines

RECIPE = REPOSITORY / "recipes" / "rotation_emoji.py"
FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "results.json", "README.md", "report.png"}


def load_recipe():
    spec = importlib.util.spec_from_file_location("rotation_emoji", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe


def main(*options, output_dir):
    return load_recipe().main(
        ["--smoke", "--use_cpu", "--disable_tqdm", "True", "--output_dir", str(output_dir), *map(str, options)]
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run, as a user starts it."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    done = subprocess.run(
        [sys.executable, str(RECIPE), "--smoke", "--use_cpu", "--output_dir", str(folder)],
        capture_output=True, text=True, cwd=folder.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def error_of(capsys, *options, output_dir) -> str:
    """The message of a run that is refused, after checking that it left nothing behind."""
    existed = os.path.exists(output_dir)
    before = sorted(os.listdir(output_dir)) if os.path.isdir(output_dir) else None
    with pytest.raises(SystemExit) as stopped:
        main(*options, output_dir=output_dir)
    assert stopped.value.code not in (0, None)
    assert os.path.exists(output_dir) == existed
    if before is not None:
        assert sorted(os.listdir(output_dir)) == before
    return str(stopped.value.code) + capsys.readouterr().err


def test_smoke_run_leaves_every_file(smoke):
    folder, _ = smoke
    assert set(os.listdir(folder)) >= FILES
    assert Image.open(folder / "report.png").size[0] > 800
    assert not [name for name in os.listdir(folder) if name.endswith((".bin", ".pt", ".tmp", ".pkl"))]


def test_output_shows_table_loading_lines_and_what_next(smoke):
    folder, output = smoke
    for words in (
        "trained (rotation)",
        "random",
        "pixels",
        "majority",
        "linear probe",
        "kNN",
        "accuracy",
        "Next:",
        "hf-pretext push",
    ):
        assert words in output
    lines = [line.strip() for line in output.splitlines() if "from_pretrained" in line or "import Auto" in line]
    assert len(lines) == 3
    code = "\n".join([*lines, "print(type(encoder).__name__, processor.crop_size['height'])"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder.parent)
    assert done.stdout.split() == ["ResNetModel", "64"], done.stderr


def test_results_hold_what_a_reader_needs(smoke):
    folder, _ = smoke
    results = json.loads((folder / "results.json").read_text())
    assert results["recipe"] == "rotation_emoji" and results["smoke"] is True
    assert results["objective"]["name"] == "rotation"
    assert results["seeds"][0]["samples_seen"] == 4 * 8 and results["seeds"][0]["seconds"] > 0
    assert results["settings"]["lr_scheduler_type"] == "cosine"
    assert results["versions"]["hf_pretext"] == hf_pretext.__version__
    transfer = results["transfer"]
    assert set(transfer["figures"]) == {"trained", "random", "pixels", "majority"}
    assert len(transfer["details"]["random"]) == 3
    assert set(transfer["details"]["trained"][0]["knn"]["layers"]) == {"-1", "-2", "-3"}
    assert transfer["beats_random"] == {"linear_probe_top1": None, "knn_top1": None}  # one seed shows nothing
    assert 0 <= results["pretext"]["accuracy"]["mean"] <= 1


def test_card_says_the_figures_of_the_results(smoke):
    folder, _ = smoke
    card, results = (folder / "README.md").read_text(), json.loads((folder / "results.json").read_text())
    for who in results["transfer"]["figures"].values():
        for value in who.values():
            assert f"{value['mean']:.3f}" in card
    assert "smoke run" in card and "report.png" in card
    assert "None" not in card.split("##")[1]


def test_a_plain_pipeline_gives_our_features(smoke):
    folder, _ = smoke
    pipe = pipeline("image-feature-extraction", model=str(folder), device="cpu")
    inputs = Inputs(ImageModality(AutoImageProcessor.from_pretrained(folder)))
    labelled = LabelledSet(str(EMOJI), inputs, "group", limit=30)
    ours = extract(AutoModel.from_pretrained(folder), labelled.batches("test"), description=None)[-1]
    rows = datasets.load_dataset("parquet", data_files=str(EMOJI / "test-*"), split="train")
    for i in (0, 7, 29):
        hidden = torch.tensor(pipe(rows[i * len(rows) // 30]["image"]))
        torch.testing.assert_close(hidden.mean((2, 3))[0], ours[i], atol=1e-4, rtol=1e-3)


def test_results_are_the_same_when_run_once_more(smoke, tmp_path):
    folder, _ = smoke
    second = main(output_dir=tmp_path / "again")
    before = json.loads((folder / "results.json").read_text())
    assert second["transfer"]["figures"] == before["transfer"]["figures"]
    assert second["pretext"] == before["pretext"]


def test_an_option_given_wins_over_smoke_and_the_recipe(tmp_path):
    results = main(
        "--max_steps", 2, "--learning_rate", 1e-4, "--num_rotations", 2, "--eval_rows", 40, "--image_size", 32,
        output_dir=tmp_path / "run",
    )  # fmt: skip
    assert results["seeds"][0]["steps"] == 2
    assert results["settings"]["learning_rate"] == 1e-4
    assert results["objective"]["num_rotations"] == 2
    assert results["image_size"] == [32, 32]
    assert results["transfer"]["rows"]["test"] == 40


def test_users_pictures_without_labels(tmp_path, emoji):
    """A folder of unlabelled images, one of them broken: trained on, metrics still from the recipe's own set."""
    images = tmp_path / "images"
    images.mkdir()
    for i, row in enumerate(emoji(count=20)):
        row["image"].resize((50 + i, 70)).save(images / f"{i}.jpg")
    (images / "broken.jpg").write_bytes((images / "3.jpg").read_bytes()[:200])
    results = main("--dataset", images, "--eval_rows", 40, output_dir=tmp_path / "run")
    assert results["data"]["rows"] == 21
    assert results["transfer"]["dataset"].endswith("recipes/data/emoji")
    assert sum(results["seeds"][0]["bad_samples"].values()) >= 1
    (bad,) = read_lines(tmp_path / "run" / "bad_samples.jsonl")
    assert bad == {"shard": str(images), "row": 20, "path": str(images / "broken.jpg"), "reason": bad["reason"]}


def test_a_mixture_of_users_data(tmp_path, emoji):
    for name, start in (("a", 0), ("b", 30)):
        (tmp_path / name).mkdir()
        for i in range(start, start + 20):
            emoji()[i]["image"].save(tmp_path / name / f"{i}.png")
    options = ["--dataset", tmp_path / "a", tmp_path / "b", "--mixture_weights", 3, 1, "--eval_dataset", "none"]
    results = main(*options, "--record_samples", output_dir=tmp_path / "run")
    assert results["data"]["rows"] == 40 and results["data"]["mixture_weights"] == [3, 1]
    keys = [key for line in read_lines(tmp_path / "run" / "samples-rank0.jsonl") for key in line["keys"]]
    assert len(keys) == 32 and 16 < sum(key.startswith(str(tmp_path / "a")) for key in keys) < 32
    assert f"epoch_of_source/{tmp_path / 'a'}" in results["seeds"][0]["history"][0]


def test_corrupt_pictures_are_reported_at_the_end(tmp_path, emoji, capsys):
    rows = emoji(count=30).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[4]["image"]["bytes"] = rows[4]["image"]["bytes"][:60]
    datasets.Dataset.from_list(rows, emoji(count=1).features).to_parquet(tmp_path / "data.parquet")
    main("--dataset", tmp_path / "data.parquet", "--eval_dataset", "none", output_dir=tmp_path / "run")
    output = capsys.readouterr().out
    assert "could not be used were replaced" in output and "data.parquet:4: damaged picture" in output


def test_without_an_evaluation_set_the_card_says_so(tmp_path):
    results = main("--eval_dataset", "none", output_dir=tmp_path / "run")
    assert "transfer" not in results
    assert set(os.listdir(tmp_path / "run")) >= FILES
    assert "Not measured" in (tmp_path / "run" / "README.md").read_text()


def test_users_labelled_set(tmp_path, emoji):
    for row in emoji(count=60):
        folder = tmp_path / "labelled" / row["group"]
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{row['text']}-{row['style']}.png")
    results = main("--eval_dataset", tmp_path / "labelled", "--eval_label", "label", output_dir=tmp_path / "run")
    assert results["transfer"]["label"] == "label"
    assert sum(results["transfer"]["rows"].values()) == 60


SIDE = ["--image_size", 32]


@pytest.mark.parametrize(("name", "size"), [("vit", []), ("timm_resnet18", SIDE), ("regnet", SIDE)])
def test_from_a_pretrained_encoder(tmp_path, name, size):
    """Whatever takes images when it is tried: `input_modalities` of RegNet say text."""
    AutoModel.from_config(CONFIGS[name]()).save_pretrained(tmp_path / "encoder")
    options = ["--encoder", tmp_path / "encoder", *size, "--eval_dataset", "none", "--learning_rate", 0.0]
    options += ["--max_steps", 1]
    results = main(*options, output_dir=tmp_path / "run")
    assert results["image_size"] == [32, 32]
    before, after = (AutoModel.from_pretrained(tmp_path / folder) for folder in ("encoder", "run"))
    assert results["encoder"]["class"] == type(before).__name__
    parameters = dict(after.named_parameters())
    assert all(torch.equal(value, parameters[key]) for key, value in before.named_parameters())


def test_a_half_precision_encoder_and_a_labelled_set_without_splits(tmp_path, emoji):
    """The random encoder next to it is in full precision, and the card says that test was seen in pretraining."""
    AutoModel.from_config(CONFIGS["resnet"]()).to(torch.bfloat16).save_pretrained(tmp_path / "encoder")
    emoji(count=60).rename_column("group", "label").to_parquet(tmp_path / "own.parquet")
    original = ["--dataset", tmp_path / "own.parquet", "--eval_dataset", tmp_path / "own.parquet"]
    results = main("--encoder", tmp_path / "encoder", *original, "--image_size", 32, output_dir=tmp_path / "run")
    assert results["transfer"]["test_seen_in_pretraining"] is True and results["transfer"]["label"] == "label"
    assert "no metric here is of unseen data" in (tmp_path / "run" / "README.md").read_text()


def test_a_seed_leaves_no_model_in_memory_to_the_next(tmp_path, monkeypatch):
    built, alive, fresh = [], [], Blueprint.fresh

    def watched(blueprint, seed, random=False):
        alive.append(sum(model() is not None for model in built))
        model, missing = fresh(blueprint, seed, random)
        built.append(weakref.ref(model))
        return model, missing

    monkeypatch.setattr(Blueprint, "fresh", watched)
    main("--seeds", 0, 1, 2, "--max_steps", 1, "--eval_dataset", "none", output_dir=tmp_path / "run")
    assert len(built) >= 3 and alive[-2:] == [0, 0]


@pytest.mark.slow  # of texts, and of the trainer alone, it is shown each time
def test_killed_run_goes_on_and_ends_as_one_never_killed(tmp_path):
    """Three seeds, stopped by SIGKILL in the middle; then resumed from the last checkpoint."""
    options = [
        "--smoke",
        "--use_cpu",
        "--seeds",
        "0",
        "1",
        "--max_steps",
        "30",
        "--save_steps",
        "5",
        "--eval_rows",
        "30",
    ]
    command = [sys.executable, str(RECIPE), *options, "--output_dir", str(tmp_path / "run")]
    unbroken = subprocess.Popen([*command[:-1], str(tmp_path / "whole")], stdout=subprocess.DEVNULL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 120
    while not (tmp_path / "run" / "checkpoint-10" / "trainer_state.json").exists() and time.time() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert not (tmp_path / "run" / "results.json").exists()

    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "holds an unfinished run" in refused.stderr and "--resume_from_checkpoint last" in refused.stderr

    resumed = subprocess.run([*command, "--resume_from_checkpoint", "last"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumes from" in resumed.stdout
    assert unbroken.wait() == 0
    outcome, unbroken = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "whole"))
    assert outcome["transfer"]["figures"] == unbroken["transfer"]["figures"]
    assert [run["samples_seen"] for run in outcome["seeds"]] == [240, 240]
    assert [e["loss"] for e in outcome["seeds"][0]["history"]] == [e["loss"] for e in unbroken["seeds"][0]["history"]]


def test_two_processes(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
        "--rdzv_endpoint", "localhost:0", str(RECIPE), "--smoke", "--use_cpu", "--output_dir", str(tmp_path / "run"),
        "--eval_rows", "30", "--eval_strategy", "steps", "--eval_steps", "2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Load the encoder anywhere") == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["processes"] == 2 and results["seeds"][0]["samples_seen"] == 4 * 8 * 2


class TestMistakes:
    """Each is reported before training, with the value and the fix, and leaves nothing behind."""

    @pytest.fixture
    def refused(self, capsys, tmp_path):
        return lambda *options, output_dir=None: error_of(capsys, *options, output_dir=output_dir or tmp_path / "run")

    def test_unknown_option(self, refused):
        assert "no option --learning_rat. Did you mean --learning_rate?" in refused("--learning_rat", 1)

    def test_unknown_value_of_a_setting(self, refused):
        assert "num_rotations" in refused("--num_rotations", 3)
        assert "between 1 and num_rotations=4" in refused("--rotations_per_image", 7)
        assert "crop_scale must lie above 0" in refused("--crop_scale", 0)

    def test_missing_column(self, refused):
        message = refused("--image_column", "picture")
        assert "no column 'picture' (--image_column)" in message and "image (Image)" in message
        message = refused("--eval_label", "kind")
        assert "no column 'kind' (--eval_label)" in message and "group (string)" in message

    def test_empty_dataset(self, refused, tmp_path):
        (tmp_path / "empty").mkdir()
        assert "holds no picture" in refused("--dataset", tmp_path / "empty")
        empty = datasets.Dataset.from_dict({"image": []}, datasets.Features({"image": datasets.Image()}))
        empty.to_parquet(tmp_path / "empty.parquet")
        assert "has no rows" in refused("--dataset", tmp_path / "empty.parquet")

    def test_dataset_that_does_not_exist(self, refused):
        assert "--dataset /no/such: there is no such file or folder" in refused("--dataset", "/no/such")
        assert "no split 'dev'" in refused("--split", "dev")

    def test_stream_settings(self, refused):
        assert "a positive number for each of the 1 datasets" in refused("--mixture_weights", 1, 2)
        assert "parts must be at least 1, but is 0" in refused("--parts", 0)
        assert "max_bad_fraction must lie between 0 and 1, but is 2.0" in refused("--max_bad_fraction", 2)
        assert "max_image_pixels must lie above 0" in refused("--max_image_pixels", 0)

    def test_wrong_image_size_for_the_encoder(self, refused, tmp_path):
        AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path / "vit")
        message = refused("--encoder", tmp_path / "vit", "--image_size", 48)
        assert "48x48 pixels (--image_size) do not fit" in message
        assert "Its config says image_size=32: give --image_size 32" in message

    def test_encoder_that_is_no_vision_model(self, refused, tmp_path):
        AutoModel.from_config(CONFIGS["bert"]()).save_pretrained(tmp_path / "bert")
        message = refused("--encoder", tmp_path / "bert", "--dataset", "/no/such")  # which is read later
        assert f"--encoder {tmp_path / 'bert'}: This objective needs an encoder of the kind image" in message
        assert "BertModel (bert) can't take noise of that kind" in message

    def test_encoder_of_videos(self, refused, tmp_path):
        """Its main input is called pixel_values, and `input_modalities` say image."""
        config = transformers.TimesformerConfig(**VIT, patch_size=8, num_frames=2)
        AutoModel.from_config(config).save_pretrained(tmp_path / "timesformer")
        message = refused("--encoder", tmp_path / "timesformer", "--image_size", 32)
        assert "needs an encoder of the kind image, but TimesformerModel (timesformer) can't take noise" in message

    def test_objective_whose_state_can_not_be_stored(self, refused, monkeypatch):
        class Unstorable(RotationForPreTraining):
            def get_extra_state(self):
                return {"seen": 3}  # safetensors hold tensors alone

        monkeypatch.setattr("hf_pretext.recipe.objective_class", lambda name: Unstorable)
        message = refused()
        assert "A checkpoint of Unstorable can't be saved and loaded again: AttributeError: 'dict'" in message

    def test_encoder_that_can_be_built_but_not_loaded(self, capsys, tmp_path, monkeypatch):
        """`from_pretrained` builds a model on the meta device, where numbers can't be read."""

        class ReadingConfig(transformers.ViTConfig):
            model_type = "reading_vit"

        class ReadingModel(transformers.ViTModel):
            config_class = ReadingConfig

            def __init__(self, config, **kwargs):
                super().__init__(config, **kwargs)
                self.register_buffer("drop", torch.tensor(torch.ones(4).sum().item()))

        monkeypatch.setitem(CONFIG_MAPPING._extra_content, "reading_vit", ReadingConfig)
        monkeypatch.setitem(MODEL_MAPPING._extra_content, ReadingConfig, ReadingModel)
        recipe = load_recipe()
        recipe.smoke_encoder = lambda image_size: ReadingConfig(**{**VIT, "image_size": image_size}, patch_size=16)
        with pytest.raises(SystemExit) as stopped:
            recipe.main(["--smoke", "--use_cpu", "--output_dir", str(tmp_path / "run")])
        assert "can't be saved and loaded again" in str(stopped.value) and "meta" in str(stopped.value)
        assert not (tmp_path / "run").exists()

    def test_encoder_that_is_not_present(self, refused):
        assert "--encoder /no/encoder is neither a folder" in refused("--encoder", "/no/encoder")

    def test_encoder_with_a_weight_missing(self, refused, tmp_path):
        from safetensors.torch import load_file, save_file

        AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path / "vit")
        weights = load_file(tmp_path / "vit" / "model.safetensors")
        del weights["embeddings.cls_token"]
        save_file(weights, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
        assert "lacks weights that training needs: embeddings.cls_token" in refused(
            "--encoder", tmp_path / "vit", "--image_size", 32
        )

    def test_licence_that_the_hub_does_not_know(self, refused):
        assert "--license Apache2: the Hub knows no licence of this name. Is it apache-2.0" in refused(
            "--license", "Apache2"
        )

    def test_output_folder_of_different_objective(self, refused, tmp_path):
        folder = tmp_path / "other"
        AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(folder)
        assert "holds another model" in refused(output_dir=folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "pretext": {"objective": "jigsaw"}}))
        assert "holds a run of the objective 'jigsaw'" in refused(output_dir=folder)

    def test_output_folder_of_a_finished_run(self, refused, smoke):
        assert "holds a finished run" in refused(output_dir=smoke[0])
        message = refused("--resume_from_checkpoint", "last", "--learning_rate", 9, output_dir=smoke[0])
        assert "holds a finished run with learning_rate 0.0015, not 9.0" in message
        message = refused("--resume_from_checkpoint", "last", "--seed", 1, output_dir=smoke[0])
        assert "holds a finished run with seed 0, not 1" in message

    def test_output_folder_with_a_readme_of_somebody_else(self, refused, tmp_path):
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / "README.md").write_text("mine")
        assert "holds a README.md that is not ours" in refused(output_dir=tmp_path / "project")

    def test_labelled_set_of_ones_users(self, refused, tmp_path, emoji):
        assert "--eval_dataset /no/such: there is no such file" in refused("--eval_dataset", "/no/such")
        twice = emoji(count=20).rename_column("group", "label").rename_column("image", "front")
        features = datasets.Features(twice.features | {"side": datasets.Image()})
        twice = twice.map(lambda row: {"side": row["front"]}, features=features)
        twice.to_parquet(tmp_path / "twice.parquet")
        message = refused("--eval_dataset", tmp_path / "twice.parquet")
        assert "has several columns of images" in message and "Choose with --eval_image_column" in message

    def test_image_size_of_nothing(self, refused):
        assert "image_size must be at least 1 pixel, but is 0" in refused("--image_size", 0)

    def test_processor_that_does_what_ours_does_not(self, refused, tmp_path):
        AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path / "vit")
        size = {"height": 32, "width": 32}
        transformers.EfficientNetImageProcessor(size=size).save_pretrained(tmp_path / "vit")
        assert "image processor, EfficientNetImageProcessor" in refused("--encoder", tmp_path / "vit")

    def test_unwritable_output_folder(self, refused, tmp_path):
        (tmp_path / "file").write_text("in the way")
        assert "can't be written to" in refused(output_dir=tmp_path / "file" / "run")
        assert "can't be written to" in refused(output_dir="/proc/run")

    def test_nothing_to_resume(self, refused):
        assert "there is no folder" in refused("--resume_from_checkpoint", "last")
        assert "there is no such checkpoint" in refused("--resume_from_checkpoint", "/no/checkpoint-1")

    def test_evaluation_while_training_without_a_labelled_set(self, refused):
        assert "--eval_strategy steps needs a labelled set" in refused(
            "--eval_dataset", "none", "--eval_strategy", "steps"
        )

    def test_seeds_that_repeat(self, refused):
        assert "--seeds needs different numbers" in refused("--seeds", 1, 1)


def test_help_teaches_and_imports_no_more_than_an_objective(capsys):
    done = subprocess.run([sys.executable, "-X", "importtime", str(RECIPE), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in ("your own", "--dataset", "--num_rotations", "--crop_scale", "--learning_rate", "--help_all"):
        assert words in done.stdout
    assert "--fsdp" not in done.stdout
    assert len(done.stdout.splitlines()) < 140
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported and not {"sklearn", "matplotlib", "evaluate", "hf_pretext.trainer"} & imported
    with pytest.raises(SystemExit) as stopped:
        load_recipe().main(["--help_all"])
    assert stopped.value.code in (0, None) and "--fsdp" in capsys.readouterr().out


def clashes(types) -> dict[str, list[str]]:
    """Options that several dataclasses have, with those."""
    owners: dict[str, list[str]] = {}
    for type_ in types:
        for field in dataclasses.fields(type_):
            owners.setdefault(field.name, []).append(type_.__name__)
    return {name: of for name, of in owners.items() if len(of) > 1}


@pytest.mark.parametrize("name", registry.names("objectives"))
def test_no_option_is_of_two_groups(name):
    objective = registry.objective_class(name)
    assert clashes(option_types(objective)) == {}

    @dataclasses.dataclass
    class Clashing(objective.task_class):
        learning_rate: float = 0.0
        crop_scale: float = 0.0

    of_task = [Clashing if type_ is objective.task_class else type_ for type_ in option_types(objective)]
    named = clashes(of_task)
    assert named["learning_rate"] == ["Clashing", "TrainingArguments"]
    assert ("crop_scale" in named) == ("image" in objective.inputs)
