"""The models in Flax, which stay frozen while prompts are learnt."""
