"""The OpenAI-shaped routes, as raw ASGI in front of the framework.

They are where the money is spent and where the speed counts: a framework's
request object, response object and second task per stream would cost as much
as the rest of the way together.
"""
