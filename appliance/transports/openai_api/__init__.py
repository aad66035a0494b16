"""The OpenAI-shaped routes."""
