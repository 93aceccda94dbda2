"""Commands that train on a data set, by its kinds of data.

kinds of data, options -> commands
"""

import shlex
from collections.abc import Collection, Mapping

OBJECTIVES = {  # by kinds of data: an objective and a recipe of it
    ("video", "text"): ("mil_nce", "mil_nce_babyai"),
    ("video", "subtitles"): ("mil_nce", "mil_nce_babyai"),
    ("video", "audio"): ("audio_visual", "audio_visual_atari"),
    ("image", "text"): ("contrastive", "contrastive_emoji"),
    ("image",): ("rotation", "rotation_emoji"),
    ("text",): ("masked_lm", "masked_lm_reviews"),
}


def next_steps(dataset: str, kinds: Collection[str], options: Mapping[str, str | None]) -> list[str]:
    """Returns the commands that train on a data set by the first objective that takes its kinds of data; `[]` for none.

    dataset: as it was given. kinds: of the data; "audio", too, for films with sound. options: of the run, None for
    those that were not given."""
    objective, recipe = next((OBJECTIVES[some] for some in OBJECTIVES if {*kinds}.issuperset(some)), (None, None))
    if objective is None:
        return []
    given = {"dataset": dataset, **options, "output_dir": "runs/mine"}
    words = " ".join(f"--{name} {shlex.quote(value)}" for name, value in given.items() if value is not None)
    return [f"hf-pretext train {objective} {words}", f"python recipes/{recipe}.py {words}"]
