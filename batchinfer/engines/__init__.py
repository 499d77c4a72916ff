"""Prompts in, generations out: vLLM in child processes, the models that it loads, the devices it may use."""
