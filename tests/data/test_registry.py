"""Tests of data sets by name: prepared ones at the model's size, kept on disk, and what is asked of them."""

import csv
import dataclasses
import json
from pathlib import Path

import cv2
import jax
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_array_equal
from rich.console import Console

from tunevlseg_jax import evaluate
from tunevlseg_jax.data import prepared, registry, resized_cache, targets
from tunevlseg_jax.data.builders.writer import write
from tunevlseg_jax.data.examples import VOID, Example, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.records import WHOLE
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.reporting import runs
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.training import step

quick_compilation = small.quick_compilation

SIZE = (48, 48)
CLASSES = {1: "cat", 2: "dog", 7: "sheep"}


def street(number: int, absent: tuple[int, ...] = ()) -> Example:
    """An image of its own size with a class map, a void outline in it, and two masks that may overlap."""
    rng = np.random.default_rng(number)
    shape = (50 + 7 * number, 90 - 9 * number)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*shape, 3), np.uint8), (0, 0), 2)
    classes = np.kron(rng.choice([0, *CLASSES], (4, 4)), np.ones((30, 30))).astype(np.uint8)[: shape[0], : shape[1]]
    classes[:, 5] = VOID
    classes[np.isin(classes, absent)] = 0
    tools = [(cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 5) > 0).astype(np.uint8) for _ in range(2)]
    asked = [(label, 0, value) for value, label in CLASSES.items() if (classes == value).any()]
    asked += [("left tool", 1, 1), ("right tool", 2, 1)]
    records = [
        Record(
            f"{label}/{number}", label, plane, value, {1: (label, f"a {label}"), 2: (f"a {label} of number {number}",)}
        )
        for label, plane, value in asked
    ]
    encoded = cv2.imencode(".jpg", image)[1].tobytes()
    return Example(f"{number}", "", encoded, tuple(map(encode_png, (classes, *tools))), tuple(records))


TEST = street(7, absent=(7,)), street(8)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two sets, one of which has no test split."""
    root = tmp_path_factory.mktemp("data")
    splits = {
        "train": map(street, range(5)),
        "val": map(street, range(5, 7)),
        "test": [street(7, absent=(7,)), street(8)],
    }
    write(root, "streets", splits, "a test")
    write(root, "polyps", {"train": map(street, range(5)), "val": map(street, range(5, 7))}, "a test")
    return root


@pytest.fixture
def data(root, tmp_path) -> Data:
    return Data(name="streets", root=str(root), cache=str(tmp_path / "cache"))


def test_a_prepared_split_at_the_models_size(data, root):
    records = registry.load(data, "train", SIZE)
    examples = list(prepared.load(root, "streets", "train"))
    assert (records.name, records.split, records.names) == ("streets", "train", tuple("01234"))
    assert records.classes == ("cat", "dog", "left tool", "right tool", "sheep")
    row = 0
    for number, example in enumerate(examples):
        image = cv2.resize(example.rgb(), SIZE, interpolation=cv2.INTER_CUBIC)
        assert_array_equal(records.images[number], image)
        for record in example.records:
            plane = cv2.resize(example.maps()[record.mask], SIZE, interpolation=cv2.INTER_NEAREST)
            assert_array_equal(records.mask(row), plane == record.value)
            assert (records.ids[row], records.image[row]) == (record.id, number)
            assert records.classes[records.label[row]] == record.label
            assert records.prompts[records.prompt[row]] == (record.label, f"a {record.label}")
            row += 1
    assert row == len(records)
    # A class map has a row to itself, and ten binary masks share two.
    assert len(records.maps) == 5 + 2 and (records.bits == WHOLE).sum() == row - 10


def test_a_records_unit_is_its_patient_or_else_its_image(data, root):
    grouped = (dataclasses.replace(street(number), group=group) for number, group in enumerate(("", "p1", "p1")))
    write(root, "patients", {"train": grouped}, "a test")
    records = registry.load(dataclasses.replace(data, name="patients"), "train", SIZE)
    assert records.groups == ("", "p1", "p1")
    units = [records.unit(row) for row in range(len(records))]
    assert units == [("0", "p1", "p1")[image] for image in records.image]
    assert records.take(np.flatnonzero(records.image == 2)).compact().groups == ("p1",)
    alone = registry.load(data, "train", SIZE)
    assert alone.groups is None and alone.unit(0) == "0"


def test_it_is_resized_once(data, monkeypatch):
    first = registry.load(data, "train", SIZE)
    assert isinstance(first.images, np.memmap) and isinstance(first.maps, np.memmap)
    monkeypatch.setattr(resized_cache, "resize", None)
    assert registry.load(data, "train", SIZE).fingerprint() == first.fingerprint()
    assert {path.name for path in Path(data.cache or "").iterdir()} == {Path(str(first.images.filename)).parent.name}
    with pytest.raises(TypeError):
        registry.load(data, "train", (24, 36))


def test_a_process_that_ends_midway_leaves_nothing_that_loads(data, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    whole = registry.load(data, "train", SIZE).fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr(resized_cache._Rows, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            registry.load(dataclasses.replace(data, cache=f"{data.cache}2"), "train", SIZE)
    assert list(Path(f"{data.cache}2").iterdir()) == []
    assert registry.load(dataclasses.replace(data, cache=f"{data.cache}2"), "train", SIZE).fingerprint() == whole


def test_a_set_that_was_prepared_again_is_resized_again(data, tmp_path):
    data = dataclasses.replace(data, name="mine", root=str(tmp_path))
    prints = []
    for number in (1, 2):
        write(tmp_path, "mine", {"train": [street(number)]}, "a test")
        prints.append(registry.load(data, "train", SIZE).fingerprint())
    assert prints[0] != prints[1]


def test_prompts_of_another_level(data):
    records = registry.load(dataclasses.replace(data, prompt_index=2), "val", SIZE)
    assert [records.prompts[prompt][0] for prompt in records.prompt] == [
        record.prompts[2][0] for number in (5, 6) for record in street(number).records
    ]
    says = r"prompt-index: data\.prompt_index.*1, 2.*'cat/5'.*3"
    with mistakes.raises(says):
        registry.load(dataclasses.replace(data, prompt_index=3), "val", SIZE)


def test_shots_are_for_training_alone(data):
    few = dataclasses.replace(data, shots=1)
    assert len(registry.load(few, "train", SIZE)) == 5
    assert len(registry.load(few, "val", SIZE)) == len(registry.load(data, "val", SIZE))


@pytest.mark.parametrize(
    ("name", "split", "says"),
    [
        (
            "street",
            "train",
            "no-such-data-set: 'street'.*'streets'.*{root}.*polyps, streets",
        ),
        ("scenes/foto", "train", "no-such-data-set: 'scenes/foto'.*'scenes/photo'"),
        ("streets", "tset", "unknown-split: streets.*'tset'.*'test'"),
    ],
)
def test_names_that_do_not_exist(data, root, name, split, says):
    with mistakes.raises(says.format(root=root)):
        registry.load(dataclasses.replace(data, name=name), split, SIZE)


def test_scenes_tell_all_that_they_show():
    """Where absence is to be scored, what nobody asked for isn't absent."""
    scene = Data(name="scenes/photo", scenes=Scenes(test=4))
    asked, every_class = (registry.load(scene, "test", (96, 96), complete=complete) for complete in (False, True))
    assert (len(asked), len(every_class)) == (4, 40)
    own = list(registry.originals(scene, "test", complete=True))
    for number, target in enumerate(own):
        assert_array_equal(target.masks, every_class.masks[10 * number : 10 * number + 10])
        assert_array_equal(target.masks[0], asked.mask(number))
    assert sum(target.masks.any(axis=(1, 2)).sum() for target in own) > 4


