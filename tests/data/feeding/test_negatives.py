"""Tests of negatives: records that ask for something absent, how they are drawn, and what they never ask for."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import mistakes
import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tunevlseg_jax import config as configuration
from tunevlseg_jax.data import prepared, registry
from tunevlseg_jax.data.absent_things import with_negatives
from tunevlseg_jax.data.builders.writer import write
from tunevlseg_jax.data.examples import Example, Record
from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.data.feeding.batch import Batch, Rows, gather
from tunevlseg_jax.data.feeding.feature_cache import FeatureCache
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.records import Records, packed
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import VPT
from tunevlseg_jax.prompts import Outputs
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import loop
from tunevlseg_jax.training.losses import dice_ce
from tunevlseg_jax.training.split import Split
from tunevlseg_jax.training.step import Hyperparameters

quick_compilation = small.quick_compilation

CLASSES = ("cat", "dog", "sheep")
PROMPTS = (("cat", "a cat"), ("dog",), ("sheep", "a sheep", "one sheep"))
KEPT = ((0, "cat/0"), (3, "sheep/3"))
SIZE = (48, 48)
DATA = Data(name="scenes/photo", scenes=Scenes(train=30, val=5, test=6, prompts_per_image=2), negatives=0.3)


def records(shown: list[set[int]], prompts: tuple[tuple[str, ...], ...] = PROMPTS) -> Records:
    """Images of 2 x 2 pixels that show these classes, with a full mask for each."""
    image, label = np.asarray([(row, each) for row, classes in enumerate(shown) for each in sorted(classes)]).T
    count = len(image)
    return Records(
        name="animals",
        split="train",
        images=np.zeros((len(shown), 2, 2, 3), np.uint8),
        **packed(np.ones((count, 2, 2), bool)),
        image=image.astype(np.int32),
        label=label.astype(np.int32),
        prompt=label.astype(np.int32),
        classes=CLASSES[: len(prompts)],
        prompts=prompts,
        names=tuple(f"image {row}" for row in range(len(shown))),
        ids=tuple(map(str, range(count))),
        complete=np.ones(len(prompts), bool),
    )


def epoch_of(split: Records, batch_size: int, padded: int, seed: int = 0, epoch: int = 1) -> list[Rows]:
    """The batches of an epoch without their padding."""
    made = []
    for rows in batching.training(split, batch_size, padded, seed, epoch):
        number = int(np.asarray(rows.weight).sum())
        image = np.repeat(np.asarray(rows.image), len(np.asarray(rows.bits)) // len(np.asarray(rows.image)))
        made.append(Rows(*(np.asarray(each)[:number] for each in rows._replace(image=image))))
    return made


def joined(batches: list[Rows], field: str) -> np.ndarray:
    return np.concatenate([getattr(batch, field) for batch in batches])


@settings(max_examples=30, deadline=None)
@given(
    shown=st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=1, max_size=25),
    share=st.floats(0.01, 0.99),
    batch_size=st.integers(1, 20),
    padding=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(1, 99),
)
def test_a_share_of_each_batch_asks_for_an_absent_class(shown, share, batch_size, padding, seed, epoch):
    plain = records(shown)
    data = Data(negatives=share, negative_words=("sun", "moon"))
    split = with_negatives(plain, data)
    padded = batch_size + 6 * padding  # as a feed pads: the records of an image stay together
    asked, usual = (epoch_of(each, batch_size, padded, seed, epoch) for each in (split, plain))
    absent = joined(asked, "bits") == 0  # no pixel & 0 is 1
    assert (joined(asked, "value")[absent] == 1).all()
    for batch in asked:
        assert abs((batch.bits == 0).sum() - share * len(batch.bits)) < 1 + 1e-6
    assert abs(absent.sum() - share * len(absent)) < 1 + 1e-6
    for field in Rows._fields:  # the others ask what they asked before
        assert_array_equal(joined(asked, field)[~absent], joined(usual, field)[~absent])
    for image, phrase, is_absent in zip(joined(asked, "image"), joined(asked, "phrase"), absent, strict=True):
        assert is_absent != any(split.phrases[phrase] in PROMPTS[label] for label in shown[image])
    again = epoch_of(split, batch_size, batch_size, seed, epoch)
    assert_array_equal(joined(again, "phrase"), joined(asked, "phrase"))  # whatever the padding


def test_every_absent_thing_is_asked_for_in_all_its_phrasings():
    with mistakes.raises("nothing-absent: one class"):
        with_negatives(records([{0}], PROMPTS[:1]), Data(negatives=0.5))
    split = with_negatives(records([{0}] * 20 + [{1}] * 20 + [{2}]), Data(negatives=0.5, negative_words=("sun",)))
    asked = np.unique([joined(epoch_of(split, 8, 8, 0, epoch), "phrase") for epoch in range(1, 20)])
    assert {split.phrases[phrase] for phrase in asked} == {*sum(PROMPTS, ()), "sun"}
    assert with_negatives(records([{0}]), Data(negatives=0.5, negative_words=("sun", "sun"))).phrases[-2:] == (
        "one sheep",
        "sun",
    )


def test_seed_epoch_and_step_decide():
    split = with_negatives(records([{0}, {1}, {2}] * 10), Data(negatives=0.4))
    drawn = {tuple(joined(epoch_of(split, 6, 6, *key), "phrase")) for key in ((0, 1), (0, 2), (1, 1))}
    assert len(drawn) == 3


def test_a_phrasing_that_something_in_the_image_shares_is_not_asked():
    """The left lung isn't absent from an image of the right one if both are called lung."""
    prompts = (("lung", "left lung"), ("Lung ",), ("heart",))
    split = with_negatives(records([{0}, {1}, {2}], prompts), Data(negatives=0.5))
    assert split.negatives is not None
    assert_array_equal(split.negatives.allowed, [[False, False, True], [False, False, True], [True, True, False]])


