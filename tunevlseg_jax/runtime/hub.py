"""The Hugging Face hub: files that are downloaded and uploaded, with failures that say what to do."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tunevlseg_jax.runtime.errors import UserError

PATTERNS = ("*.json", "*.safetensors", "*.md", "*.png")
"""The files of a run that are downloaded: numbers, text and pictures. Nothing that could be executed is."""


def is_id(name: str) -> bool:
    """Whether a name has the form of a hub id, owner/name."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def download(name: str) -> Path:
    """The folder of a repository's files in the hub's cache; only new files are downloaded.

    Raises:
      UserError: there is no such repository, it is private or gated, or the hub can't be reached.
    """
    from huggingface_hub import snapshot_download

    with _as_user_error(name):
        return Path(snapshot_download(name, allow_patterns=list(PATTERNS)))


def is_download(folder: Path) -> bool:
    """Whether a folder is in the hub's cache, where nothing should be written."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return folder.resolve().is_relative_to(Path(HF_HUB_CACHE).resolve())


def upload(folder: Path, name: str, message: str, *, private: bool) -> str:
    """Uploads the files of a folder, and returns the address of their commit.

    Args:
      folder: with the files.
      name: of the repository, owner/name; created if there is none.
      message: of the commit.
      private: whether a new repository is private.

    Raises:
      UserError: the hub asks for a login or a right, or can't be reached.
    """
    from huggingface_hub import HfApi

    with _as_user_error(name):
        hub = HfApi()
        hub.create_repo(name, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=name, folder_path=folder, commit_message=message).commit_url)


@contextlib.contextmanager
def _as_user_error(name: str) -> Iterator[None]:
    """Turns the failures of huggingface_hub in the block into UserErrors."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name!r} is gated: accept its terms at https://huggingface.co/{name}, then log in with `hf auth login`",
            "gated-repository",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"there is no folder {name!r}, and no {name!r} on the Hugging Face hub that you can see; check the name, "
            "or log in with `hf auth login` if it is private",
            "no-such-repository",
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            remedy = "log in with `hf auth login`, with a token that may write" if status == 401 else "ask its owner"
            message = f"the Hugging Face hub refuses {name!r} (status {status}); {remedy}"
            raise UserError(message, "hub-refuses") from error
        raise UserError(f"{name!r}: the Hugging Face hub answers {_first_line(error)}", "hub-unreachable") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(f"{name!r} needs the Hugging Face hub, and HF_HUB_OFFLINE is set", "hub-unreachable") from error
    except (errors.LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"the Hugging Face hub can't be reached for {name!r}; connect to the internet, unset HF_HUB_OFFLINE, or "
            "give a run's folder",
            "hub-unreachable",
        ) from error
    except RuntimeError as error:  # a file's upload that failed several times
        raise UserError(
            f"{name!r}: {_first_line(error)} Try again: files that are there are kept", "hub-unreachable"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
