"""The command that `look` advises exists."""

import pytest

from hf_pretext.look.next_steps import OBJECTIVES, next_steps
from hf_pretext.registry import objective_class


@pytest.mark.parametrize("kinds", OBJECTIVES, ids="+".join)
def test_objectives_take_the_kinds(kinds):
    taken = {"text" if kind == "subtitles" else kind for kind in kinds}
    assert {*objective_class(OBJECTIVES[kinds]).inputs} == taken


def test_options_are_quoted_and_those_without_a_value_left_out():
    commands = next_steps("my images", {"image"}, {"image_column": None, "separator": ";"})
    assert commands[0] == "hf-pretext train rotation --dataset 'my images' --separator ';' --output_dir runs/mine"
    assert next_steps("a", {"audio"}, {}) == []
