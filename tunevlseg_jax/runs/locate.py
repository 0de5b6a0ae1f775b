"""Where a run is: a folder, or a repository on the Hugging Face hub whose files are downloaded."""

from pathlib import Path

from tunevlseg_jax.runtime import hub
from tunevlseg_jax.runtime.errors import UserError


def find_run(run: str | Path) -> Path:
    """The folder of a run.

    A folder comes before a hub id of the same name. A name below an existing folder, such as runs/kvasir beside a
    folder runs, is never looked for on the hub, so that a mistyped folder is an error at once.

    Raises:
      UserError: it is a hub id, and there is no such repository or it can't be downloaded.
    """
    return hub.download(str(run)) if is_on_hub(run) else Path(run)


def is_on_hub(run: str | Path) -> bool:
    """Whether a run is named by a hub id, and isn't a folder here."""
    name = str(run)
    return hub.is_id(name) and not Path(name).exists() and not Path(name).parent.exists()


def check_writable(run: str | Path, what: str) -> None:
    """Raises a UserError if a run is a download of the hub, whose files belong to the hub's cache."""
    folder = Path(run)
    if is_on_hub(run) or (folder.exists() and hub.is_download(folder)):
        raise UserError(f"{what} writes into the run's folder, and {run} is on the hub; copy its files first", "on-hub")


def output_folder(run: str | Path, name: str) -> Path:
    """The folder for what is computed of a run: `name` in its folder, or `name`/owner_name for a run on the hub."""
    return Path(name) / str(run).replace("/", "_") if is_on_hub(run) else Path(run) / name
