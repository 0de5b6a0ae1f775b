"""Test of predict on many images: what it holds of each."""

import tracemalloc
from pathlib import Path

import predicted
from predicted import RED, save

from tunevlseg_jax.prediction import planning, table, walk
from tunevlseg_jax.prediction.planning import Settings
from tunevlseg_jax.prediction.session import Session

predictor = predicted.predictor


def held(predictor, count: int) -> int:
    """The bytes of Python and NumPy that are still held after the prediction of so many images."""
    output = Path(f"out{count}")
    for number in range(count):
        save(f"in{count}/{number}.png", RED)
    tracemalloc.start()
    try:
        masks, maps = table.masks_of(output), table.label_maps_of(output)
        found, _ = walk.find([f"in{count}"], recursive=False, output=output, ours=())
        settings = Settings(("red",), 0.5, "runs/one", "f" * 12, output)
        session = Session(predictor, settings, masks, maps)
        written = sum(1 for _ in session.run(planning.plan(found, settings, masks, maps)))
        assert written == count
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_an_image_that_is_done_is_a_row_of_a_table(predictor):
    held(predictor, 1)  # what the first call of each function keeps
    assert held(predictor, 130) - held(predictor, 30) < 100 * 6000
