"""Values and the rules between them.

Nothing here knows a clock, a socket, a database or a framework: time comes in
as ``now`` and text becomes a value once, in a ``parse`` that raises. What the
other layers hand to each other are these types, so a check made here is never
repeated further up.
"""
