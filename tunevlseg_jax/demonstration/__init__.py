"""The page of the command demo: its models, answers, downloads, corrections and trainings."""
