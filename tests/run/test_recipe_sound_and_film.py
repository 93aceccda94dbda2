"""Complete runs of XDC and SoundNet on films with sound: trained, evaluated, resumed, with a card whose code works."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CONFIGS
from media import film
from transformers import CLIPImageProcessor, ResNetForImageClassification

import hf_pretext
from hf_pretext import Recipe
from hf_pretext.evaluation.standalone import evaluate

CODE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
SETTINGS = dict(
    seeds=[0], max_steps=8, logging_steps=1, save_steps=3, eval_rows=60, use_cpu=True, disable_tqdm=True,
    video_size=32, num_frames=4, seconds=0.3, per_device_train_batch_size=4, eval_label="label",
)  # fmt: skip


def wav2vec2():
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=(32, 32),
        conv_stride=(10, 8), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True, mask_time_prob=0.0,
        layerdrop=0.0,
    )  # fmt: skip


def wav2vec2_and_videomae():
    from hf_pretext.modules.composite import CompositeConfig

    encoders = {"audio": wav2vec2(), "video": CONFIGS["videomae"]()}
    return CompositeConfig(encoders={kind: config.to_diff_dict() for kind, config in encoders.items()})


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("films") / "films.parquet"
    rows = [{"video": {"bytes": film(seconds=0.6), "path": None}, "label": "ab"[i % 2]} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def run(objective: str, encoder, folder: Path, films: str, *arguments: str, **settings) -> dict:
    settings = {**SETTINGS, "dataset": [films], "eval_dataset": films, "output_dir": str(folder), **settings}
    recipe = Recipe(name=objective, objective=objective, doc=f"{objective} on few films.", encoder=encoder,
                    smoke_encoder=encoder, settings=settings)  # fmt: skip
    return recipe.main(list(arguments))


def printed_by_card(folder: Path, results: dict) -> list[str]:
    """The first words of what the code in a card prints, in a process without this package."""
    code = CODE.search((folder / "README.md").read_text())[1]
    code = re.sub(r'(?<=from_pretrained\(")[^"]*', str(folder), code)  # the card names no path of this machine
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=folder.parent)
    assert done.stdout.strip() == results["usage"]["output"], done.stderr
    return [line.split()[0] for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_xdc(cache, films, tmp_path):
    folder = tmp_path / "run"
    results = run("xdc", wav2vec2_and_videomae, folder, films, num_clusters=3)
    assert results["transfer"]["kind"] == "audio" and list(results["other_transfers"]) == ["video"]
    assert set(results["pretext"]) == {"loss", "audio_to_video_accuracy", "video_to_audio_accuracy"}
    (record,) = results["seeds"]
    assert record["prepared"]["clusters"]["rounds"] == 2 and set(record["prepared"]["clusters"]["used"]) == {
        "audio",
        "video",
    }
    assert printed_by_card(folder, results) == ["Wav2Vec2Model", "VideoMAEModel"]
    longer = run(
        "xdc", wav2vec2_and_videomae, folder, films, num_clusters=3, max_steps=9, resume_from_checkpoint="last"
    )
    assert longer["seeds"][0]["steps"] == 9 and longer["seeds"][0]["prepared"]["clusters"]["rounds"] == 2
    rows = len(hf_pretext.load(folder).clusters.codes("audio"))
    assert rows == 20
    with pytest.raises(SystemExit, match="num_clusters is 30, but the data has only 20 rows"):
        run("xdc", wav2vec2_and_videomae, tmp_path / "other", films, num_clusters=30)
    with pytest.raises(SystemExit, match="--allow_changed_source: xdc keeps a value for each row"):
        run("xdc", wav2vec2_and_videomae, tmp_path / "other", films, allow_changed_source=True, num_clusters=3)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_soundnet(cache, films, tmp_path):
    teacher, folder = tmp_path / "teacher", tmp_path / "run"
    ResNetForImageClassification(CONFIGS["resnet"]()).save_pretrained(teacher)
    CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=24).save_pretrained(teacher)
    with pytest.raises(SystemExit, match="needs a teacher: give image classifiers with --teachers"):
        run("soundnet", wav2vec2, folder, films)
    with pytest.raises(SystemExit, match="--video_encoder: soundnet trains no video encoder"):
        run("soundnet", wav2vec2, folder, films, "--video_encoder", str(teacher), teachers=[str(teacher)])
    results = run("soundnet", wav2vec2, folder, films, teachers=[str(teacher)])
    assert results["transfer"]["kind"] == "audio" and "other_transfers" not in results
    assert list(results["encoders"]) == ["audio"] and results["objective"]["image_mean"] == [0.5] * 3
    assert printed_by_card(folder, results) == ["Wav2Vec2Model"]
    assert str(tmp_path) not in (folder / "README.md").read_text() + (folder / "config.json").read_text()
    assert (folder / "preprocessor_config.json").exists()
    assert not (folder / "audio").exists() and not (folder / "video").exists()
    pretext = json.loads((folder / "config.json").read_text())["pretext"]
    assert pretext["teachers"] == [".../teacher"]
    longer = run("soundnet", wav2vec2, folder, films, teachers=[str(teacher)], max_steps=9,
                 resume_from_checkpoint="last")  # fmt: skip
    assert longer["seeds"][0]["steps"] == 9
    alone = evaluate(folder, films, "label", device="cpu")
    assert alone["encoder"] == {"class": "Wav2Vec2Model"} and alone["transfer"]["kind"] == "audio"
    assert all(torch.isfinite(value).all() for value in hf_pretext.load(folder).state_dict().values())
