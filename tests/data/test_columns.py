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
