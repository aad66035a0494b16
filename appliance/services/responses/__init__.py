"""Responses: answers that can be continued, run in the background and asked for again.

What a request says is read in ``protocols.responses``; here its context is
found, the model or the agent is asked, and the answer is on disk before
anybody is told that it is complete.
"""
