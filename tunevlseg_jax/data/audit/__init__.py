"""Faults of prepared sets: what was seen of each image, what is wrong with it, and splits without the leaks."""