def test_few_shots_make_no_class_absent():
    full = records([{0, 1}, {0, 1}, {0, 2}, {1, 2}])
    shown = np.zeros((4, 3), bool)
    shown[full.image, full.label] = True
    full = dataclasses.replace(full, shown=shown)
    split = with_negatives(full.few_shot(1, 0), Data(negatives=0.5))
    assert split.negatives is not None and len(split) == 3
    assert not (split.negatives.allowed[:, :3] & shown).any()
    assert_array_equal(split.compact().negatives.allowed, split.negatives.allowed[np.unique(split.image)])


def test_scenes_never_ask_for_a_digit_that_is_there():
    split = registry.load(DATA, "train", SIZE)
    everything = registry.load(dataclasses.replace(DATA, negatives=0.0), "train", SIZE, complete=True)
    there = everything.masks.any(axis=(1, 2)).reshape(30, 10)  # in the order of the labels
    there = np.take_along_axis(there, np.argsort(everything.label.reshape(30, 10), axis=1), axis=1)
    assert split.negatives is not None and there.any(axis=1).all()
    assert not (split.negatives.allowed & there).any() and (split.negatives.allowed | there).sum() > 30 * 8
    assert split.fingerprint() == registry.load(dataclasses.replace(DATA, negatives=0.0), "train", SIZE).fingerprint()
    assert registry.load(DATA, "val", SIZE).negatives is None


@pytest.mark.parametrize("placement", ["streaming", "resident"])
def test_every_feed_gives_the_same_batches(placement):
    """Images, features and augmented features of one draw; masks are empty where the phrase is absent."""
    data = dataclasses.replace(DATA, placement=placement)
    cache = FeatureCache(lambda images: images[:, ::8, ::8].astype("float32"), SIZE, sharding.mesh(), 2.0**30)
    expected = batching.training(registry.load(DATA, "train", SIZE), 8, 8, 3, 2)
    feeds = {
        "images": cache.feed(data, "train").training(8, 3, 2, augment=False),
        "features": cache.feed(data, "train", encoded=True).training(8, 3, 2, augment=False),
        "view": cache.feed(data, "train", view=1, seed=3).training(8, 3, 2, augment=False),
        "augmented": cache.augmented_epoch(data, 8, 3, 2),
        "stored": None,
        "resumed": cache.feed(data, "train").training(8, 3, 2, augment=True, skip=2),
    }
    seen = {}
    for name, sources in feeds.items():
        sources = cache.augmented_epoch(data, 8, 3, 2) if sources is None else sources
        made = [jax.jit(gather)(source) for source in sources]
        seen[name] = made
        for batch, rows in zip(made, expected[-len(made) :], strict=True):
            assert_array_equal(batch.phrase, rows.phrase)
            absent = np.asarray(rows.bits) == 0
            assert not np.asarray(batch.masks)[absent].any()
    assert (joined(epoch_of(registry.load(DATA, "train", SIZE), 8, 8, 3, 2), "bits") == 0).sum() == 18  # of 60
    for one, other in zip(seen["images"], seen["features"], strict=True):
        assert_array_equal(one.masks, other.masks)
    for one, other in zip(seen["augmented"], seen["stored"], strict=True):
        assert_array_equal(one.masks, other.masks)


