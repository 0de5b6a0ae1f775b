"""Tests of tables as spreadsheets, Windows and people write them."""

import csv
import io
import json
from pathlib import Path

import mistakes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunevlseg_jax.data.builders import manifest, table_rows, tables
from tunevlseg_jax.data.builders.archives import SourceFiles

REQUIRED, OPTIONAL = ("image", "prompt"), ("split", "class")
EXPECTED = [{"image": "a.png", "prompt": "Läsion, groß", "split": "train"}, {"image": "b.png", "prompt": "x"}]


def read(path: Path) -> list[dict[str, str]]:
    """The cells of each row without the empty ones."""
    rows = table_rows.read(path, REQUIRED, OPTIONAL).rows
    return [{column: row.optional(column) for column in row.cells if row.optional(column)} for row in rows]


def written(separator: str = ",", end: str = "\n", header: str = "image,prompt,split") -> str:
    lines = [header.split(","), ["a.png", '"Läsion, groß"', "train"], ["b.png", "x", ""]]
    return end.join(separator.join(line) for line in lines) + end


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
        ("cp1252", "Windows-1252"),
        ("latin-1", "Windows-1252"),
    ],
)
def test_encodings_separators_and_ends_of_lines(tmp_path, encoding, name, separator, end):
    path = tmp_path / "list.csv"
    path.write_bytes(written(separator, end).encode(encoding))
    assert read(path) == EXPECTED
    assert table_rows.read(path, REQUIRED, OPTIONAL).encoding == name


@pytest.mark.parametrize(
    "text",
    [
        written(header="Image,PROMPT, Split "),
        written() + ",,\n\n , ,\n",
        "\n \n" + written(),
        "sep=;\n" + written(";"),
        '"sep=\t"\n' + written("\t"),
        written().replace("split\n", "split,,\n").replace("train\n", "train,,\n"),
        ",image,prompt,split\n0,a.png,'Läsion| groß',train\n1,b.png,x,\n".replace("'", '"').replace("|", ","),
        'Unnamed: 0,image,prompt,split\n0,a.png,"Läsion, groß",train\n1,b.png,x,\n',
        "image;prompt;split\na.png;Läsion, groß;train\nb.png;x;\n",
    ],
)
def test_spreadsheets_leavings(tmp_path, text):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    assert read(tmp_path / "list.csv") == EXPECTED


@pytest.mark.parametrize(
    ("text", "encoding"), [("肿瘤", "gb18030"), ("腫瘍", "shift-jis"), ("опухоль", "cp1251"), ("종양", "euc-kr")]
)
def test_other_scripts_are_not_taken_for_windows_1252(tmp_path, text, encoding):
    """A prompt would be letters without a meaning."""
    (tmp_path / "list.csv").write_bytes(f"image,prompt\na,{text}\n".encode(encoding))
    with mistakes.raises(r"unreadable: list\.csv.* as Windows-1252 .*save it in UTF-8"):
        table_rows.read(tmp_path / "list.csv", REQUIRED, OPTIONAL)


def test_json_and_json_lines(tmp_path):
    objects = [{"Image": "a.png", "prompt": "Läsion, groß", "SPLIT": "train"}, {"image": "b.png", "prompt": "x"}]
    (tmp_path / "list.json").write_text(json.dumps([*objects, {"image": None}]))
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, objects)) + "\n\n")
    assert read(tmp_path / "list.json") == read(tmp_path / "list.jsonl") == EXPECTED
    (tmp_path / "nan.json").write_text('[{"image": "a.png", "prompt": ["x", "y"], "class": NaN}]')
    (row,) = table_rows.read(tmp_path / "nan.json", REQUIRED, OPTIONAL).rows
    assert (row.optional("class"), row.phrasings("prompt")) == ("", ("x", "y"))


CELL = st.text("aä腫🙂 ,;\"'|.-\t", min_size=1, max_size=6).map(str.strip)


