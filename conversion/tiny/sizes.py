"""The tokenizer and the sizes of the embedded models."""

import dataclasses

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tunevlseg_jax.data.scenes import CLASSES, PHRASINGS
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.resnet import ResNetConfig
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.models.sam3_vision import SAM3VisionConfig
from tunevlseg_jax.pretrained.tokenizer import Tokenizer, with_full_stop

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 512
BACKGROUND = "the background"


def train_tokenizer() -> Tokenizer:
    """Byte-pair encoding of lower-cased bytes, in which every word of the phrases is a token."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    phrases = [with_full_stop(template.format(name)) for template in PHRASINGS for name in CLASSES]
    backend.train_from_iterator([*phrases, BACKGROUND], trainer)
    backend.add_special_tokens([START, END])  # the largest ids, as CLIP has them
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, backend.token_to_id(token)) for token in (START, END)]
    )
    return Tokenizer(backend)


def clipseg_sizes(tokenizer: Tokenizer) -> CLIPSegConfig:
    """1.3 M parameters, for images of 96 pixels."""
    return CLIPSegConfig(
        text=_text(tokenizer, width=48),
        vision=VisionConfig(width=128, blocks=5, heads=4, hidden=448, patch=12, image_size=96),
        embedding_width=64,
        taps=(0, 2, 4),
        decoder_width=48,
        decoder_heads=4,
        decoder_hidden=192,
        image_size=96,
    )


def cris_sizes(tokenizer: Tokenizer) -> CRISConfig:
    """0.9 M parameters, for images of 128 pixels, in which the positions of digits match the cells of C4."""
    return CRISConfig(
        text=_text(tokenizer, width=48),
        vision=ResNetConfig(layers=(1, 2, 2, 1), width=8, embedding_width=96, image_size=128),
        neck_widths=(24, 48, 96),
        decoder_layers=2,
        decoder_heads=4,
        decoder_hidden=192,
        image_size=128,
    )


def sam3_sizes(tokenizer: Tokenizer) -> SAM3Config:
    """1.4 M parameters, for images of 96 pixels: four windows, whose positions repeat, and grids of 8, 16 and 32 cells.

    The sentence has the pyramid's width, since it is matched with the pyramid's cells.
    """
    width = 48
    return SAM3Config(
        text=dataclasses.replace(_text(tokenizer, width=48), activation="gelu"),
        vision=SAM3VisionConfig(
            width=128, blocks=5, heads=4, hidden=448, patch=12, image_size=48, window=4, global_blocks=(2, 4)
        ),
        unused=None,
        sentence_width=width,
        width=width,
        encoder_layers=2,
        encoder_heads=4,
        encoder_hidden=192,
        mask_heads=4,
        image_size=96,
    )


def _text(tokenizer: Tokenizer, width: int) -> TextConfig:
    end = tokenizer.backend.get_vocab()[END]
    return TextConfig(
        width=width, blocks=5, heads=4, hidden=4 * width, vocabulary=end + 1, context_length=32, end_token=end
    )
