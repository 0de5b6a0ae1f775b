"""A run folder: training into it, and reading it back."""
