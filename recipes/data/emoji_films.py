"""Makes hf_pretext/samples/emoji_films: short films of moving emoji with notes, for --smoke and tests.

    python recipes/data/emoji_films.py FOLDER      # writes the tars of three splits into a new folder

Films are 2 s long: 20 frames of 64 x 64 pixels, sound of 16 kHz. A `game` is an emoji with a way to move, a timbre and
a melody. Emoji and timbre belong together, and so do way to move and melody for an emoji; but two games share each of
the four. So neither the emoji nor the timbre alone gives the game. A note begins when the emoji lands, turns or jumps:
sound and frames are synchronous. The six sessions of a game differ in background, drawing style, pitch and speed.

The images are those of recipes/data/emoji; the sounds are computed here. It is a stand-in, in the same layout, for the
films of recipes/data/atari.py, of which nothing can be part of this repository.
"""

import argparse
import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from film_tars import mp4, write_tars
from PIL import Image, ImageDraw

from hf_pretext.samples import SAMPLES
from hf_pretext.utils.files import atomic_path

EMBEDDED = SAMPLES / "emoji"
SECONDS, FPS, RATE, SIDE, SPRITE = 2, 10, 16_000, 64, 24
ROOM = SIDE - SPRITE  # of the position of an emoji, in pixels
EMOJI = ("frog", "octopus", "rocket", "red-apple", "soccer-ball")
STYLES = ("noto", "noto-v1", "fluent-emoji-flat")
SPLITS = ("train", "train", "train", "train", "validation", "test")  # of the sessions
CLIPS = 2  # of a session
MELODIES = ((0, 3, 7, 10), (0, 10, 3, 7), (0, 7, 3, 10), (0, 10, 7, 3), (0, 3, 10, 7))  # semitones; one set of notes
PITCHES = (0, 4, 1, 5, 2, 3)  # semitones, of the sessions: those of validation and test are within those of train
LOWEST, LEVELS, STEP = 110.0, 15, 0.016  # pitch in Hz; a note decays in steps of some seconds, from `LEVELS` to 0


