"""Prompts in, generations out: vLLM in child processes or at a server, the models that it loads, the devices it may use."""
