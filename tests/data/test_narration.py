"""Narrations: subtitles and lists with times, the columns that they come from, and those nearest to a clip."""

import contextlib
import io
import json
import random
import tarfile

import pytest
from made_files import fresh_cache
from made_images import all_rows

from hf_pretext.data.captions import captions_of
from hf_pretext.data.decoding import BadSample
from hf_pretext.data.narration import Narration, listed, narrations_in, nearest, parsed
from hf_pretext.data.sources import open_source

own_cache = pytest.fixture(autouse=True)(fresh_cache)
NARRATED = ("video", ("text", "subtitles"))
LISTS = {"text": ["push the door", "open it"], "start": [0.5, 2], "end": [1.25, 3.5]}
NARRATIONS = [Narration("push the door", 0.5, 1.25), Narration("open it", 2.0, 3.5)]
SRT = "1\n00:00:00,500 --> 00:00:01,250\npush the door\n\n2\n00:00:02,000 --> 00:00:03,500\nopen it\n"
VTT = "WEBVTT\n\n00:00.500 --> 00:01.250\npush the door\n\n00:02.000 --> 00:03.500\nopen it\n"
SUBTITLES = {
    "srt": SRT,
    "vtt": VTT,
    "byte order mark": "\ufeff" + SRT,
    "vtt with a byte order mark": "\ufeff" + VTT,
    "lines of Windows": SRT.replace("\n", "\r\n"),
    "lines of old Macs": VTT.replace("\n", "\r"),
    "hours omitted": SRT.replace("00:00:", "00:"),
    "points for commas": SRT.replace(",", "."),
    "more digits, and none": "00:00:00,500000 --> 00:00:01,25\npush the door\n\n00:00:02 --> 00:00:03,5\nopen it",
    "out of order": "2\n00:02.000 --> 00:03.500\nopen it\n\n1\n00:00.500 --> 00:01.250\npush the door\n",
    "empty cues": SRT + "\n3\n00:00:04,000 --> 00:00:05,000\n\n4\n00:00:06,000 --> 00:00:07,000\n<i> </i>\n",
    "no blank lines": SRT.replace("\n\n", "\n"),
    "many blank lines": SRT.replace("\n", "\n\n").replace("\n\n00:", "\n00:"),
    "no numbers": "\n\n".join(part.split("\n", 1)[1] for part in SRT.split("\n\n")),
    "markup": SRT.replace("push the door", '<font color="red">push</font>\n{\\an8}<b>the  door</b>'),
    "entities": VTT.replace("push the door", "push&nbsp;the &#100;oor"),
    "words with times": VTT.replace("push the door", "push<00:00.700><c.loud> the</c><00:01.000><c> door</c>"),
    "voices": VTT.replace("push the door", "<v.loud Mary Ann>push the door</v>"),
    "header": VTT.replace("WEBVTT", "WEBVTT - of a film\nKind: captions\nLanguage: en"),
    "names and settings of cues": VTT.replace("00:00.5", "first\n00:00.5").replace(
        "01.250", "01.250 align:start line:0%"
    ),
    "notes": VTT.replace("\n\n00:02", "\n\nNOTE\na note\nof two lines\n\nNOTE one more\n\n00:02"),
    "styles": VTT.replace("WEBVTT\n", "WEBVTT\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:a\n"),
}


@pytest.mark.parametrize("content", SUBTITLES.values(), ids=SUBTITLES)
def test_subtitles_in_every_form_are_the_same_narrations(content):
    assert parsed(content) == NARRATIONS


ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.310 align:start position:0%
 
first<00:00:00.480><c> cut</c><00:00:00.640><c> the</c><00:00:00.880><c> onions</c>

00:00:02.310 --> 00:00:02.320 align:start position:0%
first cut the onions
 

00:00:02.320 --> 00:00:04.550 align:start position:0%
first cut the onions
then<00:00:02.560><c> fry</c><00:00:02.800><c> them</c><c.colorE5E5E5><00:00:03.159><c> slowly</c></c>

