"""Commands run for a tenant: within its quotas, in its workspace, on its books.

Nothing in here isolates anything; that is the business of :mod:`appliance.sandboxes`.
"""
