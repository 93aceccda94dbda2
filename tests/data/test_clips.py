"""Clips of films: frames and sound by time, of any container; what is cut or damaged is a bad sample."""

import io
import struct
import sys
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from made_clips import (
    FPS,
    KINDS,
    RATE,
    SIZE,
    all_frames,
    blocks,
    made_film,
    made_m4a,
    shown_at,
    sound_file,
    sound_frame,
    tone,
)

from hf_pretext.data import films
from hf_pretext.data.clips import Clip, frame_times, length_of, to_clip
from hf_pretext.data.cut_files import film_format
from hf_pretext.data.limits import BadSample, Limits

GREY = {i: np.full((*SIZE, 3), i, np.uint8) for i in range(256)}
FRAGMENTED, LIVE = "mp4 fragmented", ("mkv live", "webm live")


def begin_of(content: bytes) -> float:
    """The time of the first image on the container's clock."""
    with av.open(io.BytesIO(content)) as file:
        return float(file.streams.video[0].start_time * file.streams.video[0].time_base)


# frames


@pytest.mark.parametrize("kind", KINDS)
def test_seeking_equals_decoding_from_the_start(kind):
    content = made_film(kind, seconds=6.0)
    frames, begin = all_frames(content, kind), begin_of(content)
    for at in (0.0, 0.3, 0.5, 0.77, 1.0):
        clip = to_clip(content, 1.0, 20, 20, at)
        expected = [shown_at(frames, time) for time in frame_times(begin + clip.start, 1.0, 20, 20)]
        assert clip.frames.dtype == torch.uint8 and clip.frames.shape == (20, 3, *SIZE)
        np.testing.assert_array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), expected)
        assert clip.start == pytest.approx(5.0 * at, abs=0.1)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts h264"])
@pytest.mark.parametrize(
    "options",
    [
        {"x264-params": "open-gop=1", "preset": "fast", "bf": "3"},  # frames after a key frame that are shown before it
        {"intra-refresh": "1", "preset": "fast"},  # key frames that give no frame
        {"g": "1000", "keyint_min": "1000"},  # a single key frame
    ],
    ids=["open", "refresh", "single"],
)
def test_seeking_is_exact_with_other_key_frames(kind, options):
    content = made_film(kind, seconds=6.0, options=options, sound=False)
    frames, begin = all_frames(content), begin_of(content)
    for at in (0.1, 0.6, 1.0):
        clip = to_clip(content, 0.5, FPS, 12, at)
        expected = [shown_at(frames, time) for time in frame_times(begin + clip.start, 0.5, FPS, 12)]
        np.testing.assert_array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm"])
def test_frames_of_a_varying_rate_are_those_of_their_times(kind):
    """50 a second, a still second, then 10 a second: by number, a clip would last from 0.1 to 1.5 seconds."""
    times = [*range(0, 500, 20), *range(1500, 3000, 100)]
    content = made_film(kind, times=times, image=lambda i: GREY[6 * i], sound=False)
    clip = to_clip(content, frames=30, fps=10)
    expected = [max(i for i, time in enumerate(times) if time <= 100 * k + 50) for k in range(30)]
    assert (clip.frames.float().mean((1, 2, 3)) / 6).tolist() == pytest.approx(expected, abs=0.5)
    late = to_clip(content, 1.0, 10, 10, at=1.0)
    assert late.start == pytest.approx(3.0 - 1.0, abs=0.15)


def marked(i: int) -> np.ndarray:
    """Grey, with a bright corner at the top left."""
    pixels = np.full((*SIZE, 3), 40, np.uint8)
    pixels[:24, :32] = 220
    return pixels


