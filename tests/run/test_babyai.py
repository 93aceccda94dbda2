"""recipes/data/babyai.py and its embedded share. The build is tried without network: pip takes two empty packages that
the test makes, and the levels are made up."""

import contextlib
import hashlib
import importlib
import io
import os
import subprocess
import sys
import types
import zipfile
from collections import Counter

import numpy as np
import pytest
from recipe_runs import RECIPES, REPOSITORY, InThisProcess

from hf_pretext.data.clips import to_clip
from hf_pretext.data.sources import open_splits
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.samples import SAMPLES

SCRIPT = RECIPES / "data" / "babyai.py"
FILMS = SAMPLES / "babyai_films"
SINGLE = ("text", "level", "pairs", "objects", "seed", "seconds", "split")
NARRATIONS = ("text", "start", "end", "chatter", "mission", "level", "true_start", "true_end")
NAMES = ("babyai", "babyai_heldout", "babyai_narrated")
SMALL = {
    "babyai": {"train": 2, "validation": 1, "test": 1},
    "babyai_heldout": {"train": 1, "validation": 1, "test": 1},
}
HUES = {  # of minigrid, for the brightest pixel of an object
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "purple": (112, 39, 195),
    "yellow": (255, 255, 0),
    "grey": (100, 100, 100),
}


@pytest.fixture(scope="module")
def module():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        yield importlib.import_module("babyai")
    sys.path[:] = [path for path in sys.path if not path.endswith("/packages")]


def rows_of(folder):
    """All films by split, in order, undecoded, with their fields."""
    fields = (*NARRATIONS, "seconds", "split") if folder.name == "babyai_narrated" else SINGLE
    sources = open_splits(str(folder), {name: f"json.{name}" for name in fields}, ("video", *fields))
    return {
        split: list(source.take([(i, j) for i, count in enumerate(source.counts) for j in range(count)]))
        for split, source in sources.items()
    }


@pytest.fixture(scope="module")
def rows():
    """The rows of the embedded share, by folder and split."""
    return {name: rows_of(FILMS / name) for name in NAMES}


def singles(rows):
    """All single missions of the embedded share."""
    return [row for name in NAMES[:2] for some in rows[name].values() for row in some]


def frames_of(row):
    """All frames of a film, `(F, 64, 64, 3)`."""
    count = round(2 * row["seconds"])
    frames = to_clip(row["video"], None, 2, count).frames
    assert len(to_clip(row["video"], None, None, 1).frames) == 1 and frames.shape == (count, 3, 64, 64)
    return frames.permute(0, 2, 3, 1).numpy()


def cells_of(frame):
    """The contents of the cells of a room that are not empty, by place. Walls and doors are left out."""
    cells = frame[8:56, 8:56].reshape(6, 8, 6, 8, 3).swapaxes(1, 2).reshape(36, 8, 8, 3)
    return {place: cell for place, cell in enumerate(cells) if cell[1:, 1:].any()}


def color_of(cell):
    """The colour of an object, from its brightest pixel; edges are darker."""
    pixels = cell[1:, 1:].reshape(-1, 3).astype(float)
    brightest = pixels[pixels.sum(1).argmax()]
    return min(
        HUES, key=lambda name: np.abs(np.array(HUES[name]) / max(HUES[name]) - brightest / brightest.max()).sum()
    )


# the embedded share


def test_splits_have_all_levels_and_no_film_shows_a_held_out_pair(module, rows):
    for name, counts in module.EMBEDDED.items():
        pairs = set(module.HELD_OUT) if name == "babyai_heldout" else set(module.SEEN)
        assert {split: len(some) for split, some in rows[name].items()} == {s: 5 * n for s, n in counts.items()}
        for split, some in rows[name].items():
            assert Counter(row["level"] for row in some) == dict.fromkeys(module.LEVELS, counts[split])
            for row in some:
                assert row["split"] == split and len(set(row["objects"])) == 5 and set(row["objects"]) <= pairs
                assert row["pairs"] == row["objects"][: len(row["pairs"])]
                assert all(pair in row["text"] for pair in row["pairs"])
                assert not any(pair in row["text"] for pair in {*module.PAIRS} - {*row["pairs"]})
    narrated = {split: len(some) for split, some in rows["babyai_narrated"].items()}
    assert narrated == module.EMBEDDED["babyai"]
    assert len({row["seed"] for row in singles(rows)}) == len(singles(rows))
    assert sum(path.stat().st_size for path in FILMS.rglob("*") if path.is_file()) < 1.5e6


def changed(cells, others):
    """The colours of what is in cells that are empty or different in other cells."""
    return {color_of(cell) for at, cell in cells.items() if at not in others or (others[at] != cell).any()}


