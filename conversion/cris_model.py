"""The model of a CRIS's checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from conversion import output, torch_files
from conversion.cris_config import check_preset, config_from_tensors, encoder_from_tensors
from conversion.cris_options import Options
from conversion.cris_tensors import cris_rules
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.huggingface_folder import check_tokenizer
from tunevlseg_jax.pretrained.load import find_checkpoint
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.rules import ConversionError
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import sha256

BACKBONE = "backbone."
PARTS = (BACKBONE, "neck.", "decoder.", "proj.")
"""The prefixes of a CRIS's tensors."""
CLIP_BUFFERS = ("input_resolution", "context_length", "vocab_size")
"""Sizes that OpenAI's archives hold beside the weights."""


def load(options: Options) -> Pretrained:
    """The model that the options name.

    Raises:
      UserError: a file is missing or broken, or holds another model; the message is one line.
    """
    path = Path(options.checkpoint)
    theirs = torch_files.state_dict(path)
    _check_kind(theirs, path)
    if options.clip is not None:
        theirs = with_clip(theirs, Path(options.clip), options.preset)
    try:
        config, weights = convert(
            theirs, preset=options.preset, decoder_heads=options.decoder_heads, image_size=options.image_size
        )
    except ConversionError as error:
        hint = "" if options.clip or "lacks backbone" not in str(error) else "; CLIP's own may come with --clip RN50.pt"
        raise ConversionError(f"{path}: {error}{hint}", error.code) from error
    return Pretrained(config, weights, _tokenizer(options.tokenizer, config), sha256(path))


def convert(
    theirs: Mapping[str, np.ndarray], *, preset: str | None = None, decoder_heads: int = 8, image_size: int = 416
) -> tuple[CRISConfig, dict[str, np.ndarray]]:
    """Sizes and weights from tensors by published name.

    Args:
      theirs: float32, names without "module.".
      preset: the required encoder, "RN50" or "RN101"; None for any.
      decoder_heads: of the decoder's attentions.
      image_size: side of the images that the model is used with.

    Raises:
      ConversionError: names are missing, left over or of another shape.
    """
    config = config_from_tensors(theirs, decoder_heads=decoder_heads, image_size=image_size)
    if preset is not None:
        check_preset(config.vision, preset, "the checkpoint")
    return config, rules.to_ours(cris_rules(config), theirs, weight_shapes(config))


def with_clip(theirs: Mapping[str, np.ndarray], path: Path, preset: str | None) -> dict[str, np.ndarray]:
    """A checkpoint's tensors, completed by CLIP's.

    Raises:
      UserError: the file is not a CLIP with a ResNet, or not of the preset.
    """
    clip = {name: tensor for name, tensor in torch_files.state_dict(path).items() if name not in CLIP_BUFFERS}
    if "visual.layer1.0.conv1.weight" not in clip:
        raise ConversionError(f"{path} is no CLIP with a ResNet: it lacks visual.layer1.0.conv1.weight", "wrong-model")
    if preset is not None:
        check_preset(encoder_from_tensors(clip, "visual."), preset, str(path))
    return {f"{BACKBONE}{name}": tensor for name, tensor in clip.items()} | dict(theirs)


def _check_kind(theirs: Mapping[str, np.ndarray], path: Path) -> None:
    """Raises a ConversionError unless the tensors are a CRIS's."""
    if any(name.startswith(("clip.", "decoder.film_mul", "model.clip.")) for name in theirs):
        raise ConversionError(f"{path} holds a CLIPSeg, not a CRIS; convert it with conversion.clipseg", "wrong-model")
    if "visual.attnpool.positional_embedding" in theirs:
        raise ConversionError(f"{path} holds CLIP alone; give it as --clip, beside --checkpoint", "wrong-model")
    lacking = [part for part in PARTS[1:] if not any(name.startswith(part) for name in theirs)]
    if lacking:
        raise ConversionError(f"{path} is no CRIS: no tensor starts with {', '.join(lacking)}", "wrong-model")


def _tokenizer(name: str | None, config: CRISConfig) -> Tokenizer:
    if name is None:
        raise UserError("a CRIS has no tokenizer; give CLIP's, such as --tokenizer CIDAS/clipseg-rd64", "no-tokenizer")
    folder = Path(name) if Path(name).is_dir() else find_checkpoint(name)
    tokenizer = Tokenizer.load(folder)
    try:
        check_tokenizer(tokenizer, config)
        size = tokenizer.backend.get_vocab_size()
        if size != config.text.vocabulary:
            raise ConversionError(f"tokenizer has {size} tokens, the model {config.text.vocabulary}", "wrong-tokenizer")
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}", error.code) from error
    return tokenizer


def source(options: Options) -> dict[str, str]:
    """The origin of the weights, for the reader of config.json."""
    source = {"made by": "conversion.cris"}
    for option in ("checkpoint", "clip"):
        name = getattr(options, option)
        if name is not None:
            source |= {option: output.portable(name), f"{option} sha256": sha256(Path(name))}
    return source
