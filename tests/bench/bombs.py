"""Commands that try to use up a machine."""

from dataclasses import dataclass

DISK_MB = 200  # that a tenant may write


@dataclass(frozen=True, slots=True, kw_only=True)
class Bomb:
    """A command for bash that goes on until it is ended, or can do no more."""

    name: str
    command: str
    fills_disk: bool = False


# What the measurement itself moves by: nothing goes off.
CONTROL = Bomb(name="sleeping command", command="sleep 3600")
BOMBS = (
    Bomb(name="fork bomb", command="b() { b | b & }; b 2>/dev/null; sleep 3600"),
    Bomb(name="memory bomb", command="while :; do tail /dev/zero; done 2>/dev/null"),
    Bomb(
        name="disk bomb",
        command=("n=0; while :; do n=$((n+1)); head -c 20000000 /dev/zero >f$n; done 2>/dev/null"),
        fills_disk=True,
    ),
    Bomb(
        name="descriptor bomb",
        command=(
            "for p in $(seq 100); do (n=0; while [ $n -lt 2000 ]; do n=$((n+1)); "
            "exec {fd}</dev/null || break; done; sleep 3600) 2>/dev/null & done; wait"
        ),
    ),
    Bomb(name="flood of output", command="yes | head -c 1000000000"),
)