def with_matrix(content: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Sets the display matrix of the first track of an mp4 file."""
    content, place = bytearray(content), content.index(b"tkhd") + 44
    numbers = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    content[place : place + 36] = struct.pack(">9i", *numbers)
    return bytes(content)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), np.fliplr),  # the front camera
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda image: np.swapaxes(image, 0, 1)),
    ],
    ids=["none", "clockwise", "half", "counterclockwise", "mirrored", "flipped", "transposed"],
)
@pytest.mark.parametrize("kind", ["mp4", "mov"])
def test_films_of_phones_are_upright(kind, matrix, expected):
    content = with_matrix(made_film(kind, seconds=0.5, image=marked, sound=False), *matrix)
    (image,) = to_clip(content, frames=1).frames
    image, expected = image.permute(1, 2, 0).numpy().astype(int), expected(marked(0)).astype(int)
    assert image.shape == expected.shape and np.abs(image - expected).mean() < 4


def test_frames_are_spread_over_the_film_and_only_some_are_decoded(monkeypatch):
    content = made_film(seconds=20.0, sound=False)
    counts = counted(monkeypatch)
    clip = to_clip(content, frames=5)
    expected = [shown_at(all_frames(content), time) for time in (2.0, 6.0, 10.0, 14.0, 18.0)]
    np.testing.assert_array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), expected)
    assert clip.start == 0.0 and clip.sound is None and clip.mask is None
    assert counts["frames"] < 5 * 20  # of 500: from a key frame, one in 12


def test_fewer_frames_are_in_the_middle_of_the_clip():
    content = made_film(seconds=4.0, image=lambda i: GREY[2 * i], sound=False)
    levels = to_clip(content, 2.0, FPS, 1, at=0.5).frames.float().mean() / 2
    assert levels.item() == pytest.approx(50, abs=1)
    levels = to_clip(content, 2.0, 5, 4, at=1.0).frames.float().mean((1, 2, 3)) / 2
    assert levels.tolist() == pytest.approx([67.5, 72.5, 77.5, 82.5], abs=1.1)  # around 3 s


def test_a_film_that_is_shorter_than_the_clip_repeats_its_last_frame():
    clip = to_clip(made_film(seconds=0.4, image=lambda i: GREY[20 * i]), 2.0, 10, 20, at=0.7, sampling_rate=RATE)
    levels = clip.frames.float().mean((1, 2, 3)) / 20
    assert levels[:4].tolist() == pytest.approx([1, 3, 6, 8], abs=1) and levels[4:].tolist() == pytest.approx(
        [9] * 16, abs=0.5
    )
    assert (
        clip.start == 0.0 and clip.sound.shape == (2 * RATE,) and clip.mask.sum() == pytest.approx(0.4 * RATE, abs=1100)
    )
    one = to_clip(made_film(times=[0], sound=False), 1.0, 4, 4, at=1.0)
    assert all(torch.equal(image, one.frames[0]) for image in one.frames)


# sound


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0.0, 0.5])
def test_a_click_and_a_flash_are_in_one_frame(kind, at):
    """Both at 1.0 s of the clip. In avi and fragments FFmpeg writes the images up to a frame late."""
    rate, when = 48_000 if "webm" in kind else RATE, 1.0 + 4.0 * at
    samples, bright = np.zeros(round(6.0 * rate), np.float32), round(when * FPS)
    samples[round(when * rate) : round((when + 0.02) * rate)] = 0.8 * np.sign(np.sin(np.arange(round(0.02 * rate)) / 3))
    content = made_film(kind, seconds=6.0, image=lambda i: GREY[250 if i == bright else 5], sound=samples)
    clip = to_clip(content, 2.0, FPS, 50, at, RATE)
    loudest = clip.sound.reshape(50, -1).square().sum(1).argmax().item()
    brightest = clip.frames.float().mean((1, 2, 3)).argmax().item()
    exact = "avi" not in kind and kind != FRAGMENTED
    assert abs(brightest - loudest) <= (0 if exact else 1) and brightest == pytest.approx(25, abs=2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_after_seeking_is_that_from_the_start(kind):
    rate = 48_000 if "webm" in kind else RATE
    noise = 0.1 * np.random.default_rng(0).standard_normal(8 * rate).astype(np.float32)
    content = made_film(kind, seconds=8.0, sound=noise)
    full, part = to_clip(content, 7.5, sampling_rate=RATE), to_clip(content, 1.0, at=0.6, sampling_rate=RATE)
    assert part.mask.all() and part.sound.dtype == torch.float32
    first = round(part.start * RATE)
    near = [full.sound[first + i : first + i + RATE] for i in range(-16, 17)]  # matroska rounds times to 1 ms
    assert min((part.sound - one).abs().max().item() for one in near) < (0.02 if "webm" in kind else 0.003)


def test_sound_that_ends_earlier_is_padded_with_a_mask():
    content = made_film(seconds=4.0, sound=tone(1.5))
    clip = to_clip(content, 4.0, sampling_rate=RATE, frames=4, fps=1)
    assert clip.sound.shape == clip.mask.shape == (4 * RATE,) and clip.mask.dtype == torch.bool
    assert clip.mask.sum() == pytest.approx(1.5 * RATE, abs=1100)  # a frame of AAC
    assert clip.mask[: int(1.5 * RATE)].all() and not clip.sound[~clip.mask].any()
    with pytest.raises(BadSample, match="no sound in the seconds of the clip"):
        to_clip(content, 1.0, 2, 2, at=1.0, sampling_rate=RATE)
    assert to_clip(content, 1.0, 2, 2, at=1.0).frames.shape[0] == 2


@pytest.mark.parametrize("kind", ["mp4", FRAGMENTED, "mkv", "webm", "ts"])  # avi has no times of sound
@pytest.mark.parametrize("at", [0.0, 0.25])
def test_sound_that_begins_later_keeps_its_time(kind, at):
    rate = 48_000 if "webm" in kind else RATE
    content = made_film(kind, seconds=8.0, sound=tone(4.0, rate), later=3.0)
    clip = to_clip(content, 4.0, sampling_rate=RATE, frames=2, at=at)
    begins = round((3.0 - clip.start) * RATE)
    heard = clip.sound.abs() > 0.05
    assert heard.nonzero()[0] == pytest.approx(begins, abs=0.05 * RATE) and heard[begins + 800 :].float().mean() > 0.9
    assert clip.mask.nonzero()[0] == pytest.approx(begins, abs=0.065 * RATE)  # a frame of AAC


def test_a_film_without_sound_is_bad_where_sound_is_needed():
    content = made_film(sound=False)
    assert to_clip(content, 1.0, 4, 4).frames.shape[0] == 4
    for frames in (0, 4):
        with pytest.raises(BadSample, match="video without sound"):
            to_clip(content, 1.0, 4, frames, sampling_rate=RATE)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_the_sound_of_films_at_any_rate(rate):
    content = made_film("mov", sound=tone(2.0, rate, 1000), rate=rate)
    clip = to_clip(content, 1.0, at=0.5, sampling_rate=RATE)
    assert clip.start == pytest.approx(0.5, abs=0.01) and clip.mask.all()
    middle = clip.sound.numpy()[100:-100]
    assert np.abs(np.fft.rfft(clip.sound)).argmax() == 1000 and np.sqrt(2) * middle.std() == pytest.approx(
        0.5, abs=0.01
    )


@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("5.1", 6)])
def test_channels_of_a_film_are_averaged(layout, channels):
    samples = np.stack([tone(2.0, pitch=500.0 * (i + 1), level=0.9) for i in range(channels)])
    content = made_film("mkv", sound=samples, layout=layout)
    sound = to_clip(content, 1.0, at=0.5, sampling_rate=RATE).sound.numpy()
    spectrum = 2 * np.abs(np.fft.rfft(sound)) / RATE
    assert spectrum[[500 * (i + 1) for i in range(channels)]] == pytest.approx(0.9 / channels, abs=0.01)


def test_opposite_phases_of_a_film_do_not_vanish():
    samples = np.stack([tone(2.0), -0.8 * tone(2.0)])
    content = made_film("mkv", sound=samples, layout="stereo")
    sound = to_clip(content, 1.0, at=0.5, sampling_rate=RATE).sound.numpy()
    assert np.sqrt(2) * sound.std() == pytest.approx(0.5, abs=0.01)  # the louder channel


@pytest.mark.parametrize(
    ("codec", "format"), [("aac", "ipod"), ("aac", "adts"), ("libopus", "webm"), ("libopus", "ogg")]
)
def test_files_with_only_sound(codec, format):
    rate = 48_000 if codec == "libopus" else RATE
    clip = to_clip(made_m4a(tone(4.0, rate, 1000), codec, format, rate), 1.0, at=0.5, sampling_rate=RATE)
    assert clip.start == pytest.approx(1.5, abs=0.05) and clip.mask.all() and clip.frames is None
    assert np.abs(np.fft.rfft(clip.sound)).argmax() == pytest.approx(1000, abs=1)
    with pytest.raises(BadSample, match="without video|damaged video"):
        to_clip(made_m4a(tone(1.0, rate), codec, format, rate), frames=2)


# cost


def counted(monkeypatch) -> dict[str, int]:
    """Counts the packets that are read and the frames that are decoded from now on."""
    counts = {"packets": 0, "frames": 0}
    packets, decoded = films.Film.packets, films.Film.decoded

    def counting(read, name):
        def method(*args):
            for one in read(*args):
                counts[name] += 1
                yield one

        return method

    monkeypatch.setattr(films.Film, "packets", counting(packets, "packets"))
    monkeypatch.setattr(films.Film, "decoded", counting(decoded, "frames"))
    return counts


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "avi", "ts", "ts h264", FRAGMENTED])
def test_a_clip_from_the_middle_costs_at_most_twice_one_from_the_start(kind, monkeypatch):
    """60 s with a key frame a second: packets that are read and frames that are decoded."""
    content = made_film(kind, seconds=60.0, image=lambda i: GREY[i % 256], gop=25)
    counts, costs = counted(monkeypatch), []
    for at in (0.0, 0.5, 1.0):
        counts.update(packets=0, frames=0)
        to_clip(content, 2.0, 8, 16, at, RATE)
        costs.append(dict(counts))
    start, *others = costs
    assert start["packets"] < 600 and start["frames"] <= 52  # of 2,440 or more, and of 1,500
    for cost in others:
        assert cost["packets"] <= 2 * start["packets"] and cost["frames"] <= 2 * start["frames"], costs


# cut files


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_film_is_a_bad_sample(kind, part):
    content = made_film(kind, seconds=4.0)
    cut = content[: int(part * len(content))]
    cut = cut[:-1] if kind.startswith("ts") and len(cut) % 188 == 0 else cut
    for sound in (None, RATE):
        with pytest.raises(BadSample, match="cut f|damaged video"):
            to_clip(cut, 0.5, 4, 2, 0.0, sound)


def test_the_message_says_how_much_is_missing():
    with pytest.raises(BadSample, match=r"cut file: [\d,]+ of [\d,]+ bytes"):
        to_clip(made_film("mp4 index first")[:-5000], 0.5, frames=1)
    with pytest.raises(BadSample, match=r"cut film: no index \(moov\), and [\d,]+ bytes of mdat are missing"):
        to_clip(made_film("mp4", seconds=4.0)[:9000], 0.5, frames=1)
    with pytest.raises(BadSample, match=r"cut film: its last fragment lacks [\d,]+ bytes"):
        to_clip(made_film(FRAGMENTED)[:9000], 0.5, frames=1)
    with pytest.raises(BadSample, match=r"cut film: its last packet of 188 bytes is not complete"):
        to_clip(made_film("ts")[:9001], 0.5, frames=1)


def test_seconds_that_the_container_states_and_does_not_have():
    """As after a download whose sizes were repaired: the segment ends with the file, its duration is that of before."""
    content = bytearray(made_film("mkv", seconds=4.0))
    cut = content[: int(0.6 * len(content))]
    place = content.index(b"\x18\x53\x80\x67") + 4
    assert content[place] == 1  # a size of 8 bytes
    cut[place : place + 8] = (1 << 56 | len(cut) - place - 8).to_bytes(8, "big")
    with pytest.raises(BadSample, match=r"cut film: 2\.\d\d of 4\.\d\d seconds"):
        to_clip(bytes(cut), 0.5, frames=1)


def test_less_than_5_percent_missing_is_not_used():
    content = made_film("mp4 index first", seconds=8.0)
    clip = to_clip(content[: int(0.97 * len(content))], 1.0, 4, 4, 1.0, RATE)
    assert 6.4 < clip.start < 7.0 and clip.frames.shape[0] == 4


def moofs(content: bytes) -> list[int]:
    places, at = [], 0
    while at < len(content):
        if content[at + 4 : at + 8] == b"moof":
            places.append(at)
        at += int.from_bytes(content[at : at + 4], "big")
    return places


def test_what_is_not_detected():
    """Without a size or a duration, a cut between two parts is a shorter film."""
    content = made_film(FRAGMENTED, seconds=4.0)
    assert to_clip(content[: moofs(content)[3]], 0.5, frames=2, at=1.0).start < 1.6
    content = made_film("ts", seconds=4.0, sound=False)
    cut = content[: len(content) // 2 // 188 * 188]
    assert to_clip(cut, 0.5, frames=2, at=0.9).start < 2.0


@pytest.mark.parametrize("suffix", ["aac", "mpg"])
def test_a_cut_of_raw_aac_and_of_mpg_is_not_detected(suffix):
    """They state neither size nor duration: what is cut is a shorter sound or film."""
    content = made_m4a(tone(4.0), format="adts") if suffix == "aac" else long_mpg()
    cut = content[: int(0.6 * len(content))]
    whole, shorter = (length_of(some, sampling_rate=RATE) for some in (content, cut))
    assert whole == pytest.approx(4.0, abs=0.2) and shorter < 0.8 * whole
    assert to_clip(cut, 0.5, at=0.0, sampling_rate=RATE).sound.std() > 0.1


def long_mpg() -> bytes:
    """4 seconds of frames and a tone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpeg") as file:
        frames, sounds = file.add_stream("mpeg1video", rate=FPS), file.add_stream("mp2", rate=RATE, layout="mono")
        frames.height, frames.width, frames.pix_fmt = *SIZE, "yuv420p"
        frames.codec_context.thread_count = 1  # the size of the frames depends on it
        resampler = av.AudioResampler(format=sounds.format, rate=RATE)
        for i in range(4 * FPS):
            file.mux(frames.encode(av.VideoFrame.from_ndarray(blocks(i), format="rgb24")))
            samples = tone(4.0)[None, i * RATE // FPS : (i + 1) * RATE // FPS]
            for part in resampler.resample(sound_frame(samples, i * RATE // FPS, RATE, "mono")):
                file.mux(sounds.encode(part))
        for stream in (frames, sounds):
            file.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("footer", [0, 10])
@pytest.mark.parametrize("tags", [1, 2])
def test_raw_aac_after_an_id3_tag_is_read(footer, tags):
    content, size = made_m4a(tone(2.0), format="adts"), 300
    header = b"ID3\x04\0" + bytes([0x10 if footer else 0, 0, 0, size >> 7, size & 127])
    tag = header + b"TIT2" + b"\0" * (size - 4) + (b"3DI" + header[3:] if footer else b"")
    assert film_format(tag * tags + content) == "aac"
    plain, tagged = (to_clip(some, 0.5, at=0.5, sampling_rate=RATE) for some in (content, tag + content))
    assert tagged.start == pytest.approx(plain.start, abs=0.1) and tagged.sound.std() > 0.3
    for other in (b"ID3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f", tag, tag + sound_file(tone(1.0), format="MP3")):
        assert film_format(other) is None


def test_live_matroska_with_clusters_of_unknown_size():
    content = made_film("webm live", seconds=4.0)
    cluster = content.index(b"\x1f\x43\xb6\x75")
    length = 9 - content[cluster + 4].bit_length()
    unknown = bytearray(content)
    unknown[cluster + 4 : cluster + 4 + length] = ((1 << 7 * length + 1) - 1).to_bytes(length, "big")
    assert to_clip(bytes(unknown), 0.5, 4, 2, 1.0, RATE).start == pytest.approx(3.5, abs=0.1)
    with pytest.raises(BadSample, match="cut film: its last element"):
        to_clip(bytes(unknown[: len(content) // 2]), 0.5, 4, 2, 0.0, RATE)


# bad content, limits, arguments


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "empty video: the file or value has 0 bytes"),
        (lambda: b"a text in a file named .mp4\n" * 50, "damaged video"),
        (lambda: b"\x00", "damaged video"),
        (lambda: 7, "video is int, not bytes"),
        (lambda: {"bytes": None, "path": "/no/such.mp4"}, "unreadable file: No such file"),
        (lambda: sound_file(tone(0.5)), "damaged video"),
        (lambda: made_film(seconds=0.4)[:40], "damaged video|cut film"),
        (lambda: b"#EXTM3U\n#EXTINF:3,\nfile:///secret.mp4\n#EXT-X-ENDLIST\n", "damaged video"),
        (lambda: b"ffconcat version 1.0\nfile '/secret.mp4'\n", "damaged video"),
    ],
)
def test_what_is_no_film_is_a_bad_sample(content, reason):
    for sound in (None, RATE):
        with pytest.raises(BadSample, match=reason):
            to_clip(content(), 0.5, frames=2, sampling_rate=sound)


def test_limits_of_films():
    content = made_film()
    to_clip(content, 0.5, frames=8, sampling_rate=RATE, limits=Limits(pixels=48 * 64, frames=50, seconds=2.1))
    for limits, reason in (
        (Limits(bytes=999), "--max_sample_bytes"),
        (Limits(pixels=48 * 64 - 1), "64x48 pixels, more than 3,071"),
        (Limits(frames=49), r"more than 49 frames \(--max_video_frames\)"),
        (Limits(seconds=1.9), r"seconds of sound \(--max_sound_seconds\)"),
    ):
        with pytest.raises(BadSample, match=reason):
            to_clip(content, 0.5, frames=8, sampling_rate=RATE, limits=limits)
    with pytest.raises(BadSample, match="9 frames of 64x48 pixels, more than 24,576"):
        to_clip(content, 0.5, frames=9, limits=Limits(pixels=48 * 64))
    for kind in ("mkv", "ts"):  # which state no number of frames
        with pytest.raises(BadSample, match="more than 40 frames"):
            to_clip(made_film(kind), 0.5, frames=2, limits=Limits(frames=40))


@pytest.mark.parametrize(
    ("start", "part", "what"),
    [
        (b"\0\0\0\x10ftypisom\0\0\0\0", b"\0\0\0\x08free", "boxes of an mp4 file"),
        (b"\x1aE\xdf\xa3\x80", b"\xec\x80", "elements of a matroska file"),
    ],
)
def test_a_film_of_too_many_parts_is_refused_by_their_number(start, part, what):
    """A few megabytes of empty parts would take minutes to count."""
    content = start + part * 600_000
    with pytest.raises(BadSample, match=f"more than 500,000 {what}"):
        to_clip(content, 0.5, frames=2)
    with pytest.raises(BadSample, match="damaged video|empty film|file without video"):
        to_clip(start + part * 400_000, 0.5, frames=2)


def test_frames_of_several_sizes_are_a_bad_sample():
    small, large = (made_film("ts", 1.0, lambda i, size=size: blocks(i, size), False) for size in (SIZE, (96, 128)))
    with pytest.raises(BadSample, match="damaged video"):
        to_clip(small + large, frames=30)
    with pytest.raises(BadSample, match="128x96 pixels, more than 5,000"):
        to_clip(small + large, frames=12, limits=Limits(pixels=5_000))


@pytest.mark.parametrize(("level", "loudness"), [(0.0, "silence"), (0.001, "-63 dB")])
def test_films_of_too_little_loudness(level, loudness):
    content = made_film("mov", sound=tone(2.0, level=level))
    assert to_clip(content, 1.0, sampling_rate=RATE).sound.abs().max() <= level * 1.1
    with pytest.raises(BadSample, match=rf"{loudness}, less than -60 dB \(--min_loudness\)"):
        to_clip(content, 1.0, sampling_rate=RATE, min_loudness=-60.0)
    loud = made_film("mov", sound=tone(2.0, level=0.01))
    assert to_clip(loud, 1.0, sampling_rate=RATE, min_loudness=-60.0).mask.all()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "Neither frames nor sound"),
        ({"frames": 4, "at": 1.1}, "at must be from 0 to 1, but is 1.1"),
        ({"frames": 4, "seconds": 0.0}, "seconds must be above 0"),
        ({"frames": 4, "fps": -1.0}, "fps must be above 0"),
        ({"sampling_rate": RATE}, "Sound needs the length of the clip. Give seconds"),
        ({"frames": 9, "fps": 4.0, "seconds": 2.0}, "9 frames at 4 a second take 2.25 seconds, more than the clip, 2"),
    ],
)
def test_arguments_that_do_not_fit(arguments, reason):
    with pytest.raises(ValueError, match=reason) as error:
        to_clip(b"", **arguments)
    assert not isinstance(error.value, BadSample)


@pytest.mark.parametrize(("package", "extra"), [("av", "video"), ("soxr", "audio")])
def test_packages_of_films_are_named(package, extra, monkeypatch):
    content = made_film("mov", rate=8_000, sound=tone(2.0, 8_000))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf"{package} is not installed. Install it: pip install 'hf_pretext\[{extra}\]'"
    ):
        to_clip(content, 0.5, sampling_rate=RATE)


def test_a_clip_is_a_tuple_with_names():
    clip = to_clip({"bytes": made_film(), "path": None}, 0.5, 8, 4, 0.5, RATE)
    frames, sound, mask, start, seconds = clip
    assert isinstance(clip, Clip) and frames is clip.frames and sound.shape == mask.shape == (RATE // 2,)
    assert start == clip.start == pytest.approx(0.75, abs=0.03) and seconds == 0.5
    assert all(b > a for a, b in pairwise(frame_times(0.0, 0.5, 8, 4)))
