"""Audits of prepared sets: statistics of each image, findings, and splits without leaks."""
