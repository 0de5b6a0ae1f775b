"""Predictions of a trained model, and the scores of them."""
