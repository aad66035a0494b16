"""OpenClaw's own clients against this gateway: ``make conformance``.

The command lines of two releases (one speaks protocol 3, the other protocol 4),
their Control UIs in a headless Chromium, and the client library, each as a
tenant with nothing but its token. What they are and where from is locked in
``npm/``; ``build/node_clients.py`` installs them outside of the checkout.
"""