def test_settings_that_contradict_each_other_are_refused():
    def check(**changes) -> None:
        configuration.check(small.config(data=dataclasses.replace(DATA, **changes)))

    check()
    with mistakes.raises("out-of-range: data.negatives must be at least 0 and below 1, got 1"):
        check(negatives=1.0)
    with mistakes.raises("options-conflict: data.negative_words needs data.negatives"):
        check(negatives=0.0, negative_words=("sun",))
    split = records([{0}, {1}])
    for words, says in (((" ",), "empty-prompt: negative_words"), (("A Cat",), "word-in-use: 'A Cat'.*animals")):
        with mistakes.raises(says):
            with_negatives(split, Data(negatives=0.5, negative_words=words))
    separate = dataclasses.replace(split, complete=None)
    with mistakes.raises("nothing-absent: separate masks.*'cat', 'dog'.*--data.complete True.*--data.negative-words"):
        with_negatives(separate, Data(negatives=0.5))
    assert with_negatives(separate, Data(negatives=0.5, complete=True)).negatives is not None
    with mistakes.raises("nothing-absent: shows all its classes"):
        with_negatives(records([{0, 1, 2}]), Data(negatives=0.5))


def photographed(number: int, classes: dict[str, int], binary: bool = False) -> Example:
    """An image with vertical stripes of these classes, by their numbers: in one class map, or in a mask for each."""
    classmap = np.zeros((12, 12), np.uint8)
    for place, value in enumerate(classes.values()):
        classmap[:, 3 * place : 3 * place + 3] = value
    maps = [classmap == value for value in classes.values()] if binary else [classmap]
    kept = [
        Record(f"{label}/{number}", label, place * binary, 1 if binary else value, {1: (label,)})
        for place, (label, value) in enumerate(classes.items())
    ]
    image = encode_png(np.full((12, 12, 3), number, np.uint8))
    return Example(f"{number}", "", image, tuple(encode_png(plane.astype(np.uint8)) for plane in maps), tuple(kept))


@pytest.mark.parametrize("binary", [False, True])
def test_class_maps_are_complete_and_separate_masks_are_if_the_user_says_so(binary, tmp_path):
    shown = [{"cat": 2}, {"cat": 2, "dog": 3}, {"dog": 3}, {"sheep": 4}]
    write(tmp_path, "farm", {"train": [photographed(*each, binary) for each in enumerate(shown)]}, "a test")
    data = Data(name="farm", root=str(tmp_path), cache=str(tmp_path / "cache"), negatives=0.5)
    if binary:
        with mistakes.raises("nothing-absent: farm has separate masks"):
            registry.load(data, "train", SIZE)
        data = dataclasses.replace(data, complete=True)
    for settings_, words in ((data, ()), (dataclasses.replace(data, negative_words=("sun",)), ("sun",))):
        negatives = registry.load(settings_, "train", SIZE).negatives
        assert negatives is not None and negatives.words == words
        expected = [[label not in each for label in CLASSES] + [True] * len(words) for each in shown]
        assert_array_equal(negatives.allowed, expected)
    negatives = registry.load(dataclasses.replace(settings_, complete=False), "train", SIZE).negatives
    assert negatives is not None and negatives.allowed.any(axis=0).tolist() == [False, False, False, True]
    if not binary:  # as in a copy, whose other record stays in another split
        kept = [{"split": "train", "index": 1, "id": "1", "records": ["dog/1"]}]
        kept += [{"split": "train", "index": each, "id": str(each), "records": [name]} for each, name in KEPT]
        (tmp_path / "farm" / prepared.VERSION / prepared.CLEAN_FILE).write_text(json.dumps({"train": kept}))
        negatives = registry.load(dataclasses.replace(data, protocol="clean"), "train", SIZE).negatives
        assert negatives is not None
        assert_array_equal(negatives.allowed, [[label not in shown[each] for label in CLASSES] for each in (1, 0, 3)])


