"""The parts of learners: depths, context vectors, and projectors from one space to another."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from optuna.distributions import CategoricalDistribution, IntDistribution

from tunevlseg_jax.learners.contract import Learner, Params
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import ModelSpec
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array

CONTEXT_STD = 0.02


def projector_space(*widths: int) -> Space:
    """The paper's search space of a projector with one hidden layer (Table 2)."""
    return {
        "projector.hidden": CategoricalDistribution(widths),
        "projector.kind": CategoricalDistribution(("mlp", "low_rank")),
    }


@dataclass(frozen=True, kw_only=True)
class DeepLearner(Learner):
    """A learner that changes the first `depth` blocks of a tower, or as many of another kind of place.

    Attributes:
      depth: number of blocks that change, 1 or more.
      max_depth: number of blocks with parameters, so that all depths up to it share one compiled program; None for
        `depth`.
    """

    space: ClassVar[Space] = {"depth": IntDistribution(1, 11)}

    depth: int = 9
    max_depth: int | None = None

    @property
    def rows(self) -> int:
        """Number of blocks with parameters, the length of every depth axis."""
        return self.depth if self.max_depth is None else self.max_depth

    def at_depth(self, depth: int) -> Learner:
        return dataclasses.replace(self, depth=depth, max_depth=None)

    def static_part(self) -> Learner:
        return dataclasses.replace(super().static_part(), depth=self.rows, max_depth=self.rows)

    def traced_values(self) -> tuple[int | tuple[int, ...], float]:
        return self.depth, 0.0

    def check(self, spec: ModelSpec) -> None:
        """Raises a ValueError that names the field that doesn't fit the model."""
        if self.depth < 1:
            raise ValueError(f"learner.depth must be at least 1, got {self.depth}")
        if self.depth > self.rows:
            raise ValueError(f"learner.depth must be at most learner.max_depth, {self.max_depth}, got {self.depth}")

    @property
    def rows_field(self) -> str:
        """The field that decides `rows`, for messages."""
        return "depth" if self.max_depth is None else "max_depth"


@dataclass(frozen=True, kw_only=True)
class ContextLearner(DeepLearner):
    """A learner with context vectors for the first `depth` blocks of a tower.

    Attributes:
      depth: number of blocks that get a prompt each, 1 or more.
      max_depth: number of prompts with parameters, so that all depths up to it share one compiled program; None for
        `depth`.
      num_context: number of context tokens in a block.
    """

    num_context: int = 4

    @property
    def text_tokens(self) -> int:
        return self.num_context if "text" in self.changes else 0

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        if self.num_context < 1:
            raise ValueError(f"learner.num_context must be at least 1, got {self.num_context}")
        if "vision" in self.changes and spec.vision_width is None:
            kind = type(self).__name__
            raise ValueError(
                f"learner must be CoOp, CoCoOp or KgCoOp, got {kind}: this model's vision tower takes no prompts"
            )
        for tower, blocks in (("text", spec.text_blocks), ("vision", spec.vision_blocks)):
            if tower in self.changes and self.rows > blocks:
                raise ValueError(
                    f"learner.{self.rows_field} must be at most {blocks}, the {tower} tower's blocks, got {self.rows}"
                )

    def gaussian_context(self, key: Array, width: int) -> Array:
        """(rows, num_context, width) from N(0, 0.02^2); a row is the same whatever the number of rows."""
        return per_row(lambda row: CONTEXT_STD * jax.random.normal(row, (self.num_context, width)), key, self.rows)


def per_row(init, key: Array, rows: int) -> Array:
    """Stacks `init(key of the row)` over rows, so that the first rows don't depend on how many there are."""
    return jax.vmap(init)(jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows)))


