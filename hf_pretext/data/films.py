"""Reads parts of films with PyAV: frames and sound by presentation time, decoded from the key frame before.

bytes -> Film: begin, end (s) -> frames at times | sound (C, N) between two times
"""

import heapq
import io
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from .cut_files import ENOUGH, film_format, states_duration
from .decoding import needed
from .limits import BadSample, Limits
from .sounds import BEFORE, check_rate

# FFmpeg's names of formats. Playlists (HLS, concat) are excluded, because they open other files and URLs
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,flv,gif,aac"
APART = 0.01  # seconds between two frames of sound; a smaller gap or overlap comes from rounded times
FIRST_STEP = 0.5  # seconds to seek farther back
FARTHEST = 10.0  # seconds by which sound may lie before the images of its time in a file: FFmpeg's largest difference
LAST = 0.5  # seconds before the end where its last packets are looked for
SLACK = 1e-6  # seconds, for rounded times
NEVER = -float("inf")


class MissedFrame(Exception):
    """The frames after a key frame don't contain the one that is shown at a time."""


class Film:
    """An open film, or a file with only sound in a container of films.

    Kinds of streams are "video" and "audio"; of several of one kind, the first is read. A cover image is none.
    begin, end: in seconds of the container's clock, those of the images if there are any. So frames and sound that are
    read separately have the same clock. limits: of one film.
    """

    def __init__(self, content: bytes, limits: Limits):
        """Raises `BadSample` for a film that was cut (see `measure`), `ImportError` without `av`."""
        self.content, self.limits, self.file = content, limits, None
        self.at_start, self.key_time = True, NEVER  # of the packets that are read
        self.in_order = film_format(content) == "avi"  # its packets have no presentation times
        self.open()
        self.main = next(iter(self.streams))
        self.begin, self.end = self.measure()

    def open(self) -> None:
        """Opens the file at its start."""
        av = needed("av", "video")
        self.close()
        self.file = av.open(io.BytesIO(self.content), options={"format_whitelist": CONTAINERS})
        self.streams, self.last_is_partial = {}, {}
        for stream in (*self.file.streams.video, *self.file.streams.audio):
            if stream.type not in self.streams and not stream.disposition & type(stream.disposition).attached_pic:
                self.streams[stream.type] = stream
                stream.codec_context.thread_count = 1  # the workers of the loader are the threads
        if not self.streams:
            raise BadSample("file without video or sound")
        if "video" in self.streams:
            self.limits.check_pixels(self.streams["video"].width, self.streams["video"].height)

    def close(self) -> None:
        """Closes the file."""
        if self.file is not None:
            self.file.close()

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.end - self.begin

    @property
    def frames(self) -> int:
        """Number of frames: what the container states, else length times frame rate."""
        stream = self.streams["video"]
        return stream.frames or round(self.seconds * float(stream.average_rate or 0))

    # packets

    def packets(self) -> Iterator:
        """Yields the packets of images and sound from the present place; each kind ends with an empty one.

        Leaves out packets that are not complete. Raises `BadSample` for too many packets of images."""
        images = 0
        for packet in self.file.demux(*self.streams.values()):
            kind = packet.stream.type
            images += kind == "video" and packet.size > 0
            self.limits.check_frames(images)
            if packet.size:
                self.last_is_partial[kind] = packet.is_corrupt
            if not packet.size or not packet.is_corrupt:
                yield packet

    def packets_from(self, kind: str, time: float) -> Iterator:
        """Yields the packets of a kind from the last key frame at or before a time in seconds, else from the file's
        start.

        Where an index leads to a later place or to no key frame, it seeks farther back, at last to the start."""
        back = 0.0
        while True:
            self.at_start = not self.seek(time - back)
            packets, read, before, has_key = self.packets(), [], False, False
            for packet in packets:
                before |= decoding_time(packet) <= time
                if packet.stream.type != kind:
                    continue
                if packet.is_keyframe and time_of(packet) <= time + SLACK:
                    read, has_key = [], True
                read.append(packet)
                if decoding_time(packet) > time + SLACK:
                    break
            begins_later = kind == "audio" and before and back >= FARTHEST
            if has_key or self.at_start or begins_later:
                yield from read
                yield from (packet for packet in packets if packet.stream.type == kind)
                return
            back = max(2 * back, FIRST_STEP)

    def seek(self, time: float) -> bool:
        """Goes to a key frame at or before a time, as far as the index is right. Returns False for the file's start."""
        if time > self.begin:
            try:
                self.file.seek(int(time * 1_000_000))
                return True
            except OSError:  # without an index
                pass
        self.open()
        return False

    def measure(self) -> tuple[float, float]:
        """Returns begin and end in seconds, from the last packets.

        Raises `BadSample` for a film that lacks 5 % of the seconds that its container states; and if the container
        states none, for one whose last packet is not complete."""
        stream = self.streams[self.main]
        start = self.begin = (self.file.start_time or 0) / 1_000_000
        begin = start if stream.start_time is None else float(stream.start_time * stream.time_base)
        duration = (self.file.duration or 0) / 1_000_000
        stated = duration if states_duration(self.content) else 0.0
        ends = self.ends() if self.seek(start + duration - LAST) else {}
        if self.main not in ends or max(ends.values()) - start < ENOUGH * stated:  # a seek may lead behind the end
            self.open()
            ends = self.ends()
        if self.main not in ends:
            raise BadSample("empty film: no packets")
        seconds = max(ends.values()) - start
        if seconds < ENOUGH * stated:
            raise BadSample(f"cut film: {seconds:.2f} of {stated:.2f} seconds")
        if not stated and any(self.last_is_partial.values()):
            raise BadSample("cut film: its last packet is not complete")
        return begin, max(ends[self.main], begin)

    def ends(self) -> dict[str, float]:
        """Reads all packets from the present place. Returns the end of each kind in seconds."""
        ends: dict[str, float] = {}
        for packet in self.packets():
            kind, time = packet.stream.type, time_of(packet)
            if packet.size and time > NEVER:
                duration = seconds_of(packet.duration or 0, packet.time_base)
                if not duration and kind == "video" and packet.stream.average_rate:
                    duration = 1 / float(packet.stream.average_rate)
                ends[kind] = max(ends.get(kind, NEVER), time + duration)
        return ends

    # frames

    def frames_at(self, times: Sequence[float]) -> Iterator:
        """Yields the frame that is shown at each of some ascending times, in seconds of the container's clock.

        Before the first frame, this is the first one; after the last one, the last. Between two times, frames before
        the last key frame are not decoded. Raises `BadSample` if no frame can be decoded."""
        done = 0
        try:
            for frame in frames_shown(self, times, self.packets_from("video", times[0]), True):
                done += 1
                yield frame
        except MissedFrame:
            self.open()
            packets = (packet for packet in self.packets() if packet.stream.type == "video")
            yield from frames_shown(self, times[done:], packets, False)

    def decoded(self, packet, clock: list[float]) -> Iterator[tuple[float, object]]:
        """Yields time and frame of the frames that a packet completes.

        clock: times of the packets since the key frame, without those of frames that need an earlier key frame. Without
        presentation times, frames take them in ascending order. Raises `BadSample` for too many pixels."""
        if packet.size and self.in_order and time_of(packet) >= self.key_time:
            heapq.heappush(clock, time_of(packet))
        for frame in packet.decode():
            self.limits.check_pixels(frame.width, frame.height)  # may be more than the container states
            time = heapq.heappop(clock) if clock else frame.time
            yield time_of(packet) if time is None else time, frame

    # sound

    def sound_between(self, first: float, last: float) -> tuple[np.ndarray, np.ndarray, int]:
        """Decodes the sound between two times, in seconds of the container's clock.

        Returns samples float32 `(C, N)`, a mask of those that the film has, bool `(N,)`, and their rate in Hz. Raises
        `BadSample` if the film has no sound between these times."""
        samples = mask = place = None
        rate = 0
        for packet in self.packets_from("audio", first - BEFORE):
            for frame in packet.decode():
                values = floats(frame)
                if samples is None:
                    rate = check_rate(frame.sample_rate, len(values))
                    samples = np.zeros((len(values), round((last - first) * rate)), np.float32)
                    mask = np.zeros(samples.shape[1], bool)
                if (frame.sample_rate, len(values)) != (rate, len(samples)):
                    raise BadSample("damaged sound: sampling rate or number of channels changes")
                expected = place if frame.time is None else (frame.time - first) * rate
                if place is None or abs(expected - place) > APART * rate:
                    place = round(expected or 0)
                begin, end = max(place, 0), min(place + values.shape[1], len(mask))
                if begin < end:
                    samples[:, begin:end] = values[:, begin - place : end - place]
                    mask[begin:end] = True
                place += values.shape[1]
            if place is not None and place >= len(mask):
                break
        if mask is None or not mask.any():
            raise BadSample("no sound in the seconds of the clip")
        return samples, mask, rate


