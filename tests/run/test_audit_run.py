"""The audit of a run: in results.json, the card and the terminal, and again from its folder."""

import json
import math

import pytest
from recipe_runs import ROTATION, main, refused

from hf_pretext.audit.properties import IMAGE_PROPERTIES
from hf_pretext.audit.standalone import audit
from hf_pretext.cards.refresh import refresh_audit
from hf_pretext.cli import main as command
from hf_pretext.evaluation.transfer import SPLITS

pytestmark = pytest.mark.usefixtures("cache")
ASKED = ("--audit",)  # the bundled emoji name their nuisance, and what is the same
OF_THE_RUN = ("dataset", "test_seen", "rows", "encoders", "task", "cues", "warnings", "code")


@pytest.fixture(scope="module")
def audited(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("audited") / "run"
    return folder, main(ROTATION, *ASKED, "--seeds", 0, output_dir=folder)


def test_results_have_each_part_with_random_next_to_trained(audited):
    entry = audited[1]["audit"]
    assert tuple(entry) == OF_THE_RUN
    assert set(entry["rows"]) == set(SPLITS)
    image = entry["encoders"]["image"]
    wanted = {f"bits_{name}" for name in ("group", "style", *IMAGE_PROPERTIES)}
    wanted |= {
        "beyond_cues_group",
        "code_saved_group",
        "invariance_rotation",
        "parameter_bits_hue",
        "equivariance_flip",
        "invariance_name",
    }
    assert wanted <= image["trained"].keys() == image["random"].keys()
    assert len(image["trained"]["bits_group"]["values"]) == 1
    assert len(image["random"]["bits_group"]["values"]) == 3
    bits = {name for name in image["trained"] if name.startswith(("bits_", "beyond_"))}
    assert image["on_these_rows"].keys() == bits
    assert entry["task"]["unit"] == "image"
    assert entry["task"]["trained"]["entropy"]["mean"] == pytest.approx(2)
    assert {each["role"] for each in entry["cues"].values()} == {"cue", "artefact", "control"}
    assert {"without", "conflict"} <= entry["cues"]["corners"].keys()


def test_the_first_epoch_is_a_code_of_the_labels(audited):
    """The area under the losses, of the samples of the first epoch, each of which was new."""
    results = audited[1]
    (seed,), code = results["seeds"], results["audit"]["code"]
    assert code["uniform"] == pytest.approx(2)
    rows, before, area = round(seed["samples_seen"] / seed["epochs"]), 0, 0.0
    for entry in seed["history"]:
        last = min(entry["samples_seen"], rows)
        area, before = area + entry["loss"] * (last - before), last
    assert code["bits"]["mean"] == pytest.approx(area / before / math.log(2))
    assert before == code["samples"] and 1 < code["bits"]["mean"] < 4
    assert "(online code)" in (audited[0] / "README.md").read_text()


def test_the_card_and_the_terminal_show_it(audited, capsys):
    card = (audited[0] / "README.md").read_text()
    section = card.partition("## What it learned by")[2].partition("\n## ")[0]
    for line in ("| cue | role |", "| bits of style |", "| rotation |", "What the image encoder knows:"):
        assert line in section
    assert "beats" not in section  # of one seed there is no verdict
    assert "twice the spread" not in section


@pytest.mark.parametrize("given", [{}, {"dataset": "emoji", "label": "group", "rows": 64}])
def test_the_folder_of_the_run_gives_the_same_metrics(audited, given):
    """With all that the run had: labelled set, label and number of rows are those of its results, or named again."""
    folder, results = audited
    again = audit(folder, nuisance=("style",), same="name", only=("information", "cues"), device="cpu", **given)
    assert again["cues"] == results["audit"]["cues"]
    assert again["task"] == results["audit"]["task"] and again["test_seen"] == results["audit"]["test_seen"]
    for name in ("bits_group", "bits_style", "bits_mean_color", "code_saved_group"):
        ours, theirs = (each["encoders"]["image"]["trained"][name] for each in (again, results["audit"]))
        assert ours == theirs, name


def test_warnings_stay_with_the_parts_that_were_measured(audited, tmp_path):
    """What could not be measured again keeps its metrics and their warnings."""
    results = {**audited[1], "audit": {**audited[1]["audit"], "warnings": ["Trained model 1: ...", "The control x"]}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    given = {name: results["audit"][name] for name in ("dataset", "rows", "test_seen", "encoders", "task", "cues")}
    left_out = "No audit of the pretext task: no films"
    cues = {**given, "encoders": {}, "warnings": ["The control y"]}
    encoders = {name: given[name] for name in ("dataset", "rows", "test_seen", "encoders")} | {"warnings": [left_out]}
    for entry, expected in ((cues, ["Trained model 1: ...", "The control y"]), (encoders, ["The control y"])):
        refresh_audit(tmp_path, entry)
        assert json.loads((tmp_path / "results.json").read_text())["audit"]["warnings"] == expected


def test_the_command_writes_into_the_run(audited, capsys):
    folder, _ = audited
    before = json.loads((folder / "results.json").read_text())
    with pytest.raises(SystemExit) as ended:
        command(["audit", str(folder), "--only", "cues"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "cues of the pretext task" in printed and f"Written to {folder}/README.md" in printed
    after = json.loads((folder / "results.json").read_text())
    assert after == before  # the other parts stay, and the cues are the same


def test_an_audit_of_other_rows_does_not_replace_that_of_the_run(audited, tmp_path, capsys):
    folder, _ = audited
    before = (folder / "results.json").read_bytes()
    typed = ["audit", str(folder), "--only", "cues", "--rows", "30"]
    with pytest.raises(SystemExit) as ended:
        command(typed)
    assert "is not changed. Audit the same rows, or write this audit to a file with --output" in ended.value.code
    with pytest.raises(SystemExit) as ended:
        command([*typed, "--output", str(tmp_path / "audit.json")])
    assert not ended.value.code and json.loads((tmp_path / "audit.json").read_text())["rows"]["test"] <= 30
    assert (folder / "results.json").read_bytes() == before
    with pytest.raises(SystemExit) as ended:
        command([*typed, "--output", str(tmp_path / "nowhere" / "audit.json")])
    assert "can't be written. Give a file in an existing, writable folder" in ended.value.code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--audit", "--eval_dataset", "none"), "--audit True needs a labelled set, but --eval_dataset is none"),
        (("--audit_same", "name"), "--audit_same name has no effect without --audit. Give --audit"),
        (("--audit", "--audit_nuisance", "colour"), "'colour'"),
    ],
)
def test_what_cannot_be_audited_is_refused(options, message):
    assert message in refused(ROTATION, *options)


def test_a_folder_without_heads_or_a_labelled_set_is_refused(tmp_path, audited):
    from transformers import AutoModel

    AutoModel.from_pretrained(audited[0]).save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="does not say on what it was evaluated. Give a labelled set with --dataset"):
        audit(tmp_path / "plain")
    with pytest.raises(ValueError, match="pretext"):
        audit(tmp_path / "plain", dataset="emoji", label="group")
    with pytest.raises(ValueError, match="The audit has no part 'colors'. Give some of information,"):
        audit(audited[0], only=("colors",))
