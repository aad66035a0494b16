"""The Responses API: Open Responses of 2026-04-24 and what OpenAI adds to it.

Requests are read and checked here, answers written from deltas, and the same
API is spoken to providers. What is stored, and for how long, is not known here.
"""
