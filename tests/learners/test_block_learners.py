"""The contract that learners of changes of blocks keep, on a small CLIPSeg."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learner_cases import CONFIG, ROWS, TOWERS, Step, init
from numpy.testing import assert_allclose, assert_array_equal

from tunevlseg_jax.learners import BitFit, LoRA, NormTuning, VLSMAdapter, ZeroShot
from tunevlseg_jax.learners.blocks import BlockLearner
from tunevlseg_jax.models.clip import TextConfig, TextTower
from tunevlseg_jax.models.parameters import flatten, nested
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.search import slots

ALL = ("query", "key", "value", "out", "up", "down")
LEARNERS = {
    "LoRA": LoRA(depth=ROWS, products=ALL),
    "LoRA of the text from the last": LoRA(depth=ROWS, towers="text", start="last", scaling="rank"),
    "VLSMAdapter": VLSMAdapter(depth=ROWS, hidden=16, sentence_hidden=16),
    "shallow VLSMAdapter": VLSMAdapter(depth=ROWS, hidden=4, kind="shallow", towers="vision", sentence=False),
    "BitFit": BitFit(depth=ROWS),
    "NormTuning": NormTuning(depth=ROWS, decoder=True),
}
pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = ("LoRA", "VLSMAdapter")
each_learner = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LEARNERS]
)


@cache
def step(name: str) -> Step:
    return Step(LEARNERS[name])


def trained(name: str) -> dict:
    """Parameters of which none is zero, as after some training."""
    random = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + random.normal(0, 0.2, x.shape).astype(np.float32), init(LEARNERS[name]))


@each_learner
def test_depth_is_a_value(name):
    """Nothing is compiled for another depth, and rows beyond it change nothing and have no gradient."""
    params, ran = trained(name), {}
    for depth in range(1, ROWS + 1):
        ran[depth], gradients = step(name).run(params, depth)
        for path, gradient in flatten(gradients, "").items():
            assert not gradient[depth:].any(), path
            assert all(row.any() for row in gradient[:depth]), path
        others = jax.tree.map(lambda x, depth=depth: np.concatenate([x[:depth], -3 * x[depth:]]), params)
        assert_array_equal(step(name).run(others, depth)[0], ran[depth])
    assert step(name).programs == 1
    assert np.abs(ran[1] - ran[ROWS]).max() > 1e-5


@each_learner
def test_first_rows_do_not_depend_on_how_many_there_are(name):
    deep = dataclasses.replace(TOWERS, text_blocks=5, effective_vision_blocks=5, taps=5)
    few, many = (flatten(init(dataclasses.replace(LEARNERS[name], depth=rows), deep), "") for rows in (3, 5))
    assert few.keys() == many.keys()
    for path, array in few.items():
        counts = (1, 1) if "sentence" in path or "outside" in path else (3, 5)
        assert (len(array), len(many[path])) == counts and array.dtype == np.float32, path
        assert_array_equal(array, many[path][:3], err_msg=path)


@each_learner
def test_trials_together_are_those_alone(name):
    params = [trained(name), jax.tree.map(lambda x: -x, trained(name))]
    keys = jax.random.split(jax.random.key(0), 2)
    alone = [step(name).run(each, depth, 0.3, key) for each, depth, key in zip(params, (1, 2), keys, strict=True)]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *params)
    together = step(name).run_trials(stacked, np.array([1, 2], np.int32), np.full(2, 0.3, np.float32), keys)
    for number, (logits, gradients) in enumerate(alone):
        assert_allclose(together[0][number], logits, rtol=1e-5, atol=1e-5)
        for path, gradient in flatten(gradients, "").items():
            ours = flatten(together[1], "")[path][number]
            assert_allclose(ours, gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max(), err_msg=path)


@pytest.mark.parametrize("name", ["LoRA", "LoRA of the text from the last", "VLSMAdapter"])
def test_towers_with_fewer_blocks_change_in_all_of_them(name):
    learner = dataclasses.replace(LEARNERS[name], depth=5)
    spec = dataclasses.replace(TOWERS, text_blocks=5, effective_vision_blocks=1)
    rows = {path: len(array) for path, array in flatten(init(learner, spec), "").items()}
    assert all(count == (5 if "text" in path else 1) for path, count in rows.items())
    assert learner.largest_depth(spec) == 5


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (LoRA(depth=0), r"learner\.depth .*1, got 0"),
        (LoRA(depth=3), r"learner\.depth .*at most 2, .*got 3"),
        (LoRA(depth=1, max_depth=3), r"learner\.max_depth .*at most 2, .*got 3"),
        (LoRA(depth=2, max_depth=1), r"learner\.depth .*learner\.max_depth, 1, .*2"),
        (LoRA(depth=1, rank=0), r"learner\.rank .*1, got 0"),
        (LoRA(depth=1, products=()), r"learner\.products .*\(\)"),
        (LoRA(depth=1, products=("key", "key")), r"learner\.products .*once, got \('key', 'key'\)"),
        (LoRA(depth=1, dropout=1.0), r"learner\.dropout .*below 1, got 1\.0"),
        (VLSMAdapter(depth=1, hidden=0), r"learner\.hidden .*1, got 0"),
        (VLSMAdapter(depth=1, sentence_hidden=0), r"learner\.sentence_hidden .*1, got 0"),
        (VLSMAdapter(depth=1, kind="shallow"), r"learner\.towers must be vision .*shallow on this model, got both"),
        (BitFit(depth=1, biases=()), r"learner\.biases .*once, got \(\)"),
    ],
    ids=str,
)
def test_hyperparameters_that_do_not_fit(learner: BlockLearner, message):
    with pytest.raises(ValueError, match=message):
        learner.init(jax.random.key(0), TOWERS)


@pytest.mark.parametrize("towers", ["both", "vision"])
def test_a_vision_tower_without_blocks_is_refused(towers):
    resnet = dataclasses.replace(TOWERS, vision_width=None, vision_blocks=0, effective_vision_blocks=0)
    with pytest.raises(ValueError, match=rf"learner\.towers must be text .*got {towers}: .*LoRA"):
        LoRA(depth=1, towers=towers).init(jax.random.key(0), resnet)
    assert init(LoRA(depth=1, towers="text"), resnet).keys() == {"text"}
    resnet = dataclasses.replace(resnet, taps=0, text_taps=0)
    with pytest.raises(ValueError, match=r"learner\.kind must be dense .*got shallow"):
        VLSMAdapter(depth=1, kind="shallow", towers=towers).init(jax.random.key(0), resnet)


# LoRA.


def test_a_fresh_lora_changes_nothing_and_starts_as_pytorch_does():
    learner = LEARNERS["LoRA"]
    logits, _ = step("LoRA").run(init(learner), ROWS)
    zero_shot, _ = Step(ZeroShot()).run({}, 0)
    assert_allclose(logits, zero_shot, rtol=1e-5, atol=1e-6)
    wide = init(LoRA(depth=1, rank=300), dataclasses.replace(TOWERS, text_width=100))["text"]["query"]
    down = np.abs(wide["down"]["kernel"])
    assert down.max() <= 100**-0.5 and down.mean() == pytest.approx(100**-0.5 / 2, rel=0.02)
    assert not wide["up"]["kernel"].any()


def test_blocks_are_counted_from_the_last():
    """Depth 1 from the last is depth 2 from the first without the first row."""
    last, first = (Step(LoRA(depth=depth, start=start)) for depth, start in ((1, "last"), (ROWS, "first")))
    params = jax.tree.map(lambda x: np.concatenate([0 * x[:1], x[:1]]), trained("LoRA"))
    params = {tower: {name: params[tower][name] for name in ("query", "key", "value")} for tower in params}
    own = jax.tree.map(lambda x: x[1:], params)
    assert_allclose(last.run(own, 1)[0], first.run(params, ROWS)[0], rtol=1e-5, atol=1e-6)
    assert CONFIG.vision.blocks == ROWS


def test_dropout_is_a_value_and_needs_a_key():
    params, lora = trained("LoRA"), step("LoRA")
    plain, _ = lora.run(params, ROWS)
    assert_array_equal(lora.run(params, ROWS, 0.5)[0], plain)
    first, same, other = (lora.run(params, ROWS, 0.5, jax.random.key(seed))[0] for seed in (1, 1, 2))
    none, _ = lora.run(params, ROWS, 0.0, jax.random.key(1))
    assert_array_equal(first, same)
    assert_allclose(none, plain, rtol=1e-5, atol=1e-6)
    assert min(np.abs(first - plain).max(), np.abs(first - other).max()) > 1e-4
    half = dataclasses.replace(LEARNERS["LoRA"], dropout=0.5, depth=1, max_depth=ROWS)
    assert half.traced_values() == (1, 0.5)
    assert half.static_part() == dataclasses.replace(LEARNERS["LoRA"], max_depth=ROWS).static_part()


@pytest.mark.parametrize("scaling", ["root of rank", "rank"])
def test_a_rank_padded_with_zeros_is_the_same(scaling):
    """So that trials of different ranks share a program: the same logits and gradients, zero where it is padded."""
    narrow, wide = (LoRA(depth=1, towers="vision", rank=rank, scaling=scaling) for rank in (2, 5))
    params = jax.tree.map(lambda x: x + 0.1, init(narrow))
    fresh = flatten(init(wide), "")
    filled = slots.padded(flatten(params, ""), fresh)
    logits, gradients = Step(narrow).run(params, 1)
    wider, wide_gradients = Step(wide).run(jax.tree.map(np.asarray, nested(filled)[""]), 1)
    assert_allclose(wider, logits, rtol=1e-5, atol=1e-6)
    for path, gradient in flatten(gradients, "").items():
        whole = np.array(flatten(wide_gradients, "")[path])
        inside = tuple(slice(side) for side in gradient.shape)
        assert_allclose(whole[inside], gradient, rtol=1e-4, atol=1e-6)
        whole[inside] = 0
        assert not whole.any() and whole.shape != gradient.shape


# BitFit and NormTuning.


@pytest.mark.parametrize(
    ("learner", "names"),
    [(BitFit(depth=ROWS, decoder=True), ("bias",)), (NormTuning(depth=ROWS, decoder=True), ("bias", "scale"))],
    ids=["BitFit", "NormTuning"],
)
def test_differences_are_those_of_the_frozen_weights(learner, names):
    """The model with differences is the model with the sums as its weights; every vector of these names is there."""
    random = np.random.default_rng(3)
    params = jax.tree.map(lambda x: random.normal(0, 0.2, x.shape).astype(np.float32), init(learner))
    expected = Step(ZeroShot())
    plain, _ = expected.run({}, 0)
    for path, array in flatten(params, "").items():
        _, *parts, name = path.split("/")
        assert name in names
        if parts[0] == "outside":
            folder = {"text": "text_tower", "vision": "vision_tower", "decoder": "decoder"}[parts[1]]
            expected.frozen["/".join(("model", folder, *parts[2:], name))] += array[0]
            continue
        tower, layer = parts
        for row, vector in enumerate(array):
            within, (start, end) = WITHIN[layer], (0, len(vector))
            if within == "attention/qkv":
                start, end = (n + {"query": 0, "value": 2 * len(vector)}[layer] for n in (0, len(vector)))
            expected.frozen[f"model/{tower}_tower/blocks/{row}/{within}/{name}"][start:end] += vector
    shifted, _ = expected.run({}, 0)
    assert_allclose(Step(learner).run(params, ROWS)[0], shifted, rtol=1e-5, atol=1e-6)
    assert np.abs(shifted - plain).max() > 1e-3
    taken = {path.removeprefix("/") for path in flatten(params, "")}
    assert ("outside/decoder/film_scale/bias" in taken) == (names == ("bias",))
    assert "outside/decoder/blocks/1/norm2/bias" in taken and "text/key/bias" not in taken


WITHIN = {
    **dict.fromkeys(("query", "value"), "attention/qkv"),
    **{"out": "attention/out", "up": "mlp/up", "down": "mlp/down", "norm1": "norm1", "norm2": "norm2"},
}
"""The layers' paths in a block."""


