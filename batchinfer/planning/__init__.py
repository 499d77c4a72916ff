"""The list against the cache: the prompts to generate, their order, their cost."""
