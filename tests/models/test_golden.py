"""Parity with the published PyTorch nets: logits, loss and every gradient, through what training runs.

`golden/` holds as many cases as fit; the variable TUNEVLSEG_GOLDEN may name a folder with all of them.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import chex
import golden_adapters
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from safetensors.numpy import load_file

from conversion.published.tensors import from_published, to_published
from tunevlseg_jax.learners import VPT, CoCoOp, CoOp, MaPLe, Projector, SharedAttention, SharedSeparate, ZeroShot
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clipseg_config import config_from_huggingface
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.training import losses, metrics

pytestmark = pytest.mark.xdist_group("golden")  # the cases share most operations

EMBEDDED, EMBEDDED_CRIS = (Path(__file__).parents[1] / name for name in ("golden", "golden_cris"))
GOLDEN = Path(os.environ.get("TUNEVLSEG_GOLDEN", EMBEDDED))
MODELS = ("clipseg_simple", "clipseg_complex")
ROWS = [
    row
    for row in json.loads((GOLDEN / "index.json").read_text())
    if row["model"] in MODELS and (GOLDEN / row["file"]).is_file()
]
ADAPTERS = [row for row in json.loads((GOLDEN / "index_adapters.json").read_text()) if (GOLDEN / row["file"]).is_file()]
TOLERANCE = 1e-5
COCOOP_GRADIENT_TOLERANCE = 1e-4
"""CoCoOp's gradients amplify rounding: the golden ones are up to 2.6e-5 from those of float64 arithmetic."""
NUDGES = (1e-6, -1e-6, 3e-6, -3e-6)
"""Where a ReLU's input is so near 0 that rounding decides its sign, a gradient is right to either side: it may agree
for images that are this much brighter."""
NUDGED = ("clipseg_simple/cocoop_lora_depth1.safetensors",)
"""The cases that need it: this one has an input of -1.4e-6, where float32 is off by as much."""

SLOW = (
    "clipseg_simple/cocoop_depth3_upsampler",
    "clipseg_simple/maple_lora_unified_depth3_upsampler",
    "clipseg_simple/shared_attention_depth1",
    "cris/cocoop_depth3_upsampler",
    "cris/coop_depth1",
    "cris/coop_depth3_published",
)
"""Those in the repository that take long."""


def cases(rows: Sequence[dict], *slow: str) -> list:
    """The golden cases as parameters; slow are those that don't lie in the repository, and the dearest there."""
    names = [(row, row["file"].removesuffix(".safetensors")) for row in rows]
    return [
        pytest.param(row, id=name, marks=[] if is_embedded(row) and name not in (*SLOW, *slow) else pytest.mark.slow)
        for row, name in names
    ]


def is_embedded(row: dict) -> bool:
    """Whether the tensors of a case lie in the repository."""
    path = Path(row["file"])
    return (EMBEDDED_CRIS / f"{path.name}.xz" if row["model"] == "cris" else EMBEDDED / path).is_file()


def test_cases_were_found():
    assert len(ROWS) >= (19 if GOLDEN == EMBEDDED else 25) and ADAPTERS


# Quickly, SharedAttention is compared with PyTorch's layers in `test_learners.py`.
@pytest.mark.parametrize("row", cases(ROWS, "clipseg_simple/shared_attention_depth1_published"))
@pytest.mark.usefixtures("quick_compilation")
def test_parity(row):
    tensors = load_file(GOLDEN / row["file"])
    params, expected = group(tensors, "param"), group(tensors, "grad")
    config, frozen, inputs = golden_model(row["model"])
    upsampling = "none" if not row["upsampler"] else "add" if "residual_ratio" not in params else "blend"
    net = Network(config, learner_of(row), upsampling)

    trained = from_published(params, net)
    back = to_published(trained, net)
    chex.assert_trees_all_equal(back, params, strict=True)

    loss, logits, gradients = loss_and_gradients(net, trained, frozen, inputs)
    assert difference(logits, tensors["expected.logits"][:, 0]) <= TOLERANCE
    assert difference(loss, tensors["expected.loss"][0]) <= TOLERANCE

    tolerance = COCOOP_GRADIENT_TOLERANCE if row["learner"].startswith("cocoop") else TOLERANCE
    furthest = worst(to_published(gradients, net), expected)
    for nudge in NUDGES if row["file"] in NUDGED else ():
        if furthest[0] <= tolerance:
            break
        nudged = inputs | {"image": inputs["image"] * np.float32(1 + nudge)}
        gradients = loss_and_gradients(net, trained, frozen, nudged)[2]
        furthest = min(furthest, worst(to_published(gradients, net), expected))
    assert furthest[0] <= tolerance, furthest


@pytest.mark.parametrize("row", cases(ADAPTERS))
@pytest.mark.usefixtures("quick_compilation")
def test_parity_of_adapters(row):
    tensors = load_file(GOLDEN / row["file"])
    trained, expected = (golden_adapters.ours(group(tensors, kind)) for kind in ("param", "grad"))
    config, frozen, inputs = golden_model(row["model"])
    net = Network(config, golden_adapters.learner_of(row, trained))
    spec = config.spec(lambda phrase: jnp.zeros((0, config.text.width)))
    fresh = net.learner.init(jax.random.key(0), spec)
    assert jax.tree.map(np.shape, fresh) == jax.tree.map(np.shape, golden_adapters.nested(trained))

    loss, logits, gradients = loss_and_gradients(net, trained, frozen, inputs)
    assert difference(logits, tensors["expected.logits"][:, 0]) <= TOLERANCE
    assert difference(loss, tensors["expected.loss"][0]) <= golden_adapters.SCALAR_TOLERANCE
    furthest = worst(gradients, expected)
    assert furthest[0] <= golden_adapters.GRADIENT_TOLERANCES.get(row["file"], TOLERANCE), furthest


