"""Tests of the loader: what an epoch holds, and what its order depends on."""

import dataclasses
from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.data.feeding.batch import Batch, Rows, Source, gather
from tunevlseg_jax.data.records import Records, packed, resized

RECORDS, IMAGES, SIZE = 23, 9, 6
PROMPTS = (("one", "a one", "the digit one"), ("two",), ("three", "a three"))


@pytest.fixture(scope="module")
def records() -> Records:
    """Each mask names its record and each image itself; most images have several records."""
    rng = np.random.default_rng(0)
    bits = np.unpackbits(np.arange(RECORDS, dtype=np.uint8)[:, None], axis=1).astype(bool)
    masks = np.zeros((RECORDS, SIZE, SIZE), bool)
    masks[:, 0, :5] = bits[:, -5:]
    return Records(
        name="test",
        split="train",
        images=np.broadcast_to(np.arange(IMAGES, dtype=np.uint8)[:, None, None, None], (IMAGES, SIZE, SIZE, 3)),
        **packed(masks),
        image=np.concatenate([np.arange(IMAGES), rng.integers(0, IMAGES, RECORDS - IMAGES)]).astype(np.int32),
        label=np.zeros(RECORDS, np.int32),
        prompt=rng.integers(0, len(PROMPTS), RECORDS).astype(np.int32),
        classes=("digit",),
        prompts=PROMPTS,
        names=tuple(f"image {number}" for number in range(IMAGES)),
        ids=tuple(f"record {number}" for number in range(RECORDS)),
    )


def pixels(records: Records, batches: list[Rows]) -> list[Batch]:
    """The batches that those rows are."""
    return [Batch(*map(np.asarray, gather(Source(records.images, records.maps, rows)))) for rows in batches]


def rows(batches: list[Batch]) -> np.ndarray:
    """Which records the batches hold, padding left out."""
    masks = np.concatenate([batch.masks[batch.weight > 0] for batch in batches])
    return masks[:, 0, :5] @ (1 << np.arange(5)[::-1])


def epoch(records: Records, number: int = 1, seed: int = 0, batch_size: int = 4) -> np.ndarray:
    """The records of an epoch in their order."""
    return rows(pixels(records, batching.training(records, batch_size, batch_size, seed, number)))


@pytest.mark.parametrize("batch_size", [1, 4, RECORDS, 100])
def test_an_epoch_holds_each_record_once(records, batch_size):
    for number in (1, 2):
        assert sorted(epoch(records, number, batch_size=batch_size)) == list(range(RECORDS))


def test_the_order_is_a_function_of_seed_and_epoch(records):
    first = epoch(records)
    assert_array_equal(epoch(records), first)
    assert_array_equal(epoch(records, batch_size=5), first)
    orders = {tuple(epoch(records, number, seed)) for number in (1, 2, 3) for seed in (0, 1, 2**32 - 1)}
    assert len(orders) == 9 and tuple(range(RECORDS)) not in orders


def test_evaluation_keeps_the_order(records):
    assert_array_equal(rows(pixels(records, batching.evaluation(records, 4, 4))), np.arange(RECORDS))


@pytest.mark.parametrize("padded", [4, 8])
def test_batches_have_one_shape_and_padding_no_weight(records, padded):
    for batches in (batching.training(records, 4, padded, 0, 1), batching.evaluation(records, 4, padded)):
        batches = pixels(records, batches)
        assert len(batches) == batching.num_batches(records, 4) == 6
        assert [int(batch.weight.sum()) for batch in batches] == [4] * 5 + [3]
        for batch in batches:
            assert batch.images.shape == (padded, SIZE, SIZE, 3) and batch.images.dtype == np.uint8
            assert batch.masks.shape == (padded, SIZE, SIZE) and batch.masks.dtype == bool
            assert batch.phrase.shape == (padded,) and batch.phrase.dtype == np.int32
            assert batch.weight.shape == (padded,) and batch.weight.dtype == np.float32
            assert (np.diff(batch.weight) <= 0).all()  # records first


def test_image_mask_and_phrase_belong_together(records):
    training = (batching.training(records, 4, 4, 0, number) for number in (1, 2))
    for batches in (*training, batching.evaluation(records, 4, 4)):
        for batch in pixels(records, batches):
            for row, image, phrase in zip(rows([batch]), batch.images, batch.phrase, strict=False):
                assert (image == records.image[row]).all()
                assert records.phrases[phrase] in PROMPTS[records.prompt[row]]


