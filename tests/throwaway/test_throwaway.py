"""An objective is one file: three that nobody else knows train, save, load, are evaluated and get a card."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from conftest import CONFIGS, EMOJI, REPOSITORY
from media import film
from transformers import AutoModel, AutoModelForImageTextToText

import hf_pretext
import hf_pretext.objectives
from hf_pretext import Recipe, registry
from hf_pretext.cards import read_results, render
from hf_pretext.evaluation.standalone import evaluate

FOLDER = Path(__file__).parent / "objectives"
SHAKESPEARE = REPOSITORY / "hf_pretext" / "samples" / "shakespeare"
CODE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
SMALL = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
SETTINGS = dict(seeds=[0], max_steps=3, logging_steps=1, save_steps=2, eval_rows=60, use_cpu=True)


@pytest.fixture(scope="module", autouse=True)
def others():
    """Somebody's own folder of objectives."""
    hf_pretext.objectives.__path__.append(str(FOLDER))
    registry.objective_class.cache_clear()
    yield
    hf_pretext.objectives.__path__.remove(str(FOLDER))
    registry.objective_class.cache_clear()
    for name in registry.names("objectives"):
        sys.modules.pop(f"hf_pretext.objectives.{name}", None) if (FOLDER / f"{name}.py").exists() else None


def vit_and_bert(image_size, vocab_size, max_length, pad_token_id):
    from transformers import BertConfig, VisionEncoderDecoderConfig, ViTConfig

    image = ViTConfig(**SMALL, image_size=image_size, patch_size=16)
    text = BertConfig(**SMALL, vocab_size=vocab_size, max_position_embeddings=max_length, pad_token_id=pad_token_id)
    return VisionEncoderDecoderConfig.from_encoder_decoder_configs(image, text)


def wav2vec2():
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        **SMALL,
        conv_dim=(32, 32),
        conv_stride=(10, 8),
        conv_kernel=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        mask_time_prob=0.0,
        layerdrop=0.0,
    )


def ast_and_videomae(image_size, num_frames):
    from transformers import VideoMAEConfig

    from hf_pretext.modules.composite import CompositeConfig

    sizes = dict(image_size=image_size, patch_size=16, num_frames=num_frames)
    encoders = {"audio": CONFIGS["ast"](), "video": VideoMAEConfig(**SMALL, **sizes)}
    return CompositeConfig(encoders={kind: config.to_diff_dict() for kind, config in encoders.items()})


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Tones of two pitches as wav files, named by a table."""
    folder = tmp_path_factory.mktemp("sounds")
    rng, lines = np.random.default_rng(0), []
    for i in range(60):
        pitch = (220, 880)[i % 2]
        wave = np.sin(2 * np.pi * pitch * np.arange(8000) / 16000) + 0.05 * rng.standard_normal(8000)
        soundfile.write(folder / f"{i}.wav", 0.3 * wave, 16000)
        content = (folder / f"{i}.wav").read_bytes()
        lines.append({"audio": {"bytes": content, "path": f"{i}.wav"}, "pitch": ("low", "high")[i % 2]})
    pq.write_table(pa.Table.from_pylist(lines), folder / "sounds.parquet")
    return folder / "sounds.parquet"


def run(name: str, encoder, folder: Path, **settings) -> dict:
    settings = {**SETTINGS, **settings, "output_dir": str(folder), "disable_tqdm": True}
    recipe = Recipe(name=name, objective=name, doc=f"{name} on little.", encoder=encoder, smoke_encoder=encoder,
                    settings=settings)  # fmt: skip
    return recipe.main([])


def test_describing(cache, tmp_path):
    settings = dict(dataset=[str(EMOJI)], eval_dataset=str(EMOJI), eval_label="group", text_column="text",
                    image_size=32, vocab_size=200, max_length=16, per_device_train_batch_size=4)  # fmt: skip
    results = run("describing", vit_and_bert, tmp_path / "run", **settings)
    assert results["transfer"]["kind"] == "image" and "other_transfers" not in results and "measures" not in results
    full = AutoModelForImageTextToText.from_pretrained(tmp_path / "run").eval()
    ours = hf_pretext.load(tmp_path / "run").eval()
    pixels = torch.randn(2, 3, 32, 32)
    written = [m.generate(pixels, max_new_tokens=4, decoder_start_token_id=2) for m in (full, ours.full_model)]
    assert torch.equal(*written)
    ours.encoder.save_pretrained(tmp_path / "encoder")
    alone = AutoModel.from_pretrained(tmp_path / "encoder").eval()
    torch.testing.assert_close(alone(pixels).last_hidden_state, ours.encoder(pixels).last_hidden_state)
    assert "pipeline_tag: image-to-text" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
def test_the_speed_of_a_sound(cache, tmp_path, sounds):
    settings = dict(dataset=[str(sounds)], eval_dataset=str(sounds), eval_label="pitch", seconds=0.5,
                    per_device_train_batch_size=4)  # fmt: skip
    results = run("playback_speed", wav2vec2, tmp_path / "run", **settings)
    assert results["inputs"] == ["audio"] and results["transfer"]["classes"] == ["high", "low"]
    assert render(read_results(tmp_path / "run")).startswith("---\n")
    code = f"""
