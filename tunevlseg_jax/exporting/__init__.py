"""Files that run a trained model without this package: StableHLO, ONNX, and Hugging Face folders."""
