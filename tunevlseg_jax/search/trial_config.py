"""The search space of a configuration, and the configuration of a trial from its sampled parameters."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.learners.space import (
    OPTIMIZER,
    Choice,
    Distribution,
    Integers,
    LogIntegers,
    LogUniform,
    Space,
    Uniform,
    Value,
)
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.training.experiment import Experiment

VARIABLE = (
    *("learner.", "optim.", "upsampling"),
    *("train.epochs", "train.batch_size", "train.patience", "train.min_delta"),
)
"""Fields in which trials of a study may differ: seeds are a repetition's, and all trials share the data and the model,
with what is computed of them."""


def space(config: Config, experiment: Experiment, overrides: Sequence[str]) -> dict[str, Distribution]:
    """The distributions to search with this learner: the paper's as far as they fit the model, and what overrides them.

    Args:
      config: of the study.
      experiment: the study's model.
      overrides: each NAME=LOW..HIGH, NAME=log:LOW..HIGH, NAME=A,B,C, or NAME=A to hold a field; NAME is a field of
        the configuration, or its last part or parts.

    Raises:
      UserError: an unknown field, an empty range, a value that can't be.
    """
    found: dict[str, Distribution] = dict(OPTIMIZER)
    found |= {
        f"learner.{name}": _fitting(usual, name, config, experiment) for name, usual in config.learner.space.items()
    }
    fields = variable(config)
    for override in overrides:
        name, text = _split(override)
        name = _field(name, fields, type(config.learner).__name__)
        try:
            found[name] = _distribution(text, found.get(name), fields[name])
            found[name].check()
        except ValueError as error:
            raise UserError(f"the search space of {name}: {error}", "search-space") from None
    for name in sorted(found, key=lambda name: name != "learner.depth"):  # first what every other trial needs
        for value in _tried(name, found[name], config):
            trial = apply(config, found, _deepest(found) | {name: value})
            configuration.check(trial)
            check_fit(trial, experiment, f"the search space of {name}")
    return found


def variable(config: Config) -> dict[str, Any]:
    """The fields in which trials of a study may differ, and what they are in this configuration."""
    fields = schema.flat(schema.to_json(config))
    fixed = {name for name in fields if name == "learner.max_depth" or name.endswith(f".{schema.CLASS}")}
    return {name: value for name, value in fields.items() if name.startswith(VARIABLE) and name not in fixed}


def apply(config: Config, searched: Space, params: Mapping[str, Value], where: str = "the search space") -> Config:
    """The configuration of a trial.

    Args:
      config: of the study.
      searched: the study's space; its largest depth is the room that every trial's prompts have.
      params: the trial's parameters.
      where: they are from, for messages.

    Raises:
      UserError: a value of another type than its field's.
    """
    data = schema.to_json(config)
    for name, value in params.items():
        _set(data, name, value)
    if "learner.depth" in searched:
        data["learner"]["max_depth"] = _deepest(searched)["learner.depth"]
    return schema.from_json(Config, data, where)


def program(config: Config, trial: Config, searched: Space) -> Config:
    """What trials must agree in to train in one program: a trial's configuration without what is a value of it.

    Widths of hidden units are the widest of the space: narrower trials are padded with zeros. An ablation may be wider.
    """
    data = schema.to_json(trial)
    own = schema.flat(data)
    for name in _widths(config) & searched.keys():
        _set(data, name, max(_one(own[name]), *_ends(searched[name])))
    wide = schema.from_json(Config, data, "the search space")
    optim = dataclasses.replace(
        trial.optim, learning_rate=config.optim.learning_rate, weight_decay=config.optim.weight_decay
    )
    order = {name: getattr(config.train, name) for name in ("seed", "order_seed", "order_skip")}
    train = dataclasses.replace(trial.train, **order)
    return dataclasses.replace(
        wide, learner=wide.learner.static_part(), optim=optim, train=train, workdir=config.workdir
    )


def longest_context(config: Config, searched: Space) -> Config:
    """The configuration as `shallow` has it, with the longest context of the space."""
    name = "learner.num_context"
    return apply(shallow(config), {}, {name: max(_ends(searched[name]))} if name in searched else {})


def largest(config: Config, overrides: Sequence[str], field: str) -> Any:
    """The largest value that a search gives a field which it doesn't vary by itself; overrides as in `space`."""
    fields, learner = variable(config), type(config.learner).__name__
    value = fields[field]
    for name, text in map(_split, overrides):
        if _field(name, fields, learner) == field:
            value = max(_ends(_distribution(text, None, fields[field])))
    return value


def _split(override: str) -> tuple[str, str]:
    name, equals, text = override.partition("=")
    if not equals or not name or not text:
        raise UserError(f"{override!r} must be NAME=LOW..HIGH, NAME=log:LOW..HIGH or NAME=A,B,C", "search-space")
    return name.replace("-", "_"), text


