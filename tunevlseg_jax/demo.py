"""Shows runs in a browser, and learns from corrected masks: `python -m tunevlseg_jax.demo --run runs/x`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from tunevlseg_jax.demonstration.models import Shown
    from tunevlseg_jax.run import Run

EXAMPLES = "scenes/photo"
"""The data set of the examples without runs, on which the embedded models find things."""
PAUSE_SECONDS = 1.0
"""Without a question, before a program is compiled in the background."""


@dataclass(frozen=True)
class Options:
    """The runs to show, and the server.

    Attributes:
      run: folders of runs, or hub ids such as owner/name, which are shown beside each other and beside their base
        models as they are.
      model: without runs, the model to show: a model folder, the name of an embedded model, or a hub id.
      checkpoint: the runs' base model's new place, if it has moved since training.
      output: folder for the corrections and the runs of the page's users.
      host: address to listen on. The default is reachable from this machine alone. 0.0.0.0 is reachable from the
        network, without a password or encryption.
      port: to listen on. None for the first free one from 7860.
      upload_mib: largest size of an uploaded file, in MiB.
      upload_megapixels: largest number of pixels of an uploaded image, in millions.
    """

    run: tuple[str, ...] = ()
    model: str = "clipseg-tiny"
    checkpoint: str | None = None
    output: str = "demo"
    host: str = "127.0.0.1"
    port: int | None = None
    upload_mib: float = 32
    upload_megapixels: float = 50


def main() -> None:
    """Serves the page until it is interrupted."""
    options = cli.options(Options, "python -m tunevlseg_jax.demo", __doc__ or "")
    _check(options)

    from tunevlseg_jax.data.settings import Data
    from tunevlseg_jax.demonstration import examples, models, server
    from tunevlseg_jax.demonstration.actions import Demo
    from tunevlseg_jax.demonstration.models import SIDES
    from tunevlseg_jax.demonstration.sessions import Sessions
    from tunevlseg_jax.demonstration.uploads import Limits
    from tunevlseg_jax.runtime.optional import import_pycocotools

    import_pycocotools("python -m tunevlseg_jax.demo")
    limits = Limits(int(options.upload_mib * 2**20), int(options.upload_megapixels * 1e6))
    shown = models.load(options.run, options.model, options.checkpoint)
    for model in shown:
        model.warm_up(SIDES[0])
    data = shown[-1].run.data if options.run else Data(name=EXAMPLES)
    sessions = Sessions(Path(options.output))
    demo = Demo(shown, partial(examples.load, data), sessions, limits, _train)
    address = server.serve(demo, options.host, options.port)
    Console().print(f"{', '.join(one.name for one in shown)}: {address}", soft_wrap=True, markup=False)
    threading.Thread(target=_warm_up, args=(shown, SIDES[1:3]), daemon=True).start()
    try:
        threading.Event().wait()
    finally:
        sessions.end()


def _train(*given: Any, **named: Any) -> Run:
    """`tunevlseg_jax.api.train`, imported when the first training starts."""
    from tunevlseg_jax import api

    return api.train(*given, **named)


def _warm_up(shown: list[Shown], phrases: tuple[int, ...]) -> None:
    """Compiles the programs for these numbers of phrases while nobody asks, so that no answer is delayed."""
    time.sleep(PAUSE_SECONDS)
    for number in phrases:
        for model in shown:
            while model.lock.idle_seconds < PAUSE_SECONDS:
                time.sleep(PAUSE_SECONDS / 10)
            model.warm_up(number)


def _check(options: Options) -> None:
    for name in ("upload_mib", "upload_megapixels"):
        if not 0 < getattr(options, name) < float("inf"):
            option = name.replace("_", "-")
            raise UserError(f"--{option} must be above 0 and finite, got {getattr(options, name)}", "out-of-range")
    if options.port is not None and not 0 < options.port < 2**16:
        raise UserError(f"--port must be from 1 to 65535, got {options.port}", "out-of-range")


if __name__ == "__main__":
    cli.run(main)