def test_objects_that_are_lost_at_the_models_size(tmp_path):
    """One pixel that no row of the smaller map takes, an object that stays, and a mask that is empty anyway."""
    masks = np.zeros((3, 100, 100), np.uint8)
    masks[0, 1, 1] = masks[1, 20:60, 20:60] = 1
    records = tuple(Record(f"{number}", f"class {number}", number, 1, {1: ("x",)}) for number in range(3))
    image = encode_png(np.zeros((100, 100, 3), np.uint8))
    write(tmp_path, "tiny", {"test": [Example("a", "", image, tuple(map(encode_png, masks)), records)]}, "a test")
    data = Data(name="tiny", root=str(tmp_path), cache=str(tmp_path / "cache"))
    assert registry.vanished(data, registry.load(data, "test", SIZE)) == ("0",)
    assert registry.vanished(data, registry.load(data, "test", (100, 100))) == ()


def test_void_is_known_at_both_sizes(data):
    stored, own = (
        list(masks) for masks in (targets.stored(registry.load(data, "val", SIZE)), registry.originals(data, "val"))
    )
    for example, small_target, target in zip(map(street, range(5, 7)), stored, own, strict=True):
        classes = example.maps()[0]
        assert_array_equal(target.void, classes == VOID)
        assert_array_equal(small_target.void, cv2.resize(classes, SIZE, interpolation=cv2.INTER_NEAREST) == VOID)
        assert target.masks.shape[1:] == classes.shape and len(target.masks) == len(example.records)


@pytest.fixture(scope="module")
def run(root, tmp_path_factory) -> Path:
    """A run on a prepared set."""
    folder = tmp_path_factory.mktemp("run")
    data = Data(name="streets", root=str(root), cache=str(folder / "cache"))
    trainer.train(small.config(folder / "streets", data=data), Console(quiet=True))
    return folder / "streets"


def scored(monkeypatch, run: Path, name: str, *options: object) -> tuple[dict, list[dict], list[dict]]:
    """What `evaluate` writes: of the set, of each record, of each class."""
    small.run(monkeypatch, evaluate.main, "--run", run, *options)
    folder = run / "evaluations"
    tables = [
        list(csv.DictReader((folder / f"{name}{end}.csv").read_text(encoding="utf-8").splitlines()))
        for end in ("", "_classes")
    ]
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), tables[0], tables[1]


