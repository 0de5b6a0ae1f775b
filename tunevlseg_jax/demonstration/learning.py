"""A short training on corrected masks, in a thread of the server."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tunevlseg_jax.config import Config, Optim
from tunevlseg_jax.data.builders.arrays import ArrayDataset
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import VPT, CoOp
from tunevlseg_jax.run import Run
from tunevlseg_jax.runtime.errors import UserError

EPOCHS = 20
MOST_EPOCHS = 200
BATCH = 8
"""Records of a step at most."""
TrainFunction = Callable[..., Run]
"""`tunevlseg_jax.api.train`, which the command hands over: it is of a higher level."""


def configuration(start: Run, records: ArrayDataset, epochs: int, workdir: Path) -> Config:
    """The configuration of a training from a model of the page.

    Args:
      start: a run, whose prompts the new run begins with, or a model as it is, which gets visual prompts (VPT); of a
        model without visual prompts, such as CRIS, textual ones (CoOp).
      records: to train on.
      epochs: of the training.
      workdir: of the new run.

    Raises:
      UserError: the number of epochs is out of range.
    """
    if not 1 <= epochs <= MOST_EPOCHS:
        raise UserError(f"the number of epochs must be 1 to {MOST_EPOCHS}, got {epochs}", "out-of-range")
    before = start.config
    if start.folder is None:
        before = Config(model=before.model, upsampling="blend", optim=Optim(learning_rate=5e-3))
        before = dataclasses.replace(before, learner=_learner(start))
    train = dataclasses.replace(
        before.train,
        epochs=epochs,
        batch_size=min(BATCH, len(records.splits["train"])),
        patience=epochs,
        start_from=None if start.folder is None else str(start.folder.resolve()),
        **{} if start.folder is not None else {"augment": True},
    )
    return dataclasses.replace(before, data=Data(), train=train, workdir=str(workdir))


def _learner(start: Run) -> Any:
    spec = start.spec
    if spec.vision_width is None:
        return CoOp(num_context=8)
    return VPT(depth=max(1, min(5, spec.effective_vision_prompts)), num_context=8)


class _Cancelled(Exception):
    """Ends a training between two epochs."""


class Training:
    """A training that runs or has ended.

    Attributes:
      state: of the training.
      epochs: the number that was asked for.
      lines: of metrics.jsonl, one for each epoch so far.
      message: why it failed, or where its run is.
      folder: of the run.
    """

    def __init__(self, config: Config, records: ArrayDataset, train: TrainFunction, done: Callable[[Run], None]):
        """Starts the thread; `done` gets the run if it is trained to the end."""
        self.state: Literal["running", "stopping", "done", "cancelled", "failed"] = "running"
        self.epochs, self.lines, self.message = config.train.epochs, list[dict[str, Any]](), "compiling"
        self.folder = Path(config.workdir)
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(config, records, train, done), daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still computes."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Ends the training after the present epoch; what it has learnt so far stays in its folder."""
        if self.state == "running":
            self.state = "stopping"
            self._cancelled.set()

    def wait(self) -> None:
        """Waits for the end of the thread."""
        self._thread.join()

    def shown(self) -> dict[str, Any]:
        """The progress, for the page."""
        curve = [
            {"epoch": line["epoch"], "train": line["train"]["dice"], "val": line["val"]["dice"]} for line in self.lines
        ]
        return {"state": self.state, "epochs": self.epochs, "curve": curve, "message": self.message}

    def _run(self, config: Config, records: ArrayDataset, train: TrainFunction, done: Callable[[Run], None]) -> None:
        try:
            run = train(config, records=records, on_epoch=self._on_epoch)
            done(run)
            self.message, self.state = f"the run is in {self.folder}", "done"
        except _Cancelled:
            self.message = f"stopped after epoch {len(self.lines)}; the checkpoint is in {self.folder}"
            self.state = "cancelled"
        except UserError as error:
            self.message, self.state = error.line, "failed"
        except Exception as error:  # the page must not wait for ever
            self.message, self.state = f"{type(error).__name__}: {error}", "failed"
            raise

    def _on_epoch(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.message = f"epoch {line['epoch']} of {self.epochs}"
        if self._cancelled.is_set():
            raise _Cancelled
