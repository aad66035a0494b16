"""Other people's clients of the APIs against a real gateway: ``make test-clients``.

The official SDKs of OpenAI and Anthropic and the libraries most built on them,
each with nothing but a base URL and a tenant's token. They are pinned in
``requirements/`` and ``npm/`` and live in environments of their own, so their
tests do too: ``python/`` and ``node/`` hold one file for each client, which
``test_clients.py`` runs there. Behind the gateway stands the stub provider's
``assistant``, once in each dialect, so that every client also meets every
translation.
"""