def found_by(run: Path, example: Example, prompts: list[str]) -> np.ndarray:
    """(prompt, height, width) logits at the image's own size, prompt by prompt."""
    experiment, learnt = restore(run)
    hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
    image = cv2.resize(example.rgb(), SIZE, interpolation=cv2.INTER_CUBIC)
    images, phrase = np.stack([image] * len(prompts)), np.arange(len(prompts), dtype=np.int32)
    answers = step.answer_step(
        {**experiment.frozen, **learnt},
        images,
        phrase,
        experiment.token_table(prompts),
        hyper,
        network=experiment.network,
    )
    height, width = example.maps()[0].shape
    return np.stack(
        [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in np.asarray(answers.logits)]
    )


@pytest.mark.slow
def test_evaluating_with_other_prompts_stays_apart(run, monkeypatch):
    own, _, _ = scored(monkeypatch, run, "streets_test_model")
    other, rows, _ = scored(monkeypatch, run, "streets_test_model_prompt2", "--data.prompt-index", "2")
    assert (own["prompt_index"], other["prompt_index"]) == (1, 2)
    assert rows[0]["prompt"] == next(record for example in TEST for record in example.records).prompts[2][0]
    assert json.loads((run / "evaluations" / "streets_test_model.json").read_text(encoding="utf-8")) == own
    (gathered,), skipped = runs.gather(run)
    assert not [one for one in skipped if "streets_test_model" in one.path.name]
    assert gathered.own_test is not None and gathered.own_test.data_sha256 == own["data_sha256"]


def test_evaluating_images_of_unequal_sizes(run, monkeypatch, capsys):
    """At each image's own size, which no two share."""
    evaluation, rows, classes = scored(monkeypatch, run, "streets_test_original", "--resolution", "original")
    examples = TEST
    assert evaluation["size"] == "106x18 to 99x27"
    records = [record for example in examples for record in example.records]
    assert [row["id"] for row in rows] == [record.id for record in records]
    number = 0
    for example in examples:
        maps = example.maps()
        logits = found_by(run, example, [record.label for record in example.records])
        for record, one in zip(example.records, logits, strict=True):
            mask = maps[record.mask] == record.value
            assert int(rows[number]["target"]) == mask.sum()
            assert float(rows[number]["intersection"]) == pytest.approx((mask & (one > 0)).sum(), abs=3)
            number += 1
    dice = [float(row["dice"]) for row in rows]
    assert evaluation["scores"]["dice"] == pytest.approx(np.mean(dice))
    for row in classes:
        own = [value for value, other in zip(dice, rows, strict=True) if other["label"] == row["class"]]
        assert (int(row["records"]), float(row["dice"])) == (len(own), pytest.approx(np.mean(own)))
    out = capsys.readouterr().out
    assert "HD95" in out and "neither mask is empty" in " ".join(out.split()) and "all" in out


def test_asking_for_what_is_absent(run, monkeypatch, capsys):
    """Every class of every image, in as many passes of the vision tower as there are images."""
    name = "streets_test_original_every_class"
    evaluation, rows, classes = scored(monkeypatch, run, name, "--resolution", "original", "--ask-absent")
    examples, labels = TEST, ["cat", "dog", "left tool", "right tool", "sheep"]
    assert [row["id"] for row in rows] == [f"{example.id}/{label}" for example in examples for label in labels]
    intersection, union, absent, marked = np.zeros(6), np.zeros(6), 0, 0
    for number, example in enumerate(examples):
        maps, logits = example.maps(), found_by(run, example, labels)
        masks = {record.label: maps[record.mask] == record.value for record in example.records}
        true = np.stack([masks.get(label, np.zeros(logits.shape[1:], bool)) for label in labels])
        for label in range(5):
            assert int(rows[5 * number + label]["target"]) == true[label].sum()
            absent += not true[label].any()
            marked += not true[label].any() and (logits[label] > 0).any()
        real = maps[0] != VOID
        predicted = np.where((logits > 0).any(axis=0), logits.argmax(axis=0), 5)
        wanted = np.where(true.any(axis=0), true.argmax(axis=0), 5)
        for label in range(6):
            intersection[label] += ((predicted == label) & (wanted == label) & real).sum()
            union[label] += (((predicted == label) | (wanted == label)) & real).sum()
    iou = intersection / union
    assert [float(row["multi_class_iou"]) for row in classes] == pytest.approx(iou[:5], abs=2e-3)
    assert evaluation["scores"]["miou"] == pytest.approx(iou[:5].mean(), abs=2e-3)
    assert evaluation["scores"]["miou_with_background"] == pytest.approx(iou.mean(), abs=2e-3)
    assert evaluation["scores"]["absent_records"] == absent == evaluation["scores"]["empty_targets"] > 0
    assert evaluation["scores"]["false_positive_rate"] == marked / absent
    assert evaluation["scores"]["classes_overlap"] and "classes overlap" in capsys.readouterr().out


def test_a_set_without_a_test_split(run, root, tmp_path):
    config = small.config(tmp_path / "run", data=Data(name="polyps", root=str(root), cache=str(tmp_path / "cache")))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    assert set(trainer.train(config, Console(quiet=True))["tuned"]) == {"val"}
