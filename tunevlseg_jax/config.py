"""The configuration of a run: one frozen dataclass, written in a short Python file, overridden on the command line."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import AnyLearner, ZeroShot
from tunevlseg_jax.models.parameters import Tune
from tunevlseg_jax.models.upsampler import Upsampling
from tunevlseg_jax.network import Recompute
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError, nearest

T = TypeVar("T")
Precision = Literal["auto", "float32", "bfloat16"]

_INSTALLED = Path(__file__).parent / "configs"
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "configs"
"""The configurations that come with the package: within it where it is installed, beside it in a clone."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The frozen model.

    Attributes:
      checkpoint: a converted model's folder, a Hugging Face folder or hub id of a CLIPSeg, or an embedded model.
      fresh: whether to take the checkpoint's sizes and tokenizer alone and start from random weights.
      image_size: height and width that images are resized to; None for the model's own.
      prompt_offset: number of blocks by which a CRIS takes text prompts late, after block 0. With 1, as in the
        published code, prompt 0 enters blocks 0 and 1, and prompt k enters block k + 1. A CLIPSeg needs 0.
    """

    checkpoint: str = "clipseg-tiny"
    fresh: bool = False
    image_size: tuple[int, int] | None = None
    prompt_offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its learning rate.

    Attributes:
      learning_rate: at its highest.
      weight_decay: of matrices and convolution kernels; nothing else decays.
      warmup_steps: steps of linear rise from zero.
      cosine: whether the rate falls to zero along a cosine until the last epoch.
      plateau_factor: what the rate is multiplied by when the validation loss stands still; 1 for never.
      plateau_patience: epochs without improvement before that.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 0
    cosine: bool = False
    plateau_factor: float = 0.2
    plateau_patience: int = 5


@dataclass(frozen=True, kw_only=True)
class Train:
    """The loop.

    Attributes:
      tune: what trains: "prompts" (learner and upsampler), and for the fine-tuning baselines "decoder" or "all".
      epochs: at most.
      batch_size: records a step.
      augment: whether training images are augmented as in the paper: with probability 0.2 a small affine map, with 0.2
        other brightness and contrast.
      augmented_views: in how many fixed augmented views training images are seen, an epoch one of them in turn, instead
        of augmented anew in each step; the textual learners then look at each of them once. None for anew.
      cache_features: whether the model looks at an image once for all epochs where it always sees the same: with the
        textual learners, in validation and testing, and in training without augmentation or in fixed views. It also
        lets a sweep on a CPU look once at what is augmented for all its trials.
      recompute: what the way back through the vision tower computes anew instead of keeping it from the way forward, to
        take less memory: "nothing" but attention's scores; "elementwise", all but the results of matrix products;
        "blocks", all but what goes from block to block. It changes results by rounding alone.
      shard_frozen: whether each device keeps a part of the frozen weights alone, and all of them gather a weight when
        it is used: less memory for more communication.
      seed: of initial values, order, augmentation and dropout.
      order_seed: of the order of the training records and of their augmentation, where it isn't `seed`; a sweep's
        trials share one order.
      order_skip: epochs of that order to leave out, for a trial that joined a sweep later.
      patience: epochs without a better validation loss before the run stops early.
      min_delta: what counts as better, in validation loss.
      precision: what the model computes in; "auto" is float32 on CPU and bfloat16 on GPU and TPU.
    """

    tune: Tune = "prompts"
    epochs: int = 20
    batch_size: int = 32
    augment: bool = True
    augmented_views: int | None = schema.added(None)
    cache_features: bool = True
    recompute: Recompute = schema.added("nothing")
    shard_frozen: bool = schema.added(False)
    seed: int = 0
    order_seed: int | None = None
    order_skip: int = 0
    patience: int = 12
    min_delta: float = 1e-4
    precision: Precision = "auto"

    @property
    def seed_of_order(self) -> int:
        """The seed that decides on the order."""
        return self.seed if self.order_seed is None else self.order_seed

    @property
    def augments_anew(self) -> bool:
        """Whether training images are other ones in each step."""
        return self.augment and self.augmented_views is None


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run.

    Attributes:
      model: the frozen model.
      learner: how prompts are learnt; the configuration file chooses its class.
      upsampling: the learnable upsampler: "none", "blend" into the logits (the paper), "add" to them.
      data: the data set.
      optim: the optimizer.
      train: the loop.
      workdir: folder of the run; one that exists is continued.
    """

    model: Model = field(default_factory=Model)
    learner: AnyLearner = field(default_factory=ZeroShot)
    upsampling: Upsampling = "none"
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    workdir: str = "runs/run"

    def features_cacheable(self, split: str) -> bool:
        """Whether the features of a split's images are the same in every epoch and trial, and may be cached."""
        return self.features_shareable and not (split == "train" and self.train.augments_anew)

    @property
    def features_shareable(self) -> bool:
        """Whether trials may share the features of an image, because no trial changes them."""
        return self.train.tune == "prompts" and "vision" not in self.learner.changes and self.train.cache_features


