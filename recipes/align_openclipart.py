"""ALIGN on emoji and on clip art with captions as noisy as those of the web; it uses label smoothing.

accelerate launch recipes/align_openclipart.py               # the full recipe: 3 seeds, then the metrics
python recipes/align_openclipart.py --seed 0                 # one seed
python recipes/align_openclipart.py --smoke                  # test run with a tiny encoder on emoji, takes seconds
python recipes/align_openclipart.py --dataset path/to/pairs  # your own image-text pairs

Measured: 3 seeds, 10.9 minutes each (352 pairs/s) on 2 cores of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe (label `group`): 0.597 ± 0.006 (untrained encoder 0.500
± 0.027, raw pixels 0.515, majority class 0.202); kNN (label `group`): 0.617 ± 0.007 (untrained encoder 0.474 ±
0.014, raw pixels 0.529, majority class 0.202). Other metrics on the test split: image to caption, R@1: 0.210 ±
0.010 (untrained model 0.003 ± 0.001, chance 0.004); image to caption, R@10: 0.446 ± 0.008 (untrained model
0.039 ± 0.002, chance 0.040); zero-shot, top-1: 0.194 ± 0.026 (untrained model 0.096 ± 0.055, chance 0.111);
zero-shot, per class: 0.182 ± 0.025 (untrained model 0.104 ± 0.013, chance 0.111); matching by cosine, any
captions: 0.730 ± 0.013 (untrained model 0.491 ± 0.007, chance 0.500); matching by cosine, captions of one
class: 0.671 ± 0.007 (untrained model 0.502 ± 0.005, chance 0.500); pretext task: loss 5.348 ± 0.073, accuracy
0.183 ± 0.002.

The results are those of the settings below. model_cards/align_openclipart has the card, the metrics and the plots.
The clip art (25 MB) is downloaded once with apt (see recipes/data/openclipart.py). --smoke uses only the emoji, which
are part of this repository. Titles of the clip art name 18 of the 248 test concepts, so these concepts are not new to
the model.
"""

import sys
from pathlib import Path

from emoji_pairs import ABOUT_EMOJI, EMOJI, SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.pairs import resnet_and_transformer, tiny_resnet_and_transformer


def drawings_and_emoji() -> list[str]:
    """Returns the folders of the clip art and of the emoji. The evaluation is on the test split of the emoji."""
    sys.path.insert(0, str(Path(__file__).parent / "data"))
    from openclipart import openclipart

    return [str(openclipart()), EMOJI]


recipe = Recipe(
    name="align_openclipart",
    objective="contrastive",
    doc=__doc__,
    encoder=resnet_and_transformer,
    smoke_encoder=tiny_resnet_and_transformer,
    fetch={"dataset": drawings_and_emoji},
    settings={
        **{name: value for name, value in SETTINGS.items() if name != "dataset"},
        "limits": f"{ABOUT_EMOJI} Titles of the clip art name 18 of the 248 test concepts, so these concepts are not "
        "new to the model.",
        "other_captions": ["keywords"],
        "caption_weights": [0.6, 0.4],
        "label_smoothing": 0.1,
        "mixture_weights": [0.5, 0.5],
        "output_dir": "runs/align_openclipart",
    },
    smoke={
        **SMOKE,
        "dataset": [EMOJI],
        "mixture_weights": None,
        "output_dir": "runs/align_openclipart-smoke",
    },
)

if __name__ == "__main__":
    recipe.main()