@settings(max_examples=40)
@given(st.lists(st.tuples(CELL.filter(bool), CELL.filter(bool), CELL), min_size=1, max_size=4), st.sampled_from(",;\t"))
def test_what_python_writes_is_read(tmp_path_factory, cells, separator):
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows([("image", "prompt", "split"), *cells])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(stream.getvalue().encode())
    rows = table_rows.read(path, REQUIRED, OPTIONAL).rows
    assert [tuple(row.optional(column) for column in ("image", "prompt", "split")) for row in rows] == cells


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,prompt,subset\na,b,c\n", r"unknown-column: list\.csv .*'subset'; did you mean 'split'\?"),
        ("image,prompt,fold\na,b,c\n", "unknown-column: 'fold'; did you mean 'split'"),
        ("image,prompt,prompts\na,b,c\n", "unknown-column: 'prompts'; did you mean 'prompt'"),
        ("image,prompt,Spilt\na,b,c\n", "unknown-column: 'Spilt'; did you mean 'split'"),
        ("image,prompt,label\na,b,c\n", "unknown-column: 'label'; did you mean 'class'"),
        ("file_name,prompt\na,b\n", "unknown-column: 'file_name'; did you mean 'image'"),
        ("image,prompt,kg\na,b,c\n", "unknown-column: 'kg'; there are class, image, prompt, split .*leave it out"),
        ("image,prompt,Class Label\na,b,c\n", "unknown-column: 'Class Label'; did you mean 'class'"),
        ("img_path,text\na,b\n", "missing-column: 'image'; .*; rename 'img_path' to 'image'"),
        ("image,prompt,split,Split\na,b,c,d\n", "repeated-column: 'split' twice"),
        ("image,prompt,\na,b,train\n", r"unknown-column: column 3 of .*list\.csv .*'train'"),
        (",image,prompt\nx,a,b\n", r"unknown-column: column 1 of .*list\.csv .*'x'"),
        ("a.png,b.png,x\nc.png,d.png,x\n", r"missing-column: 'image'; its first line must name columns .*'a\.png'"),
        ("image,split\na,b\n", r"missing-column: 'prompt'; its first line has \['image', 'split'\]"),
        ("image,prompt\na,b,c\n", r"extra-cells: row 2 of .*list\.csv"),
        ("image,prompt\na\n", r"missing-column: row 2 of .*'prompt'"),
        ('image,prompt\na,"b\nc,d\n', r"unreadable: list\.csv.*line 3.*doubled"),
        ("image,prompt\n,\n", r"no-rows: list\.csv"),
        ("PK\x03\x04...", r"unreadable: list\.csv is a workbook; save it as CSV"),
        ("image,prompt\na\0\0b,c\n", r"unreadable: list\.csv.*UTF-8"),
    ],
)
def test_mistakes_in_tables(tmp_path, text, says):
    (tmp_path / "list.csv").write_text(text)
    with mistakes.raises(says):
        table_rows.read(tmp_path / "list.csv", REQUIRED, OPTIONAL)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "list.json",
            '[{"image": "a", "prompt": "b", "subset": "c"}]',
            "unknown-column: object 1 of .*'subset'",
        ),
        ("list.json", '[{"image": "a", "Image": "b", "prompt": "c"}]', "repeated-column: object 1 of .*'image' twice"),
        ("list.json", '[{"image": "a", "prompt": {"b": 1}}]', "wrong-json: object 1 of .*'b': 1.* as 'prompt'"),
        ("list.json", '[{"image": true, "prompt": "b"}]', "wrong-json: object 1 of .*True as 'image'"),
        ("list.json", '{"image": "a"}', "wrong-json: list of JSON objects"),
        ("list.jsonl", '{"image": "a", "prompt": "b"}\n[]\n', "wrong-json: objects on a line each"),
        ("list.jsonl", '{"image": "a", "prompt": "b"}\n\n{"image": "a"}\n', "missing-column: line 3 of .*'prompt'"),
        ("list.jsonl", '{"image": "a"\n', r"unreadable: list\.jsonl"),
    ],
)
def test_mistakes_in_json(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with mistakes.raises(says):
        table_rows.read(tmp_path / name, REQUIRED, OPTIONAL)


def test_patients_are_groups(tmp_path):
    for column in ("patient_id", "PatientID", "Case No", "video"):
        (tmp_path / "list.csv").write_text(f"image,mask,prompt,{column}\na,b,c,1\n")
        with mistakes.raises(f"unknown-column: '{column}'; did you mean 'group'"):
            table_rows.read(tmp_path / "list.csv", manifest.COLUMNS, manifest.OPTIONAL)


def test_class_tables_of_other_tools(tmp_path):
    """Roboflow's header, and American spelling in capitals."""
    (tmp_path / "a.csv").write_text("Pixel Value, Class\n0, background\n1, wound\n2, scar\n")
    classes = tables.classes(tmp_path / "a.csv")
    assert classes.values == {0: 0, 1: 1, 2: 2} and list(classes.named) == ["wound", "scar"]
    (tmp_path / "c.csv").write_text("class,value\nwound,1.0\n")
    assert tables.classes(tmp_path / "c.csv").values == {1: 1}
    (tmp_path / "b.csv").write_text("Class;COLOR\nwound;255, 0, 0\n")
    assert tables.classes(tmp_path / "b.csv").colours == {(255, 0, 0): 1}


@pytest.fixture
def source(tmp_path) -> SourceFiles:
    """A source reached by a link, with an image and a mask."""
    for name in ("images/a.png", "masks/a.png"):
        path = tmp_path / "disk" / "set" / name
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    return SourceFiles([tmp_path / "link" / "set"], tmp_path / "unpacked")


def listed(tmp_path: Path, source: SourceFiles, image: object, split: str = "train") -> list:
    (tmp_path / "list.csv").write_text(f'image,mask,prompt,split\n"{image}",masks/a.png,x,{split}\n')
    _, files = manifest.find(tmp_path / "list.csv", source)
    return files


@pytest.mark.parametrize("image", ["link/set/images/a.png", "disk/set/images/a.png", "disk/set/masks/../images/a.png"])
def test_absolute_paths_inside_the_source(tmp_path, source, image):
    (files,) = listed(tmp_path, source, tmp_path / image, "dev")
    assert (files.image, files.split) == ("images/a.png", "val")


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("set/images/a.png", "no-such-file: row 2 of .*; paths are relative to --source: write 'images/a.png'"),
        (r"C:\data\set\images\a.png", "outside-source: paths are relative to --source: write 'images/a.png'"),
        ("/data/other/b.png", "outside-source: row 2 of .*paths are relative to --source"),
        ("images/a", "no-such-file: row 2 of .*did you mean 'images/a.png'"),
        ("images/A.PNG", "no-such-file: row 2 of .*did you mean 'images/a.png'"),
        ("a.png", "no-such-file: row 2 of .*did you mean 'images/a.png'"),
        ("../images/a.png", "outside-source: row 2 of .*write 'images/a.png'"),
        (".", "no-such-file: row 2 of .*'.'"),
    ],
)
def test_paths_outside_of_the_source(tmp_path, source, image, says):
    with mistakes.raises(says):
        listed(tmp_path, source, image)
