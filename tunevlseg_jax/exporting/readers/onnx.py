"""Runs the model beside this file with ONNX Runtime and NumPy; phrases that the card lacks need tokenizers too."""

import json
from pathlib import Path

import numpy as np
import onnxruntime


class Model:
    """`Model(folder)(images, model.tokens(phrases))` gives probabilities, (batch, height, width) float32."""

    def __init__(self, folder=Path(__file__).parent):
        self.folder = Path(folder)
        self.card = json.loads((self.folder / "card.json").read_text("utf-8"))
        self._session = onnxruntime.InferenceSession(self.folder / "model.onnx")

    def tokens(self, phrases):
        """(phrases, length) int32 token ids, from the card or, for other phrases, by the package tokenizers."""
        return np.asarray([self.card["prompts"].get(phrase) or self._encode(phrase) for phrase in phrases], np.int32)

    def __call__(self, images, tokens):
        """A mask is where a probability is above the card's threshold.

        images: (batch, height, width, 3), RGB, of the card's size and type. tokens: (batch, length) int32.
        """
        return self._session.run(None, {"images": images, "tokens": tokens})[0]

    def _encode(self, phrase):
        from tokenizers import Tokenizer

        length, full_stop = self.card["tokens"]["length"], self.card["tokens"]["full_stop"]
        text = f"{phrase.strip()}." if full_stop and not phrase.strip().endswith(".") else phrase
        ids = Tokenizer.from_file(str(self.folder / "tokenizer.json")).encode(text).ids
        if len(ids) > length:
            raise ValueError(f"{phrase!r} has {len(ids)} tokens, and {length} fit")
        return ids + ids[-1:] * (length - len(ids))
