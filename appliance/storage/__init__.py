"""Data at rest: files, SQLite databases, one store per noun.

What the attacker holds
    A tenant's token, and code of their choice in a sandbox that can write the
    tenant's ``workspace/`` (any name, link, FIFO or depth in there, changed at
    any moment); a config overlay; an archive handed to a restore. A thief may
    also hold a copy of one tenant's directory, without ``secrets/``.

What we promise
    * No path given by or found with a tenant leads out of that tenant's
      directory. Every lookup starts at a descriptor of it and follows no link
      (:mod:`.paths`); nothing else joins strings into paths.
    * What is not a plain file is never read, waited for or written through.
    * A file that was written is there in full, old or new, after a crash at
      any point (:mod:`.files`); a full disk loses nothing that was there.
    * One process owns the state directory (:mod:`.state_lock`).
    * Tokens are kept as digests. Keys of other services are encrypted with a
      key outside the tenant's directory and bound to tenant, name and address
      (:mod:`.credentials`): a copied, swapped or edited entry opens nothing.
    * A tenant that is removed is moved away first, so that one created later
      under the same id never sees its data.

What we do not promise
    Whoever runs code as the gateway's own user, or as root, reads and changes
    everything, the key-encryption key included. Sessions and the ledger are
    not encrypted: use an encrypted disk against theft of the machine.

This layer knows SQLite, files and Trio; it knows neither services nor HTTP.
What may fsync blocks: call it in a worker thread.
"""