def test_training_draws_phrasings_and_evaluation_takes_the_first(records):
    drawn = [
        batch.phrase for number in range(1, 41) for batch in batching.training(records, RECORDS, RECORDS, 0, number)
    ]
    counts = Counter(records.phrases[phrase] for phrase in np.concatenate(drawn))
    for number, phrasings in enumerate(PROMPTS):
        share = 40 * int((records.prompt == number).sum()) / len(phrasings)
        assert all(0.7 * share < counts[phrase] < 1.3 * share for phrase in phrasings)
    assert any((drawn[0] != other).any() for other in drawn[1:])
    asked = np.concatenate([batch.phrase[batch.weight > 0] for batch in batching.evaluation(records, 4, 4)])
    assert [records.phrases[phrase] for phrase in asked] == [PROMPTS[prompt][0] for prompt in records.prompt]


def test_phrasings_are_a_function_of_seed_and_epoch(records):
    def phrases(seed, number, batch_size):
        batches = batching.training(records, batch_size, batch_size, seed, number)
        return np.concatenate([batch.phrase[batch.weight > 0] for batch in batches])

    assert_array_equal(phrases(3, 2, 4), phrases(3, 2, 7))


def test_resizing():
    rng = np.random.default_rng(0)
    images = cv2.GaussianBlur(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8), (0, 0), 3)[None]
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 10:30, 15:45] = masks[1, :, :30] = True
    both = np.zeros(2, np.int32)
    parts = {"image": both, "label": both, "prompt": both, **packed(masks)}
    before = Records("test", "test", images, **parts, classes=("a",), prompts=(("one",),), names=("i",), ids=("a", "b"))
    assert_array_equal(before.masks, masks)
    after = resized(before, (20, 30))
    assert after.images.shape == (1, 20, 30, 3) and after.images.dtype == np.uint8  # one image for both records
    assert after.masks.shape == (2, 20, 30)
    assert_array_equal(after.masks, masks[:, ::2, ::2])
    bicubic = cv2.resize(images[0], (30, 20), interpolation=cv2.INTER_CUBIC)
    assert_array_equal(after.images[0], bicubic)
    images_alone = resized(before, (20, 30), maps=False)
    assert_array_equal(images_alone.images, after.images)
    assert images_alone.maps is before.maps
    assert resized(before, (40, 60)) is before


def test_taking_some_records(records):
    """A part is what it would be had nothing else been there, its pixels compacted or not."""
    some = np.asarray([2, 5, 7])
    part = records.take(some)
    compact = part.compact()
    assert len(compact.images) < len(records.images) and len(compact.maps) < len(records.maps)
    for each in (part, compact):
        assert_array_equal(each.masks, records.masks[some])
        assert_array_equal(each.images[each.image], records.images[records.image[some]])
        assert [each.names[row] for row in each.image] == [records.names[row] for row in records.image[some]]
        assert each.ids == tuple(records.ids[row] for row in some)
    assert part.fingerprint() == compact.fingerprint() != records.fingerprint()
    assert records.compact() is records


@given(few=st.integers(1, 12), more=st.integers(1, 12), seed=st.integers(0, 2**32), labels=st.lists(st.integers(0, 3)))
def test_few_shots_nest(records, few, more, seed, labels):
    """K records of a class are among its K' > K, whatever the other classes; classes that have fewer give all."""
    label = np.resize(np.asarray([*labels, 0], np.int32), len(records))
    split = dataclasses.replace(records, label=label, classes=("a", "b", "c", "d"))
    few, more = sorted((few, more))
    some, others = split.few_shot(few, seed), split.few_shot(more, seed)
    assert set(some.ids) <= set(others.ids)
    for part, shots in ((some, few), (others, more)):
        counts = np.bincount(part.label, minlength=4)
        assert_array_equal(counts, np.minimum(np.bincount(label, minlength=4), shots))
        assert list(part.ids) == [id for id in split.ids if id in set(part.ids)]
    if few >= 4:
        assert any(split.few_shot(few, other).ids != some.ids for other in range(20)) or len(some) == len(split)