@dataclass(frozen=True)
class Projector:
    """A map from one width to another, one for each prompt or one for all.

    Attributes:
      kind: "linear"; "mlp", with ReLU after each hidden layer; "low_rank", two linear layers without activation.
      hidden: widths of the hidden layers; one for "low_rank", unused by "linear".
      norm: whether a LayerNorm comes last. The last layer of an mlp or a low-rank map has no bias then.
      shared: one map for all depths, instead of one each.
    """

    kind: Literal["linear", "mlp", "low_rank"] = "mlp"
    hidden: tuple[int, ...] = (32,)
    norm: bool = True
    shared: bool = False

    def init(self, key: Array, rows: int, source: int, target: int, *, bias: bool = True) -> Params:
        """Fresh parameters.

        Args:
          key: of the random numbers.
          rows: number of prompts.
          source: width of the input.
          target: width of the output.
          bias: whether the map ends in a bias, of the last layer or of the norm.

        Returns:
          `layer0`, `layer1`, ... with kernel (rows or 1, in, out) and bias (rows or 1, out) or none, and `norm`
          with scale and bias, (rows or 1, target).

        Raises:
          ValueError: the hidden widths don't fit the kind.
        """
        if self.kind == "low_rank" and len(self.hidden) != 1:
            raise ValueError(f"projector.hidden must be one width for low_rank, got {self.hidden}")
        if self.kind == "mlp" and not self.hidden:
            raise ValueError("projector.hidden must be at least one width for mlp, got ()")
        rows = 1 if self.shared else rows
        widths = [source, *(() if self.kind == "linear" else self.hidden), target]
        if min(widths) < 1:
            raise ValueError(f"projector.hidden must be widths of at least 1, got {self.hidden}")
        last = len(widths) - 2
        params: Params = {}
        for number, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            hidden_of_mlp = self.kind == "mlp" and number < last
            # The first layer of a low-rank map never has a bias; a norm's bias makes that of the last one needless.
            closes = number == last and bias and (self.kind == "linear" or not self.norm)
            init, with_bias = kaiming if hidden_of_mlp else uniform, hidden_of_mlp or closes
            params[f"layer{number}"] = linear(jax.random.fold_in(key, number), rows, fan_in, fan_out, init, with_bias)
        if self.norm:
            params["norm"] = norm(rows, target, bias=bias)
        return params

    def __call__(self, params: Params, x: Array) -> Array:
        """From (rows or 1, ..., source) to (rows, ..., target)."""
        layers = [params[name] for name in sorted(params) if name.startswith("layer")]
        for number, layer in enumerate(layers):
            x = apply_linear(layer, x)
            if self.kind == "mlp" and number < len(layers) - 1:
                x = jax.nn.relu(x)
        return apply_norm(params["norm"], x) if self.norm else x


def kaiming(key: Array, fan_in: int, fan_out: int) -> Array:
    """(fan_in, fan_out) from N(0, 2 / fan_in), for a layer before a ReLU (He et al. 2015, equation 10)."""
    return jax.random.normal(key, (fan_in, fan_out)) * (2 / fan_in) ** 0.5


def uniform(key: Array, fan_in: int, fan_out: int) -> Array:
    """(fan_in, fan_out) from U(-b, b) with b = fan_in^-0.5, PyTorch's default for a linear layer."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, (fan_in, fan_out), minval=-bound, maxval=bound)


def linear(key: Array, rows: int, fan_in: int, fan_out: int, init=uniform, bias: bool = True) -> Params:
    """Parameters of one linear layer a row: kernel (rows, in, out), bias (rows, out)."""
    params = {"kernel": per_row(lambda row: init(row, fan_in, fan_out), key, rows)}
    return params | {"bias": jnp.zeros((rows, fan_out))} if bias else params


def norm(rows: int, width: int, *, bias: bool = True) -> Params:
    """Parameters of one LayerNorm a row: scale and bias, (rows, width)."""
    params = {"scale": jnp.ones((rows, width))}
    return params | {"bias": jnp.zeros((rows, width))} if bias else params


def apply_linear(params: Params, x: Array) -> Array:
    """From (rows or 1, ..., in) to (rows, ..., out)."""
    rows = max(x.shape[0], params["kernel"].shape[0])
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    y = flat @ params["kernel"]
    if "bias" in params:
        y = y + params["bias"][:, None]
    return y.reshape(rows, *x.shape[1:-1], -1)


def apply_norm(params: Params, x: Array, epsilon: float = 1e-5) -> Array:
    """LayerNorm over the last axis of (rows, ..., width)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + epsilon)
    middle = (1,) * (x.ndim - 2)
    y = normal * params["scale"].reshape(-1, *middle, x.shape[-1])
    return y + params["bias"].reshape(-1, *middle, x.shape[-1]) if "bias" in params else y