import torch
from transformers import AutoFeatureExtractor, AutoModel
folder = {str(tmp_path / "run")!r}
extract, encoder = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder)
inputs = extract(torch.zeros(8000).numpy(), sampling_rate=16000, return_tensors="pt")
print(type(encoder).__name__, tuple(encoder(**inputs).last_hidden_state.shape))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("Wav2Vec2Model (1, "), done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["pretext"] == {"objective": "playback_speed", "fastest": 2.0}


@pytest.mark.slow
def test_the_speed_of_sounds_in_class_folders(cache, tmp_path):
    """A folder of wav and ogg files, next to a video and notes: trained, evaluated on its folders, resumed."""
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    for i in range(60):
        wave = np.sin(2 * np.pi * (220, 880)[i % 2] * np.arange(8000) / 16000) + 0.05 * rng.standard_normal(8000)
        (folder / ("low", "high")[i % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / ("low", "high")[i % 2] / f"{i}.{('wav', 'ogg')[i % 4 > 1]}", 0.3 * wave, 16000)
    (folder / "low" / "0.mp4").write_bytes(film(seconds=0.5))
    (folder / "low" / "0.txt").write_text("a low tone")
    settings = dict(dataset=[str(folder)], eval_dataset=str(folder), seconds=0.5, per_device_train_batch_size=4)
    results = run("playback_speed", wav2vec2, tmp_path / "run", **settings)
    assert results["inputs"] == ["audio"] and results["transfer"]["classes"] == ["high", "low"]
    (folder / "low" / "0.txt").write_text("a very low tone")  # nobody reads it
    longer = {**settings, "resume_from_checkpoint": "last", "max_steps": 4}
    (record,) = run("playback_speed", wav2vec2, tmp_path / "run", **longer)["seeds"]
    assert record["steps"] == 4 and len(record["resumed"]) == 1
    soundfile.write(folder / "high" / "1.wav", np.zeros(9000), 16000)
    with pytest.raises(SystemExit, match="finished run with data .*high/1.wav': 16044.* not .*high/1.wav': 18044"):
        run("playback_speed", wav2vec2, tmp_path / "run", **{**longer, "max_steps": 5})


@pytest.mark.slow
def test_sound_and_film_without_a_native_class(cache, tmp_path):
    """Two encoders in a sub-folder each: the card says which one to load, and `evaluate` finds its processor."""
    rows = [{"video": {"bytes": film(seconds=1.0), "path": None}, "label": "ab"[i % 2]} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "films.parquet")
    data = str(tmp_path / "films.parquet")
    settings = dict(dataset=[data], eval_dataset=data, eval_label="label", video_size=32, num_frames=4, seconds=0.3,
                    per_device_train_batch_size=4)  # fmt: skip
    results = run("sound_and_film", ast_and_videomae, tmp_path / "run", **settings)
    assert results["transfer"]["kind"] == "audio" and list(results["other_transfers"]) == ["video"]
    assert sorted(path.parent.name for path in (tmp_path / "run").glob("*/model.safetensors")) == ["audio", "video"]
    code = CODE.search((tmp_path / "run" / "README.md").read_text())[1]
    code = re.sub(
        r'(?<=from_pretrained\(")[^"]*', str(tmp_path / "run"), code
    )  # the card names no path of this machine
    assert 'subfolder="audio")' in code and 'subfolder="video")' in code
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == results["usage"]["output"], done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ASTModel", "VideoMAEModel"]
    alone = evaluate(tmp_path / "run", data, "label", device="cpu")
    assert alone["encoder"] == {"class": "ASTModel"} and alone["transfer"]["kind"] == "audio"