def load(path: str) -> Config:
    """The `config` that a Python file defines; raises as `defined` does."""
    return defined(path, "config", Config)


def defined(path: str, name: str, cls: type[T], *parts: type) -> T:
    """The dataclass that a Python file defines.

    Args:
      path: of the file, or the name of a configuration that comes with the package, such as quickstart.
      name: that it gives the dataclass.
      cls: what that is.
      parts: other classes that the file may make, beside those of a configuration.

    Raises:
      UserError: there is no such file, it doesn't run, it doesn't define `name`, or a field has a value of another
        type; the message gives the nearest name for a misspelt field.
    """
    path = _find(path, f"{name} = {cls.__name__}(")
    try:
        value = runpy.run_path(path).get(name)
    except Exception as error:  # whatever a user's file may raise
        raise UserError(f"{path}:{_line(error, path)} {_explain(error, (cls, *parts))}") from error
    if not isinstance(value, cls):
        raise UserError(f"{path} doesn't define `{name} = {cls.__name__}(...)`")
    # A dataclass takes whatever it is given; there and back as JSON, every field has the type that it declares.
    return schema.from_json(cls, schema.to_json(value), path)


def _find(path: str, marker: str) -> str:
    """The file that is meant: one that exists, or one that comes with the package and has `marker` in it."""
    if Path(path).is_file():
        return path
    shipped = {file.stem: file for file in CONFIGS.glob("*.py") if marker in file.read_text(encoding="utf-8")}
    stem = Path(path).stem
    if stem in shipped and path in (stem, f"{stem}.py", f"configs/{stem}.py"):
        return str(shipped[stem])
    raise UserError(f"there is no configuration {path}{nearest(stem, shipped)}")


def check(config: Config) -> None:
    """Raises a UserError that names the first field whose value can't be."""
    rules = {
        "model.prompt_offset": config.model.prompt_offset >= 0,
        "train.epochs": config.train.epochs >= 1,
        "train.batch_size": config.train.batch_size >= 1,
        "train.augmented_views": config.train.augmented_views is None or config.train.augmented_views >= 1,
        "train.patience": config.train.patience >= 1,
        "train.min_delta": 0 <= config.train.min_delta < float("inf"),
        "train.seed": 0 <= config.train.seed < 2**32,
        "train.order_seed": 0 <= config.train.seed_of_order < 2**32,
        "train.order_skip": config.train.order_skip >= 0,
        "optim.learning_rate": 0 < config.optim.learning_rate < float("inf"),
        "optim.weight_decay": 0 <= config.optim.weight_decay < float("inf"),
        "optim.warmup_steps": config.optim.warmup_steps >= 0,
        "optim.plateau_factor": 0 < config.optim.plateau_factor <= 1,
        "optim.plateau_patience": config.optim.plateau_patience >= 1,
        "data.shots": config.data.shots is None or config.data.shots >= 1,
        "data.shots_seed": config.data.shots_seed >= 0,
        "data.workers": config.data.workers >= 0,
        "data.scenes.seed": config.data.scenes.seed >= 0,
        "data.scenes.absent_fraction": 0 <= config.data.scenes.absent_fraction <= 1,
    }
    for name, holds in rules.items():
        if not holds:
            value = config
            for part in name.split("."):
                value = getattr(value, part)
            raise UserError(f"{name} can't be {value}")
    if config.train.augmented_views is not None and not config.train.augment:
        raise UserError("train.augmented_views needs train.augment: there is nothing to see in views")


def _line(error: Exception, path: str) -> int:
    """The last line of the user's file that the error passed through."""
    traceback, line = error.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return getattr(error, "lineno", None) or line


def _explain(error: Exception, others: Sequence[type]) -> str:
    """An exception as one line, with the nearest field where one was misspelt."""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    marker = ".__init__() got an unexpected keyword argument "
    if isinstance(error, TypeError) and marker in message:
        owner, word = message.split(marker)
        word = word.strip("'\"").split("'")[0]
        for cls in (*_dataclasses(), *others):
            if cls.__name__ == owner:
                return f"{owner} has no field {word!r}{nearest(word, [f.name for f in fields(cast(Any, cls))])}"
    return f"{type(error).__name__}: {message}"


def _dataclasses() -> list[type]:
    """Every class that a configuration file may make."""
    from tunevlseg_jax import learners

    named = (getattr(learners, name) for name in learners.__all__)
    return [Config, Model, Scenes, Data, Optim, Train, *(cls for cls in named if isinstance(cls, type))]
