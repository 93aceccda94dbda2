"""ALIGN on clip art and emoji: captions as noisy as the web's, made up for by their number and by smoothing.

accelerate launch recipes/align_openclipart.py            # as claimed: 3 seeds, then the figures
python recipes/align_openclipart.py --seed 0              # one seed
python recipes/align_openclipart.py --smoke               # does it all in seconds on emoji, learns nothing
python recipes/align_openclipart.py --dataset path/to/pairs   # your own pictures with captions

Measured: nothing yet.

The claim is for the settings below; model_cards/align_openclipart holds its card, figures and pictures. The drawings
(25 MB) are fetched once with apt, see recipes/data/openclipart.py; --smoke takes the embedded emoji alone.
"""

import sys
from pathlib import Path

from emoji_pairs import EMOJI, SETTINGS, SMOKE, resnet_and_transformer, tiny_resnet_and_transformer

from hf_pretext import Recipe


def fetch() -> dict:
    """The drawings, mixed with the emoji whose test split it is judged by."""
    sys.path.insert(0, str(Path(__file__).parent / "data"))
    from openclipart import openclipart

    return {"dataset": [str(openclipart()), EMOJI]}


recipe = Recipe(
    name="align_openclipart",
    objective="contrastive",
    doc=__doc__,
    encoder=resnet_and_transformer,
    smoke_encoder=tiny_resnet_and_transformer,
    fetch=fetch,
    settings={
        **{name: value for name, value in SETTINGS.items() if name != "dataset"},
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
