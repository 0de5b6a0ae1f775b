"""The checks of `doctor`: what is installed, what computes, and what is missing."""
