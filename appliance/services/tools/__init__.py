"""What an agent can do besides talking: one module per tool or family of tools.

A tool is a value (:class:`~appliance.services.tools.base.Tool`): a name, a
description and the shape of its parameters for the model, and a function. What
may be called is decided by policy before the function is reached; what comes
back is text (or a picture) for the model, marked where strangers wrote it.
"""
