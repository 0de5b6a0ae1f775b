"""TensorBoard's events of a run."""

import contextlib
import time
from pathlib import Path
from typing import Any

from tunevlseg_jax.runtime.files import as_user_error
from tunevlseg_jax.training.loop import Epoch


class TensorBoardWriter:
    """TensorBoard's events of a run of one trial, on the disk after each epoch.

    This uses tensorboardX's `EventsWriter`. Its `SummaryWriter` writes in a thread, which loses events when the process
    is killed and can't pass an error on, such as a full disk.
    """

    def __init__(self, folder: Path, epochs: int):
        """Begins a file, and makes TensorBoard drop events of earlier files after epoch `epochs`.

        Raises:
          UserError: it can't be written.
        """
        from tensorboardX.event_file_writer import EventsWriter

        self.folder = folder
        with as_user_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = EventsWriter(str(folder / "events"), f".{epochs}")
        self._write(step=epochs + 1, session_log={"status": "START"})

    def add(self, epoch: Epoch) -> None:
        """Writes the scores and the learning rate of an epoch.

        Raises:
          UserError: they can't be written.
        """
        scores = {f"train/{name}": values[0] for name, values in epoch.train.items()}
        scores |= {f"val/{name}": values[0] for name, values in epoch.val.items()}
        scores["learning_rate"] = epoch.learning_rate[0]
        values = [{"tag": name, "simple_value": value} for name, value in scores.items()]
        self._write(step=epoch.number[0], summary={"value": values})

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # `add` has raised an error about a full disk
            self.writer.close()

    def _write(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        with as_user_error(self.folder):
            self.writer.write_event(Event(wall_time=time.time(), **event))
            self.writer.flush()
