"""Finds files of films and sounds that were cut, from the sizes that their containers state. Nothing is decoded.

content -> None, or BadSample("cut ...")

What is detected, and what is not:
- mp4, mov, m4a: a box that ends behind the end of the file. Fragmented: unless cut between two fragments.
- mkv, webm: a segment that ends behind the end of the file. Live (without a size): an element that does so; unless cut
  between two elements.
- avi, wav, aiff, au, rf64, w64: the size in the header.
- ogg, opus: a last page that is not complete.
- ts: a last packet that is not complete. `films.Film` adds sound packets that are not complete.
- aac (raw, ADTS), mpg, mpeg: nothing, since they state neither size nor duration. A file that was cut is a shorter one;
  a clip at its very end may be a bad sample.
A file that states its size or duration may lack 5 % at its end: only the missing part isn't used. A live or fragmented
file states neither, so that it may not lack a byte.
"""

from collections.abc import Iterator
from itertools import count

from .limits import BadSample

ENOUGH = 0.95  # of the bytes, and of the seconds, that a file states
BOXES = b"ftyp moov mdat moof free skip wide mfra sidx styp uuid meta pnot udta emsg prft".split()
FIRST_BOXES = b"ftyp moov mdat free skip wide pnot styp".split()
EBML, SEGMENT, INFO, DURATION = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x4489  # names of elements of matroska
TS_PACKETS = (188, 192)  # bytes; 192 with the time codes of Blu-ray
PARTS = 500_000  # boxes or elements that are read: two hours of a live film, an hour in fragments of one frame
UNKNOWN = 0x7FFF0000  # a header written to a pipe states 0, or about 2^31 or 2^32 bytes


def film_format(content: bytes) -> str | None:
    """Returns the container of a film or of its sound: "mp4" (and mov, m4a), "matroska" (and webm), "avi", "ts", "flv",
    "mpeg", "aac", "ogg"; None for anything else."""
    if content[4:8] in FIRST_BOXES:
        return "mp4"
    if content[:4] == EBML.to_bytes(4, "big"):
        return "matroska"
    if content[:4] == b"RIFF" and content[8:12] == b"AVI ":
        return "avi"
    if ts_packet(content):
        return "ts"
    sync = content[after_tag(content) :][:2]
    if sync[:1] == b"\xff" and len(sync) > 1 and sync[1] & 0xF6 == 0xF0:  # layer 0, which no MP3 has
        return "aac"
    starts = {b"FLV\x01": "flv", b"\x00\x00\x01\xba": "mpeg", b"OggS": "ogg"}
    return starts.get(bytes(content[:4]))


def after_tag(content: bytes) -> int:
    """Returns the place after the ID3v2 tags at the start of a file, as music has; 0 without one."""
    at = 0
    while content[at : at + 3] == b"ID3" and len(content) > at + 9:
        size = sum(
            (byte & 0x7F) << shift for byte, shift in zip(content[at + 6 : at + 10], (21, 14, 7, 0), strict=True)
        )
        at += 10 + size + (10 if content[at + 5] & 0x10 else 0)  # with a footer
    return at


def check_complete(content: bytes) -> None:
    """Raises `BadSample` for a file that was cut, as far as its container shows it (see above)."""
    kind = film_format(content)
    if kind == "mp4":
        check_boxes(content)
    elif kind == "matroska":
        check_elements(content)
    elif kind == "ts" and len(content) % ts_packet(content):
        raise BadSample(f"cut film: its last packet of {ts_packet(content)} bytes is not complete")
    elif kind == "ogg":
        last = content.rfind(b"OggS")
        pages = content[last + 26 : last + 27]  # the number of sizes, which follow
        if not pages or last + 27 + pages[0] + sum(content[last + 27 : last + 27 + pages[0]]) > len(content):
            raise BadSample("cut file: its last Ogg page is not complete")
    elif size := stated_size(content):
        check_size(size, len(content))


def check_size(stated: int, size: int) -> None:
    """Raises `BadSample` for fewer bytes than stated."""
    if size < ENOUGH * stated:
        raise BadSample(f"cut file: {size:,} of {stated:,} bytes")


