"""Compares VLSM-Adapter with PyTorch in float64, on golden cases: `python tests/float64_adapters.py FILE...`."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64  # before the modules below take it for the type of what they compute
DOUBLE = np.dtype(np.float64)


def main() -> None:
    """A line of JSON for each file: our largest differences from PyTorch, and those of the golden gradients."""
    import golden_adapters as adapters
    import test_golden
    import torch_adapters
    from safetensors.numpy import load_file

    from tunevlseg_jax.network import Network

    rows = {row["file"]: row for row in test_golden.ADAPTERS}
    for file in sys.argv[1:]:
        tensors = load_file(test_golden.GOLDEN / file)
        params, golden = test_golden.group(tensors, "param"), test_golden.group(tensors, "grad")
        config, frozen, inputs = test_golden.golden_model(rows[file]["model"])
        weights = load_file(test_golden.GOLDEN / rows[file]["model"] / "model.safetensors")
        loss, logits, gradients = torch_adapters.loss_and_gradients(config, weights, params, inputs)
        theirs = adapters.ours(gradients)
        trained = {path: array.astype(np.float64) for path, array in adapters.ours(params).items()}
        net = Network(config, adapters.learner_of(rows[file], trained), dtype=DOUBLE, activation_dtype=DOUBLE)
        wide = {path: jnp.asarray(array, jnp.float64) for path, array in frozen.items()}
        wide_inputs = inputs | {name: inputs[name].astype(np.float64) for name in ("image", "target")}
        our_loss, our_logits, ours = test_golden.loss_and_gradients(net, trained, wide, wide_inputs)
        result = {
            "logits": test_golden.difference(our_logits, logits),
            "loss": test_golden.difference(our_loss, loss),
            "gradients": test_golden.worst(ours, theirs),
            "golden gradients": test_golden.worst(adapters.ours(golden), theirs),
        }
        print(json.dumps(result | {"type": str(our_logits.dtype)}), flush=True)


if __name__ == "__main__":
    main()
