"""The real process, as an operator runs it."""
