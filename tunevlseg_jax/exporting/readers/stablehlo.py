"""Runs the model beside this file with jax and NumPy alone."""

import json
from pathlib import Path

import jax
import numpy as np
from jax import export


class Model:
    """`Model(folder)(images, model.tokens(phrases))` gives probabilities, (batch, height, width) float32."""

    def __init__(self, folder=Path(__file__).parent):
        self.folder = Path(folder)
        self.card = json.loads((self.folder / "card.json").read_text("utf-8"))
        self.tasks = {name: dict(np.load(self.folder / "tasks" / f"{name}.npz")) for name in self.card["tasks"]}
        program = export.deserialize(bytearray((self.folder / "model.stablehlo").read_bytes()))
        self._program = jax.jit(program.call)

    def tokens(self, phrases):
        """(phrases, length) int32 token ids, from the card or, for other phrases, by the package tokenizers."""
        return np.asarray([self.card["prompts"].get(phrase) or self._encode(phrase) for phrase in phrases], np.int32)

    def __call__(self, images, tokens, tasks=()):
        """A mask is where a probability is above the card's threshold.

        images: (batch, height, width, 3), RGB, of the card's size and type. tokens: (batch, length) int32.
        tasks: for an export with prompts as inputs, the name of each row's task.
        """
        chosen = [self.tasks[task] for task in tasks]
        rows = [{name: np.stack([each[name] for each in chosen]) for name in chosen[0]}] if chosen else []
        return np.asarray(self._program(images, tokens, *rows))

    def _encode(self, phrase):
        from tokenizers import Tokenizer

        length, full_stop = self.card["tokens"]["length"], self.card["tokens"]["full_stop"]
        text = f"{phrase.strip()}." if full_stop and not phrase.strip().endswith(".") else phrase
        ids = Tokenizer.from_file(str(self.folder / "tokenizer.json")).encode(text).ids
        if len(ids) > length:
            raise ValueError(f"{phrase!r} has {len(ids)} tokens, and {length} fit")
        return ids + ids[-1:] * (length - len(ids))
