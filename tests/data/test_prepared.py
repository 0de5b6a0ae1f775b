"""Tests of the prepared format: what is written comes back, without TensorFlow, whole or not at all."""

import dataclasses
import json
import pickle
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import mistakes
import numpy as np
import pytest
import small
import tensorflow_datasets as tfds

from tunevlseg_jax.data import prepared
from tunevlseg_jax.data.builders.writer import Contents, build, write
from tunevlseg_jax.data.examples import VOID, Example, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.runtime.errors import UserError


def example(number: int) -> Example:
    """An image of its own size, with `number` records over a class map and a map of its own."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (9 + number, 12, 3), np.uint8)
    classes = rng.choice(np.uint8([0, 1, 2, VOID]), image.shape[:2])
    records = (
        Record(f"ä {number}", "polyp", 0, 2, {0: ("",), 1: ("polyp",), 7: ("a polyp", "eine Beule")}),
        Record(f"{number}/b", "tool", 1, 1, {1: ("tool", "instrument")}),
        Record(f"{number}/c", "nothing", 0, 7, {1: ("nothing",)}),
    )
    encoded = cv2.imencode(".jpg", image)[1].tobytes() if number else encode_png(image)
    return Example(
        f"photo {number}é.jpg", "patient7", encoded, (encode_png(classes), encode_png(classes % 2)), records[:number]
    )


@pytest.fixture
def root(tmp_path) -> Path:
    splits = {"train": [example(number) for number in range(4)], "test": iter([example(3)])}
    folder = write(tmp_path / "data", "polyps", splits, "a test")
    assert folder == tmp_path / "data" / "polyps" / prepared.VERSION
    return tmp_path / "data"


def test_what_is_written_comes_back(root):
    train = prepared.load(root, "polyps", "train")
    assert list(train) == [example(number) for number in range(4)]
    assert list(prepared.load(root, "polyps", "test")) == [example(3)]
    assert (train[-1], len(train)) == (example(3), 4)
    assert train[0].rgb().shape == (9, 12, 3) and train[0].maps()[0].shape == (9, 12)


def test_tfds_reads_the_set_and_its_metadata(tmp_path):
    contents = Contents({"train": [example(3)]}, "Polyps.", "https://example.org/polyps", "CC-0")
    assert build(tmp_path, "polyps", lambda _: contents) == {"train": (1, 3)}
    builder = tfds.builder_from_directory(tmp_path / "polyps" / prepared.VERSION)
    info = builder.info
    assert (info.name, info.description, info.homepage) == ("polyps", "Polyps.", "https://example.org/polyps")
    assert info.redistribution_info.license == "CC-0" and info.splits["train"].num_examples == 1
    (stored,) = builder.as_data_source("train")
    assert stored["image"].shape == (12, 12, 3) and stored["prompts"]["text"][1] == b"polyp"


def test_a_split_can_be_pickled(root):
    train = prepared.load(root, "polyps", "train")
    assert pickle.loads(pickle.dumps(train))[3] == example(3)


def test_tensorflow_is_neither_needed_nor_loaded(root):
    code = (
        "import sys; from pathlib import Path; from tunevlseg_jax.data import prepared\n"
        "from tunevlseg_jax.data.builders.writer import write\n"
        f"train = list(prepared.load(Path({str(root)!r}), 'polyps', 'train'))\n"
        f"write(Path({str(root)!r}), 'copy', {{'train': train}}, 'a copy')\n"
        f"print(list(prepared.load(Path({str(root)!r}), 'copy', 'train')) == train, len(train))\n"
        "print('tensorflow' in sys.modules)\n"
    )
    assert small.finish(small.start("-c", code)) == (0, "True 4\nFalse\n", "")


def test_clean_protocol_takes_examples_and_records_from_any_split(root):
    kept = [
        {"split": "test", "index": 0, "id": example(3).id, "records": ["3/b"]},
        {"split": "train", "index": 2, "id": example(2).id, "records": ["ä 2", "2/b"]},
    ]
    with mistakes.raises(r"no-clean-file: clean\.json.*check polyps --protocol clean"):
        prepared.load(root, "polyps", "train", "clean")
    clean = root / "polyps" / prepared.VERSION / prepared.CLEAN_FILE
    clean.write_text(json.dumps({"train": kept, "val": [{"split": "train"}], "test": [kept[0] | {"split": "tset"}]}))
    train = prepared.load(root, "polyps", "train", "clean")
    assert [(one.id, [record.id for record in one.records]) for one in train] == [
        (row["id"], row["records"]) for row in kept
    ]
    assert train[1] == example(2) and train[0].masks == example(3).masks
    with mistakes.raises(r"missing-field: clean\.json.*'val'"):
        prepared.load(root, "polyps", "val", "clean")
    with mistakes.raises("unknown-split: 'tset'.*'test'"):
        prepared.load(root, "polyps", "test", "clean")


def test_mistakes_are_one_line(root):
    with mistakes.raises("no-such-data-set: 'polpys'.*'polyps'"):
        prepared.load(root, "polpys", "train")
    with mistakes.raises(r"no-such-data-set: 'polyps' .*none; .*tunevlseg_jax\.prepare"):
        prepared.load(root / "none", "polyps", "train")
    with mistakes.raises("unknown-split: polyps.*'val'.*test, train.*--fractions 0.8 0.2 0.*folder"):
        prepared.load(root, "polyps", "val")
    with mistakes.raises(r"prompt-index: \[0, 1, 7\].*3"):
        example(3).records[0].phrasings(3)
    broken = dataclasses.replace(example(1), image=b"\x89PNG", masks=(example(1).image,))
    with mistakes.raises(r"undecodable: image 'photo 1é\.jpg'"):
        broken.rgb()
    with mistakes.raises(r"undecodable: 'photo 1é\.jpg'"):
        broken.maps()
    (root / "polyps" / prepared.VERSION / "features.json").write_text("{")
    with mistakes.raises("unreadable: polyps"):
        prepared.load(root, "polyps", "train")


def test_no_more_than_a_few_examples_are_held(tmp_path):
    """A set of any size is written: an example is on the disk, or on its way, when the next ones are asked for."""
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Counted(Example):
        """One that can be counted while it lives."""

    def examples() -> Iterator[Example]:
        nonlocal most
        for number in range(400):
            one = Counted(f"{number}", "", example(1).image, example(1).masks, ())
            alive.add(one)
            most = max(most, len(alive))
            yield one

    write(tmp_path, "many", {"train": examples()}, "a test")
    assert most < 10
    assert [one.id for one in prepared.load(tmp_path, "many", "train")] == [f"{number}" for number in range(400)]


@pytest.mark.parametrize("name", ["", "../x", "a b", "ä", "7"])
def test_names_that_are_no_names_are_refused(tmp_path, name):
    with mistakes.raises("invalid-name"):
        write(tmp_path, name, {"train": [example(1)]}, "a test")
    assert not list(tmp_path.iterdir())


def test_what_is_no_prepared_set_is_never_replaced(root):
    """Such as the source, where a set of its name is written beside it."""
    photos = root / "photos"
    (photos / "images").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "file").touch()
    (root / "polyps" / "notes.txt").touch()
    for name, says in (
        ("photos", ", such as 'images'"),
        ("empty", ""),
        ("file", "'file'"),
        ("polyps", r"'notes\.txt'"),
    ):
        with mistakes.raises(rf"other-folder: {name} .*{says}; "):
            write(root, name, {"train": [example(1)]}, "a test")
    assert (photos / "images").is_dir() and (root / "polyps" / "notes.txt").is_file()
    assert sorted(path.name for path in root.iterdir()) == ["empty", "file", "photos", "polyps"]


def failing() -> Iterator[Example]:
    yield example(1)
    raise UserError("row 2 has no mask", "mask-missing")


def test_failure_keeps_the_older_set_and_leaves_nothing(root):
    with mistakes.raises(r"mask-missing: ^row 2 has no mask \["):
        write(root, "polyps", {"train": failing()}, "a test")
    with mistakes.raises(r"mask-missing: ^row 2 has no mask \["):
        write(root, "new", {"train": failing()}, "a test")
    assert [path.name for path in root.iterdir()] == ["polyps"] and len(prepared.load(root, "polyps", "train")) == 4
    write(root, "polyps", {"train": [example(2)]}, "a test")
    assert [path.name for path in root.iterdir()] == ["polyps"]
    assert list(prepared.load(root, "polyps", "train")) == [example(2)]


def test_killed_writing_leaves_no_set(tmp_path):
    """A process that is killed between two examples; the next one throws away what it left."""
    code = (
        "import sys\n"
        "from pathlib import Path; from test_prepared import example, write\n"
        "def examples():\n"
        "    yield example(1)\n"
        "    print('midway', flush=True); import time; time.sleep(600)\n"
        f"write(Path({str(tmp_path)!r}), 'polyps', {{'train': examples()}}, 'a test')\n"
    )
    process = small.start("-c", code)
    assert process.stdout is not None and process.stdout.readline() == "midway\n"
    with mistakes.raises("folder-in-use: polyps"):
        write(tmp_path, "polyps", {"train": [example(1)]}, "a test")
    process.kill()
    assert small.finish(process)[0] == -signal.SIGKILL
    assert prepared.names(tmp_path) == () and list(tmp_path.iterdir())
    with mistakes.raises("no-such-data-set: 'polyps'"):
        prepared.load(tmp_path, "polyps", "train")
    write(tmp_path, "polyps", {"train": [example(1)]}, "a test")
    assert [path.name for path in tmp_path.iterdir()] == ["polyps"] and prepared.names(tmp_path) == ("polyps",)
