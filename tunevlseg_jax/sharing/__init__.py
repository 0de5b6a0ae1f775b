"""A run as a folder that others can load: a card without private entries, scores, a page and pictures."""
