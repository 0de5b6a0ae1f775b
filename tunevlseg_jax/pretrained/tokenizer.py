"""From phrases to the tokens of CLIP's text tower."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file

FILE = "tokenizer.json"


class Tokenizer:
    """CLIP's byte-pair encoding, or any other that `tokenizers` reads from a tokenizer.json."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self.backend = backend
        self.backend.no_padding()
        self.backend.no_truncation()

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """From a model folder with a tokenizer.json, or with vocab.json and merges.txt.

        Raises:
          UserError: the folder holds no tokenizer, or a broken one.
        """
        try:
            if (folder / FILE).is_file():
                return cls(tokenizers.Tokenizer.from_file(str(folder / FILE)))
            if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                from transformers import CLIPTokenizer

                return cls(CLIPTokenizer.from_pretrained(str(folder)).backend_tokenizer)
        except Exception as error:  # tokenizers raises a bare Exception for whatever it can't read
            raise UserError(f"can't read the tokenizer in {folder}: {error}", "unreadable") from error
        raise UserError(f"{folder} holds no tokenizer: neither {FILE} nor vocab.json and merges.txt", "no-tokenizer")

    def save(self, folder: Path) -> None:
        """Writes a tokenizer.json, whole or not at all."""
        with atomic_file(folder / FILE) as temporary:
            temporary.write_text(self.backend.to_str(pretty=True), encoding="utf-8")

    def words(self, phrase: str) -> np.ndarray:
        """(tokens,) int32 of a phrase alone, without start and end."""
        return np.asarray(self.backend.encode(phrase, add_special_tokens=False).ids, np.int32)

    def table(self, phrases: Sequence[str], longest: int, *, truncate: bool = False, multiple: int = 1) -> np.ndarray:
        """Tokens of phrases with start and end, padded with the end token to the longest of them or further.

        Args:
          phrases: at least one.
          longest: number of tokens that fit, start and end included.
          truncate: whether a longer phrase loses the tokens before its end, instead of being an error.
          multiple: the length is a multiple of it, or `longest`.

        Returns:
          (phrases, length) int32, length at most `longest`.

        Raises:
          UserError: a phrase doesn't fit.
        """
        if longest < 3:
            raise UserError("the context leaves prompts no room; lower learner.num_context", "prompt-too-long")
        rows = []
        for phrase in phrases:
            row = self.backend.encode(phrase).ids
            if len(row) > longest:
                if not truncate:
                    raise UserError(
                        f"the prompt {phrase!r} is {len(row)} tokens with start and end, and {longest} fit beside the "
                        "learnt context; shorten it",
                        "prompt-too-long",
                    )
                row = row[: longest - 1] + row[-1:]
            rows.append(row)
        length = min(longest, -(-max(map(len, rows)) // multiple) * multiple)
        return np.asarray([row + row[-1:] * (length - len(row)) for row in rows], np.int32)


def with_full_stop(phrase: str) -> str:
    """The phrase ending in a full stop, as the published prompts do."""
    phrase = phrase.strip()
    return phrase if phrase.endswith(".") else f"{phrase}."
