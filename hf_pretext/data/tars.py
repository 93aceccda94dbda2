"""WebDataset tars: an index of all members decides which columns there are, and any range of samples is one read.

tars -> offset and size of each member (one pass over the headers, cached on disk) -> columns -> rows
"""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Audio, Features, Image, Value, Video
from datasets.features.features import generate_from_arrow_type
from datasets.packaged_modules.webdataset.webdataset import WebDataset, base_plus_ext

from .columns import TEXTS
from .contents import files_of
from .decoding import UNREADABLE
from .media_suffixes import SOUNDS, VIDEOS
from .remote import cached, digest, file_facts, is_remote, open_file, patiently, read_bytes, short_names
from .rows import BLOCK, MEDIA, Rows

MEMBERS = {  # suffixes of one kind of data; kinds without an entry have one suffix
    "image": ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "heic", "heif", "avif"),
    "audio": tuple(suffix[1:] for suffix in SOUNDS),
    "video": tuple(suffix[1:] for suffix in VIDEOS),
    "text": ("txt", "text", "transcript", "caption"),
    "subtitles": ("srt", "vtt"),
    "json": ("json", "jsn"),
}
FEATURES = {"image": Image(), "audio": Audio(), "video": Video(), **dict.fromkeys(TEXTS, Value("string"))}
NUMBERS = ("cls", "cls2", "index", "inx", "id")  # suffixes of members that hold an integer
MOST_COLUMNS, LONGEST_NAME = 32, 64  # of the members of a tar: rarer ones and those of longer names are left out
END = "__end__"  # of an index: its last line marks damage here
PROBED = 8  # JSON members that are read to find their fields
LARGEST_PROBED = 2**20  # bytes
# a size of a header may be any number, and headers of long names may form a chain
DAMAGED_HEADER = (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError)
NEEDED = ("image", "text", "audio", "video")  # canonical columns without which a sample is bad


