"""How fast batches reach the devices, without a model: `python -m tunevlseg_jax.benchmarks.loading`."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tunevlseg_jax import cli


@dataclass(frozen=True)
class Options:
    """Options of the loading benchmark.

    Attributes:
      images: number of images.
      size: height and width of an image in pixels.
      batch_size: images per batch.
      epochs: number of measured epochs, after one to warm up.
      workers: numbers of threads that gather batches; each is measured separately.
    """

    images: int = 512
    size: int = 352
    batch_size: int = 32
    epochs: int = 3
    workers: tuple[int, ...] = (0, 1, 2)


def main() -> None:
    """Prints a table of images a second: streamed with each number of workers, and resident."""
    options = cli.options(Options, "python -m tunevlseg_jax.benchmarks.loading", __doc__ or "")

    from tunevlseg_jax.benchmarks.loading_speed import images_per_second, mapped
    from tunevlseg_jax.data import scenes
    from tunevlseg_jax.data.feeding.feed import Feed
    from tunevlseg_jax.data.records import resized
    from tunevlseg_jax.runtime import sharding

    mesh = sharding.mesh()
    table = Table(title=f"images/s at {options.size} pixels, batches of {options.batch_size}, {mesh.devices.flat[0]}")
    for column in ("", "as they are", "augmented"):
        table.add_column(column, justify="right")
    records = resized(scenes.load("photo", "train", options.images), (options.size, options.size))
    with mapped(records) as records:
        feeds = {
            f"streaming, {number} worker{'s' * (number != 1)}": Feed(records, mesh, "streaming", number)
            for number in options.workers
        }
        for name, feed in (feeds | {"resident": Feed(records, mesh, "resident")}).items():
            speeds = (
                images_per_second(feed, options.batch_size, options.epochs, augment=augment)
                for augment in (False, True)
            )
            table.add_row(name, *(f"{speed:.0f}" for speed in speeds))
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
