"""Tests of folds: groups stay together, classes have equal shares, and the order of files changes nothing."""

from collections import Counter

import mistakes
import numpy as np
from PIL import Image
from rich.console import Console

from tunevlseg_jax import prepare
from tunevlseg_jax.data import folds, prepared, registry
from tunevlseg_jax.data.folds import Member
from tunevlseg_jax.data.prepared import Prepared
from tunevlseg_jax.data.settings import Data

MEMBERS = [
    Member(f"{number:03d}", f"patient {number // 2}" if number < 40 else "", ("a",) if number % 3 else ("b", "c"))
    for number in range(100)
]


def test_groups_stay_together_and_classes_have_equal_shares():
    assigned = folds.assign(MEMBERS, 5, 0)
    for number in range(0, 40, 2):
        assert assigned[number] == assigned[number + 1]
    for label, total in (("a", 66), ("b", 34)):
        counts = Counter(fold for fold, member in zip(assigned, MEMBERS, strict=True) if label in member.labels)
        assert all(abs(counts[fold] - total / 5) <= 2 for fold in range(5))
    assert assigned != folds.assign(MEMBERS, 5, 1)


def test_the_order_of_the_images_changes_nothing():
    of_image = dict(zip((member.id for member in MEMBERS), folds.assign(MEMBERS, 4, 3), strict=True))
    order = np.random.default_rng(0).permutation(100)
    shuffled = [MEMBERS[row] for row in order]
    again = folds.assign(shuffled, 4, 3)
    assert dict(zip((member.id for member in shuffled), again, strict=True)) == of_image


def test_rare_classes_and_images_without_records_have_a_fold():
    members = [Member(str(number), "", ("rare",) if number == 0 else ()) for number in range(6)]
    assert sorted(Counter(folds.assign(members, 3, 0)).values()) == [2, 2, 2]
    with mistakes.raises("out-of-range: --folds must be at most the number of groups, 6, got 7"):
        folds.assign(members, 7, 0)


def test_a_prepared_set_in_folds(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(20):
        for kind, pixels in (("images", rng.integers(0, 256, (8, 8, 3))), ("masks", np.eye(8) * 255)):
            path = tmp_path / "source" / kind / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    options = prepare.Folder(
        name="mine", source=(tmp_path / "source",), output=tmp_path / "data", prompt=("disc",), folds=3
    )
    prepare.prepare_folder(options, Console(quiet=True))
    folder = prepared.find(tmp_path / "data", "mine")
    test = [example.id for example in Prepared(folder, "test")]
    seen = Counter[str]()
    for fold in range(3):
        train, val = ([example.id for example in Prepared(folder, split, fold=fold)] for split in ("train", "val"))
        assert not {*train} & {*val} and len(train) + len(val) == 20 - len(test) and not {*train, *val} & {*test}
        assert [example.id for example in Prepared(folder, "test", fold=fold)] == test and len(test) == 2
        seen.update(val)
        data = Data(name="mine", root=str(tmp_path / "data"), cache=str(tmp_path / "cache"), fold=fold)
        for split, ids in (("train", train), ("val", val), ("test", test)):
            assert list(registry.load(data, split, (8, 8)).names) == ids
    assert set(seen.values()) == {1} and len(seen) == 18
    with mistakes.raises("out-of-range: data.fold must be from 0 to 2 in mine, got 3"):
        Prepared(folder, "train", fold=3)
    (folder / folds.FOLDS_FILE).unlink()
    with mistakes.raises("no-folds: mine has no folds.*--folds 5"):
        Prepared(folder, "val", fold=0)
