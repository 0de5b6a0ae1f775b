"""The error of a file that can't be decoded as an image."""

from pathlib import Path

from tunevlseg_jax.runtime.errors import UserError


def broken_image(name: Path | str) -> UserError:
    """The error, with the file's name."""
    message = f"can't decode {name}: it is not an image, or a broken one; copy or save it again, or leave it out"
    return UserError(message, "undecodable")