def test_frames_show_what_the_sentence_says(rows):
    """Five objects and the agent at first; then one is gone or moved, a door is open, or all are where they were."""
    checked = Counter()
    for row in singles(rows):
        frames, color = frames_of(row), row["pairs"][0].split()[0]
        first, last = cells_of(frames[0]), cells_of(frames[-1])
        gone, new = changed(first, last), changed(last, first)
        assert len(first) == 6 and "red" in gone and "red" in new  # the agent is red, and always moves or turns
        doors = (frames != frames[0]).any((0, 3))
        doors[8:56, 8:56] = False
        if row["level"] == "pick_up":
            assert color in gone and new == {"red"} and len(last) == 5
        elif row["level"] == "put_next":
            assert color in gone and color in new and len(last) == 6
        elif row["level"].startswith("go_to"):
            assert gone == new == {"red"}
        assert doors.any() == (row["level"] == "open_order")
        checked[row["level"]] += 1
    assert checked == dict.fromkeys(checked, 31)


def test_the_last_frame_is_held(rows):
    for row in singles(rows):
        frames = frames_of(row)
        assert (frames[-3:] == frames[-1]).all() and (frames[-4] != frames[-1]).any()


def test_a_narrated_film_joins_five_missions_with_their_times(rows):
    for split, some in rows["babyai_narrated"].items():
        missions = rows["babyai"][split]
        for number, row in enumerate(some):
            parts = missions[5 * number : 5 * number + 5]
            assert np.array_equal(frames_of(row), np.concatenate([frames_of(part) for part in parts]))
            ends = np.cumsum([part["seconds"] for part in parts])
            true = {
                (part["text"], part["level"], end - part["seconds"], end) for part, end in zip(parts, ends, strict=True)
            }
            assert set(zip(row["mission"], row["level"], row["true_start"], row["true_end"], strict=True)) == true
            assert len(set(row["mission"])) == 5 and row["seconds"] == ends[-1]


def test_narrations_are_shifted_and_some_are_chatter(module, rows):
    shifts, chatter = [], []
    for row in [row for some in rows["babyai_narrated"].values() for row in some]:
        assert (
            row["start"] == sorted(row["start"]) and row["start"][0] >= 0 and max(row["end"]) <= row["seconds"] + 0.01
        )
        for values in zip(*(row[name] for name in NARRATIONS), strict=True):
            each = dict(zip(NARRATIONS, values, strict=True))
            assert abs((each["end"] - each["start"]) - (each["true_end"] - each["true_start"])) < 0.011
            assert (each["text"] in module.CHATTER) == each["chatter"] == (each["text"] != each["mission"])
            shifts.append(each["start"] - each["true_start"])
            chatter.append(each["chatter"])
    assert 0.1 < np.mean(chatter) < 0.3 and max(np.abs(shifts)) <= 7.51
    assert np.mean(np.abs(shifts) >= 2.49) > 0.95 and 4 < np.mean(np.abs(shifts)) < 6
    assert 0.3 < np.mean(np.array(shifts) > 0) < 0.7


def test_the_share_opens_as_a_labelled_set_of_films():
    for name in NAMES[:2]:
        labelled = LabelledSet(str(FILMS / name), Inputs(Video(default_video_processor(32), 4)), "json.level")
        assert len(labelled.labels.names) == 5 and not labelled.left_out and not labelled.cut_from_train


def test_the_script_makes_the_same_frames(module, rows):
    """With minigrid, where it is installed."""
    levels = pytest.importorskip("minigrid") and importlib.import_module("babyai_levels")
    checked = 0
    for name, counts in module.EMBEDDED.items():
        for split, count in counts.items():
            missions = [mission for film in module.plan(name, split, count) for mission in film]
            for row, mission in zip(rows[name][split], missions, strict=True):
                assert row["text"] == mission.text and row["seed"] == mission.seed
                if mission.seed % 4 == 0:
                    level = levels.Level(mission)
                    level.reset(seed=mission.seed)
                    assert level.mission == mission.text
                    assert np.array_equal(frames_of(row), module.solved(levels, mission))
                    checked += 1
    assert checked > 20


# the plan


def test_the_plan_has_5000_missions_of_five_levels_with_distinct_sentences_in_a_film(module):
    total, seeds = 0, set()
    for name, counts in module.SPLITS.items():
        pairs, texts = Counter(), set()
        for split, count in counts.items():
            films = list(module.plan(name, split, count))
            missions = [mission for film in films for mission in film]
            assert len(films) == count and all(len({mission.text for mission in film}) == 5 for film in films)
            assert Counter(mission.level for mission in missions) == dict.fromkeys(module.LEVELS, count)
            pairs.update(pair for mission in missions for pair in mission.pairs)
            texts |= {mission.text for mission in missions}
            seeds |= {mission.seed for mission in missions}
            total += len(missions)
        assert set(pairs) == set(module.HELD_OUT if name == "babyai_heldout" else module.SEEN)
        assert min(pairs.values()) > 0.7 * np.mean(list(pairs.values()))
        assert len(texts) > (100 if name == "babyai_heldout" else 400)
    assert total == 5000 and len(seeds) == 5000


def test_each_colour_and_each_object_of_a_held_out_pair_is_in_other_pairs(module):
    assert len(module.PAIRS) == 18 and len(module.HELD_OUT) == 6 and len(module.SEEN) == 12
    for number, parts in enumerate((module.COLORS, module.KINDS)):
        seen = Counter(pair.split()[number] for pair in module.SEEN)
        assert set(seen) == set(parts) and len(set(seen.values())) == 1


