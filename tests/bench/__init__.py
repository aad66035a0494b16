"""``python -m tests.bench``: what the gateway costs, measured against the same run's anchors.

Every figure that depends on the machine stands beside one that depends on it
the same way: the upstream called directly, or a constant application on the
same server. `docs/benchmarks.md` says what each row means.

Nothing here is imported by the product. It starts processes of its own on
loopback, in a scratch directory, and stops them whatever happens.
"""