def bounce(beat: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Falls and lands at each beat, and moves slowly sideways."""
    part = beat % 1
    return across(beat / 6 + start / ROOM), ROOM * (1 - 4 * part * (1 - part))


def sweep(beat: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Moves from side to side, and turns at each beat."""
    return across(beat), np.full_like(beat, start)


def circle(beat: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Moves in a circle, a quarter in a beat."""
    angle = np.pi / 2 * (beat + start % 4)
    return ROOM / 2 * (1 + np.cos(angle)), ROOM / 2 * (1 + np.sin(angle))


def drop(beat: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Falls from the top, lands at a beat, and is at the top of the next place."""
    return (start + 17 * np.floor(beat)) % (ROOM + 1), ROOM * (beat % 1) ** 2


def hop(beat: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Stands still, and jumps to the next place at each beat."""
    number = np.floor(beat)
    return (start + 15 * number) % (ROOM + 1), (start + 26 * number) % (ROOM + 1)


def across(turns: np.ndarray) -> np.ndarray:
    """Position between 0 and `ROOM` that turns at each whole number."""
    return ROOM * (1 - np.abs(turns % 2 - 1))


NOISE = np.random.default_rng(0).integers(0, 2, 31)  # of a period of a buzz
MOTIONS = (bounce, sweep, circle, drop, hop)  # (time in beats, start in pixels) -> x, y in pixels
TIMBRES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (  # phase in periods -> wave in [-1, 1]
    lambda phase: np.where(phase % 1 < 0.5, 1.0, -1.0),
    lambda phase: np.where(phase % 1 < 0.1, 1.0, -0.2),
    lambda phase: 4 * np.abs(phase % 1 - 0.5) - 1,
    lambda phase: np.where(NOISE[(16 * phase).astype(int) % len(NOISE)], 1.0, -1.0),
    lambda phase: np.where((3 * phase % 1 < 0.5) ^ (phase % 1 < 0.5), 1.0, -1.0),
)


def games() -> list[tuple[int, int]]:
    """Returns the numbers of emoji and way to move of each game."""
    return [(emoji, (emoji + shift) % len(MOTIONS)) for shift in (0, 1) for emoji in range(len(EMOJI))]


def film(emoji: int, motion: int, session: int, clip: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames `(F, H, W, 3)` and samples int16 `(T,)` of a clip."""
    random = np.random.default_rng((emoji, motion, session, clip))
    speed = 2.2 + 0.2 * PITCHES[-1 - session]  # beats per second
    first, start = random.random() + random.integers(len(MELODIES[0])), int(random.integers(ROOM + 1))
    x, y = MOTIONS[motion](first + speed * (np.arange(SECONDS * FPS) + 0.5) / FPS, start)
    image, frames = sprite(emoji, session), []
    for place in zip(np.round(x).astype(int), np.round(y).astype(int), strict=True):
        frame = background(emoji, motion, session)
        frame.paste(image, tuple(map(int, place)), image)
        frames.append(np.asarray(frame))
    melody = MELODIES[(3 * emoji + 2 * (motion - emoji)) % len(MELODIES)]
    beat = first + speed * np.arange(SECONDS * RATE) / RATE
    return np.stack(frames), notes(beat, speed, melody, PITCHES[session], TIMBRES[emoji])


def notes(beat: np.ndarray, speed: float, melody: tuple[int, ...], pitch: int, timbre: Callable) -> np.ndarray:
    """Returns a note for each beat, int16 `(T,)`, of 8 bits.

    beat: time in beats `(T,)`. speed: beats per second. pitch: of the session, in semitones."""
    semitones = pitch + np.array(melody)[np.floor(beat).astype(int) % len(melody)]
    seconds = beat % 1 / speed  # since the note began
    level = np.maximum(LEVELS - np.floor(seconds / STEP), 0)
    wave = timbre(seconds * LOWEST * 2 ** (semitones / 12))
    return (np.round(level * wave) * 1024).astype(np.int16)


def background(emoji: int, motion: int, session: int) -> Image.Image:
    """Returns the background of a session of a game: stripes of two colours."""
    random = np.random.default_rng((emoji, motion, session))
    colours, width = random.integers(40, 216, (2, 3)), int(random.integers(6, 20))
    rows, columns = np.indices((SIDE, SIDE))
    stripes = (rows if random.integers(2) else columns) // width % 2
    return Image.fromarray(colours[stripes].astype(np.uint8))


def sprite(emoji: int, session: int) -> Image.Image:
    """Returns the emoji in the style of a session, RGBA. What is white from the border on is transparent."""
    image = drawings()[EMOJI[emoji], STYLES[session % len(STYLES)]]
    outside = Image.new("RGB", (SIDE + 2, SIDE + 2), "white")
    outside.paste(image, (1, 1))
    ImageDraw.floodfill(outside, (0, 0), (255, 0, 255), thresh=30)
    mask = (np.asarray(outside)[1:-1, 1:-1] != (255, 0, 255)).any(2)
    cut = Image.fromarray(np.dstack([np.asarray(image), 255 * mask.astype(np.uint8)]), "RGBA")
    small = cut.resize((SPRITE, SPRITE), Image.Resampling.BOX)
    small.putalpha(small.getchannel("A").point(lambda value: 255 * (value > 127)))
    return small


@cache
def drawings() -> dict[tuple[str, str], Image.Image]:
    """Returns the images of `EMOJI` in each style, RGB on white."""
    images = {}
    for path in sorted(EMBEDDED.glob("*.parquet")):
        for row in pq.read_table(path, columns=["name", "style", "image"]).to_pylist():
            if row["name"] in EMOJI:
                images[row["name"], row["style"]] = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    return images


def films() -> Iterator[tuple[str, bytes, dict]]:
    """Yields split, mp4 file and fields of each clip, session by session."""
    for session, split in enumerate(SPLITS):
        for clip in range(CLIPS):
            for emoji, motion in games():
                game = f"{EMOJI[emoji]} {MOTIONS[motion].__name__}"
                fields = {"game": game, "session": session, "clip": clip, "split": split}
                yield split, mp4(*film(emoji, motion, session, clip), FPS, RATE, thorough=True), fields


def write(folder: Path) -> None:
    """Writes the tars of all splits into a folder."""
    made = list(films())
    for split in dict.fromkeys(SPLITS):
        write_tars(folder, split, [(content, fields) for of, content, fields in made if of == split])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that does not exist")
    with atomic_path(parser.parse_args().folder) as temporary:
        temporary.mkdir()
        write(temporary)
