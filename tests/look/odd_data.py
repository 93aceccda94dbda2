"""Data sets with odd, damaged and repeated rows, for the tests of `look`."""

import io
import shutil

import numpy as np
from PIL import Image


def photo(number: int, width: int = 300, height: int = 200) -> Image.Image:
    """A smooth image of random colours with some noise."""
    random = np.random.default_rng(number)
    colors = Image.fromarray(random.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    smooth = np.asarray(colors.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + random.integers(-8, 8, smooth.shape)).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def odd_images(folder):
    """Images of two classes and two splits: odd formats, damage, copies. Returns the folder."""
    for first, split, label, count in ((0, "train", "cats", 6), (50, "train", "dogs", 6), (100, "test", "dogs", 4)):
        (folder / split / label).mkdir(parents=True)
        for i in range(count):
            photo(first + i, 300 + 10 * i).save(folder / split / label / f"{i}.jpg", quality=90)
    cats, dogs, test = folder / "train" / "cats", folder / "train" / "dogs", folder / "test" / "dogs"
    photo(1, 310).convert("CMYK").save(cats / "cmyk.jpg")  # looks like 1.jpg
    ramp = np.linspace(0, 65535, 40_000).reshape(200, 200)
    Image.fromarray(ramp.astype(np.uint16)).save(cats / "deep.png")
    Image.fromarray((ramp / 16).astype(np.uint16)).save(cats / "deep12.png")
    (cats / "cut.jpg").write_bytes(jpeg(photo(7))[:4000])
    frames = [photo(20 + i) for i in range(3)]
    frames[0].save(cats / "moving.gif", save_all=True, append_images=frames[1:])
    shutil.copy(dogs / "3.jpg", dogs / "copy of 3.jpg")
    shutil.copy(dogs / "4.jpg", test / "leak.jpg")
    Image.open(dogs / "5.jpg").resize((150, 100)).save(test / "small leak.jpg", quality=70)
    Image.new("RGB", (1, 1), "red").save(dogs / "one.png")
    Image.new("RGBA", (60, 900), (0, 128, 0, 100)).save(dogs / "long.png")
    (dogs / "empty.jpg").write_bytes(b"")
    (dogs / "text.jpg").write_text("not an image")
    (dogs / "notes.xyz").write_text("?")
    return folder


REVIEWS = """id,review,sentiment
1,"A good film",pos
2,,neg
3,a good film!,pos
4,A good film,neg
5,   ,pos

6,"Bad, really",neg
7,[red]bad[/],pos
"""
