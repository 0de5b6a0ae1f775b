"""Checkpoints of the published TuneVLSeg code."""
