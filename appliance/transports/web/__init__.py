"""Pages for people: rendered here from ``appliance/web``, driven by small ES modules.

A page holds no data of a tenant but its id and what the path says: what it
shows, its script fetches through the same doors as every other client, with
the session cookie that HttpOnly keeps from the script itself.

What an attacker may hold: the output of a terminal, the title of a program, a
recording, a link that our user follows, a page elsewhere. What is promised:
nothing of these becomes markup or code (templates escape, scripts set text
only, the policy allows neither inline nor foreign code and demands Trusted
Types of which there are none); no page of ours is framed; a file is served
from a table made of the package's own files, never from a path that was asked
for. What is not: that a browser with a hostile extension shows the truth.
"""
