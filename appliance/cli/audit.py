"""``openclawmu audit``: is the log as it was written, and what does it say?"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from appliance.cli.client import Gateway, json_option, talks_to_gateway
from appliance.cli.exits import Exit, failed
from appliance.cli.output import hint, moment, print_json, print_table
from appliance.cli.parameters import TENANT
from appliance.cli.state import require_state, state_option
from appliance.model.errors import ApplianceError
from appliance.storage.audit_chain import verify_state
from appliance.storage.state import StateDirectory


@click.group(name="audit", help="Verify and read the audit log.")
def audit() -> None:
    pass


@audit.command(help="Find any edit, cut or reorder in the audit log and its rotated files.")
@state_option
@json_option()
@click.pass_context
def verify(ctx: click.Context, state_dir: Path, *, as_json: bool) -> None:
    require_state(state_dir)
    try:
        with StateDirectory.open(state_dir) as state:
            found = verify_state(state)
    except ApplianceError as exc:
        raise failed(exc) from exc
    if as_json:
        print_json(
            {
                "intact": found.is_intact,
                "lines": found.lines,
                "first": found.first,
                "head": asdict(found.head),
                "findings": [asdict(finding) for finding in found.findings],
                "notes": found.notes,
            }
        )
    else:
        for finding in found.findings:
            click.echo(str(finding))
        for note in found.notes:
            hint(f"note: {note}")
        verdict = "intact" if found.is_intact else f"{len(found.findings)} findings"
        click.echo(f"{found.lines} lines, {verdict}; head {found.head.seq} {found.head.hash}")
    if not found.is_intact:
        ctx.exit(int(Exit.FAILURE))


@audit.command(help="Show the newest lines of the audit log.")
@click.option("--lines", "-n", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--tenant", metavar="ID", type=TENANT, help="Only the lines about this tenant.")
@json_option()
@talks_to_gateway
async def tail(gateway: Gateway, *, lines: int, tenant: str | None, as_json: bool) -> None:
    page = await gateway.get("/v1/audit", limit=lines, tenant=tenant)
    if as_json:
        print_json(page["entries"])
        return
    columns = ("time", "who", "tenant", "action", "target", "result", "from")
    print_table("Audit log", columns, [_row(entry) for entry in reversed(page["entries"])])


def _row(entry: dict[str, Any]) -> list[object]:
    actor = entry["actor"]
    who = f"{actor['kind']} {actor['id']}"
    keys = ("tenant", "action", "target", "result", "ip")
    return [moment(entry["ts"]), who, *(entry[key] for key in keys)]
