"""The configuration of a run: one frozen dataclass, written in a short Python file, overridden on the command line."""

import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import AnyLearner, ZeroShot
from tunevlseg_jax.models.settings import Recompute, Tune, Upsampling
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.runtime.files import read_object

T = TypeVar("T")
Precision = Literal["auto", "float32", "bfloat16"]

_INSTALLED = Path(__file__).parent / "configs"
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "configs"
"""The configurations that come with the package: within it where it is installed, beside it in a clone."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The frozen model.

    Attributes:
      checkpoint: folder of a converted model, Hugging Face folder or hub id of a CLIPSeg, or name of an embedded model.
      fresh: whether to use only the checkpoint's sizes and tokenizer, with random weights.
      image_size: height and width that images are resized to; None for the model's default.
      prompt_offset: number of blocks by which CRIS shifts its text prompts after block 0. With 1, as in the published
        code, prompt 0 enters blocks 0 and 1, and prompt k enters block k + 1. CLIPSeg needs 0.
    """

    checkpoint: str = "clipseg-tiny"
    fresh: bool = False
    image_size: tuple[int, int] | None = None
    prompt_offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its learning rate.

    Attributes:
      learning_rate: peak learning rate.
      weight_decay: weight decay of matrices and convolution kernels; biases, norms and contexts don't decay.
      warmup_steps: number of steps in which the rate rises linearly from zero.
      cosine: whether the rate falls to zero along a cosine until the last epoch.
      plateau_factor: factor applied to the rate when the validation loss stops improving; 1 disables it.
      plateau_patience: epochs without improvement before the factor is applied.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 0
    cosine: bool = False
    plateau_factor: float = 0.2
    plateau_patience: int = 5

    @property
    def open_ended(self) -> bool:
        """Whether the rate of an epoch is the same whatever the number of epochs, so that a run may grow."""
        return not self.cosine


@dataclass(frozen=True, kw_only=True)
class Train:
    """The training loop.

    Attributes:
      tune: the trained part: "prompts" (learner and upsampler), or for fine-tuning baselines "decoder" or "all".
      epochs: largest number of epochs. A run may go on to more of them, unless `optim.cosine` ends its schedule.
      batch_size: records per step.
      augment: whether to augment training images as in the paper: a small affine map with probability 0.2, a change
        of brightness and contrast with probability 0.2.
      augmented_views: number of pre-augmented copies of each training image, cycled one per epoch; None augments every
        step. Textual learners encode each copy once.
      cache_features: whether to encode each image once for all epochs where its features never change: with textual
        learners, in validation, in testing, and in training without augmentation or with augmented_views. A sweep on
        a CPU then also encodes augmented images once for all its trials.
      recompute: activations of the vision tower to rematerialise in the backward pass, which saves memory: "nothing"
        but attention's scores; "elementwise", all but the results of matrix products; "blocks", all but the inputs of
        blocks. Results differ only by rounding.
      shard_frozen: whether to split the frozen weights over the devices, which gather each weight when they use it:
        less memory for more communication.
      seed: seed of initial values, order, augmentation and dropout.
      order_seed: seed of the training order and augmentation, if not `seed`; the trials of a sweep share one order.
      order_skip: epochs of that order to leave out, for a trial that joined a sweep later.
      patience: epochs without a better validation loss after which training stops early.
      min_delta: decrease of the validation loss that counts as better.
      precision: type of the model's computations. "auto" is bfloat16 on a GPU or TPU. On a CPU it is bfloat16 where the
        processor multiplies bfloat16 (AVX512-BF16, AMX) and a measured product is faster in it, else float32. On a CPU
        only products are in bfloat16; everything else is float32.
      ema: decay of an exponential moving average of the trained parameters over steps, such as 0.99, corrected for its
        start. The average is validated, kept and written. None for the parameters themselves.
      start_from: folder of a run whose prompts this run starts with, on the same base model and with a learner of the
        same shapes; None for fresh prompts.
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
    ema: float | None = schema.added(None)
    start_from: str | None = schema.added(None)

    @property
    def seed_of_order(self) -> int:
        """The seed of the training order."""
        return self.seed if self.order_seed is None else self.order_seed

    @property
    def augments_each_step(self) -> bool:
        """Whether every step draws new augmentations."""
        return self.augment and self.augmented_views is None


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run.

    Attributes:
      model: the frozen model.
      learner: the prompt learner; the configuration file chooses its class.
      upsampling: the learnable upsampler: "none", "blend" into the logits (the paper), "add" to them.
      data: the data set.
      optim: the optimizer.
      train: the training loop.
      workdir: folder of the run; an existing run is continued.
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
        return self.features_shareable and not (split == "train" and self.train.augments_each_step)

    @property
    def frozen_features_cacheable(self) -> bool:
        """Whether the frozen features of training images, which a learner compares with its own, may be cached."""
        compared = self.learner.compared & {"image", "logits"}
        return bool(compared) and self.train.cache_features and not self.train.augments_each_step

    @property
    def features_shareable(self) -> bool:
        """Whether trials may share an image's features, because no trial changes the vision tower."""
        return self.train.tune == "prompts" and "vision" not in self.learner.changes and self.train.cache_features


ADDED = schema.added_defaults(Config)
"""The defaults of fields that files of earlier versions lack."""


def load(path: str) -> Config:
    """The `config` that a Python file defines, or that a run's config.json holds; raises as `defined` does."""
    if path.endswith(".json"):
        return schema.from_json(Config, read_object(Path(path)), path)
    return defined(path, "config", Config)


