"""Rules of the operator and of a tenant for what goes to a model and what comes back.

Without a rule nothing of this is on the way of a call. With one, texts are
looked at where they are whole: in a request, and in an answer behind a window
that holds back what may still become a match. A rule never tells what it
found, neither in an error nor in a log; only its name.

What we do not promise: that somebody who wants to smuggle a text out cannot
spell it differently.
"""
