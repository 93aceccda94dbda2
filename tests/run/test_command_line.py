"""Options of dataclasses: what a recipe says gives way to --smoke, and that to an option given."""

import dataclasses
import subprocess
import sys
from typing import ClassVar

import pytest
from recipe_runs import MASKED_LM, RECIPES, ROTATION, load_recipe, main, refused

from hf_pretext import registry
from hf_pretext.recipe import option_types
from hf_pretext.run.command_line import CommandLine, resume_command

pytestmark = pytest.mark.usefixtures("cache")


@dataclasses.dataclass
class Bread:
    """What is baked.

    loaves: How many, 100% of them round.
    smoke: Bake little.
    """

    _argument_group_name: ClassVar[str] = "bread"

    loaves: int = 1
    seeds: list[int] = dataclasses.field(default_factory=list)
    smoke: bool = False


@dataclasses.dataclass
class Oven:
    """Where it is baked."""

    degrees: float = 200.0
    rack_height: int | None = None

    def __post_init__(self):
        if self.degrees > 300:
            raise ValueError(f"degrees must be at most 300, but is {self.degrees}.")


def bakery(settings=None, smoke=None) -> CommandLine:
    return CommandLine([Bread, Oven], "bake.py", "Bakes bread.", settings or {}, smoke or {})


def test_what_nobody_sets_has_no_value():
    assert bakery().parse([]) == {}


def test_smoke_wins_over_the_recipe_and_an_option_given_over_both():
    line = bakery({"loaves": 40, "degrees": 220.0}, {"loaves": 2})
    assert line.parse([]) == {"loaves": 40, "degrees": 220.0}
    assert line.parse(["--smoke"]) == {"loaves": 2, "degrees": 220.0, "smoke": True}
    assert line.parse(["--smoke", "--loaves", "3"]) == {"loaves": 3, "degrees": 220.0, "smoke": True}
    assert line.parse(["--loaves", "3"])["loaves"] == 3


def test_an_option_given_wins_also_where_it_is_the_default():
    assert bakery({"loaves": 40}).parse(["--loaves", "1"])["loaves"] == 1


def test_only_what_the_command_line_says_is_given():
    line = bakery({"loaves": 40}, {"degrees": 180.0})
    line.parse(["--smoke", "--seeds", "4", "5"])
    assert line.given == {"smoke": True, "seeds": [4, 5]}


def test_dashes_are_understood_and_abbreviations_are_not(capsys):
    assert bakery().parse(["--rack-height", "2"]) == {"rack_height": 2}
    with pytest.raises(SystemExit) as stopped:
        bakery().parse(["--rack", "2"])
    assert stopped.value.code == 2 and "unknown option --rack." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--loafs=3"], "error: unknown option --loafs=3. Did you mean --loaves?"),
        (["--zzz"], "See --help, and --help_all"),
        (["--loaves", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_bad_option_ends_with_status_2(argv, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        bakery().parse(argv)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


def test_a_recipe_can_not_set_what_is_no_option():
    with pytest.raises(ValueError, match="The recipe sets unknown options: loafs, steam."):
        bakery({"loafs": 3, "degrees": 220.0}, {"steam": True})


def test_each_dataclass_is_built_from_its_own_values():
    line, values = bakery(), {"loaves": 3, "degrees": 250, "output_dir": "elsewhere"}
    assert line.build(Bread, values) == Bread(loaves=3)
    assert line.build(Oven, values) == Oven(degrees=250.0)
    with pytest.raises(ValueError, match="degrees must be at most 300"):
        line.build(Oven, {"degrees": 400})


def test_parsing_leaves_the_types_of_the_dataclass_as_they_were():
    bakery()
    assert {field.name: field.type for field in dataclasses.fields(Oven)}["rack_height"] == int | None


def test_help_shows_what_the_recipe_sets_as_defaults(capsys):
    with pytest.raises(SystemExit) as stopped:
        bakery({"loaves": 40}).parse(["--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code in (0, None) and shown.startswith("usage: bake.py [options]\n\nBakes bread.")
    assert "How many, 100% of them round. (this recipe: 40)" in shown and "(default: 1)" not in shown
    assert "--rack-height" not in shown and "--degrees" not in shown  # not among the common ones of the framework


def test_help_all_shows_the_rest(capsys):
    with pytest.raises(SystemExit):
        bakery().parse(["--help_all"])
    assert "--degrees" in capsys.readouterr().out


# of recipes


def test_unknown_option():
    assert "unknown option --learning_rat. Did you mean --learning_rate?" in refused(ROTATION, "--learning_rat", 1)


def test_an_option_given_wins_over_smoke_and_the_recipe(tmp_path):
    results = main(
        ROTATION, "--max_steps", 2, "--learning_rate", 1e-4, "--num_rotations", 2, "--eval_rows", 40,
        "--image_size", 32, output_dir=tmp_path / "run",
    )  # fmt: skip
    assert results["seeds"][0]["steps"] == 2
    assert results["settings"]["learning_rate"] == 1e-4
    assert results["objective"]["num_rotations"] == 2
    assert results["image_size"] == [32, 32]
    assert results["transfer"]["rows"]["test"] == 40


def test_help_teaches_and_imports_no_more_than_an_objective(capsys):
    typed = [sys.executable, "-X", "importtime", str(RECIPES / f"{ROTATION}.py"), "--help"]
    done = subprocess.run(typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in ("your own", "--dataset", "--num_rotations", "--crop_scale", "--learning_rate", "--help_all"):
        assert words in done.stdout
    assert "--fsdp" not in done.stdout
    assert len(done.stdout.splitlines()) < 165
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported and not {"sklearn", "matplotlib", "evaluate", "hf_pretext.trainer"} & imported
    with pytest.raises(SystemExit) as stopped:
        load_recipe(ROTATION).main(["--help_all"])
    assert stopped.value.code in (0, None) and "--fsdp" in capsys.readouterr().out


def test_help_is_about_texts(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(MASKED_LM, "--help", output_dir=tmp_path)
    assert stopped.value.code in (0, None)
    output = capsys.readouterr().out
    for words in ("--tokenizer", "--max_length", "--mask_ratio", "--sample_by", "your own texts"):
        assert words in output
    assert "--crop_scale" not in output and "--image_size" not in output


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
    assert ("crop_scale" in named) == bool({"image", "video"} & {*objective.inputs})


def test_the_command_that_resumes_is_the_one_typed(monkeypatch):
    typed = ["python", "recipes/rotation_emoji.py", "--output_dir", "my runs/one"]
    monkeypatch.setattr("sys.orig_argv", typed)
    monkeypatch.setattr("sys.argv", typed[1:])
    resumed = "python recipes/rotation_emoji.py --output_dir 'my runs/one' --resume_from_checkpoint last"
    assert resume_command("rotation_emoji", 1) == resumed
    assert resume_command("rotation_emoji", 2) == "the same command with --resume_from_checkpoint last"
    monkeypatch.setattr("sys.orig_argv", [*typed, "--resume_from_checkpoint", "last"])
    assert resume_command("rotation_emoji", 1) == resumed
    monkeypatch.setattr("sys.argv", ["notebook"])
    assert resume_command("rotation_emoji", 1) == "the same command with --resume_from_checkpoint last"
