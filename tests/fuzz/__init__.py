"""Schemathesis against our own ``/openapi.json``: ``make fuzz-api``.

It reads there what each route takes, asks that and everything near it, and
calls a 500 and a status that the document does not have by their names. It
lives in the environment of ``tests/clients``, as another program.
"""
