"""One hyperparameter search, many trials in one compiled program."""
