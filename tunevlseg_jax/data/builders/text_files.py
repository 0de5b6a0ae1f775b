"""Text files as spreadsheets and Windows write them."""

import codecs
import re
from pathlib import Path

from tunevlseg_jax.runtime.errors import UserError

BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16's
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""The first bytes of .xlsx and .ods, and of .xls."""
FALLBACK = "cp1252"
NAMES = {FALLBACK: "Windows-1252"}
OTHER_SCRIPT = re.compile(r"[ŠŒŽšœžŸƒ\xa1-\xff]{3}")
"""Chinese, Japanese and Cyrillic encodings look so as Windows-1252, whose languages don't have three such letters."""


def read(path: Path) -> tuple[str, str]:
    """The text of a file, and the name of its encoding: UTF-8, UTF-16, UTF-32, or Windows-1252 if it is none of these.

    Raises:
      UserError: the file doesn't exist, is a workbook or has no text.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}", "no-such-file") from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}", "unreadable") from error
    if data.startswith(WORKBOOKS):
        raise UserError(f"{path} is a workbook; save it as CSV in UTF-8", "unreadable")
    for encoding in _encodings(data):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == FALLBACK and (letters := OTHER_SCRIPT.search(text)):
            raise UserError(
                f"can't read {path}: it is no UTF-8 or UTF-16, and as {NAMES[FALLBACK]} it has {letters[0]!r}; save it "
                "in UTF-8",
                "unreadable",
            )
        if "\0" not in text:
            return text, NAMES.get(encoding, encoding.removesuffix("-sig").upper())
    raise UserError(
        f"can't read {path}: it is no text in UTF-8, UTF-16 or Windows-1252; save it in UTF-8", "unreadable"
    )


def _encodings(data: bytes) -> tuple[str, ...]:
    """Encodings to try, in this order."""
    for bom, encoding in BOMS.items():
        if data.startswith(bom):
            return (encoding,)
    if b"\0" in data[:256]:  # ASCII's second byte in UTF-16, here without its mark
        return ("utf-16-be" if data[0] == 0 else "utf-16-le",)
    return ("utf-8", FALLBACK)
