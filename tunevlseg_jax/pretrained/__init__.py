"""Pretrained models: their folders, weights and tokenizers."""
