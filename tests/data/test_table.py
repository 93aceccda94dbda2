"""JSON lines, CSV, plain text and Arrow files: what clean ones give, and what damaged ones lose."""

import bz2
import csv
import gzip
import json
import lzma
import random
import time

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_files import fresh_cache, unreadable
from made_images import all_rows
from mutations import mutated

from hf_pretext.data.decoding import UNREADABLE
from hf_pretext.data.lines import Reading
from hf_pretext.data.sources import open_source

own_cache = pytest.fixture(autouse=True)(fresh_cache)
ANY = Reading(max_bad_fraction=1.0)


def opened(path, reading=ANY, column="text"):
    return open_source(str(path), columns={"text": column}, needed=("text",), reading=reading)


def texts(source):
    return [row.get("text") for row in all_rows(source)]


def reasons(source):
    return [row[UNREADABLE] for row in all_rows(source) if UNREADABLE in row]


def same_as_datasets(kind, path, **options):
    """Compares features and all rows with those of `datasets`."""
    theirs = datasets.load_dataset(kind, data_files=str(path), split="train", **options)
    theirs = theirs.select_columns([name for name in theirs.column_names if name != "__index_level_0__"])
    columns = {name: name for name in theirs.column_names}
    reading = Reading(sample_by=options.get("sample_by"))
    ours = open_source(str(path), columns=columns, needed=tuple(columns), reading=reading)
    assert ours.features == dict(theirs.features)
    assert all_rows(ours) == list(theirs)


# clean files


CLEAN_JSON = [
    '{"text": "a", "n": 1, "x": 1.5, "b": true, "tags": ["p", "q"], "d": {"e": "u", "f": [1]}}\n{"text": "b"}\n',
    '{"text": "a", "when": "2020-01-01"}\n\n  \n{"text": null, "when": "2020-01-02", "other": null}',
    '\ufeff{"text": "ä 電影 \\u00e9"}\r\n{"text": "[[[ }}"}\r\n',
    '[{"text": "a"}, {"text": "b", "n": [1, 2]}]',
    '[\n  {"text": "a"},\n  {"text": "b"}\n]\n',
    '["a", "b"]',
    '{\n  "text": "a",\n  "n": 3\n}\n',
    '{"text": "a", "list": [{"c": 1}, {"c": 2}]}\n{"text": "b", "list": []}\n',
]


@pytest.mark.parametrize("content", CLEAN_JSON)
def test_clean_json_gives_the_rows_of_datasets(content, tmp_path):
    (tmp_path / "a.json").write_text(content, encoding="utf-8", newline="")
    same_as_datasets("json", tmp_path / "a.json")


CLEAN_CSV = [
    "text,n,x,b\na,1,1.5,True\nb,2,,False\n",
    'text,n\n"a, b\nc",1\n"say ""hi""",\n\n  \nlast,3',
    "text,n\r\n a ,01\r\nb, 2 \r\n",
    '\ufefftext,n\nä,1\n5" disk,1e3\n',
    "text,text,\na,b,1\n",
    "n,text\nr1,1,a\nr2,2,b\n",
    "text,n\rone,1\rtwo,2\r",
]


@pytest.mark.parametrize("content", CLEAN_CSV)
def test_clean_csv_gives_the_rows_of_datasets(content, tmp_path):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    same_as_datasets("csv", tmp_path / "a.csv")


CLEAN_TEXTS = [
    "a\nb\n\nc\n",
    "a\r\n\r\nb\r\n\r\n\r\nc",
    "\n\na\n\n\n\nb\n",
    "\ufeffa\rb\r\rc\r",
    "a",
    "a\u2028b\n\x0cc\n",
]