00:00:04.550 --> 00:00:04.560 align:start position:0%
then fry them slowly
 

00:00:04.560 --> 00:00:06.000 align:start position:0%
then fry them slowly
[Music]

00:00:06.000 --> 00:00:08.990 align:start position:0%
[Music]

00:00:20.000 --> 00:00:21.000 align:start position:0%
[Music]
"""


def test_lines_that_roll_over_the_screen_are_one_narration_each():
    """As YouTube writes automatic captions: each line is spoken once, and shown in three cues."""
    assert parsed(ROLLING) == [
        ("first cut the onions", 0.16, 2.32),
        ("then fry them slowly", 2.32, 4.56),
        ("[Music]", 4.56, 8.99),
        ("[Music]", 20.0, 21.0),  # after a pause
    ]
    times = ["00:01,000 --> 00:02,000", "00:02,000 --> 00:03,000", "00:03,500 --> 00:04,000"]
    texts = ["go on", "go on to the left", "go on to the left"]  # no line of the one before, and after a pause
    content = "\n\n".join(f"{i}\n{t}\n{text}" for i, (t, text) in enumerate(zip(times, texts, strict=True)))
    assert [n.text for n in parsed(content)] == texts
    three = "a\nb\nc", "b\nc\nd", "d\ne", "f\nd\ne"
    times = [f"00:0{i},000 --> 00:0{i + 1},000" for i in range(4)]
    content = "\n\n".join(f"{t}\n{text}" for t, text in zip(times, three, strict=True))
    assert [n.text for n in parsed(content)] == ["a b c", "d", "e", "f d e"]


def test_times_overlap_pass_the_end_and_are_long():
    content = "\n\n".join(
        f"{i}\n{times}\n{i}"
        for i, times in enumerate(
            [
                "00:00:01,000 --> 00:00:09,000",
                "00:00:01,000 --> 00:00:02,000",
                "-00:00:00,500 --> 00:00:01,500",
                "00:00:05,000 --> 00:00:04,000",
                "100:59:61,000 --> 101:00:00,000",
            ]
        )
    )
    late = 100 * 3600 + 59 * 60 + 61
    assert [(n.start, n.end) for n in parsed(content)] == [(-0.5, 1.5), (1, 2), (1, 9), (5, 5), (late, late)]
    assert [n.text for n in parsed(content)] == ["2", "1", "0", "3", "4"]


def test_a_text_may_look_like_other_parts_of_a_file():
    times = [f"00:0{i},000 --> 00:0{i + 1},000" for i in range(3)]
    texts = ["NOTE 5 < 6 and a <3 {b}", "42", "43"]
    content = "\n\n".join(f"{i}\n{time}\n{text}" for i, (time, text) in enumerate(zip(times, texts, strict=True)))
    assert [n.text for n in parsed(content)] == texts
    arrow = VTT.replace("push the door", "A --> B")
    assert [n.text for n in parsed(arrow)] == [n.text for n in parsed("\n \n" + arrow)] == ["A --> B", "open it"]
    numbers = VTT.replace("push the door", "42").replace("\n\n00:02", "\n\n17\n00:02")
    assert [n.text for n in parsed(numbers)] == ["42", "open it"]


@pytest.mark.parametrize("content", [None, "", "\n \r\n", "\ufeff", "WEBVTT", "WEBVTT\n\nNOTE 00:01 is empty\n"])
def test_a_film_may_have_no_subtitles(content):
    assert parsed(content) == []
    with pytest.raises(BadSample, match="no narration: the film has no text with times"):
        narrations_in({"subtitles": content})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1\n00:00", "not subtitles: no line with times, like 00:00:01,000 --> 00:00:02,500"),
        ('{"text": ["a"]}', "not subtitles"),
        ("<html>\n<!-- a -->\n</html>", "not subtitles"),
        (SRT.replace("00:00:02,000", "00:00:xx"), "damaged subtitles: no times in line 6: 00:00:xx --> 00:00:03,500"),
        (VTT.replace("00:01.250", "1"), "no times in line 3"),
        (SRT.replace("00:00:02", "9" * 5000 + ":00:02"), "damaged subtitles: no times in line 6: 9999"),
        (7, "subtitles are int, not a string"),
    ],
)
def test_a_file_that_is_not_subtitles_is_a_bad_sample(content, words):
    with pytest.raises(BadSample, match=words.replace("(", r"\(")):
        parsed(content)


def test_damaged_subtitles_raise_nothing_but_bad_sample():
    draws = random.Random(0)
    for _ in range(2000):
        content = list(draws.choice([SRT, VTT]))
        for _ in range(draws.randint(1, 8)):
            content[draws.randrange(len(content))] = draws.choice("\0\ud800>-:,.\n<{9 &#x\u2028")
        with contextlib.suppress(BadSample):
            assert all(narration.text and narration.start <= narration.end for narration in parsed("".join(content)))


def test_lists_of_texts_and_times():
    assert listed(**{"texts": LISTS["text"], "starts": LISTS["start"], "ends": LISTS["end"]}) == NARRATIONS
    assert listed(["b", None, " ", "a", 7], [5, 0, 0, 1, 0], [4, 0, 0, 9, 0]) == [("a", 1.0, 9.0), ("b", 5.0, 5.0)]
    assert narrations_in(LISTS) == NARRATIONS
    assert narrations_in({**LISTS, "subtitles": "no subtitles"}) == NARRATIONS
    assert narrations_in({"text": None, "subtitles": SRT}) == NARRATIONS
    for without in ({"text": "a"}, {"text": ["a", "b"]}, {"text": "a", "start": 0.0, "end": 1.0}, {"text": None}, {}):
        assert narrations_in(without) is None
    with pytest.raises(BadSample, match="no narration"):
        narrations_in({"text": [], "start": [], "end": []})


@pytest.mark.parametrize(
    ("starts", "ends", "words"),
    [
        ([0.0], [1.0, 2.0], "text, start and end have 2, 1 and 2 values"),
        (None, None, "text, start and end have 2, no and no values"),
        ([0.0, None], [1.0, 2.0], "no numbers of seconds: .None, 2.0"),
        ([0.0, float("nan")], [1.0, 2.0], "no numbers of seconds: .nan"),
        ([0.0, 1.0], [1.0, 10**400], "no numbers of seconds"),
        ([0.0, "1"], [1.0, 2.0], "no numbers of seconds: .'1', 2.0"),
    ],
)
def test_times_that_are_no_seconds_are_a_bad_sample(starts, ends, words):
    with pytest.raises(BadSample, match=words):
        narrations_in({"text": ["a", "b"], "start": starts, "end": ends})


def test_the_nearest_narrations_equal_a_loop_over_all():
    draws = random.Random(0)
    for _ in range(200):
        starts = [draws.randint(0, 20) for _ in range(draws.randint(1, 9))]
        some = listed([f"{i}" for i in range(len(starts))], starts, [s + draws.randint(0, 4) for s in starts])
        begin = draws.randint(0, 20)
        end, left, expected = begin + draws.randint(1, 4), list(some), []

        def gap(narration, begin=begin, end=end):
            if narration.end < begin:
                return begin - narration.end
            return narration.start - end if narration.start > end else 0

        def between_middles(narration, begin=begin, end=end):
            return abs((narration.start + narration.end) / 2 - (begin + end) / 2)

        while left:
            closest = min(map(gap, left))
            closest = [narration for narration in left if gap(narration) == closest]
            middle = min(map(between_middles, closest))
            expected.append(next(narration for narration in closest if between_middles(narration) == middle))
            left.remove(expected[-1])
        for count in (1, 3, 20):
            assert nearest(some, begin, end, count) == expected[:count]


# columns


def write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for i, sample in enumerate(samples):
            for suffix, content in sample.items():
                info = tarfile.TarInfo(f"{i}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return str(path)


def narrations_of(source):
    return [narrations_in(row) for row in all_rows(source)]


@pytest.mark.parametrize(
    "form", ["json", "srt", "vtt", "metadata.jsonl", "tar with json", "tar with srt", "jsonl", "rows"]
)
def test_narrations_come_from_all_forms_of_data(form, tmp_path):
    (tmp_path / "0.mp4").write_bytes(b"x")
    data, columns = str(tmp_path), {}
    if form == "json":
        (tmp_path / "0.json").write_text(json.dumps(LISTS))
        columns = {"text": "json.text", "start": "json.start", "end": "json.end"}
    elif form in ("srt", "vtt"):
        (tmp_path / f"0.{form}").write_text({"srt": SRT, "vtt": VTT}[form])
        columns = {"subtitles": "subtitles"}
    elif form == "metadata.jsonl":
        (tmp_path / form).write_text(json.dumps({"file_name": "0.mp4", **LISTS}))
    elif form.startswith("tar"):
        data = write_tar(
            tmp_path / "a.tar",
            [
                {"mp4": b"x", "json": json.dumps(LISTS).encode()}
                if "json" in form
                else {"mp4": b"x", "srt": SRT.encode()}
            ],
        )
        columns = (
            {"text": "json.text", "start": "json.start", "end": "json.end"} if "json" in form else {"subtitles": "srt"}
        )
    elif form == "jsonl":
        (tmp_path / "rows.jsonl").write_text(json.dumps({"video": "0.mp4", **LISTS}))
        data = str(tmp_path / "rows.jsonl")
    else:
        data = [{"video": b"x", **LISTS}]
    source = open_source(data, needed=NARRATED)
    expected = columns or {"text": "text", "start": "start", "end": "end"}
    assert {name: column for name, column in source.columns.items() if name != "video"} == expected
    assert narrations_of(source) == [NARRATIONS]
    column = "subtitles" if "subtitles" in source.columns else "text"
    assert list(captions_of(source, [column])) == ["push the door", "open it"]


def test_lists_come_before_subtitles_and_plain_texts_have_no_times(tmp_path):
    tar = write_tar(tmp_path / "a.tar", [{"mp4": b"x", "json": json.dumps(LISTS).encode(), "srt": SRT.encode()}])
    assert open_source(tar, needed=NARRATED).columns["text"] == "json.text"
    for asked in ("srt", "SRT"):
        source = open_source(tar, columns={"text": asked}, needed=NARRATED)
        assert source.columns == {"video": "mp4", "subtitles": "srt"} and narrations_of(source) == [NARRATIONS]
    plain = json.dumps({"text": "a door", "start": 0.0, "end": 1.0}).encode()
    source = open_source(write_tar(tmp_path / "b.tar", [{"mp4": b"x", "json": plain}]), needed=NARRATED)
    assert source.columns == {"video": "mp4", "text": "json.text"}
    captions = [{"mp4": b"x", "json": json.dumps({"captions": ["a", "b"]}).encode()}]
    source = open_source(write_tar(tmp_path / "c.tar", captions), needed=NARRATED)
    assert source.columns == {"video": "mp4", "text": "json.captions"}
    half = [{"mp4": b"x", "json": json.dumps({"text": ["a"], "start": [0.0]}).encode()}]
    with pytest.raises(ValueError, match="times in 'json.start', but the column 'json.end' is missing"):
        open_source(write_tar(tmp_path / "d.tar", half), needed=NARRATED)
    assert open_source(tmp_path.joinpath("d.tar").as_posix(), needed=("video", "text")).columns["text"] == "json.text"


def test_subtitles_that_can_not_be_read_give_no_text_to_a_tokenizer():
    rows = [{"video": b"x", "subtitles": content} for content in (SRT, "no subtitles", None, VTT)]
    source = open_source(rows, needed=NARRATED)
    assert list(captions_of(source, ["subtitles"])) == ["push the door", "open it"] * 2
