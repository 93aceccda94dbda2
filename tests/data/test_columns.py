"""Detection of columns by type and name, and the errors for missing and ambiguous columns."""

import datasets
import pytest

from hf_pretext.data.columns import find_column
from hf_pretext.data.sources import open_source


def test_columns_are_found_by_type_then_by_usual_names():
    image, text = datasets.Image(), datasets.Value("string")
    assert find_column({"photo_of_it": image, "name": text}, "image") == "photo_of_it"
    assert find_column({"image": image, "mask": image}, "image") == "image"
    assert find_column({"img": datasets.Value("binary"), "name": text}, "image") == "img"
    assert find_column({"image": image, "what": datasets.ClassLabel(names=["a", "b"])}, "label") == "what"
    assert find_column({"image": image, "mask": image}, "image", asked="mask") == "mask"


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"text": datasets.Value("string")}, None, "no column of images.*--image_column.*text [(]string[)]"),
        ({"left": datasets.Image(), "right": datasets.Image()}, None, "several columns of images: left, right"),
        ({"image": datasets.Image()}, "photo", "no column 'photo'.*image [(]Image[)]"),
    ],
)
def test_missing_or_ambiguous_column_lists_all_columns(columns, asked, message):
    with pytest.raises(ValueError, match=message):
        find_column(columns, "image", asked)


def test_of_several_columns_the_first_existing_one_is_opened():
    films, both = ([{"video": b"a", "label": 1}], [{"video": b"a", "audio": b"b", "label": 1}])
    needed = (("audio", "video"), "label")
    assert list(open_source(films, needed=needed).columns) == ["video", "label"]
    assert list(open_source(both, needed=needed).columns) == ["audio", "label"]
    assert open_source(both, columns={"video": "video"}, needed=needed).columns["video"] == "video"  # as asked
    with pytest.raises(ValueError, match=r"no column of audios was detected. Name the column with --audio_column"):
        open_source([{"label": 1}], needed=needed)


def test_lists_and_dicts_of_texts_are_captions_if_no_column_has_single_ones():
    text, number = datasets.Value("string"), datasets.Value("int64")
    several, languages = datasets.List(text), {"en": text, "de": text}
    for name in ("text", "caption", "captions", "sentences"):
        for feature in (several, languages, datasets.Json()):
            assert find_column({"image": datasets.Image(), name: feature}, "text") == name
    assert find_column({"text": text, "captions": several}, "text") == "text"
    assert find_column({"all": several}, "text", asked="all") == "all"
    for feature in (datasets.List(number), {"a": number}):
        with pytest.raises(ValueError, match="contains no texts"):
            find_column({"text": feature}, "text", asked="text")


def test_a_column_of_paths_is_the_last_choice():
    path, image = datasets.Value("string"), datasets.Image()
    assert find_column({"jpg": image, "file_name": path}, "image") == "jpg"
    assert find_column({"text": path, "file_name": path}, "image") == "file_name"
    with pytest.raises(ValueError, match="several columns of images: file_name, path"):
        find_column({"file_name": path, "path": path}, "image")
