"""TensorBoard's events of a run."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from tunevlseg_jax.runtime.files import as_user_error
from tunevlseg_jax.training.loop import Epoch


class TensorBoardWriter:
    """TensorBoard's events of a run of one trial, on the disk after each epoch.

    tensorboardX's own SummaryWriter leaves the writing to a thread: a killed process takes along what it holds, and its
    errors, such as a full disk, end in a traceback.
    """

    def __init__(self, folder: Path, epochs: int):
        """Begins a file; what earlier ones say of epochs after `epochs` is void.

        Raises:
          UserError: it can't be written.
        """
        from tensorboardX.record_writer import RecordWriter

        self.folder = folder
        with as_user_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.0f}.{epochs}"))
        self._write(file_version="brain.Event:2")
        self._write(step=epochs + 1, session_log={"status": "START"})

    def add(self, epoch: Epoch) -> None:
        """The scores and the learning rate of an epoch.

        Raises:
          UserError: they can't be written.
        """
        scores = {f"train/{name}": values[0] for name, values in epoch.train.items()}
        scores |= {f"val/{name}": values[0] for name, values in epoch.val.items()}
        scores["learning_rate"] = epoch.learning_rate[0]
        self._write(
            step=epoch.number[0],
            summary={"value": [{"tag": name, "simple_value": value} for name, value in scores.items()]},
        )

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # what a full disk refused has been told
            self.writer.close()

    def _write(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        with as_user_error(self.folder):
            self.writer.write(Event(wall_time=time.time(), **event).SerializeToString())
            self.writer.flush()