def stated_size(content: bytes) -> int:
    """Returns the size in bytes that the header of an avi, wav, aiff, au, rf64 or w64 file states; 0 if it states none.
    Of an avi in several parts, of the first part."""

    def number(first: int, bytes_: int, order: str) -> int:
        return int.from_bytes(content[first : first + bytes_], order)

    kind = bytes(content[:4])
    if kind == b"RF64":
        return number(20, 8, "little") + 8
    if kind == b"riff":
        return number(16, 8, "little")
    headers = {b"RIFF": (4, "little", 8), b"FORM": (4, "big", 8), b".snd": (8, "big", number(4, 4, "big"))}
    if kind not in headers:
        return 0
    place, order, more = headers[kind]
    size = number(place, 4, order)
    return size + more if 0 < size < UNKNOWN else 0


def states_duration(content: bytes) -> bool:
    """Returns True for a film whose container states a duration: mp4 without fragments, avi, flv, and matroska with a
    duration. FFmpeg estimates it for the others, from other facts in the same file."""
    kind = film_format(content)
    if kind == "mp4":
        return all(box != b"moof" for box, _, _ in boxes(content))
    if kind == "matroska":
        at, end = 0, len(content)
        for parent in (SEGMENT, INFO):
            inner = next(((first, stop) for name, first, stop in elements(content, at, end) if name == parent), None)
            if inner is None:
                return False
            at, end = inner[0], inner[1] or len(content)
        return any(name == DURATION for name, _, _ in elements(content, at, end))
    return kind in ("avi", "flv")


# mp4


def boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, first byte and end of each box of an mp4 file; the end may be behind the end of the file.

    Raises `BadSample` for more than `PARTS` boxes."""
    at = 0
    for number in count():
        if at >= len(content):
            return
        if number == PARTS:
            raise BadSample(f"more than {PARTS:,} boxes of an mp4 file")
        size, name, header = int.from_bytes(content[at : at + 4], "big"), bytes(content[at + 4 : at + 8]), 8
        if size == 1:
            size, header = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        if name not in BOXES and len(name) == 4:
            return  # something that an editor appended
        end = len(content) if size == 0 and len(name) == 4 else at + max(size, header)
        yield name, at, end
        at = end


def check_boxes(content: bytes) -> None:
    """Raises `BadSample` for an mp4 file that lacks its end, or its index (moov)."""
    fragmented, names = False, set()
    for name, _, end in boxes(content):
        fragmented |= name == b"moof"
        names.add(name)
        if end <= len(content):
            continue
        if fragmented:
            raise BadSample(f"cut film: its last fragment lacks {end - len(content):,} bytes")
        if name == b"mdat" and b"moov" not in names:
            raise BadSample(f"cut film: no index (moov), and {end - len(content):,} bytes of mdat are missing")
        check_size(end, len(content))


# matroska


def number_at(content: bytes, at: int, keep: bool) -> tuple[int | None, int]:
    """Returns a number of variable length and the place after it. keep: with the bit that marks the length.

    A number of only ones is an unknown size: None. Raises `BadSample` for a number that is not complete."""
    first = content[at] if at < len(content) else 0
    length = 9 - first.bit_length()
    if not first or at + length > len(content):
        raise BadSample("cut film: its last element is not complete")
    value = int.from_bytes(content[at : at + length], "big")
    ones = (1 << 7 * length) - 1
    if keep:
        return value, at + length
    return (None if value & ones == ones else value & ones), at + length


def elements(content: bytes, at: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Yields name, first byte after the header and end of each element between two places. The end is None for an
    unknown size; then the elements in it come next. Raises `BadSample` for more than `PARTS` elements."""
    end = min(end, len(content))
    for number in count():
        if at >= end:
            return
        if number == PARTS:
            raise BadSample(f"more than {PARTS:,} elements of a matroska file")
        name, place = number_at(content, at, keep=True)
        size, first = number_at(content, place, keep=False)
        stop = None if size is None else first + size
        yield name, first, stop
        at = first if stop is None else stop


def check_elements(content: bytes) -> None:
    """Raises `BadSample` for a matroska or webm file that lacks its end."""
    for name, _, end in elements(content, 0, len(content)):
        if name == SEGMENT and end is not None:
            check_size(end, len(content))
            return
        if end is not None and end > len(content):
            raise BadSample(f"cut film: its last element lacks {end - len(content):,} bytes")


def ts_packet(content: bytes) -> int:
    """Returns the size of the packets of an MPEG transport stream in bytes; 0 for other content."""
    for size in TS_PACKETS:
        starts = content[size - 188 : 4 * size : size]
        if len(content) > size and set(starts) == {0x47}:
            return size
    return 0
