"""recipes/data/atari.py without network: pip takes a small package that the test makes, with an emulator of made-up
games."""

import contextlib
import hashlib
import importlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import psutil
import pytest
from recipe_runs import RECIPES, REPOSITORY, InThisProcess
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext.data.clips import to_clip
from hf_pretext.data.sources import open_source, open_splits
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.video import Video, default_video_processor

SCRIPT = RECIPES / "data" / "atari.py"
# A game is white and loud in some steps, on black and silence. Its file says in which, and what is wrong with it
EMULATOR = """
import enum, os
import numpy as np

class Action(enum.Enum):
    NOOP, FIRE, UP, UPFIRE = range(4)

class LoggerMode(enum.Enum):
    Error = 0

class ALEInterface:
    @staticmethod
    def setLoggerMode(mode): assert mode is LoggerMode.Error
    def __init__(self): self.options, self.steps, self.ended = {}, -1, 0
    def setInt(self, name, value): self.options[name] = value
    def setFloat(self, name, value): self.options[name] = value
    def setBool(self, name, value): self.options[name] = value
    def loadROM(self, path):
        assert self.options["sound_obs"] is True and self.options["repeat_action_probability"] == 0.0
        with open(path) as file:
            self.kind, self.period = file.read().split()
        if self.kind == "abort":
            os.abort()
        if self.kind == "slow":
            import time
            time.sleep(60)
        self.noise = np.random.default_rng(self.options["random_seed"] if self.kind != "copy" else 0)
    def getMinimalActionSet(self): return list(Action)
    def act(self, action):
        assert isinstance(action, Action)
        self.steps += 1
        return (-2.0, 0.0, 1.0)[self.steps // 400 % 3] if self.steps % 40 == 0 else 0.0
    def on(self): return self.steps % int(self.period) < int(self.period) // 2
    def getAudio(self):
        if self.kind == "silent":
            return np.full(512, 131, np.uint8)
        if self.kind == "copy":
            return np.tile(np.repeat(np.uint8([98, 158]), 16), 16)
        loud = self.noise.integers(60, 196, 512).astype(np.uint8)
        return loud if self.on() else np.full(512, 128, np.uint8)
    def getScreenRGB(self):
        value = self.on() and self.kind != "still"
        return np.full((210, 160, 3), (200, 100, 50) if value else (0, 0, 10), np.uint8)
    def game_over(self): return self.steps % 500 == 499
    def reset_game(self): self.ended += 1
"""
GAMES = {
    "one": "fine 12",
    "three": "fine 36",
    "quiet": "silent 12",
    "frozen": "still 12",
    "hum": "copy 12",
}
INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: ale-py\nVersion: 0.12.1\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}
CLIPS = 6 * 2  # films of a game, in this process


def wheel(folder, games):
    """Writes a package as PyPI has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "ale_py-0.12.1-py3-none-any.whl", "w") as archive:
        archive.writestr("ale_py/__init__.py", EMULATOR)
        for name, content in {**games, "combat": "abort 2"}.items():
            archive.writestr(f"ale_py/roms/{name}.bin", content)
        for name, content in INFO.items():
            archive.writestr(f"ale_py-0.12.1.dist-info/{name}", content)


@pytest.fixture(scope="module")
def module():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        yield importlib.import_module("atari")
    sys.path[:] = [path for path in sys.path if not path.endswith("/package")]
    sys.modules.pop("ale_py", None)


def prepare(module, patch, folder, games=GAMES, pool=InThisProcess):
    """A home without data, and a pip that has only the package with these games. pool: None for real processes."""
    if pool is not None:
        patch.setattr("worker_pool.ProcessPoolExecutor", pool)
        patch.setattr(module, "CLIPS", 2)
    wheel(folder / "index", games)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder / "index"))
    patch.setattr("huggingface_hub.constants.HF_HOME", str(folder / "home"))
    digest = hashlib.sha256((folder / "index" / "ale_py-0.12.1-py3-none-any.whl").read_bytes()).hexdigest()
    patch.setattr(module, "REQUIREMENT", f"{module.PACKAGE} --hash=sha256:{digest}")


@pytest.fixture(scope="module")
def built(module, tmp_path_factory):
    """Both folders, and what their build printed."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as printed:
        prepare(module, patch, tmp_path_factory.mktemp("atari"))
        folders = module.atari(workers=1), module.atari_heldout(workers=1)
    return folders, printed.getvalue()


@pytest.fixture(scope="module")
def folders(built):
    return built[0]


def rows_of(folder):
    """All films, in order, with their fields."""
    fields = ("game", "reward", "reward_sign", "session", "clip", "split")
    sources = open_splits(str(folder), {name: f"json.{name}" for name in fields}, (("audio", "video"), *fields))
    return {
        split: list(source.take([(i, j) for i, count in enumerate(source.counts) for j in range(count)]))
        for split, source in sources.items()
    }


def test_splits_are_by_session_and_games_are_held_out(module, folders):
    assert [folder.name for folder in folders] == ["atari", "atari_heldout"]
    games = []
    for folder in folders:
        rows = rows_of(folder)
        assert all(row["split"] == split for split, some in rows.items() for row in some)
        for session, split in enumerate(module.SPLITS[folder.name]):
            assert {row["session"] for row in rows[split]} >= {session}
        sessions = [{row["session"] for row in some} for some in rows.values()]
        assert sum(map(len, sessions)) == len(set.union(*sessions)) == 6
        games.append({row["game"] for some in rows.values() for row in some})
    assert games[1] < {"one", "three"}  # those with films of all sessions
    assert not games[0] & games[1] and len(games[0] | games[1]) == 3  # two of five have no film that can be used
    assert module.SPLITS["atari"].count("train") == 4