def frames_shown(film: Film, times: Sequence[float], source: Iterator, jump: bool) -> Iterator:
    """Yields the frame that is shown at each of some ascending times; see `Film.frames_at`.

    source: packets of images. jump: whether to leave out packets before a key frame; then a key frame after which the
    frame of its time is missing raises `MissedFrame`."""
    packets, frames, clock, shown = deque(), deque(), [], None
    film.key_time = NEVER
    for time in times:
        if jump and not (frames and frames[0][0] > time + SLACK) and read_until(time, source, packets):
            film.streams["video"].codec_context.flush_buffers()
            frames.clear()
            clock.clear()
            shown, film.key_time = None, time_of(packets[0])
        while not frames or frames[0][0] <= time + SLACK:
            if frames:
                shown = frames.popleft()[1]
            elif (packet := packets.popleft() if packets else next(source, None)) is not None:
                frames.extend(film.decoded(packet, clock))
            else:
                break
        if shown is None and jump and not film.at_start:
            raise MissedFrame
        if shown is None and not frames:
            raise BadSample("damaged video: no frame can be decoded")
        yield frames[0][1] if shown is None else shown


def read_until(time: float, source: Iterator, packets: deque) -> bool:
    """Adds packets until all frames up to a time are complete. Returns True if a key frame at or before the time was
    among them; then `packets` begins with the last one."""
    has_key = False
    while not packets or decoding_time(packets[-1]) <= time + SLACK:
        packet = next(source, None)
        if packet is None:
            break
        if packet.is_keyframe and time_of(packet) <= time + SLACK:
            packets.clear()
            has_key = True
        packets.append(packet)
    return has_key


def time_of(packet) -> float:
    """Returns the presentation time of a packet in seconds, else its decoding time, else minus infinity."""
    time = packet.dts if packet.pts is None else packet.pts
    return NEVER if time is None else seconds_of(time, packet.time_base)


def decoding_time(packet) -> float:
    """Returns the decoding time of a packet in seconds, else minus infinity. No later packet is presented before it."""
    return NEVER if packet.dts is None else seconds_of(packet.dts, packet.time_base)


def seconds_of(ticks: int, base: Fraction) -> float:
    """Returns `float(ticks * base)`. It costs a tenth, because no fraction is made."""
    return ticks * base.numerator / base.denominator


def floats(frame) -> np.ndarray:
    """Returns the samples of a frame of sound, float32 `(C, N)` in [-1, 1]."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return (values / 2.0 ** (8 * values.itemsize - 1)).astype(np.float32)
    return values.astype(np.float32, copy=False)


def upright(pixels: np.ndarray, frame) -> np.ndarray:
    """Turns and mirrors pixels (H, W, 3) as the frame's display matrix says, to the nearest quarter turn."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # x' = a x + c y, y' = b x + d y; the third number of each row is of a projection
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
