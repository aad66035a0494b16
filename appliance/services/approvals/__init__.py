"""Asking people before something is done: policy, questions, answers, and lasting grants."""