@pytest.mark.slow
def test_adapters_agree_with_pytorch_in_float64():
    """In float64 an independent computation has our gradients, so that rounding alone separates the golden ones."""
    amplified = golden_adapters.GRADIENT_TOLERANCES
    files = [row["file"] for row in ADAPTERS if row["file"] in amplified] or [ADAPTERS[0]["file"]]
    status, out, err = small.finish(small.start("-W", "ignore", small.ROOT / "tests" / "float64_adapters.py", *files))
    assert status == 0, err
    results = [json.loads(line) for line in out.splitlines()]
    assert len(results) == len(files)
    for file, result in zip(files, results, strict=True):
        print(file, result)
        assert result["type"] == "float64"
        assert max(result["logits"], result["loss"]) <= 1e-7 and result["gradients"][0] <= 1e-6


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=() if model == "clipseg_simple" else pytest.mark.slow)
        for model in sorted({row["model"] for row in ROWS})
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_zero_shot_parity(model):
    config, frozen, inputs = golden_model(model)
    _, logits, _ = loss_and_gradients(Network(config, ZeroShot()), {}, frozen, inputs)
    assert difference(logits, inputs["expected.zero_shot_logits"]) <= TOLERANCE


def test_loss_and_metrics():
    tensors = load_file(GOLDEN / "loss_and_metrics.safetensors")
    logits, targets = (jnp.asarray(tensors[name][:, 0]) for name in ("logits", "target"))
    loss = losses.dice_ce(logits, targets)
    sums = metrics.total(metrics.score(loss, logits, targets), jnp.ones(len(logits)))
    means = metrics.means(sums)
    for name, golden in (("loss", "dice_ce_loss"), ("dice", "dice_samples"), ("iou", "iou")):
        assert means[name] == pytest.approx(tensors[f"expected.{golden}"].item(), rel=1e-6), name


def golden_config(name: str) -> CLIPSegConfig:
    """A golden model's configuration, for images that are already normalised."""
    config = config_from_huggingface(json.loads((GOLDEN / name / "config.json").read_text()))
    return dataclasses.replace(config, mean=(0.0,) * 3, std=(1 / 255,) * 3)


@cache
def golden_model(name: str) -> tuple[CLIPSegConfig, dict[str, jax.Array], dict[str, np.ndarray]]:
    """A golden model's configuration, its weights by path, and its inputs."""
    config = golden_config(name)
    weights = rules.to_ours(
        clipseg_rules(config), load_file(GOLDEN / name / "model.safetensors"), weight_shapes(config)
    )
    frozen = {f"model/{path}": jnp.asarray(weight) for path, weight in weights.items()}
    return config, frozen, load_file(GOLDEN / name / "inputs.safetensors")


def learner_of(row: dict) -> Learner:
    """The learner that a row of the index describes."""
    common = {"depth": row["depth"], "num_context": row["num_context"]}
    if "projector" in row:
        common["projector"] = Projector(
            kind=row["projector"],
            hidden=(row["intermediate_dim"],) if "intermediate_dim" in row else (),
            norm=row["projector_norm"],
            shared=row.get("one_projector_for_all_depths", False),
        )
    match row["learner"]:
        case "coop":
            return CoOp(**common)
        case "cocoop" | "cocoop_lora":
            return CoCoOp(**common, normalize_image=row["normalize_image_features"])
        case "vpt":
            return VPT(**common)
        case "maple" | "maple_lora_unified":
            return MaPLe(**common)
        case "shared_separate":
            return SharedSeparate(**common, width=row["shared_dim"])
        case "shared_attention":
            return SharedAttention(
                **common,
                heads=row["nhead"],
                hidden=row["dim_feedforward"],
                dropout=row["dropout"],
                norm_first=row["norm_first"],
                attends_across_tokens=row["attends_across_tokens"],
            )
    raise AssertionError(f"no learner for {row}")


def loss_and_gradients(net: Network, trained, frozen, inputs) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """The mean loss, the logits and the gradient of every trained tensor, as a training step has them."""
    images = jnp.asarray(inputs["image"].transpose(0, 2, 3, 1))
    table = jnp.asarray(inputs["input_ids"], jnp.int32)
    targets = jnp.asarray(inputs["target"][:, 0])
    depth = jnp.int32(getattr(net.learner, "depth", 0))

    def loss_of(trained):
        params = frozen | trained
        logits = net.logits(params, images, jnp.arange(len(images)), table, depth=depth, dropout=jnp.float32(0.25))
        return losses.dice_ce(logits, targets).mean(), logits

    # Not compiled: the cases share most operations, and compiling each case takes five times as long.
    trained = {path: jnp.asarray(tensor) for path, tensor in trained.items()}
    (loss, logits), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained)
    return float(loss), np.asarray(logits), {path: np.asarray(gradient) for path, gradient in gradients.items()}


def worst(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest difference of any gradient relative to the gradient's largest value, and its name."""
    assert ours.keys() == theirs.keys()
    sizes = {name: np.abs(gradient).max() for name, gradient in theirs.items()}
    largest = max(sizes.values())
    # A gradient that is zero except for rounding has no meaningful scale.
    scales = {name: size if size > 1e-7 * largest else largest for name, size in sizes.items()}
    return max((float(np.abs(ours[name] - theirs[name]).max() / scales[name]), name) for name in theirs)


def group(tensors: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{kind}."): t for name, t in tensors.items() if name.startswith(f"{kind}.")}


def difference(ours, theirs) -> float:
    return np.abs(ours - theirs).max() / np.abs(theirs).max()
