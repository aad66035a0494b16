"""Wire formats: bytes in, values out, and back.

Nothing here reads a socket, a clock or a file, so every module can be tested
with plain bytes cut at every position. A peer that breaks its own format is
:exc:`~appliance.protocols.answers.MalformedAnswer` (a provider's fault) or
:exc:`~appliance.model.errors.InvalidRequest` (a caller's); what that means for
the request at hand is decided further up.
"""