def test_silent_still_and_equal_clips_are_left_out(built):
    folders, printed = built
    rows = [row for folder in folders for some in rows_of(folder).values() for row in some]
    games = [row["game"] for row in rows]
    assert {game: games.count(game) for game in games} == {"one": CLIPS, "three": CLIPS, "hum": 1}
    for words in (f"{CLIPS} silent", f"{CLIPS} still", f"{CLIPS - 1} with the sound of another one"):
        assert words in printed
    assert f"{2 * CLIPS + 1} films; left out" in printed
    assert {row["reward_sign"] for row in rows} == {"negative", "zero", "positive"}
    for row in rows:
        assert row["reward_sign"] == ("negative", "zero", "positive")[int(np.sign(row["reward"])) + 1]


def test_each_build_gives_the_same_frames_and_samples(module, folders, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path)
    others = module.atari(), module.atari_heldout()
    for folder, other in zip(folders, others, strict=True):
        assert folder != other and [path.name for path in sorted(folder.iterdir())] == [
            f"{split}-00000.tar" for split in ("test", "train", "validation")
        ]
        for path in folder.iterdir():
            assert path.read_bytes() == (other / path.name).read_bytes()


@pytest.mark.slow
def test_processes_play_the_same_in_any_number_and_order(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path, {"one": "fine 12", "two": "fine 24"}, pool=None)
    builds = [module.build(workers) for workers in (1, 2)]
    assert builds[0] == builds[1] and [len(films) for films in builds[0].values()] == [30, 30]


def test_sound_and_frames_are_of_the_same_time(folders):
    """Loud steps have a white screen; a step is a sixth of a frame."""
    checked = 0
    for row in rows_of(folders[0])["train"] + rows_of(folders[1])["train"]:
        if row["game"] == "hum":
            continue
        clip = to_clip(row["video"], 2.0, 10, 20, sampling_rate=16_000)
        assert clip.mask.all() and clip.frames.shape == (20, 3, 64, 64)
        colours = {tuple(frame[:, 32, 32].tolist()) for frame in clip.frames}
        assert colours == {(200, 100, 50), (0, 0, 10)}
        white = clip.frames[:, 0, 32, 32] == 200
        loud = clip.sound.unfold(0, 160, 160).std(1)[5::10] > 0.1  # 10 ms in the middle of each frame
        assert (white == loud).float().mean() >= 0.9  # a border of steps may lie between the two
        checked += 1
    assert checked >= 12


def test_it_is_built_once(module, folders, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folders[0].parent.parent))
    monkeypatch.setattr(module, "build", None)
    assert (module.atari(), module.atari_heldout()) == folders


def test_the_package_opens_it_as_a_labelled_set_of_sounds_and_of_films(folders):
    sounds = Audio(Wav2Vec2FeatureExtractor(return_attention_mask=True), 2.0)
    for inputs in (Inputs(Video(default_video_processor(16), 4)), Inputs(sounds)):
        labelled = LabelledSet(str(folders[0]), inputs, "json.game")
        assert not labelled.left_out and not labelled.cut_from_train and len(labelled.labels.names) >= 2
    assert next(iter(labelled.batches("test")))["input_values"].shape[1] == 32_000
    assert open_source(str(folders[0]), needed=(("audio", "video"), "video")).columns == {"video": "mp4"}


def test_another_package_is_refused_before_it_is_unpacked(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path)
    wheel(tmp_path / "index", {**GAMES, "one": "fine 14"})
    with pytest.raises(ValueError, match=r"(?s)pip cannot download ale-py==0.12.1: .*Expected sha256 .*--dataset"):
        module.atari()
    assert not (tmp_path / "home" / "hf_pretext" / "atari").exists()


def test_a_download_that_fails_says_why(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path)
    (tmp_path / "index" / "ale_py-0.12.1-py3-none-any.whl").unlink()
    with pytest.raises(ValueError, match=r"(?s)pip cannot download ale-py==0.12.1: .*No matching.*--dataset"):
        module.atari()


def test_an_emulator_that_aborts_leaves_nothing(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path, {"one": "abort 12"}, pool=None)
    with pytest.raises(ValueError, match=r"A process of the emulator \(ale-py==0.12.1\) was ended.*--dataset"):
        module.atari(workers=1)
    home = tmp_path / "home" / "hf_pretext"
    assert not home.exists() or not any(home.iterdir())


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_nothing(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path, {"one": "slow 12"}, pool=None)
    code = f"import atari; atari.REQUIREMENT = {module.REQUIREMENT!r}; print(atari.atari(workers=1))"
    paths = os.pathsep.join([str(SCRIPT.parent), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    parent, deadline = psutil.Process(process.pid), time.time() + 60
    while time.time() < deadline and not any("spawn_main" in " ".join(c.cmdline()) for c in parent.children()):
        time.sleep(0.1)
    children = parent.children(recursive=True)
    assert children
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, "processes of a killed build go on"
    home = tmp_path / "home" / "hf_pretext"
    assert not home.exists() or not any(home.iterdir())


def test_the_script_explains_itself():
    command = [sys.executable, SCRIPT, "--help"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0 and "--workers" in done.stdout and "ale-py 0.12.1" in done.stdout
