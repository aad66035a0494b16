"""The command ``openclawmu``, and what is found below it.

Each module is loaded when its command is called, so that ``--help`` and the
small commands do not pay for the server. The imports are written out, because
a frozen build finds nothing else.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from appliance import __version__


def _serve() -> click.Command:
    from appliance.cli.serve import serve

    return serve


def _demo() -> click.Command:
    from appliance.cli.demo import demo

    return demo


def _init() -> click.Command:
    from appliance.cli.init import init

    return init


def _tenants() -> click.Command:
    from appliance.cli.tenants import tenants

    return tenants


def _tokens() -> click.Command:
    from appliance.cli.tokens import tokens

    return tokens


def _chat() -> click.Command:
    from appliance.cli.chat import chat

    return chat


def _call() -> click.Command:
    from appliance.cli.call import call

    return call


def _methods() -> click.Command:
    from appliance.cli.methods import methods

    return methods


def _logs() -> click.Command:
    from appliance.cli.logs import logs

    return logs


def _audit() -> click.Command:
    from appliance.cli.audit import audit

    return audit


def _doctor() -> click.Command:
    from appliance.cli.doctor import doctor

    return doctor


def _model_worker() -> click.Command:
    @click.command(
        "model-worker", context_settings={"ignore_unknown_options": True}, add_help_option=False
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def model_worker(arguments: tuple[str, ...]) -> None:
        from appliance.providers.embedded_worker import main as run

        sys.exit(run(list(arguments)))

    return model_worker


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    help: str
    load: Callable[[], click.Command]
    hidden: bool = False


ENTRIES = (
    Entry("init", "Make the state directory and its configuration.", _init),
    Entry("serve", "Run the gateway.", _serve),
    Entry("demo", "Run the gateway with the embedded model and a tenant to try it.", _demo),
    Entry("tenants", "Create, list, change and remove tenants.", _tenants),
    Entry("tokens", "Create, list and revoke a tenant's tokens.", _tokens),
    Entry("chat", "Talk to an agent.", _chat),
    Entry("call", "Call a method of the gateway.", _call),
    Entry("methods", "List the gateway's methods.", _methods),
    Entry("logs", "Show the latest log lines.", _logs),
    Entry("audit", "Verify and read the audit log.", _audit),
    Entry("doctor", "Check this installation and explain how to repair it.", _doctor),
    # Started by the gateway itself, see appliance.providers.embedded.
    Entry("model-worker", "Run the embedded model.", _model_worker, hidden=True),
)


class Commands(click.Group):
    """The group of all commands, from the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in ENTRIES if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return next((entry.load() for entry in ENTRIES if entry.name == cmd_name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(entry.name, entry.help) for entry in ENTRIES if not entry.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.command(
    cls=Commands,
    name="openclawmu",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="OpenClawMU: a multi-tenant AI gateway on your own metal.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 refused, 5 no gateway.",
)
@click.version_option(__version__, prog_name="openclawmu")
def main() -> None:
    pass
