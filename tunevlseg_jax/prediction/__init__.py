"""Prediction: from input files to masks, overlays, label maps and their tables."""
