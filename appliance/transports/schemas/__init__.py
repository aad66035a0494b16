"""What goes over the wire on the control plane, one module a noun.

A struct's annotations are the only check of a request's shape, the source of
its JSON Schema in ``/openapi.json``, and the words of its error messages.
"""
