"""The search space of a configuration, and the configuration of a trial from its sampled parameters."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.learners.space import OPTIMIZER, Distribution, Space, Value
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.training.experiment import Experiment

VARIABLE = (
    *("learner.", "optim.", "upsampling"),
    *("train.epochs", "train.batch_size", "train.patience", "train.min_delta"),
)
"""Fields in which trials of a study may differ. Repetitions differ in seeds; all trials share the model and the data,
and the features computed from them."""


def space(config: Config, experiment: Experiment, overrides: Sequence[str]) -> dict[str, Distribution]:
    """The distributions to search with this learner: the paper's as far as they fit the model, and the overrides.

    Args:
      config: of the study.
      experiment: the study's model.
      overrides: each NAME=LOW..HIGH, NAME=log:LOW..HIGH, NAME=A,B,C, or NAME=A to hold a field; NAME is a field of
        the configuration, or its last part or parts.

    Raises:
      UserError: an unknown field, an empty range, an invalid value.
    """
    usual = {name: _fitting(name, config, experiment) for name in _usual(config)}
    searched = _overridden({**OPTIMIZER, **usual}, config, overrides)
    deepest = _deepest(searched)
    for name in sorted(searched, key=lambda name: name not in deepest):  # every other trial has the largest depth
        for value in _tried(name, searched[name], config):
            trial = apply(config, searched, _deepest(searched) | {name: value})
            configuration.check(trial)
            check_fit(trial, experiment, f"the search space of {name}")
    return searched


def variable(config: Config) -> dict[str, Any]:
    """The fields in which trials of a study may differ, and their values in this configuration."""
    fields = schema.flat(schema.to_json(config))
    fixed = {name for name in fields if name.endswith((".max_depth", f".{schema.CLASS}"))}
    return {name: value for name, value in fields.items() if name.startswith(VARIABLE) and name not in fixed}


def apply(config: Config, searched: Space, params: Mapping[str, Value], where: str = "the search space") -> Config:
    """The configuration of a trial.

    Args:
      config: of the study.
      searched: the study's space, whose largest depth is every trial's `max_depth`.
      params: the trial's parameters.
      where: their origin, for messages.

    Raises:
      UserError: a value of another type than its field's.
    """
    data = schema.to_json(config)
    for name, value in params.items():
        _set(data, name, value)
    fields, deepest = schema.flat(data), _deepest(searched)
    for name, depth in deepest.items():
        start = name.removesuffix("depth")
        if f"{start}max_depth" in fields:
            vision = f"{start}vision_depth"
            _set(data, f"{start}max_depth", max(filter(None, (depth, deepest.get(vision, fields.get(vision))))))
    return schema.from_json(Config, data, where)


def program(config: Config, trial: Config, searched: Space) -> Config:
    """The part of a trial's configuration that a compiled program depends on: trials with an equal part share it.

    Widths of hidden units are the widest of the space: narrower trials are padded with zeros. An ablation may be wider.
    """
    data = schema.to_json(trial)
    fields = schema.flat(data)
    for name in _widths(config) & searched.keys():
        _set(data, name, max(_item(fields[name]), *_ends(searched[name])))
    wide = schema.from_json(Config, data, "the search space")
    optim = dataclasses.replace(
        trial.optim, learning_rate=config.optim.learning_rate, weight_decay=config.optim.weight_decay
    )
    order = {name: getattr(config.train, name) for name in ("seed", "order_seed", "order_skip")}
    train = dataclasses.replace(trial.train, **order)
    learner = wide.learner.static_part()
    return dataclasses.replace(wide, learner=learner, optim=optim, train=train, workdir=config.workdir)


def longest_context(config: Config, searched: Space) -> Config:
    """The configuration as `shallow` has it, with the longest context of the space."""
    contexts = {name: max(_ends(searched[name])) for name in searched if name.endswith(".num_context")}
    return apply(shallow(config), {}, contexts)


def largest(config: Config, overrides: Sequence[str], field: str) -> Any:
    """The largest value that a search gives a field which only an override varies; overrides as in `space`."""
    searched = _overridden({}, config, overrides)
    return max(_ends(searched[field])) if field in searched else variable(config)[field]


def _overridden(usual: Space, config: Config, overrides: Sequence[str]) -> dict[str, Distribution]:
    """The usual distributions, with overrides in place of some and beside them."""
    searched, fields = dict(usual), variable(config)
    given: set[str] = set()
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name or not text:
            raise UserError(f"{override!r} must be NAME=LOW..HIGH, NAME=log:LOW..HIGH or NAME=A,B,C", "search-space")
        name = _field(name.replace("-", "_"), fields, config.learner.name)
        if name in given:
            raise UserError(f"the search space of {name} is given twice; give it once", "search-space")
        given.add(name)
        try:
            searched[name] = _distribution(text, searched.get(name), fields[name])
        except ValueError as error:
            raise UserError(f"the search space of {name}: {error}", "search-space") from None
    return searched


def _field(name: str, fields: Mapping[str, Any], learner: str) -> str:
    """The field that a name means: a field's present or earlier name, or its last part or parts, which are unique."""
    names = [*zip(fields, fields, strict=True), *schema.EARLIER_NAMES.items()]
    known: dict[str, set[str]] = {}
    for full, field in names:
        for part in {full, full.partition(".")[2], full.rpartition(".")[2]} if field in fields else ():
            known.setdefault(part, set()).add(field)
    if name not in known:
        details = nearest(name, known)
        raise UserError(f"the search space of {learner} has no parameter {name!r}{details}", "unknown-field")
    if len(known[name]) > 1:
        each = " and ".join(sorted(known[name]))
        raise UserError(f"the search space of {learner} has more than one {name}: {each}; give one", "unknown-field")
    return min(known[name])


