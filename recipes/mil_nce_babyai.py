"""MIL-NCE on BabyAI: a ResNet on frames and a small Transformer learn which sentence belongs to the film of a mission.

accelerate launch recipes/mil_nce_babyai.py               # the full recipe: 3 seeds, then the metrics
python recipes/mil_nce_babyai.py --seed 0                 # one seed
python recipes/mil_nce_babyai.py --smoke                  # a test of all steps, takes seconds
python recipes/mil_nce_babyai.py --dataset path/to/films  # your own films with subtitles; no labels needed

Each film has one sentence. `python recipes/data/babyai.py` prints the folder of longer films too, whose sentences are
shifted in time: give it with --dataset, and --bag_size 3 or --positives nearest. --word_dim 300 encodes texts as the
paper does.

Measured: nothing yet.

The films are built once, in about a minute (see recipes/data/babyai.py). --smoke uses only data of this repository.
"""

from films import HELD_OUT_MISSIONS, MISSIONS, NARRATED_MISSIONS, ORDER_CLASSES, SETTINGS, SMOKE, missions

from hf_pretext import Recipe

WITHOUT = ("eval_video_label", "num_mel_bins", "seconds")
ABOUT_BABYAI = (
    "The films are of a bot in rooms of five objects, and the sentences are made by a grammar of few words. The "
    "encoder of frames sees one frame at a time. Their order is seen by a GRU that only hf_pretext loads."
)


def resnet_and_transformer(
    vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int, width: int = 16, text_width: int = 128
):
    """Returns the config of a ResNet on frames, whose first maps have the size of a room, and a CLIP text encoder of
    two layers.

    width: channels of the stem of the ResNet. text_width: hidden size of the text encoder."""
    from transformers import CLIPTextConfig, ResNetConfig

    from hf_pretext.modules.composite_config import CompositeConfig

    video = ResNetConfig(
        embedding_size=width,
        hidden_sizes=[4 * width, 8 * width, 8 * width],
        depths=[1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=True,
    )
    text = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=text_width,
        num_hidden_layers=2,
        num_attention_heads=max(text_width // 64, 1),
        intermediate_size=text_width * 4,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        initializer_factor=8.0,  # else all sentences are nearly the same at the start, and learning begins late
    )
    encoders = {"video": video, "text": text}
    return CompositeConfig(encoders={kind: config.to_diff_dict() for kind, config in encoders.items()})


def tiny_resnet_and_transformer(vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int):
    """Returns a tiny config for --smoke."""
    return resnet_and_transformer(vocab_size, max_length, pad_token_id, eos_token_id, 4, 32)


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
        "bf16": False,  # small convolutions are slower in bfloat16 on most CPUs
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