# The shallow VLSM-Adapter.


def test_text_adapters_add_states_of_the_end_token_to_the_sentence():
    """Against the tower's blocks one after another."""
    config = TextConfig(width=8, blocks=3, heads=2, hidden=12, vocabulary=32, context_length=16, end_token=31)
    tower = TextTower(config, 8, nnx.Rngs(0), taps=(0, 2))
    tokens = jnp.asarray([[30, 5, 31, 31], [30, 5, 6, 31]])
    learner = VLSMAdapter(depth=2, hidden=4, kind="shallow", towers="text", sentence=False)
    spec = dataclasses.replace(TOWERS, text_width=8, image_width=8, taps=2, text_taps=2)
    params = init(learner, spec)
    assert params.keys() == {"text_taps"}

    def sentence(depth: int) -> np.ndarray:
        prompts = learner.prompts(params, jnp.int32(depth), dropout=jnp.float32(0), key=None)
        return np.asarray(tower(tokens, prompts).sentence)

    end, x = jnp.asarray([2, 3]), tower.token_embedding[...][tokens] + tower.position_embedding[...][None, :4]
    mask = jnp.tril(jnp.ones((4, 4), bool))[None, None] & (jnp.arange(4)[None] <= end[:, None])[:, None, None]
    states = []
    for block in tower.blocks:
        x = block(x, mask)
        states.append(np.asarray(x[jnp.arange(2), end]))
    expected = np.asarray(tower(tokens, Prompts()).sentence)
    for row, block in enumerate((0, 2)):
        layers = jax.tree.map(lambda array, row=row: array[row], params["text_taps"])
        inner = np.maximum(states[block] @ layers["down"]["kernel"] + layers["down"]["bias"], 0)
        expected = expected + states[block] + np.maximum(inner @ layers["up"]["kernel"] + layers["up"]["bias"], 0)
        assert_allclose(sentence(row + 1), expected, rtol=1e-5, atol=1e-6)