def _distribution(text: str, usual: Distribution | None, now: Any) -> Distribution:
    """The distribution that an override names; a range of floats keeps the usual scale.

    Args:
      text: of the override, behind the "=".
      usual: the distribution that it replaces.
      now: the field's value in the configuration, whose type the distribution has.

    Raises:
      ValueError: there is no such distribution.
    """
    if now is None and isinstance(usual, IntDistribution | FloatDistribution):
        now = usual.low
    low, dots, high = text.removeprefix("log:").partition("..")
    if not dots:
        values = tuple(_value(item, now) for item in text.split(","))
        if len(set(values)) != len(values):
            raise ValueError(f"each value must be given once, got {', '.join(map(str, values))}")
        return CategoricalDistribution(values)
    now = _item(now)
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise ValueError(f"it is {now} now, and only numbers have a range")
    low, high = _number(type(now), low), _number(type(now), high)
    log = text.startswith("log:") or (isinstance(now, float) and isinstance(usual, FloatDistribution) and usual.log)
    if log and not 0 < low <= high < math.inf:
        raise ValueError(f"a logarithmic range must have 0 < low <= high, got {low:g}..{high:g}")
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"a range must have low <= high, got {low:g}..{high:g}")
    return IntDistribution(low, high, log) if isinstance(now, int) else FloatDistribution(low, high, log)


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"must be a {'whole ' if kind is int else ''}number, got {text!r}") from None


def _value(text: str, now: Any) -> Value:
    """A value of the type that a field has now, or None."""
    if text.lower() == "none":
        return None
    now = _item(now)
    if isinstance(now, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"must be true or false, got {text!r}")
        return text.lower() == "true"
    if isinstance(now, int | float):
        return _number(type(now), text)
    return text


def _item(value: Any) -> Any:
    """A field's value, or the first item of a list, 0 if it is empty."""
    return next(iter(value), 0) if isinstance(value, list) else value


def _set(data: dict[str, Any], name: str, value: Value) -> None:
    """Sets a field in nested JSON; one that holds a list of values gets a list of one."""
    *path, last = name.split(".")
    owner: Any = data
    for part in path:
        owner = owner[int(part)] if isinstance(owner, list) else owner[part]
    owner[last] = [value] if isinstance(owner[last], list) else value


def _ends(distribution: Distribution) -> tuple[Any, ...]:
    """The ends of a distribution, or all of a choice."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    return distribution.low, distribution.high


def _tried(name: str, distribution: Distribution, config: Config) -> Sequence[Any]:
    """The values that a distribution is checked with: its ends, or all where those between may not fit."""
    usual = None if name in _widths(config) else _usual(config).get(name)
    if isinstance(distribution, IntDistribution) and isinstance(usual, CategoricalDistribution):
        return range(distribution.low, distribution.high + 1)
    return _ends(distribution)


def _widths(config: Config) -> set[str]:
    """The fields that are widths, to which narrower trials are padded."""
    return {f"learner.{start}{name}" for start, part in config.learner.parts.items() for name in part.padded_fields}


def _usual(config: Config) -> Space:
    """The learner's own distributions, by field of the configuration."""
    parts = config.learner.parts.items()
    return {f"learner.{start}{name}": part.space[name] for start, part in parts for name in part.space}


def _deepest(searched: Space) -> dict[str, Value]:
    """The largest depths, by their fields."""
    depths = (name for name in searched if name.startswith("learner.") and name.endswith((".depth", ".vision_depth")))
    return {name: max(_ends(searched[name])) for name in depths}


def _fitting(name: str, config: Config, experiment: Experiment) -> Distribution:
    """The part of a field's usual distribution that fits the model: its depths, and the choices that it takes."""
    usual = _usual(config)[name]
    part = config.learner.parts.get(name.removeprefix("learner.").removesuffix("depth").removesuffix("vision_"))
    if part is not None and isinstance(usual, IntDistribution):
        return IntDistribution(usual.low, min(usual.high, part.largest_depth(experiment.spec)))
    if not isinstance(usual, CategoricalDistribution):
        return usual
    fitting = []
    for value in usual.choices:
        with contextlib.suppress(UserError):
            check_fit(apply(shallow(config), {}, {name: value}), experiment, name)
            fitting.append(value)
    return CategoricalDistribution(fitting) if fitting else usual


def check_fit(trial: Config, experiment: Experiment, where: str) -> None:
    """Raises a UserError where a trial's learner doesn't fit the model."""
    try:
        jax.eval_shape(lambda: experiment.init_params(trial))
    except UserError as error:
        raise UserError(f"{where}: {error}", error.code) from None


def shallow(config: Config) -> Config:
    """The configuration with a learner that fits any model where its depth is searched."""
    return dataclasses.replace(config, learner=config.learner.at_depth(1))
