"""The models in Flax: what is frozen."""