class Tars:
    """Uncompressed WebDataset tars, local or at any fsspec URL, and their columns.

    The members of a sample are adjacent and share their name up to the first dot; the rest of the name is the column.
    A member of the same name begins the next sample.
    Suffixes of one kind (`MEMBERS`, in any case) are one column, with the name of the first one, unless a sample has
    several of them. A field of a JSON member is a column too: "json.caption", "json.a.b".

    members: names of the members of each column. features: types of the columns, those of JSON fields included."""

    def __init__(self, urls: Sequence[str], declared: Mapping | None = None):
        """declared: known types of columns, from a dataset card. Raises `ValueError` for tars without any member, and
        the errors of the file system."""
        self.urls, self.facts = list(urls), file_facts(urls)
        self.index = cached(self.urls, self.facts, "tar members", tar_index)
        self.members = columns_of(self.index)
        if not self.members:
            raise ValueError(
                f"{self.urls[0]}: no member with a suffix, like 1.jpg. Give tars in the format of WebDataset."
            )
        features = {}
        for name, fields in self.members.items():
            if kind_of(fields[0]) == "json":
                features |= json_features(name, list(self._probed(fields)))
            else:
                features[name] = feature_of(fields[0])
        self.features = Features({name: (declared or {}).get(name, feature) for name, feature in features.items()})

    def named(self, column: str) -> str:
        """Returns the name of a column that is asked for by any of its suffixes, in any case."""
        for name, fields in self.members.items():
            for field in fields:
                if column not in self.features and f"{column}.".lower().startswith(f"{field}.".lower()):
                    return name + column[len(field) :]
        return column

    def place_of(self, column: str) -> tuple[str, list[str]]:
        """Returns the member of a column, and the path inside it: `("json", ["caption"])`."""
        member = max((name for name in self.members if f"{column}.".startswith(f"{name}.")), key=len)
        return member, column[len(member) + 1 :].split(".") if column != member else []

    def _probed(self, fields: Sequence[str]) -> Iterator:
        """Yields up to `PROBED` values of a JSON member, evenly spread. Leaves out damaged ones."""
        spans = [spans_of(of_file, fields) for of_file in self.index]
        present = [np.flatnonzero(of_file[:, 0] >= 0) for of_file in spans]
        ends = np.cumsum([len(samples) for samples in present])
        for number in sorted({i * int(ends[-1]) // PROBED for i in range(PROBED)}):
            owner = int(np.searchsorted(ends, number, "right"))
            offset, size = spans[owner][present[owner][number - ends[owner]]].tolist()
            if size <= LARGEST_PROBED:
                url = self.urls[owner]
                content = patiently(lambda: read_bytes(url, offset, offset + size), is_remote(url))  # noqa: B023
                try:
                    yield json.loads(content)
                except (ValueError, RecursionError):
                    continue


class TarRows(Rows):
    """Samples of tars. A piece is `BLOCK` consecutive samples; a range of samples is one read.

    Only the members of `columns` are looked at. A sample without one of the members that training needs is a row that
    can't be read, `{UNREADABLE: reason}`."""

    def __init__(self, tars: Tars, columns: Mapping[str, str]):
        """Raises `ValueError` if no sample has all members that training needs."""
        self.stamp = digest([tars.urls, tars.facts])
        self.paths = {canonical: tars.place_of(column) for canonical, column in columns.items()}
        self.fields = sorted({member for member, _ in self.paths.values()})
        self.needed = sorted({member for canonical, (member, _) in self.paths.items() if canonical in NEEDED})
        self.media = {field for field in self.fields if isinstance(tars.features[field], MEDIA)}
        self.urls, self.facts, self.index = tars.urls, tars.facts, []
        names, counts, places, self.owners, cut = short_names(tars.urls), [], [], [], []
        for owner, (name, of_file) in enumerate(zip(names, tars.index, strict=True)):
            spans = np.stack([spans_of(of_file, tars.members[field]) for field in self.fields], 1)
            damaged = of_file[END][-1, 0] < 0
            if damaged and len(spans) and (spans[-1, :, 0] < 0).all():
                spans = spans[:-1]  # the incomplete sample at the damage
            if damaged:
                cut.append((name, f"damaged or cut after {len(spans):,} samples: the rest is left out"))
            self.index.append(spans)
            for first in range(0, len(spans), BLOCK):
                counts.append(min(BLOCK, len(spans) - first))
                places.append((name, first))
                self.owners.append(owner)
        super().__init__(
            columns, counts, places, files_of(names, tars.urls, tars.facts), any(map(is_remote, tars.urls))
        )
        self.lost = [*cut, *self._gaps(names)]

    def _gaps(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yields the first sample that lacks a needed member, and the number of those that do, for each member."""
        total = sum(self.counts)
        needed = [self.fields.index(member) for member in self.needed]
        absent = [of_file[:, needed, 0] < 0 for of_file in self.index]
        complete = sum(int((~of_file.any(1)).sum()) for of_file in absent)
        if total and not complete:
            raise ValueError(
                f"{names[0]}: none of the {total:,} samples has {' and '.join(f'.{member}' for member in self.needed)}."
                " Members of a sample must follow each other in the tar and share their name up to the first dot."
            )
        for at, member in enumerate(self.needed):
            lacking = [np.flatnonzero(of_file[:, at]) for of_file in absent]
            count = sum(map(len, lacking))
            if count:
                name, samples = next(pair for pair in zip(names, lacking, strict=True) if len(pair[1]))
                what = f"the first of {count:,} samples (of {total:,}) without .{member}: they are bad samples"
                yield f"{name}:{samples[0]}", what

    def url(self, piece: int) -> str:
        return self.urls[self.owners[piece]]

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        owner, first = self.owners[piece], self.places[piece][1]
        spans = self.index[owner][first + start : first + stop]
        present = spans[spans[..., 0] >= 0]
        begin = int(present[:, 0].min()) if len(present) else 0
        end = int(present.sum(1).max()) if len(present) else 0
        content = memoryview(read_bytes(self.urls[owner], begin, end, self.facts[owner]))
        return [self._sample(content, begin, span, first + start + i) for i, span in enumerate(spans.tolist())]

    def _sample(self, content: memoryview, begin: int, spans: list[list[int]], number: int) -> dict:
        values = {}
        for field, (offset, size) in zip(self.fields, spans, strict=True):
            if offset < 0 and field in self.needed:
                return {UNREADABLE: f"the sample has no member .{field}"}
            value = bytes(content[offset - begin : offset - begin + size]) if offset >= 0 else None
            if field in self.media:
                values[field] = None if value is None else {"bytes": value, "path": f"{number}.{field}"}
                continue
            try:
                values[field] = None if value is None else decoded(field, value)
            except Exception as error:  # JSON, numbers and arrays raise different types
                return {UNREADABLE: f"damaged {field}: {error}"}
        return {canonical: value_at(values[member], keys) for canonical, (member, keys) in self.paths.items()}


def are_tars(files: Sequence[str]) -> bool:
    """Returns True for one or more files that are all uncompressed tars."""
    return bool(files) and all(file.lower().endswith(".tar") for file in files)


def tar_index(url: str) -> np.ndarray:
    """Returns offset and size in bytes of each member of each sample in a tar: `(samples + 1,)`, with one field of two
    int64 for each name that members have after their first dot.

    The offset of a missing member is -1. In the last line, the field `END` has the offset 0 for a complete tar, -1 for
    a damaged or cut one. Names are in the order of the tar; of many names, the most frequent are kept."""
    members: dict[str, list[tuple[int, int, int]]] = {}  # by name: (sample, offset, size)
    samples, key, seen, damaged = 0, None, set(), True
    with open_file(url, through=True) as handle:
        try:
            for header in members_of(handle):
                stem, name = base_plus_ext(header.name)
                stored = header.isreg() and not header.issparse()  # a sparse file lies in several parts
                if not stored or name in (None, "", END) or Path(header.name).name.startswith((".", "__")):
                    continue
                if stem != key or name in seen:  # a name that repeats: the samples share their key
                    samples, key, seen = samples + 1, stem, set()
                seen.add(name)
                members.setdefault(name, []).append((samples - 1, header.offset_data, header.size))
            damaged = False
        except DAMAGED_HEADER:
            pass
    frequent = sorted((name for name in members if len(name) <= LONGEST_NAME), key=lambda name: -len(members[name]))
    kept = [name for name in members if name in frequent[:MOST_COLUMNS]]
    index = np.full(samples + 1, -1, dtype=[(name, "<i8", 2) for name in (*kept, END)])
    for name in kept:
        at = np.array(members[name], np.int64)
        index[name][at[:, 0]] = at[:, 1:]
    index[END][-1] = -1 if damaged else 0
    return index


def members_of(handle) -> Iterator[tarfile.TarInfo]:
    """Yields the complete members of an open tar. Raises one of `DAMAGED_HEADER` at damage."""
    with tarfile.open(fileobj=handle, mode="r:") as tar:
        total = handle.seek(0, 2)
        handle.seek(0)
        while (member := tar.next()) is not None:
            tar.members = []  # otherwise tarfile keeps all members in memory
            if member.size < 0 or (member.offset_data + member.size > total and not member.issparse()):
                raise EOFError(f"{member.name} is cut")
            yield member
        handle.seek(tar.offset)  # tarfile also stops at a damaged header; the real end is a block of zeros
        if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("no end of the archive")


def kind_of(name: str) -> str:
    """Returns the kind of a member from its suffix: "image" for "jpg" and "mask.PNG"; other suffixes unchanged."""
    suffix = name.lower().rpartition(".")[2]
    return next((kind for kind, suffixes in MEMBERS.items() if suffix in suffixes), suffix)


def feature_of(name: str):
    """Returns the type of a member other than JSON."""
    kind = kind_of(name)
    return FEATURES.get(kind, Value("int64" if kind in NUMBERS else "binary"))


def spans_of(of_file: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns offset and size of the first of these members that a sample has, `(samples, 2)`; offset -1 for none."""
    spans = np.full((len(of_file) - 1, 2), -1, np.int64)
    for name in names:
        if name in of_file.dtype.names:
            missing = spans[:, 0] < 0
            spans[missing] = of_file[name][:-1][missing]
    return spans


def columns_of(index: Sequence[np.ndarray]) -> dict[str, list[str]]:
    """Returns the names of the members of each column, `{"jpg": ["jpg", "PNG"]}`; a column has its first name."""
    kinds: dict[tuple[str, str], dict[str, list[str]]] = {}  # names of a kind, by the name in lowercase
    for name in dict.fromkeys(name for of_file in index for name in of_file.dtype.names if name != END):
        by_case = kinds.setdefault((name.lower().rpartition(".")[0], kind_of(name)), {})
        by_case.setdefault(name.lower(), []).append(name)
    columns = {}
    for by_case in kinds.values():
        several = any(
            (sum((spans_of(of_file, names)[:, 0] >= 0).astype(int) for names in by_case.values()) > 1).any()
            for of_file in index
        )
        for names in by_case.values() if several else [sum(by_case.values(), [])]:
            columns[names[0]] = names
    return columns


def json_features(name: str, values: Sequence) -> dict:
    """Returns the types of a JSON value and of its fields, `{"json": ..., "json.caption": ..., "json.a.b": ...}`.

    values: examples. A field of values of different types has an unknown type."""
    try:
        feature = generate_from_arrow_type(pa.array(values).type)
    except (pa.ArrowException, OverflowError):
        feature = Value("null")
    features, dicts = {name: feature}, [value for value in values if isinstance(value, dict)]
    for key in dict.fromkeys(key for value in dicts for key in value if key and "." not in key):
        features |= json_features(f"{name}.{key}", [value[key] for value in dicts if value.get(key) is not None])
    return features


def decoded(name: str, value: bytes):
    """Decodes a text, a number, JSON or an array, by the suffix of the member; other content stays bytes. Raises errors
    of many types for damaged content."""
    if kind_of(name) in TEXTS:
        return value.decode()
    decode = WebDataset.DECODERS.get(kind_of(name))
    return value if decode is None else decode(value)


def value_at(value, keys: Sequence[str]):
    """Returns a field of a JSON value; None if it is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
