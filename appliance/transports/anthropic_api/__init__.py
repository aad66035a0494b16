"""The routes that speak Anthropic's Messages API."""
