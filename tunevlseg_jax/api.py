"""The Python API: trains and searches, on arrays or on prepared sets; `run.py` holds what they return."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.data.builders import arrays
from tunevlseg_jax.data.builders.arrays import ArrayDataset, records
from tunevlseg_jax.run import Run, load_run, quiet
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.run_folder import CONFIG_FILE, DATA_FOLDER, check_new
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.search import run_sweep
from tunevlseg_jax.search.options import STUDIES, Options, Search

__all__ = ["records", "sweep", "train"]


def train(
    config: Config,
    *,
    records: ArrayDataset | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    verbose: bool = False,
    force_data: bool = False,
) -> Run:
    """Trains a run in `config.workdir`, and continues one that an earlier call began there.

    Args:
      config: the run's configuration.
      records: training, validation and perhaps test records, which are kept in the run's folder and replace
        `config.data.name`; None for the data set of the configuration.
      on_epoch: called after each epoch with a line of metrics.jsonl: "epoch", "train" and "val" with "loss" and "dice",
        "learning_rate", "seconds" and "images_per_second".
      verbose: whether to print as the command train does.
      force_data: whether to continue although the data set has changed since, which the run's card then says.

    Raises:
      UserError: the configuration or the records are invalid, the data set of the run has changed, another process
        trains in the folder, or the loss became infinite or NaN.
    """
    config = _checked(config)
    if records is not None:
        config = _with_records(config, records, Path(config.workdir), Path(config.workdir) / CONFIG_FILE)
    check_new(config)
    with contextlib.nullcontext() if verbose else quiet():
        trainer.train(config, Console(quiet=not verbose), on_epoch, force_data=force_data)
    return load_run(config.workdir)


def sweep(
    config: Config,
    study: str,
    *,
    records: ArrayDataset | None = None,
    folder: str | Path = STUDIES,
    verbose: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Searches hyperparameters; a study that exists is continued.

    Args:
      config: the configuration of every trial.
      study: name of the study.
      records: as in `train`; they are kept in the study's folder.
      folder: the folder of all studies.
      verbose: whether to print as the command sweep does.
      options: the command's options, such as trials=20, parallel=4, seeds=3, space=("depth=1..5",).

    Returns:
      The summary, as in the study's summary.json: numbers of trials, and the best trial.

    Raises:
      UserError: an option or the search space is invalid, or a study of that name has another configuration.
    """
    config = _checked(config)
    if "," in config.data.name:
        raise UserError(f"data.name must be one data set, got {config.data.name!r}", "one-data-set")
    known = sorted(field.name for field in dataclasses.fields(Search))
    for name in options:
        if name not in known:
            raise UserError(f"sweep has no option {name!r}{nearest(name, known)}", "unknown-option")
    given = Options(study=study, folder=str(folder), config=config, **options)
    given.check()
    if records is not None:
        place = Path(folder) / study
        given = dataclasses.replace(given, config=_with_records(config, records, place, place / DATA_FOLDER))
    with contextlib.nullcontext() if verbose else quiet():
        (summary,) = run_sweep.sweep(given, Console(quiet=not verbose))
    return summary


def _checked(config: Config) -> Config:
    """The configuration, once every field has its declared type and a valid value."""
    if not isinstance(config, Config):
        raise UserError(f"the configuration must be a Config, got a {type(config).__name__}", "wrong-type")
    config = schema.from_json(Config, schema.to_json(config), "the configuration")
    configuration.check(config)
    return config


def _with_records(config: Config, records: ArrayDataset, folder: Path, begun: Path) -> Config:
    """The configuration with records as its data, which are written into `folder` unless it has them.

    Raises:
      UserError: a split is missing, or the folder has other records, which are in use because `begun` exists.
    """
    if missing := [name for name in ("train", "val") if name not in records.splits]:
        raise UserError(f"records lack {missing[0]!r}; they have {', '.join(records.splits)}", "unknown-split")
    root = folder / DATA_FOLDER
    if not arrays.is_written(records, root):
        if begun.exists():
            raise UserError(f"{folder} holds no run on these records; choose another folder", "other-folder")
        arrays.write(records, root)
    return dataclasses.replace(config, data=arrays.settings(config.data, root))
