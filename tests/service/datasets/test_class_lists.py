"""Tests of lists of classes, under the names and in the forms that annotation tools write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.datasets.classes import MAX_CLASSES, ClassList
from service.datasets.reading.class_lists import CLASS_FILES, find_classes
from service.datasets.reading.opening import open_dataset
from service.errors import InvalidDataset
from tests.service.datasets.hand_written import SQUARE, listed, write
from tests.service.datasets.scenes import noise, png

COLOURS = {"background": (0, 0, 0), "red cell": (250, 50, 83)}
COLOURED = {
    "comma": ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nred cell,250,50,83\n"),
    "no header": ("class_dict.csv", "background,0,0,0\nred cell,250,50,83\n"),
    "semicolon": ("class_dict.csv", "name;r;g;b\r\nbackground;0;0;0\r\nred cell;250;50;83\r\n"),
    "tab": ("class_dict.csv", "name\tr\tg\tb\nbackground\t0\t0\t0\nred cell\t250\t50\t83\n"),
    "bar": ("class_dict.txt", "background|0|0|0\nred cell|250|50|83\n"),
    "quoted": ("class_dict.csv", '"name","r","g","b"\n"background",0,0,0\n"red cell",250,50,83\n'),
    "colour first, as CVAT": ("label_colors.txt", "0 0 0 background\n250 50 83 red cell\n"),
    "colour first and tabs, as CamVid": ("label_colors.txt", "0 0 0\tbackground\n250 50 83\t\tred cell\n"),
    "name first and blanks": ("label_colors.txt", "background 0 0 0\nred cell 250 50 83\n"),
    "hex": ("color_map.txt", "background #000000\nred cell #fa3253\n"),
    "hex first": ("color_map.txt", "#000000 background\n#fa3253 red cell\n"),
    "brackets": ("color_map.txt", "background: (0, 0, 0)\nred cell: (250, 50, 83)\n"),
    "index first": ("class_dict.csv", "id,name,r,g,b\n1,red cell,250,50,83\n0,background,0,0,0\n"),
    "index in a row of four": ("class_dict.csv", "name,id,r,g,b\nbackground,0,0,0,0\nred cell,1,250,50,83\n"),
    "index last": ("class_dict.csv", "name,r,g,b,id\nbackground,0,0,0,0\nred cell,250,50,83,1\n"),
    "alpha": ("class_dict.csv", "name,r,g,b,a\nbackground,0,0,0,255\nred cell,250,50,83,255\n"),
    "labelmap": ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred cell:250,50,83::\n"),
    "a short labelmap": ("labelmap.txt", "background:0,0,0\nred cell:250,50,83\n"),
    "names with colours": ("classes.txt", "background 0 0 0\nred cell 250 50 83\n"),
    "another case": ("Class_Dict.CSV", "name,r,g,b\nbackground,0,0,0\nred cell,250,50,83\n"),
    "a byte order mark": ("class_dict.csv", "\ufeffname,r,g,b\nbackground,0,0,0\nred cell,250,50,83\n"),
}


@pytest.mark.parametrize("form", COLOURED)
def test_lists_with_colours(tmp_path: Path, form: str) -> None:
    name, text = COLOURED[form]
    found = find_classes(write(tmp_path, **{name: text}))
    assert found == ClassList.of(list(COLOURS), COLOURS)
    assert found.background is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "background\nred cell\n"),
        ("obj.names", "background\nred cell\n"),
        ("labels.txt", "background\r\nred cell\r\n\r\n"),
        ("codes.txt", "background\nred cell"),
        ("classes.txt", '"background"\n"red cell"\n'),
        ("classes.txt", "0 background\n1 red cell\n"),
        ("classes.txt", "0. background\n1. red cell\n"),
        ("classes.txt", "0: background\n1: red cell\n"),
        ("class_dict.csv", "name\nbackground\nred cell\n"),
        ("class_dict.csv", "background\nred cell\n"),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, red cell\n"),
        ("_classes.csv", "Pixel Value, Class\n1, red cell\n0, background\n"),
        ("labelmap.txt", "background:::\nred cell:::\n"),
        ("id2label.json", '{"0": "background", "1": "red cell"}'),
    ],
)
def test_lists_of_names(tmp_path: Path, name: str, text: str) -> None:
    assert find_classes(write(tmp_path, **{name: text})) == ClassList.of(["background", "red cell"])


def test_names_may_hold_numbers_and_delimiters(tmp_path: Path) -> None:
    names = ["zone 5", "zone 9", "3", "a,b", "x;y", "1 2"]
    found = find_classes(write(tmp_path, **{"classes.txt": "\n".join(names)}))
    assert found is not None
    assert list(found.names) == names
    write(tmp_path, **{"labelmap.txt": "#1:1,2,3::\na:b:4,5,6::\n"})
    found = find_classes(tmp_path)
    assert found is not None
    assert found.names == ("#1", "a:b")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "class_dict.csv",
            "name;r;g\nbackground;0;0\n",
            r"line 'background;0;0' is not a name with red, green and blue",
        ),
        ("class_dict.csv", "a,0,0,0\nb,0,0,300\n", "line 'b,0,0,300'"),
        ("class_dict.csv", "a;0;0\nb;1;2;3\n", "'b;1;2;3'|'a;0;0'"),
        ("class_dict.csv", "id,name\n0,a\n3,b\n", "its indices are 0, 3; masks need 0, 1, 2"),
        ("class_dict.csv", "\n\n", "it lists no classes"),
        ("class_dict.csv", "a,1,2,3\na,3,4,5\n", "two classes have the name 'a'"),
        ("class_dict.csv", "a,1,2,3\nb,1,2,3\n", "two classes have the colour"),
        ("labelmap.txt", "a:0,0::\nb:1,2,3::\n", "has the colour '0,0', which is not red,green,blue"),
        ("labels.txt", "a.png\nb.png\n", "it lists files such as 'a.png'"),
        ("id2label.json", '["a"]', "AttributeError"),
        ("id2label.json", '{"0": "a", "2": "b"}', "without gaps"),
        ("class_dict.csv", "a,1,2\0,3\nb,1,2,4\n", "is not a name with red, green and blue"),
    ],
)
def test_what_is_no_list_is_refused_with_the_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(InvalidDataset, match=f"{name} is not a valid list of classes .*{says}.*give one: dataset.json"):
        find_classes(write(tmp_path, **{name: text}))


def test_a_list_with_colours_comes_before_one_without(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"classes.txt": "a\nb\n", "label_colors.txt": "1 2 3 a\n4 5 6 b\n"})
    found = find_classes(folder)
    assert found is not None
    assert found.colours == ((1, 2, 3), (4, 5, 6))
    assert CLASS_FILES[0] == "dataset.json"


def named(count: int) -> list[str]:
    return [f"thing {number}" for number in range(count)]


def coco(count: int) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 12, "height": 10}],
            "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in enumerate(named(count))],
        }
    )


TOO_MANY = {
    "classes.txt": lambda count: {"classes.txt": "\n".join(named(count))},
    "class_dict.csv": lambda count: {
        "class_dict.csv": "".join(f"{name},{n % 256},{n // 256},7\n" for n, name in enumerate(named(count)))
    },
    "dataset.json": lambda count: {"dataset.json": listed(named(count))},
    "coco": lambda count: {"annotations/instances_train.json": coco(count)},
    "data.yaml": lambda count: {"data.yaml": f"train: images\nval: images\nnames: {json.dumps(named(count))}\n"},
}


@pytest.mark.parametrize("form", TOO_MANY)
@pytest.mark.parametrize("count", [255, 300, 1203])
def test_more_classes_than_a_mask_holds_are_refused_with_the_number(tmp_path: Path, form: str, count: int) -> None:
    files = {"images/a.png": noise(1, 10, 12)}
    files |= {"labels/a.txt": ""} if form == "data.yaml" else {"masks/a.png": png(SQUARE)}
    write(tmp_path / "many", **files, **TOO_MANY[form](count))
    with pytest.raises(InvalidDataset, match=f"{count} classes are listed.*at most 254.*until 25[34] are listed"):
        open_dataset(tmp_path / "many")
    # the remedy works
    allowed = MAX_CLASSES - (form in ("coco", "data.yaml"))
    write(tmp_path / "few", **files, **TOO_MANY[form](allowed))
    assert len(open_dataset(tmp_path / "few").classes) == MAX_CLASSES


def test_colours_of_classes_that_are_not_listed_use_up_none() -> None:
    given = {f"other {number}": (number, 0, 0) for number in range(255)}
    assert len(ClassList.of(named(254), given)) == 254


@pytest.mark.parametrize("text", ["1 cell\n2 debris\n", "1: cell\n2: debris\n3: dust\n", "1. cell\r\n2. debris\r\n"])
def test_names_that_are_numbered_from_1_are_refused_and_the_remedies_work(tmp_path: Path, text: str) -> None:
    write(tmp_path, **{"classes.txt": text})
    with pytest.raises(InvalidDataset, match="numbered from 1"):
        find_classes(tmp_path)
    found = find_classes(write(tmp_path, **{"classes.txt": f"0{text[1]} background\n{text}"}))
    assert found is not None
    assert found.names[:3] == ("background", "cell", "debris")
    plain = find_classes(write(tmp_path, **{"classes.txt": "cell\ndebris\n"}))
    assert plain is not None
    assert plain.names == ("cell", "debris")


def test_the_first_line_of_labelme_is_no_class(tmp_path: Path) -> None:
    found = find_classes(write(tmp_path, **{"labels.txt": "__ignore__\n_background_\ncell\n"}))
    assert found == ClassList.of(["_background_", "cell"])


def test_the_line_that_tells_excel_the_delimiter_is_no_class(tmp_path: Path) -> None:
    text = "sep=;\nname;r;g;b\nbackground;0;0;0\nred cell;250;50;83\n"
    assert find_classes(write(tmp_path, **{"class_dict.csv": text})) == ClassList.of(list(COLOURS), COLOURS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("id2label.json", '{"0": "background", "1": "cell", "1": "debris"}'),
        ("dataset.json", '{"classes": [{"index": 0, "name": "cell", "name": "debris"}]}'),
    ],
)
def test_a_name_that_comes_twice_in_json_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InvalidDataset, match=r"\(it has '(1|name)' twice in one object"):
        find_classes(write(tmp_path, **{name: text}))
