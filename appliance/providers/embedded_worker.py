"""The process that runs an embedded model: ``model-worker``, started by the gateway.

llama.cpp may crash on a bad file or be killed for its memory, so it has a
process of its own. It listens on a Unix socket in a folder only this user can
enter, wants a key that came in the environment, and opens no TCP port. It says
one line on standard output (``READY``, or ``FAILED`` and why) and leaves when
its standard input ends, that is, also when the gateway is killed.
"""

import argparse
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

READY: Final = "READY"
FAILED: Final = "FAILED"
KEY_VARIABLE: Final = "OPENCLAW_WORKER_KEY"

_NICENESS: Final = 5  # the gateway's loop comes first
_LONGEST_ANSWER: Final = 512  # tokens, where the request sets no limit
_EMBEDDING_TOKENS: Final = 512  # what MiniLM was trained for
_MOST_GROWTH: Final = 1 << 30  # bytes beside the loaded model: a schema can make a huge grammar


def main(argv: Sequence[str]) -> int:
    """Run until standard input ends; return an exit code if the model cannot be loaded."""
    # Before the library is loaded: its threads otherwise spin while they wait,
    # which on shared cores makes it up to ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    options = _parser().parse_args(argv)
    say = _take_standard_output()
    os.nice(_NICENESS)
    os.umask(0o077)
    try:
        server = _load(options, key=os.environ.pop(KEY_VARIABLE))
    except (RuntimeError, OSError, ImportError, KeyError) as exc:
        say(f"{FAILED} {exc or type(exc).__name__}")
        return 1
    Path(options.socket).chmod(0o600)
    _bound_memory()
    say(READY)
    sys.stdin.buffer.read()
    _clear_away(Path(options.socket))
    # Without a farewell: the server's destructor waits for ever for its threads.
    os._exit(0 if server else 1)


def _clear_away(socket: Path) -> None:
    """Remove the socket and its folder, which was made for it: the gateway may be gone."""
    with suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()


def _bound_memory() -> None:
    """Whatever is asked of the loaded model, the rest of the machine keeps its memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))  # KiB
    limit = used * 1024 + _MOST_GROWTH
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-worker")
    parser.add_argument("--socket", required=True)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--model", help="path of the weights")
    weights.add_argument("--carried", help="name of weights inside this executable")
    parser.add_argument("--alias", required=True, help="what the model is called in answers")
    parser.add_argument("--context", type=int, required=True, help="tokens")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--embedding", action="store_true")
    return parser


def _take_standard_output() -> Any:
    """Keep standard output for our one line: the library may write to it as well."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a descriptor is what is wanted
        os.dup2(nowhere.fileno(), 1)
    return lambda line: print(line.replace("\n", " "), file=channel, flush=True)


def _load(options: argparse.Namespace, *, key: str) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model or _carried(options.carried)
    params.model_alias = {options.alias}
    params.hostnames = [options.socket]  # by default: a TCP port without a key
    params.api_keys = [key]
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.cache_ram_mib = 0  # by default: up to 8 GiB
    params.n_parallel = 1  # more gains nothing on a CPU; the gateway queues
    params.n_ctx = options.context
    params.n_predict = _LONGEST_ANSWER
    params.verbosity = -1
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    if options.embedding:
        params.embedding = True
        params.n_ctx = params.n_batch = params.n_ubatch = min(options.context, _EMBEDDING_TOKENS)
    return xllamacpp.Server(params)


def _carried(file_name: str) -> str:
    from appliance.providers.frozen_weights import open_carried

    descriptor = open_carried(file_name)
    if descriptor is None:
        raise FileNotFoundError(f"this executable does not carry {file_name}")
    return f"/proc/self/fd/{descriptor}"
