"""Prompt tuning for vision-language segmentation models in JAX."""

__version__ = "0.1.0"