def _field(name: str, fields: Mapping[str, Any], learner: str) -> str:
    """The field that a name means, whole or its last part or parts, which no two fields share."""
    short = {part: full for full in fields for part in (full.partition(".")[2], full.rpartition(".")[2])}
    full = short.get(name, name)
    if full not in fields:
        details = nearest(name, {*short, *fields})
        raise UserError(f"the search space of {learner} has no parameter {name!r}{details}", "unknown-field")
    return full


def _distribution(text: str, usual: Distribution | None, now: Any) -> Distribution:
    """What an override says, of a field that is something now; a range keeps the scale of the usual one."""
    logarithmic = text.startswith("log:")
    low, dots, high = text.removeprefix("log:").partition("..")
    if not dots:
        return Choice(tuple(_value(item, now) for item in text.split(",")))
    now = _one(now)
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise ValueError(f"it is {now} now, and only numbers have a range")
    kind = int if isinstance(now, int) else float
    ends = _number(kind, low), _number(kind, high)
    if kind is int:
        return LogIntegers(*ends) if logarithmic else Integers(*ends)
    return LogUniform(*ends) if logarithmic or isinstance(usual, LogUniform) else Uniform(*ends)


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"must be a {'whole ' if kind is int else ''}number, got {text!r}") from None


def _value(text: str, now: Any) -> Value:
    """A value of the type that a field has now, or None."""
    if text.lower() == "none":
        return None
    now = _one(now)
    if isinstance(now, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"must be true or false, got {text!r}")
        return text.lower() == "true"
    if isinstance(now, int | float):
        return _number(type(now), text)
    return text


def _one(now: Any) -> Any:
    """What a field holds, or one of what it holds where that is a list, of whole numbers if it is empty."""
    if isinstance(now, list):
        return now[0] if now else 0
    return now


def _set(data: dict[str, Any], name: str, value: Value) -> None:
    """Sets a field in nested JSON; one that holds a list gets a list of one."""
    *path, last = name.split(".")
    for part in path:
        data = data[part]
    data[last] = [value] if isinstance(data[last], list) else value


def _ends(distribution: Distribution) -> tuple[Any, ...]:
    """The ends of a distribution, or all of a choice."""
    return distribution.values if isinstance(distribution, Choice) else (distribution.low, distribution.high)


def _tried(name: str, distribution: Distribution, config: Config) -> Sequence[Any]:
    """The values to try a field's distribution out with: its ends, or all where those between may not fit."""
    usual = config.learner.space.get(name.removeprefix("learner."))
    if isinstance(distribution, Integers) and isinstance(usual, Choice) and name not in _widths(config):
        return range(distribution.low, distribution.high + 1)
    return _ends(distribution)


def _widths(config: Config) -> set[str]:
    """The fields that are widths, to which narrower trials are padded."""
    return {f"learner.{name}" for name in config.learner.padded_fields}


def _deepest(searched: Space) -> dict[str, Value]:
    """The largest depth, by its field."""
    return {name: max(_ends(searched[name])) for name in ("learner.depth",) if name in searched}


def _fitting(usual: Distribution, name: str, config: Config, experiment: Experiment) -> Distribution:
    """What of a learner's usual distribution fits the model: depths that it has, and choices that it takes."""
    if name == "depth" and isinstance(usual, Integers):
        return Integers(usual.low, min(usual.high, config.learner.prompted_blocks(experiment.spec)))
    if not isinstance(usual, Choice):
        return usual
    kept = []
    for value in usual.values:
        with contextlib.suppress(UserError):
            check_fit(apply(shallow(config), {}, {f"learner.{name}": value}), experiment, name)
            kept.append(value)
    return Choice(tuple(kept)) if kept else usual


def check_fit(trial: Config, experiment: Experiment, where: str) -> None:
    """Raises a UserError where a trial's learner doesn't fit the model."""
    try:
        jax.eval_shape(lambda: experiment.init_params(trial))
    except UserError as error:
        raise UserError(f"{where}: {error}", error.code) from None


def shallow(config: Config) -> Config:
    """The configuration with a learner that fits any model where its depth is searched."""
    if "depth" not in config.learner.space:
        return config
    return dataclasses.replace(config, learner=dataclasses.replace(config.learner, depth=1, max_depth=None))


def expand(config: Config, names: Sequence[str], learners: Sequence[type]) -> list[Config]:
    """One configuration for each data set and learner; the configuration's own learner keeps its settings."""
    configs = []
    for name in names:
        for learner in learners:
            kept = config.learner if type(config.learner) is learner else learner()
            data = dataclasses.replace(config.data, name=name)
            configs.append(dataclasses.replace(config, data=data, learner=kept))
    return configs
