"""Writes a run as files that run without this package: `python -m tunevlseg_jax.export --run runs/x --format onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunevlseg_jax import cli
from tunevlseg_jax.data.builders.arrays import check_prompt
from tunevlseg_jax.runtime.errors import UserError

Format = Literal["stablehlo", "onnx", "huggingface"]


@dataclass(frozen=True)
class Options:
    """The run, the format and the folder to write.

    Attributes:
      run: folder of the run, or a hub id such as owner/name; several with --prompts-as-inputs.
      format: "stablehlo" for jax on CPUs, GPUs and TPUs; "onnx" for ONNX Runtime (with the extra `onnx`); or
        "huggingface", a model folder for transformers, where the run is one that it can hold.
      output: folder to write, new or empty.
      prompt: names whose token ids the card holds, so that they need no tokenizer.
      pixels: type of the images that the program takes, with values from 0 to 255.
      prompts_as_inputs: writes one program for several runs of one model and learner; what each has learnt is an input,
        so that a batch may hold images of different runs. For stablehlo.
      checkpoint: the base model's new place, if it has moved since training.
    """

    run: tuple[str, ...]
    format: Format
    output: str
    prompt: tuple[str, ...] = ()
    pixels: Literal["uint8", "float32"] = "uint8"
    prompts_as_inputs: bool = False
    checkpoint: str | None = None


def main() -> None:
    """Exports, compares the files with the run, and prints a line that describes them."""
    options = cli.options(Options, "python -m tunevlseg_jax.export", __doc__ or "")
    phrases = _checked(options)

    from tunevlseg_jax.exporting import folder, write

    output = Path(options.output)
    folder.check(output)
    if options.format == "huggingface":
        print(write.huggingface(output, options.run[0], options.checkpoint))
        return
    tasks = write.load(options.run, options.checkpoint)
    if options.format == "onnx":
        print(write.onnx(output, tasks[0], options.pixels, phrases))
    else:
        print(write.stablehlo(output, tasks, options.pixels, phrases, inputs=options.prompts_as_inputs))


def _checked(options: Options) -> tuple[str, ...]:
    """The prompts, each once.

    Raises:
      UserError: options exclude each other, or a prompt is empty.
    """
    if not options.run:
        raise UserError("--run needs the folder of a run", "missing-option")
    if len(options.run) > 1 and not options.prompts_as_inputs:
        raise UserError("several runs need --prompts-as-inputs; export each alone otherwise", "options-conflict")
    if options.prompts_as_inputs and options.format != "stablehlo":
        raise UserError(f"--prompts-as-inputs is for stablehlo, got {options.format}", "options-conflict")
    for prompt in options.prompt:
        check_prompt(prompt, "--prompt")
    return tuple(dict.fromkeys(prompt.strip() for prompt in options.prompt))


if __name__ == "__main__":
    cli.run(main)
