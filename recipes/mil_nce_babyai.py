"""MIL-NCE on BabyAI: a ResNet on frames and a small Transformer learn which sentence belongs to the film of a mission.

accelerate launch recipes/mil_nce_babyai.py               # the full recipe: 3 seeds, then the metrics
python recipes/mil_nce_babyai.py --seed 0                 # one seed
python recipes/mil_nce_babyai.py --smoke                  # a test of all steps, takes seconds
python recipes/mil_nce_babyai.py --dataset path/to/films --seconds 6 --bag_size 5 --vocab_size 8000  # your own films

Your films need subtitles and no labels. Here, each film has one sentence. `python recipes/data/babyai.py` prints the
folder of longer films too, whose sentences are shifted in time: give it with --dataset, --seconds 6, and --bag_size 3
or --positives nearest. Without --seconds, a clip is a full film. --word_dim 300 encodes texts as the paper does.

Measured: 3 seeds, 18.3 minutes each (100 videos and texts/s) on 1 core of Intel(R) Xeon(R) Processor. Top-1
accuracy on the test split, mean ± standard deviation: linear probe, 10% of labels (label `json.level`): 0.509
± 0.010 (untrained encoder 0.445 ± 0.015, frame pixels 0.422, majority class 0.200); linear probe, 100% of
labels (label `json.level`): 0.524 ± 0.014 (untrained encoder 0.445 ± 0.014, frame pixels 0.458, majority class
0.200); kNN (label `json.level`): 0.528 ± 0.014 (untrained encoder 0.439 ± 0.027, frame pixels 0.202, majority
class 0.200). Other metrics on the test split: video to caption, R@1: 0.217 ± 0.076 (untrained model 0.003 ±
0.001, chance 0.004); video to caption, R@1, held out: 0.152 ± 0.065 (untrained model 0.009 ± 0.007, chance
0.010); video to caption, R@5: 0.631 ± 0.068 (untrained model 0.013 ± 0.003, chance 0.020); video to caption,
R@5, held out: 0.503 ± 0.118 (untrained model 0.038 ± 0.004, chance 0.051); caption to video, R@1: 0.148 ±
0.019 (untrained model 0.004 ± 0.004, chance 0.004); caption to video, R@1, held out: 0.102 ± 0.080 (untrained
model 0.003 ± 0.006, chance 0.010); caption to video, R@5: 0.480 ± 0.033 (untrained model 0.015 ± 0.005, chance
0.020); caption to video, R@5, held out: 0.388 ± 0.160 (untrained model 0.054 ± 0.024, chance 0.049); video to
caption, R@1, frames in order, chosen classes: 0.102 ± 0.034 (untrained model 0.008 ± 0.003, chance 0.004);
video to caption, R@1, frames in order, chosen classes, held out: 0.122 ± 0.046 (untrained model 0.022 ± 0.017,
chance 0.010); video to caption, R@1, frames shuffled, chosen classes: 0.020 ± 0.010 (untrained model 0.008 ±
0.003, chance 0.004); video to caption, R@1, frames shuffled, chosen classes, held out: 0.050 ± 0.022
(untrained model 0.022 ± 0.017, chance 0.010); video to caption, R@1, last frame alone, chosen classes: 0.007 ±
0.003 (untrained model 0.008 ± 0.003, chance 0.004); video to caption, R@1, last frame alone, chosen classes,
held out: 0.050 ± 0.008 (untrained model 0.022 ± 0.017, chance 0.010); matching by cosine, any captions: 0.949
± 0.004 (untrained model 0.510 ± 0.005, chance 0.500); matching by cosine, any captions, held out: 0.826 ±
0.076 (untrained model 0.497 ± 0.020, chance 0.500); matching by cosine, captions of one class: 0.847 ± 0.007
(untrained model 0.496 ± 0.010, chance 0.500); matching by cosine, captions of one class, held out: 0.662 ±
0.077 (untrained model 0.492 ± 0.003, chance 0.500); temporal localization, R@1: 0.679 ± 0.021 (untrained model
0.212 ± 0.016, chance 0.200); temporal localization, median error in seconds: 1.333 ± 0.144 (untrained model
8.833 ± 0.144, chance 9.000); pretext task: loss 3.315 ± 0.198, accuracy 0.258 ± 0.071, narrations 1.000 ±
0.000.

The films are built once, in about a minute (see recipes/data/babyai.py). --smoke uses only data of this repository.
"""

from films import HELD_OUT_MISSIONS, MISSIONS, NARRATED_MISSIONS, ORDER_CLASSES, SETTINGS, SMOKE, missions

from hf_pretext import Recipe
from hf_pretext.presets.films import resnet_and_transformer, tiny_resnet_and_transformer

WITHOUT = ("eval_video_label", "num_mel_bins", "seconds")
ABOUT_BABYAI = (
    "The films are of a bot in rooms of five objects, and the sentences are made by a grammar of few words. The "
    "encoder of frames sees one frame at a time. Their order is seen by a GRU that only hf_pretext loads."
)


recipe = Recipe(
    name="mil_nce_babyai",
    objective="mil_nce",
    doc=__doc__,
    encoder=resnet_and_transformer,
    smoke_encoder=tiny_resnet_and_transformer,
    fetch={
        "dataset": lambda: [missions()],
        "eval_dataset": missions,
        "heldout_dataset": lambda: missions("babyai_heldout"),
        "localization_dataset": lambda: missions("babyai_narrated"),
    },
    settings={
        **{name: value for name, value in SETTINGS.items() if name not in WITHOUT},
        "eval_label": "json.level",
        "text_column": "json.text",
        "eval_text_column": "json.text",
        "order_classes": ORDER_CLASSES,
        "localization_text_column": "json.mission",
        "localization_start_column": "json.true_start",
        "localization_end_column": "json.true_end",
        "localization_seconds": 6.0,  # about the length of a mission
        "report_dataset": None,
        "limits": ABOUT_BABYAI,
        "full_video": True,
        "num_frames": 8,
        "max_length": 32,
        "vocab_size": 300,
        "crop_scale": 1.0,  # a crop may lose the object
        "color_jitter": 0.0,  # sentences name colours
        "bag_size": 1,  # a film has one sentence
        "temporal_layers": 1,
        "temperature": 0.07,
        "num_train_epochs": 30,
        "per_device_train_batch_size": 32,
        "learning_rate": 2e-3,
        "output_dir": "runs/mil_nce_babyai",
    },
    smoke={
        **{name: value for name, value in SMOKE.items() if name != "eval_video_label"},
        "dataset": [MISSIONS],
        "eval_dataset": MISSIONS,
        "heldout_dataset": HELD_OUT_MISSIONS,
        "localization_dataset": NARRATED_MISSIONS,
        "output_dir": "runs/mil_nce_babyai-smoke",
    },
)

if __name__ == "__main__":
    recipe.main()
