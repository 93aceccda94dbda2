"""The command that trains on a data set, by its kinds of data.

kinds of data, options -> a command
"""

import shlex
from collections.abc import Collection, Mapping

OBJECTIVES = {  # by kinds of data
    ("video", "text"): "mil_nce",
    ("video", "subtitles"): "mil_nce",
    ("video", "audio"): "audio_visual",
    ("image", "text"): "contrastive",
    ("image",): "rotation",
    ("text",): "masked_lm",
}


def next_steps(dataset: str, kinds: Collection[str], options: Mapping[str, str | None]) -> list[str]:
    """Returns the command that trains on a data set by the first objective that takes its kinds of data; `[]` for none.

    dataset: as it was given. kinds: of the data; "audio", too, for films with sound. options: of the run, None for
    those that were not given."""
    objective = next((OBJECTIVES[some] for some in OBJECTIVES if {*kinds}.issuperset(some)), None)
    if objective is None:
        return []
    given = {"dataset": dataset, **options, "output_dir": "runs/mine"}
    words = " ".join(f"--{name} {shlex.quote(value)}" for name, value in given.items() if value is not None)
    return [f"hf-pretext train {objective} {words}"]
