"""What the product can do, in its own words.

A service knows tenants, tokens, calls, budgets and sessions. It knows neither
HTTP nor SQL nor the command line: doors call it with values, stores keep what
it decides, and the edges it needs (a provider, a running tenant) are small
protocols that it declares itself.

Every way to spend goes through one meter per tenant (:mod:`.meter`): there is
no second place that counts, and no door that leads past it.
"""
