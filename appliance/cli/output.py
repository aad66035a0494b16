"""What a command prints: tables for people, JSON for machines, secrets once.

Only results go to stdout. Hints and progress go to stderr, so that
``openclawmu tenants create acme | tail -1`` is the token and nothing else.
"""

from collections.abc import Mapping, Sequence

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 1000  # columns


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a heading; a cell is shown as it is, never read as markup."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(shown(cell) for cell in row))
    stdout().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values below each other."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, shown(value))
    stdout().print(table)


def print_secret(label: str, secret: str) -> None:
    """Print a secret that will not be shown again: alone on its line on stdout."""
    hint(f"{label} (shown this once):")
    click.echo(secret)


def hint(text: str) -> None:
    """Say something to the person at the terminal, beside the result."""
    click.echo(text, err=True)


def stdout() -> Console:
    # Made anew each time: tests and pipes exchange sys.stdout. Wider than any
    # screen, because an id that was broken in two cannot be copied.
    return Console(highlight=False, width=_WIDE)


def moment(text: str | None) -> str | None:
    """A time of the gateway as people read it: UTC, to the minute."""
    return None if text is None else f"{text[:10]} {text[11:16]}Z"


def shown(value: object) -> Text:
    """``value`` as a cell, without control characters somebody may have put in a name."""
    match value:
        case None:
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case list() | tuple():
            text = ", ".join(str(each) for each in value)
        case _:
            text = str(value)
    return Text("".join(char if char.isprintable() else "�" for char in text))
