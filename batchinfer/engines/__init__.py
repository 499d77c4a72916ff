"""Prompts in, generations out: vLLM here, on a Ray cluster or at a server, the models that it loads, the devices it may use."""
