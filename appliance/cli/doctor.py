"""``openclawmu doctor``: say what is wrong, and what to do about it.

It looks from beside, without the gateway: it takes no lock, changes nothing,
and works on a directory that no gateway could start from.
"""

import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import click

from appliance.cli.client import json_option
from appliance.cli.exits import Exit
from appliance.cli.output import print_json, stdout
from appliance.cli.sandbox_parts import prove_isolation
from appliance.cli.state import CONFIG, state_option
from appliance.config.documents import LARGEST
from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.config.secrets import resolve
from appliance.model.errors import ApplianceError
from appliance.sandboxes.forwarding import forwarding
from appliance.services.checks import (
    Finding,
    Installation,
    Verdict,
    Vitals,
    part_findings,
    run_checks,
    worst,
)
from appliance.services.selftest import self_test
from appliance.storage.audit_chain import verify_state
from appliance.storage.audit_log import FILE as AUDIT_LOG
from appliance.storage.state import SECRETS, StateDirectory
from appliance.storage.tenant_records import TenantRecords

_SIGNS = {
    Verdict.OK: ("ok", "green"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.BROKEN: ("broken", "red"),
}


@click.command(help="Check this installation and explain how to repair it.")
@click.option("--self", "itself", is_flag=True, help="Check only what this program carries.")
@state_option
@json_option()
@click.pass_context
def doctor(ctx: click.Context, state_dir: Path, *, itself: bool, as_json: bool) -> None:
    findings = part_findings(self_test()) if itself else examine(state_dir, environ=os.environ)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    if worst(findings) is Verdict.BROKEN:
        ctx.exit(int(Exit.FAILURE))


def examine(path: Path, *, environ: Mapping[str, str]) -> list[Finding]:
    """Every finding about the installation whose state directory is ``path``."""
    parts: list[tuple[str, bool, str]] = list(self_test())
    if not path.is_dir():
        remedy = "run `openclawmu init`, or name another with --state-dir"
        absent = Finding("state directory", Verdict.BROKEN, f"there is no {path}", remedy)
        return [absent, *part_findings(parts)]
    try:
        return run_checks(_look(path, environ, parts))
    except (ApplianceError, OSError) as exc:
        text = exc.detail if isinstance(exc, ApplianceError) else f"{path}: {exc.strerror}"
        remedy = "run as the user that runs the gateway"
        return [Finding("state directory", Verdict.BROKEN, text, remedy), *part_findings(parts)]


def _look(
    path: Path, environ: Mapping[str, str], parts: list[tuple[str, bool, str]]
) -> Installation:
    status = path.stat()
    config, problem = _config(path / CONFIG)
    with StateDirectory.open(path) as state:
        vitals = Vitals(
            free_bytes=state.free_bytes(),
            running=False,
            config_problem=problem,
            audit_problem=_audit_problem(path / AUDIT_LOG),
            broken_tenants=dict(_broken(state)),
            sandbox=None if config is None else prove_isolation(config.sandbox),
        )
        return Installation(
            vitals=vitals,
            state_dir=str(path),
            state_mode=status.st_mode & 0o7777,
            state_owner=status.st_uid,
            user=os.geteuid(),
            config=config,
            secret_modes=dict(_secret_modes(path / SECRETS)),
            unresolved=[] if config is None else list(_unresolved(config, environ)),
            audit_findings=[str(finding) for finding in verify_state(state).findings],
            self_tests=parts,
            descriptor_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            egress_problem=_egress_problem(),
        )


def _config(path: Path) -> tuple[GatewayConfig | None, str | None]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode()
        return parse_config(text, name=str(path)), None
    except ApplianceError as exc:
        return None, exc.detail
    except OSError as exc:
        return None, f"{path}: {exc.strerror}"
    except UnicodeDecodeError:
        return None, f"{path} is not UTF-8 text"


def _egress_problem() -> str:
    try:
        forwarding(["true"])
    except ApplianceError as exc:
        return exc.detail
    return ""


def _audit_problem(path: Path) -> str | None:
    if not path.exists() or os.access(path, os.R_OK | os.W_OK):
        return None
    return f"{path} cannot be read and written by user {os.geteuid()}"


def _broken(state: StateDirectory) -> Iterator[tuple[str, str]]:
    # Not scan(): that tidies up, which only the owner of the directory may do.
    records = TenantRecords(state)
    for tenant in records.tenants():
        try:
            records.read(tenant)
        except ApplianceError as exc:
            yield tenant, exc.detail


def _secret_modes(folder: Path) -> Iterator[tuple[str, int]]:
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield file.name, file.lstat().st_mode & 0o777


def _unresolved(config: GatewayConfig, environ: Mapping[str, str]) -> Iterator[str]:
    for key, reference in _references(config):
        try:
            resolve(
                reference,
                environ=environ,
                credentials_directory=environ.get("CREDENTIALS_DIRECTORY"),
                key=key,
            )
        except ApplianceError as exc:
            yield exc.detail


def _references(config: GatewayConfig) -> Iterator[tuple[str, str]]:
    if config.server.control_plane_token is not None:
        yield "server.control_plane_token", config.server.control_plane_token
    for name, provider in config.providers.items():
        if provider.api_key is not None:
            yield f"providers.{name}.api_key", provider.api_key


def _print(finding: Finding) -> None:
    word, colour = _SIGNS[finding.verdict]
    console = stdout()
    console.print(f"{word:8}", style=colour, end="")
    console.print(f"{finding.name}: {finding.found}", markup=False)
    if finding.remedy:
        console.print(f"        {finding.remedy}", markup=False)
