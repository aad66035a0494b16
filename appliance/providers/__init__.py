"""Model providers: one interface over the APIs that answer.

``base`` says what a provider is; ``building`` makes one from its section of
the config. ``http_provider`` speaks to all that are reached over HTTP, with a
module per dialect for what differs; ``embedded`` adds the care of a worker
process beside us.

Threat model: a provider may be slow, wrong, down or hostile, and a tenant may
name one of his own. So every wait has an end and every buffer a limit; nothing
a provider says is followed (no redirects) and nothing is shown unsanitised;
addresses a tenant named are checked after they are resolved, and what is
checked is what is connected to. Keys go to the host they are for, in a header,
and nowhere else: not into errors, logs, or another process's arguments.

Retries, cool-down and failover between providers are above, in
``services.routing``: here one call is one attempt.
"""