def test_an_empty_mask_teaches_where_the_dice_loss_is_flat():
    """The paper's loss leaves 0.2 p / n of each pixel, the cross-entropy's gradient; its Dice term is 1 at any marking.
    With negatives it is m / (m + 5 %), m the marked share, as steep as the term of an object is."""
    logits, targets = np.full((2, 8, 8), -1.0, np.float32), np.zeros((2, 8, 8), bool)
    targets[1, 0, :3] = True
    marked = 1 / (1 + np.e)

    def slope(**options: bool) -> np.ndarray:
        return np.asarray(jax.grad(lambda values: dice_ce(values, targets, **options).sum())(logits))

    paper, ours = (dice_ce(logits, targets, negatives=negatives) for negatives in (False, True))
    np.testing.assert_allclose(paper[0], 1 + 0.2 * np.log1p(1 / np.e), rtol=1e-4)
    np.testing.assert_allclose(ours[0], marked / (marked + 0.05) + 0.2 * np.log1p(1 / np.e), rtol=1e-5)
    np.testing.assert_allclose(ours[1], paper[1], rtol=1e-6)  # an object's mask
    np.testing.assert_allclose(slope()[0], 0.2 * marked / 64, rtol=1e-3)
    steep = 0.05 / (marked + 0.05) ** 2 * marked * (1 - marked) / 64
    np.testing.assert_allclose(slope(negatives=True)[0], steep + 0.2 * marked / 64, rtol=1e-5)
    np.testing.assert_allclose(slope(negatives=True)[1], slope()[1], rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class FlatNetwork:
    """Gives every pixel the same logit."""

    learner = VPT()

    def outputs(self, params, images, phrase, table, *, depth, dropout, key=None):
        none = jnp.zeros((len(phrase), 1))
        return Outputs(jnp.broadcast_to(params["learner/context"], (len(phrase), *SIZE)), none, none)


def test_the_loss_of_empty_masks_changes_only_in_training_with_negatives():
    """The loop's training loss is that of its batches; validation keeps the paper's for its empty masks."""
    data = dataclasses.replace(DATA, scenes=dataclasses.replace(DATA.scenes, absent_fraction=0.5))
    cache = FeatureCache(lambda images: images, SIZE, sharding.mesh(), 2.0**30)
    train, val = (Split(cache.feed(data, split), jnp.zeros((1, 1))) for split in ("train", "val"))
    network: Any = FlatNetwork()
    still = Hyperparameters(*(jnp.zeros(1, kind) for kind in ("float32", "float32", "int32", "float32", "uint32")))
    for share in (0.3, 0.0):
        config = small.config(data=dataclasses.replace(data, negatives=share))
        setup = loop.TrainSetup(config, network, {}, train, val, cache.mesh)
        state = loop.begin({"learner/context": jnp.full((1, 1, 1, 1), -1.0)}, still, cache.mesh)
        _, epoch = loop.train_epoch(setup, state, setup.batches(1), lambda *_: None)
        assert isinstance(epoch, loop.Epoch)
        batches = [gather(source) for source in setup.batches(1)]
        assert epoch.train["loss"] == pytest.approx([mean_loss(batches, share > 0)], rel=1e-5)
        batches = list(val.feed.evaluation(4))
        assert epoch.val["loss"] == pytest.approx([mean_loss(batches, False)], rel=1e-5)
    assert mean_loss(batches, False) > mean_loss(batches, True) + 0.01  # val has empty masks


def mean_loss(batches: list[Batch], negatives: bool) -> float:
    """The loss of the records of some batches where every logit is -1."""
    masks = np.concatenate([np.asarray(batch.masks)[np.asarray(batch.weight) > 0] for batch in batches])
    return float(dice_ce(jnp.full(masks.shape, -1.0), jnp.asarray(masks), negatives=negatives).mean())
