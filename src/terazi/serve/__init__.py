"""Serving models over HTTP: one gateway, an engine process per model, OpenAI's and Ollama's protocols."""
