"""Annotation tools' files: one format a file, each read as `ImageFiles`."""
