"""The ten public data sets, a file each, and how a prepared set is written."""
