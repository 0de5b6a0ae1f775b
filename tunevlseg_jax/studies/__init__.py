"""Many searches over a grid of models, learners and data sets."""
