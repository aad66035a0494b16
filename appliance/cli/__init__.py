"""The command line: one module a command, each ends in an exit code.

Whatever changes a tenant goes through the running gateway, which alone owns
the state directory; only ``init``, ``serve``, ``doctor`` and ``audit verify``
touch the directory themselves. A secret is printed once, when it is made, and
never comes back in an error message.
"""
