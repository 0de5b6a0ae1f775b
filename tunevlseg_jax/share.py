"""Writes a run as a folder for others, and uploads it: `python -m tunevlseg_jax.share --run runs/x --to owner/name`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.runtime import hub
from tunevlseg_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Options:
    """The run, its name on the hub, and what the page says.

    Attributes:
      run: folder of the run, or a hub id such as owner/name.
      to: hub id under which the run is shared, owner/name.
      output: folder to write; None for `shared` and the name. An earlier one of the same hub id is replaced.
      upload: whether to upload the folder to the Hugging Face hub; without it nothing leaves this machine.
      private: whether a repository that the upload creates is private, so that only you see it at first.
      license: of the learnt prompts, as the hub names it, such as apache-2.0 or cc-by-nc-4.0.
      data_license: of the data set, in words. None for that of a public set.
      examples: number of pictures of the test split on the page, at most 8. None for 4 of the embedded data and none of
        other data, whose images may be private or may not be passed on.
      checkpoint: the base model's new place, if it has moved since training.
    """

    run: str
    to: str
    output: str | None = None
    upload: bool = False
    private: bool = True
    license: str | None = None
    data_license: str | None = None
    examples: int | None = None
    checkpoint: str | None = None


def main() -> None:
    """Writes the folder, says what is in it, and uploads it if that is asked for."""
    options = cli.options(Options, "python -m tunevlseg_jax.share", __doc__ or "")
    if not hub.is_id(options.to):
        raise UserError(f"--to must be a hub id such as owner/name, got {options.to!r}", "invalid-name")
    if options.examples is not None and options.examples < 0:
        raise UserError(f"--examples must be at least 0, got {options.examples}", "out-of-range")

    from tunevlseg_jax.run import load_run
    from tunevlseg_jax.sharing import folder

    output = Path(options.output or Path("shared") / options.to.rpartition("/")[2])
    folder.check_folder(output, options.to)
    run = load_run(options.run, checkpoint=options.checkpoint)
    scores = folder.write(
        run,
        output,
        options.to,
        licence=options.license,
        data_licence=options.data_license,
        number=options.examples,
    )
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"wrote {output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
    if not any(score.interval for score in scores):
        console.print(f"note: no score has an interval; python -m tunevlseg_jax.evaluate --run {options.run} adds them")
    if options.license is None:
        console.print("note: the page names no licence; --license apache-2.0 or another says what others may do")
    if not options.upload:
        console.print("nothing was uploaded; look at the files, then add --upload")
        return
    console.print(f"uploaded: {hub.upload(output, options.to, f'Run {options.to}', private=options.private)}")


if __name__ == "__main__":
    cli.run(main)
