"""Where the code of customers and models runs: bubblewrap, or Podman.

The attacker holds every program in a sandbox, its files in the workspace, and
what it prints. We promise that it reads and writes nothing but its workspace
and what is built for it, reaches no network but an allow-listed door, uses no
more than its limits, learns nothing of the gateway or of another tenant, and
leaves no process behind. We do not promise to withstand a hole in the kernel.

Nothing here knows tenants' quotas, tools or protocols: a specification comes
in, a running sandbox goes out. Where the isolation cannot be proved, nothing
runs.
"""