@pytest.mark.parametrize("content", CLEAN_TEXTS)
@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
@pytest.mark.parametrize("block", [1, 3, 2**22])
def test_clean_texts_give_the_rows_of_datasets(content, sample_by, block, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_pretext.data.lines.BLOCK", block)
    (tmp_path / "a.txt").write_text(content, encoding="utf-8", newline="")
    same_as_datasets("text", tmp_path / "a.txt", sample_by=sample_by)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files_of_every_kind(suffix, tmp_path):
    content = "".join(f"text {i}\n" for i in range(1000)).encode()
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    if suffix == ".zst":
        with pa.OSFile(str(tmp_path / "a.txt.zst"), "wb") as file, pa.CompressedOutputStream(file, "zstd") as stream:
            stream.write(content)
    else:
        (tmp_path / f"a.txt{suffix}").write_bytes(packed[suffix](content))
    assert texts(opened(tmp_path / f"a.txt{suffix}")) == [f"text {i}" for i in range(1000)]


def test_types_are_those_of_all_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "b", "n": 1.5, "more": "m"}\n')
    source = open_source(str(tmp_path), columns={"n": "n", "more": "more"}, needed=("n", "more", "text"))
    assert [source.features[name].dtype for name in ("n", "more")] == ["float64", "string"]
    assert all_rows(source) == [{"n": 1.0, "more": None, "text": "a"}, {"n": 1.5, "more": "m", "text": "b"}]


def test_a_file_is_converted_once(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    stamp = opened(tmp_path).rows.stamp
    monkeypatch.setattr("hf_pretext.data.formats.json_rows.json_lines", None)  # would fail
    assert opened(tmp_path).rows.stamp == stamp
    (tmp_path / "a.jsonl").write_text('{"text": "another"}\n')
    with pytest.raises(TypeError):
        opened(tmp_path)


# damaged files

BAD_JSON = {
    b'{"text": "cut': "not JSON: line 3 of a.jsonl (Unterminated string",
    b'["a list"]': "not a JSON object: line 3 of a.jsonl (a list)",
    b'{"text": "\xe9"}': "not UTF-8: line 3 of a.jsonl (byte 0xe9)",
    b'{"text": "\\ud800"}': "text with half a surrogate pair: column 'text' in line 3 of a.jsonl",
    b'{"text": 7}': "int instead of string: column 'text' in line 3 of a.jsonl",
    b'{"text": "a"} {"text": "b"}': "not JSON: line 3 of a.jsonl (Extra data",
    b"\x00\x00": "not JSON: line 3 of a.jsonl",
    b'{"text": "a", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}": "more than 100 levels",
    b'{"n": ' + b"9" * 5000 + b', "text": "a"': "not JSON: line 3 of a.jsonl",
}


@pytest.mark.parametrize("line", BAD_JSON)
def test_a_bad_line_of_json_is_one_bad_row(line, tmp_path):
    good = [json.dumps({"text": f"text {i}"}).encode() for i in range(50)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*good[:2], line, *good[3:]]))
    source = opened(tmp_path)
    rows = all_rows(source)
    assert unreadable(rows) == [2] and rows[2][UNREADABLE].startswith(BAD_JSON[line])
    assert [row["text"] for i, row in enumerate(rows) if i != 2] == [f"text {i}" for i in range(50) if i != 2]
    assert set(source.features) == {"text"} and source.key(0, 49).endswith(":49")
    with pytest.raises(ValueError, match="no column 'hf_pretext.faults'"):
        opened(tmp_path, column="hf_pretext.faults")


