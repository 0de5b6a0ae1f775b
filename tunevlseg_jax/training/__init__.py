"""The training step, the loop around it, losses and metrics."""
