"""Who is awake, what runs for whom, and who is cancelled.

This layer owns the nurseries. A tenant is two of them: *services* run as long
as the tenant is awake and are started again when they end; *jobs* run once and
fail alone. A request is a job too: its door hands the work over and waits for
it, so whatever ends a tenant or a token ends the request, and whatever ends
the request (a client that leaves) ends the work.

Promises, each with its test: a fault or a hang in one tenant changes nothing
for another; a credential that stops being valid has nothing running a second
later, whichever way it ended; nothing of a tenant outlives the tenant; a
tenant that sleeps costs no task, no file and no database.

Nothing here knows HTTP, and nothing below this layer starts a task that
outlives its own call.
"""
