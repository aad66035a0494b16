"""Raw ASGI in front of the framework, for the routes that spend money.

They are where the speed counts: a framework's request object, response object
and second task per stream would cost as much as the rest of the way together.
"""