def test_a_bad_value_counts_only_in_a_column_in_use(tmp_path):
    lines = [{"text": f"text {i}", "id": f"x{i}" if i % 10 else i} for i in range(50)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert texts(opened(tmp_path)) == [f"text {i}" for i in range(50)]
    assert unreadable(all_rows(opened(tmp_path, column="id"))) == [0, 10, 20, 30, 40]


def test_a_list_that_is_cut_gives_its_beginning(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": "b"}, {"te')
    source = opened(tmp_path)
    assert texts(source) == ["a", "b", None] and "cut or damaged file: a.json after 2 rows" in reasons(source)[0]


BAD_CSV = {
    b"a,b,c": "bad CSV: line 4 of a.csv 3 fields, the header has 2 (separator ',')",
    b"a": "bad CSV: line 4 of a.csv 1 fields",
    b'"open,1': "bad CSV: line 4 of a.csv a quote is not closed",
    b"caf\xe9,1": "not UTF-8: line 4 of a.csv (byte 0xe9)",
}


@pytest.mark.parametrize("line", BAD_CSV)
def test_a_bad_line_of_csv_is_one_bad_row(line, tmp_path):
    good = [b'"text, %d",%d' % (i, i) for i in range(50)]
    (tmp_path / "a.csv").write_bytes(b"\n".join([b"text,n", *good[:2], line, *good[3:]]))
    rows = all_rows(opened(tmp_path))
    assert unreadable(rows) == [2] and rows[2][UNREADABLE].startswith(BAD_CSV[line])
    assert [row["text"] for i, row in enumerate(rows) if i != 2] == [f"text, {i}" for i in range(50) if i != 2]


def test_names_of_columns_that_arrow_can_not_store(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,a\x00b,hf_pretext.faults,\xff\none,2,3,4\n")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one", "a\\u0000b": 2, "hf_pretext.faults": 3, "\\ud800": 4}\n')
    for name in ("a.csv", "a.jsonl"):
        assert texts(opened(tmp_path / name)) == ["one"]


def test_a_cache_that_can_not_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    with pytest.raises(ValueError, match="The cache .*home.* can't be written.*HF_HOME"):
        opened(tmp_path / "a.txt")


@pytest.mark.parametrize("sample_by", ["line", "paragraph"])
def test_invalid_bytes_in_plain_text_are_one_bad_row(sample_by, tmp_path):
    between = b"\n" if sample_by == "line" else b"\n\n"
    (tmp_path / "a.txt").write_bytes(between.join([b"one", b"tw\xffo", b"three"]))
    source = opened(tmp_path, Reading(sample_by, max_bad_fraction=1))
    assert texts(source) == ["one", None, "three"]
    assert reasons(source) == [f"not UTF-8: line {2 if sample_by == 'line' else 3} of a.txt (byte 0xff)"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.txt.gz"])
def test_a_cut_gz_loses_its_rest(name, tmp_path):
    numbers = np.random.default_rng(0).integers(10**9, size=20_000).tolist()
    kind = name.split(".")[1]
    lines = [f"text {i}" if kind != "jsonl" else json.dumps({"text": f"text {i}"}) for i in numbers]
    content = gzip.compress("\n".join(["text", *lines] if kind == "csv" else lines).encode())
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    *rows, last = all_rows(opened(tmp_path))
    assert 5_000 < len(rows) < 15_000 and [row["text"] for row in rows] == [f"text {i}" for i in numbers[: len(rows)]]
    assert last[UNREADABLE].startswith(
        f"cut or damaged file: {name} after {len(rows):,} rows (cut or damaged: EOFError"
    )


def test_a_file_that_can_not_be_opened_is_lost_and_named(tmp_path, caplog):
    for i in range(9):
        (tmp_path / f"{i}.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    (tmp_path / "x.jsonl.gz").write_bytes(b"not gzip")
    source = opened(tmp_path, Reading(max_bad_fraction=0.1))
    assert texts(source) == ["a"] * 9 and [name for name, _ in source.rows.lost] == ["x.jsonl.gz"]
    with pytest.raises(ValueError, match=r"1 of 10 files can't be read.*--max_bad_fraction 0.05.*\n  x.jsonl.gz: cut"):
        opened(tmp_path, Reading())
    with pytest.raises(ValueError, match="1 of 1 files can't be read"):
        opened(tmp_path / "x.jsonl.gz", ANY)


def test_too_many_bad_rows_are_refused_with_examples(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 90 + "{\n" * 10)
    message = r"10 of 100 rows can't be read: more than --max_bad_fraction 0.05.*\n  not JSON: line 91 of a.jsonl"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, Reading())
    assert len(unreadable(all_rows(opened(tmp_path, Reading(max_bad_fraction=0.1))))) == 10


@pytest.mark.parametrize("damage", ["cut", "overwritten", "no Arrow"])
def test_a_damaged_arrow_file(damage, tmp_path):
    table = pa.table({"text": [f"text {i}" for i in range(1000)]})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        for batch in table.to_batches(100):
            writer.write_batch(batch)
    content = (tmp_path / "a.arrow").read_bytes()
    if damage == "no Arrow":
        (tmp_path / "a.arrow").write_bytes(b"x" * 1000)
        with pytest.raises(ValueError, match="a.arrow: not an Arrow file"):
            opened(tmp_path)
        return
    if damage == "cut":
        (tmp_path / "a.arrow").write_bytes(content[: len(content) // 2])
    else:  # inside the texts of a batch
        at = content.index(b"text 350")
        (tmp_path / "a.arrow").write_bytes(content[:at] + b"\xff" * 8 + content[at + 8 :])
    rows = all_rows(opened(tmp_path))
    if damage == "cut":
        assert 300 < len(rows) < 600 and unreadable(rows) == [len(rows) - 1]
    else:
        assert len(rows) == 1000 and unreadable(rows) == list(range(300, 400))
    assert all(row["text"] == f"text {i}" for i, row in enumerate(rows) if UNREADABLE not in row)


def test_a_parquet_file_without_its_footer_is_lost(tmp_path, caplog):
    for i in range(10):
        pq.write_table(pa.table({"text": [f"text {i}"]}), tmp_path / f"{i}.parquet")
    path = tmp_path / "0.parquet"  # the first one, of which `datasets` reads the features
    path.write_bytes(path.read_bytes()[:-20])
    source = opened(tmp_path, Reading(max_bad_fraction=0.1))
    assert texts(source) == [f"text {i}" for i in range(1, 10)]
    assert [name for name, _ in source.rows.lost] == ["0.parquet"]
    with pytest.raises(ValueError, match="1 of 10 files can't be read"):
        opened(tmp_path, Reading())
    with pytest.raises(ValueError, match="0.parquet is no Parquet file, or is damaged or cut"):
        opened(path)


# encodings, separators, words

WORDS = ["None", "NA", "null", "nan", "N/A", "NULL", "n/a", "NaN", "<NA>", "none", "true"]


def test_words_for_missing_values_stay_texts(tmp_path):
    with open(tmp_path / "a.csv", "w", newline="") as file:
        numbered = [[word, "NA" if i == 3 else i] for i, word in enumerate(WORDS)]
        csv.writer(file).writerows([["text", "n"], *numbered, ["", 1]])
    assert texts(opened(tmp_path)) == [*WORDS, None]
    rows = all_rows(open_source(str(tmp_path), columns={"n": "n"}, needed=("n",)))
    assert [row["n"] for row in rows] == [0, 1, 2, None, *range(4, len(WORDS)), 1]  # numbers can be missing


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_separators_are_detected(separator, name, tmp_path):
    rows = [["text", "label", "n"], *([f"one, two; {i}", "x", i] for i in range(200))]
    with open(tmp_path / name, "w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    assert texts(opened(tmp_path)) == [f"one, two; {i}" for i in range(200)]


def test_more_fields_than_names_shift_no_column(tmp_path):
    (tmp_path / "a.csv").write_text("text,n\n" + "".join(f"a {i},{i},\n" for i in range(9)))
    assert texts(opened(tmp_path / "a.csv")) == [f"a {i}" for i in range(9)]
    (tmp_path / "r.csv").write_text("text,n\n" + "".join(f"{i},a {i},{i}\n" for i in range(9)))  # row names of R
    assert texts(opened(tmp_path / "r.csv")) == [f"a {i}" for i in range(9)]
    (tmp_path / "b.csv").write_text("text\n" + "".join(f"{i}, a comma\n" for i in range(9)))
    with pytest.raises(ValueError, match=r"9 of 9 rows.*--separator.*\n.*2 fields, the header has 1"):
        opened(tmp_path / "b.csv", Reading())


def test_repeated_names_of_columns_hide_no_column(tmp_path):
    (tmp_path / "a.csv").write_text("a,a,a.1,text\n1,2,3,x\n")
    assert [row["text"] for row in all_rows(opened(tmp_path / "a.csv"))] == ["x"]
    for column, value in (("a", 1), ("a.1", 2), ("a.1.1", 3)):
        source = open_source(str(tmp_path / "a.csv"), columns={"label": column}, needed=("label",))
        assert all_rows(source) == [{"label": value}]


def test_a_separator_can_be_given(tmp_path):
    (tmp_path / "a.csv").write_text("text|n,m\na,b|1\n")
    assert texts(opened(tmp_path, Reading(separator="|"))) == ["a,b"]
    with pytest.raises(ValueError, match="--separator 'ab' must be one character"):
        Reading(separator="ab")
    assert Reading(separator="tab").separator == "\t"


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl"])
def test_an_encoding_is_named_or_given(name, tmp_path):
    lines = [f"café number {i}" for i in range(20)]
    if name == "a.csv":
        lines = ["text", *lines]
    if name == "a.jsonl":
        lines = [json.dumps({"text": line}, ensure_ascii=False) for line in lines]
    (tmp_path / name).write_bytes("\n".join(lines).encode("cp1252"))
    with pytest.raises(ValueError, match=r"20 of 20 rows can't be read.*--encoding, for example cp1252.*\n  not UTF-8"):
        opened(tmp_path, Reading())
    expected = [f"café number {i}" for i in range(20)]
    assert texts(opened(tmp_path, Reading(encoding="cp1252"))) == expected
    (tmp_path / name).write_bytes("\n".join(lines).encode("utf-16"))  # with a byte order mark
    assert texts(opened(tmp_path, Reading())) == expected
    for encoding in ("latin-99", "rot13"):
        with pytest.raises(ValueError, match=f"--encoding {encoding} is unknown"):
            Reading(encoding=encoding)


def test_thousands_of_different_keys_take_seconds(tmp_path):
    rows = [{"text": "a", "x": "u" if i % 2 else i, "d": {f"key {i}": i}} for i in range(4000)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    started = time.process_time()
    assert texts(opened(tmp_path / "a.jsonl")) == ["a"] * 4000
    assert time.process_time() - started < 5  # it was 13, and grew with the square


def test_a_parquet_file_without_a_column_is_named(tmp_path):
    pq.write_table(pa.table({"text": ["a"] * 20}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"caption": ["b"] * 20}), tmp_path / "b.parquet")
    assert reasons(opened(tmp_path))[-1] == "the file can't be read: ValueError: b.parquet has no column 'text'"


# mutations


def clean_file(kind: str) -> bytes:
    rows = [f"text {i} a, b" for i in range(60)]
    if kind == "jsonl":
        return "".join(json.dumps({"text": row, "n": i, "l": [row]}) + "\n" for i, row in enumerate(rows)).encode()
    if kind == "csv":
        return ("text,n\n" + "".join(f'"{row}",{i}\n' for i, row in enumerate(rows))).encode()
    if kind == "txt.gz":
        return gzip.compress("\n".join(rows).encode())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": rows}), sink, row_group_size=20)
    return sink.getvalue().to_pybytes()


def check_mutations(kind, tmp_path, count):
    """No mutated file raises anything but `ValueError`; each row is a text, missing or unreadable."""
    clean, rng, read = clean_file(kind), random.Random(0), 0
    for i in range(count):
        path = tmp_path / f"{i}.{kind}"
        path.write_bytes(mutated(clean, rng))
        try:
            rows = all_rows(opened(path))
        except ValueError as error:  # the column is lost, or all rows are
            assert str(path) in str(error) or path.name in str(error)
            continue
        finally:
            path.unlink()
        assert all(
            UNREADABLE in row or row["text"] is None or isinstance(row["text"], (str, int, float)) for row in rows
        )
        read += bool(rows)
    assert read > count / 20


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt.gz", "parquet"])
def test_a_few_mutated_files(kind, tmp_path):
    check_mutations(kind, tmp_path, 25)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt.gz", "parquet"])
def test_mutated_files(kind, tmp_path):
    check_mutations(kind, tmp_path, 2000)