def test_sentences_name_pairs_and_doors_in_the_order_of_the_steps(module):
    def text(level, door_first=True):
        return module.Mission(level, ("red ball", "blue key", "grey box"), ("green", "red"), door_first, 0).text

    assert text("go_to") == "go to the red ball" and text("pick_up") == "pick up the red ball"
    assert text("put_next") == "put the red ball next to the blue key"
    assert text("go_to_order") == "go to the red ball, then go to the blue key"
    assert text("open_order") == "open the green door, then go to the red ball"
    assert text("open_order", False) == "go to the red ball, then open the green door"


# the build


def wheel(folder, name, version):
    """Writes an empty package as PyPI has it. Returns its requirement."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        for member, content in info.items():
            archive.writestr(f"{name}-{version}.dist-info/{member}", content)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def solve(mission, seed):
    """A square that moves, in a place that the seed decides; every third seed can't be solved."""
    if seed % 3 == 0:
        return None
    frames = np.zeros((3 + seed % 5, 64, 64, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[seed % 50 : seed % 50 + 8, 4 * number : 4 * number + 8] = (seed % 256, 100, 200)
    return frames


def prepare(module, patch, folder, solve=solve):
    """A home without data, a pip that has only empty packages, and made-up levels."""
    patch.setattr("worker_pool.ProcessPoolExecutor", InThisProcess)
    patch.setattr(module, "SPLITS", SMALL)
    packages = wheel(folder / "index", "minigrid", "3.1.0"), wheel(folder / "index", "gymnasium", "1.4.0")
    patch.setattr(module, "PACKAGES", packages)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder / "index"))
    patch.setattr("huggingface_hub.constants.HF_HOME", str(folder / "home"))
    patch.setitem(sys.modules, "babyai_levels", types.SimpleNamespace(solve=solve))
    for name in ("pygame", "pygame.freetype"):
        patch.setitem(sys.modules, name, types.ModuleType(name))


@pytest.fixture(scope="module")
def folders(module, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        prepare(module, patch, tmp_path_factory.mktemp("babyai"))
        return module.babyai(workers=1), module.babyai_heldout(workers=1), module.babyai_narrated(workers=1)


def test_three_folders_have_the_frames_of_the_levels(module, folders):
    assert [folder.name for folder in folders] == list(NAMES)
    for folder in folders[:2]:
        for split, some in rows_of(folder).items():
            missions = [each for film in module.plan(folder.name, split, SMALL[folder.name][split]) for each in film]
            assert [row["text"] for row in some] == [mission.text for mission in missions]
            for row in some:
                seed = next(seed for seed in range(row["seed"], row["seed"] + 2) if seed % 3)
                frames = solve(None, seed)
                assert np.array_equal(frames_of(row), np.concatenate([frames, frames[-1:], frames[-1:]]))
    assert {split: len(some) for split, some in rows_of(folders[2]).items()} == SMALL["babyai"]


def test_each_build_gives_the_same_files_and_is_made_once(module, folders, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path)
    others = module.babyai_narrated(workers=1), module.babyai_heldout(workers=1)
    for other in (*others, others[0].parent / "babyai"):
        folder = folders[0].parent / other.name
        assert folder != other and len(list(folder.iterdir())) == 3
        for path in folder.iterdir():
            assert path.read_bytes() == (other / path.name).read_bytes()
    monkeypatch.setattr(module, "build", None)
    assert (module.babyai_narrated(), module.babyai_heldout()) == others and module.babyai() == others[
        0
    ].parent / NAMES[0]


def test_the_embedded_share_is_written_as_a_build(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path)
    monkeypatch.setattr(module, "EMBEDDED", SMALL)
    module.embed(tmp_path / "share", 1)
    assert [path.name for path in sorted((tmp_path / "share").iterdir())] == list(NAMES)
    assert {split: len(some) for split, some in rows_of(tmp_path / "share" / "babyai").items()} == {
        split: 5 * count for split, count in SMALL["babyai"].items()
    }


def test_a_package_with_another_hash_is_refused(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path)
    monkeypatch.setattr(module, "PACKAGES", (module.PACKAGES[0][:-8] + 8 * "0",))
    with pytest.raises(ValueError, match=r"(?s)pip cannot download minigrid==3.1.0: .*--dataset"):
        module.babyai()
    assert not (tmp_path / "home" / "hf_pretext" / "babyai").exists()


def test_missions_that_the_bot_never_solves_are_an_error(module, tmp_path, monkeypatch):
    prepare(module, monkeypatch, tmp_path, solve=lambda mission, seed: None)
    with pytest.raises(ValueError, match=r"solved none of 20 rooms of Mission\(level="):
        module.babyai()
    home = tmp_path / "home" / "hf_pretext"
    assert not home.exists() or not any(home.iterdir())


def test_the_script_explains_itself():
    command = [sys.executable, SCRIPT, "--help"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0 and "--embedded" in done.stdout and "minigrid 3.1.0" in done.stdout