def defined(path: str, name: str, cls: type[T], *parts: type) -> T:
    """The dataclass that a Python file defines.

    Args:
      path: of the file, or the name of a configuration that comes with the package, such as quickstart.
      name: the variable that holds it.
      cls: its class.
      parts: other classes that the file may use, beside those of a configuration.

    Raises:
      UserError: there is no such file, it fails, it doesn't define `name`, or a field has a value of the wrong type;
        the message gives the nearest name for a misspelt field.
    """
    path = _find(path, f"{name} = {cls.__name__}(")
    try:
        value = runpy.run_path(path).get(name)
    except (Exception, SystemExit) as error:  # whatever a user's file may raise
        raise UserError(f"{path}:{_line(error, path)} {_explain(error, (cls, *parts))}", "config-fails") from error
    if not isinstance(value, cls):
        raise UserError(f"{path} doesn't define `{name} = {cls.__name__}(...)`", "variable-missing")
    # A dataclass accepts any value; the conversion to JSON and back checks every field against its declared type.
    return schema.from_json(cls, schema.to_json(value), path)


def _find(path: str, marker: str) -> str:
    """The path of an existing file, or of a shipped one that contains `marker`."""
    if Path(path).is_file():
        return path
    shipped = {file.stem: file for file in CONFIGS.glob("*.py") if marker in file.read_text(encoding="utf-8")}
    stem = Path(path).stem
    if stem in shipped and path in (stem, f"{stem}.py", f"configs/{stem}.py"):
        return str(shipped[stem])
    raise UserError(f"there is no configuration {path}{nearest(stem, shipped)}", "no-such-file")


RULES: tuple[tuple[str, Callable[[float], bool], Sequence[str]], ...] = (
    ("at least 0", lambda value: value >= 0, ("model.prompt_offset", "train.order_skip", "optim.warmup_steps")),
    ("at least 0", lambda value: value >= 0, ("data.fold", "data.shots_seed", "data.workers", "data.scenes.seed")),
    ("at least 1", lambda value: value >= 1, ("train.epochs", "train.batch_size", "train.augmented_views")),
    ("at least 1", lambda value: value >= 1, ("train.patience", "optim.plateau_patience", "data.shots")),
    ("at least 0 and finite", lambda value: 0 <= value < inf, ("train.min_delta", "optim.weight_decay")),
    ("above 0 and finite", lambda value: 0 < value < inf, ("optim.learning_rate",)),
    ("above 0 and at most 1", lambda value: 0 < value <= 1, ("optim.plateau_factor",)),
    ("from 0 to 1", lambda value: 0 <= value <= 1, ("data.scenes.absent_fraction",)),
    ("from 1 to 10", lambda value: 1 <= value <= 10, ("data.scenes.prompts_per_image",)),
    ("at least 0 and below 1", lambda value: 0 <= value < 1, ("data.negatives", "train.ema")),
    ("from 0 to 2^32 - 1", lambda value: 0 <= value < 2**32, ("train.seed", "train.order_seed")),
)
"""What a number must be, whether one is, and the fields."""


def check(config: Config) -> None:
    """Raises a UserError that names the first field with an invalid value."""
    for allowed, holds, names in RULES:
        for name in names:
            value = attrgetter(name)(config)
            if value is not None and not holds(value):
                raise UserError(f"{name} must be {allowed}, got {value}", "out-of-range")
    if config.train.augmented_views is not None and not config.train.augment:
        raise UserError("train.augmented_views needs train.augment, got False", "options-conflict")
    if config.data.fold is not None and (config.data.protocol == "clean" or config.data.name.startswith("scenes/")):
        raise UserError("data.fold needs a prepared set with folds and data.protocol paper", "options-conflict")
    if config.train.start_from is not None and Path(config.train.start_from) == Path(config.workdir):
        raise UserError(
            f"train.start_from is the run's own folder, {config.workdir}; leave it out, and the run goes on",
            "options-conflict",
        )
    name = type(config.learner).__name__
    if config.learner.compared and config.train.tune != "prompts":
        raise UserError(
            f"train.tune must be prompts with {name}, which compares with the frozen model, got {config.train.tune}",
            "options-conflict",
        )
    if config.learner.averages_epochs and config.train.ema is not None:
        raise UserError(
            f"train.ema must be None with {name}, which averages over epochs, got {config.train.ema}",
            "options-conflict",
        )
    if config.data.negative_words and not config.data.negatives:
        raise UserError("data.negative_words needs data.negatives above 0, such as 0.2, got 0", "options-conflict")


def check_fresh(config: Config, what: str) -> None:
    """Raises a UserError if a configuration of several runs starts from another run."""
    if config.train.start_from is not None:
        raise UserError(
            f"train.start_from is for train alone, got {config.train.start_from}; {what} begins with fresh prompts",
            "options-conflict",
        )


def _line(error: BaseException, path: str) -> int:
    """The last line of the user's file that the error passed through."""
    traceback, line = error.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return getattr(error, "lineno", None) or line


def _explain(error: BaseException, others: Sequence[type]) -> str:
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
    """Every class that a configuration file may use."""
    from tunevlseg_jax import learners

    named = (getattr(learners, name) for name in learners.__all__)
    return [Config, Model, Scenes, Data, Optim, Train, *(cls for cls in named if isinstance(cls, type))]
