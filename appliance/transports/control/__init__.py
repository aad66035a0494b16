"""The control plane over HTTP: tenants, tokens, quotas, configuration, usage, audit, status.

One module a noun. Each ends in a tuple of :class:`~.route.Route`; ``table``
puts the tuples together, and from that one table come the registration with
Quart-Trio, ``/openapi.json``, the page ``/docs`` and the isolation suite.

What an attacker may hold: any number of valid tokens of other tenants, any
bytes in any part of a request, a browser session made to send requests of
someone else's choosing. What is promised: a caller is proven before a body is
read, the caller's right to the tenant in the path is settled in one place
(``admission``) before a handler runs, and a route that does not say who may
call it cannot be written. What is not: that an id of a tenant is a secret.
"""
