"""The embedded model before it has learnt anything: its sizes, and a tokenizer trained on the phrases of `scenes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tunevlseg_jax import command, pretrained
from tunevlseg_jax.data.scenes import CLASSES, PHRASINGS
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained import Pretrained
from tunevlseg_jax.tokenizer import Tokenizer, with_full_stop

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 512


@dataclass(frozen=True)
class Options:
    """What to write.

    Attributes:
      output: folder to make.
    """

    output: str


def train_tokenizer() -> Tokenizer:
    """Byte-pair encoding of lower-cased bytes, with every word of the phrases a token of its own."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    phrases = [with_full_stop(template.format(name)) for template in PHRASINGS for name in CLASSES]
    backend.train_from_iterator([*phrases, "a photo of a"], trainer)
    backend.add_special_tokens([START, END])  # the largest ids, as CLIP has them
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, backend.token_to_id(token)) for token in (START, END)]
    )
    return Tokenizer(backend)


def sizes(tokenizer: Tokenizer) -> CLIPSegConfig:
    """At most 1.5 M parameters for images of 96 pixels."""
    end = tokenizer.backend.token_to_id(END)
    return CLIPSegConfig(
        text=TextConfig(width=48, blocks=6, heads=4, hidden=192, vocabulary=end + 1, context_length=32, end_token=end),
        vision=VisionConfig(width=128, blocks=6, heads=4, hidden=448, patch=12, image_size=96),
        embedding_width=64,
        taps=(1, 3, 5),
        decoder_width=48,
        decoder_heads=4,
        decoder_hidden=192,
        image_size=96,
    )


def main() -> None:
    """Writes the folder."""
    options = command.options(Options, "python -m conversion.tiny", __doc__ or "")
    tokenizer = train_tokenizer()
    model = Pretrained(sizes(tokenizer), {}, tokenizer, "")
    pretrained.save(Path(options.output), model, {"made by": "conversion.tiny"})


if __name__ == "__main__":
    command.run(main)
