"""Rates of programs on this machine, and plans for TPUs that are not there."""
