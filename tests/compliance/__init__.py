"""Compliance suites of others, unmodified, against a real gateway: ``make compliance``.

* The official suite of Open Responses. No package registry has it: it is run
  from a checkout of its repository that ``OPENRESPONSES_DIR`` names.
* ``llmprobe`` from npm, whose schemas of the responses and chat completions
  APIs derive from it, and which looks at the Messages API too.
"""
