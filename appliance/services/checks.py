"""What can be wrong with a gateway, how to tell, and what to do about it.

``openclawmu doctor`` runs every check, the readiness of a running gateway the
cheap ones (:data:`VITAL_CHECKS`), so that both say the same in the same words.
A check is a function from what was found to a :class:`Finding`; it reads
values and does no IO, which makes each of them a one-line test.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.config.schema import GatewayConfig
from appliance.sandboxes.base import Proof

LOW_DISK_BYTES = 64 * 1024 * 1024  # below, a write may be cut off in the middle of a busy second
SCARCE_DISK_BYTES = 1024 * 1024 * 1024
_FEW_DESCRIPTORS = 4096
_PRIVATE_DIRECTORY = 0o700
_PRIVATE_FILE = 0o600


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``remedy`` says what to do, "" where nothing needs doing."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What a running gateway always knows of itself."""

    free_bytes: int
    running: bool = True  # False: seen from beside, by ``doctor``
    config_problem: str | None = None  # why the file, as it is now, cannot be taken
    audit_problem: str | None = None  # why the audit log cannot be written
    broken_tenants: Mapping[str, str] = field(default_factory=dict)  # id -> why
    sandbox: Proof | None = None  # None: not tried yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What ``doctor`` collects from the disk and the machine."""

    vitals: Vitals
    state_dir: str
    state_mode: int
    state_owner: int
    user: int
    config: GatewayConfig | None  # None: config.yaml cannot be used, see ``vitals``
    secret_modes: Mapping[str, int]
    unresolved: Sequence[str] = ()  # what is wrong with a secret's reference, one sentence each
    audit_findings: Sequence[str] = ()
    self_tests: Sequence[tuple[str, bool, str]] = ()  # name, whether it works, what it said
    descriptor_limit: int = _FEW_DESCRIPTORS
    egress_problem: str = ""  # why nothing in a sandbox would find the egress proxy


def run_checks(found: "Vitals | Installation") -> list[Finding]:
    """Every check there is for ``found``, in the order of the tables."""
    if isinstance(found, Vitals):
        return [check(found) for check in VITAL_CHECKS]
    return [
        *(check(found.vitals) for check in VITAL_CHECKS),
        *(check(found) for check in INSTALLATION_CHECKS),
        *sandbox_findings(found.vitals.sandbox),
        *part_findings(found.self_tests),
    ]


def worst(findings: Iterable[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.BROKEN, Verdict.WARNING):
        if verdict in verdicts:
            return verdict
    return Verdict.OK


def disk_has_room(vitals: Vitals) -> Finding:
    free = f"{vitals.free_bytes // 1024**2} MiB are free"
    remedy = "free space, or move the state directory to a larger disk"
    if vitals.free_bytes < LOW_DISK_BYTES:
        return Finding("disk", Verdict.BROKEN, free, remedy)
    if vitals.free_bytes < SCARCE_DISK_BYTES:
        return Finding("disk", Verdict.WARNING, free, remedy)
    return Finding("disk", Verdict.OK, free)


def config_is_valid(vitals: Vitals) -> Finding:
    if vitals.config_problem is None:
        return Finding("config", Verdict.OK, "config.yaml is valid")
    # A running gateway goes on with the last good one; the next start would fail.
    verdict = Verdict.WARNING if vitals.running else Verdict.BROKEN
    remedy = "correct config.yaml; it is read again as soon as it changes"
    return Finding("config", verdict, vitals.config_problem, remedy)


def audit_can_be_written(vitals: Vitals) -> Finding:
    if vitals.audit_problem is None:
        return Finding("audit log", Verdict.OK, "audit.log can be written")
    remedy = "make audit.log writable; until then every admin action is refused"
    return Finding("audit log", Verdict.BROKEN, vitals.audit_problem, remedy)


def tenants_are_readable(vitals: Vitals) -> Finding:
    broken = vitals.broken_tenants
    if not broken:
        return Finding("tenants", Verdict.OK, "every record can be read")
    told = "; ".join(f"{name}: {reason}" for name, reason in sorted(broken.items())[:5])
    more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
    remedy = "repair or restore the record; the tenant stays shut and its files are not touched"
    return Finding("tenants", Verdict.WARNING, told + more, remedy)


def sandbox_isolates(vitals: Vitals) -> Finding:
    """A warning at worst: agents still answer, only what they would run is refused."""
    proof = vitals.sandbox
    if proof is None:
        return Finding("sandbox", Verdict.OK, "the isolation was not tested yet")
    if proof.problem:
        remedy = "mend it, or install bubblewrap (apt install bubblewrap); until then agents and"
        return Finding(
            "sandbox", Verdict.WARNING, proof.problem, f"{remedy} terminals run no commands"
        )
    held = sum(probe.passed for probe in proof.probes)
    text = f"{proof.backend}: {held} of {len(proof.probes)} probes hold; limits: {proof.limits}"
    return Finding("sandbox", Verdict.OK, text)


def state_directory_is_private(found: Installation) -> Finding:
    name = "state directory"
    if found.state_owner != found.user:
        text = f"{found.state_dir} belongs to user {found.state_owner}, this is user {found.user}"
        return Finding(name, Verdict.BROKEN, text, "run as the user the directory belongs to")
    if found.state_mode & ~_PRIVATE_DIRECTORY:
        text = f"{found.state_dir} has mode {found.state_mode:o}"
        return Finding(name, Verdict.BROKEN, text, f"chmod 700 {found.state_dir}")
    return Finding(name, Verdict.OK, f"{found.state_dir} is private")


def secrets_are_private(found: Installation) -> Finding:
    open_files = [name for name, mode in found.secret_modes.items() if mode & ~_PRIVATE_FILE]
    if open_files:
        text = f"others may read {', '.join(sorted(open_files))}"
        remedy = f"chmod 600 {found.state_dir}/secrets/*, then rotate what was readable"
        return Finding("secrets", Verdict.BROKEN, text, remedy)
    return Finding("secrets", Verdict.OK, "the files in secrets/ are private")


def secret_references_resolve(found: Installation) -> Finding:
    if found.unresolved:
        # Seen from a shell: the service may well have what the shell has not.
        remedy = "set what config.yaml names, and run doctor in the environment of the service"
        return Finding("secret references", Verdict.WARNING, "; ".join(found.unresolved), remedy)
    return Finding("secret references", Verdict.OK, "every reference has its secret")


def admin_can_log_in(found: Installation) -> Finding:
    if found.config is None:
        return _unknown("admin key")
    keys = found.config.server.admin_keys
    if keys:
        return Finding("admin key", Verdict.OK, f"{len(keys)} configured")
    remedy = "start `openclawmu serve` with OPENCLAW_ADMIN_KEY set, which stores its hash"
    return Finding("admin key", Verdict.BROKEN, "nobody can administer this gateway", remedy)


def proxies_are_named(found: Installation) -> Finding:
    if found.config is None:
        return _unknown("proxy")
    server = found.config.server
    if not server.behind_proxy or server.trusted_proxies:
        return Finding("proxy", Verdict.OK, "forwarding headers are believed from whom you named")
    text = "server.behind_proxy is set, but no address in server.trusted_proxies"
    remedy = "name the proxy's address, or every caller is logged and counted as the proxy"
    return Finding("proxy", Verdict.WARNING, text, remedy)


def a_model_answers(found: Installation) -> Finding:
    if found.config is None:
        return _unknown("models")
    if not found.config.providers:
        remedy = "add a provider; docs/providers.md has one for each kind"
        return Finding("models", Verdict.WARNING, "no provider is configured", remedy)
    if found.config.models.default is None:
        remedy = "set models.default to provider/model"
        return Finding("models", Verdict.WARNING, "agents have no default model", remedy)
    return Finding("models", Verdict.OK, f"agents use {found.config.models.default}")


def audit_chain_is_whole(found: Installation) -> Finding:
    if found.audit_findings:
        told = "; ".join(found.audit_findings[:3])
        remedy = "keep the file as evidence and compare it with a copy: `openclawmu audit verify`"
        return Finding("audit chain", Verdict.BROKEN, told, remedy)
    return Finding("audit chain", Verdict.OK, "no edit, cut or reorder")


def descriptors_suffice(found: Installation) -> Finding:
    limit = found.descriptor_limit
    if limit < _FEW_DESCRIPTORS:
        text = f"at most {limit} open files"
        return Finding(
            "open files", Verdict.WARNING, text, f"ulimit -n {_FEW_DESCRIPTORS}, or more"
        )
    return Finding("open files", Verdict.OK, f"at most {limit}")


def sandbox_findings(proof: Proof | None) -> list[Finding]:
    """What else is to be said of sandboxes: each probe that failed, each thing not enforced."""
    if proof is None:
        return []
    failed = [
        Finding(
            f"sandbox: {probe.name}",
            Verdict.WARNING,
            probe.detail or "the probe failed",
            "nothing is run while this fails; docs/sandbox.md explains each probe",
        )
        for probe in proof.probes
        if not probe.passed
    ]
    return [*failed, *(Finding("sandbox limits", Verdict.WARNING, each) for each in proof.warnings)]


def sandboxes_find_their_way_out(found: Installation) -> Finding:
    if found.egress_problem:
        remedy = "apt install socat, if sandboxes are to reach what egress.allow names"
        return Finding("sandbox egress", Verdict.WARNING, found.egress_problem, remedy)
    return Finding("sandbox egress", Verdict.OK, "commands find the egress proxy")


def part_findings(self_tests: Iterable[tuple[str, bool, str]]) -> list[Finding]:
    """The parts this installation is made of, each tried once."""
    remedy = "install again, from a package or a binary made for this machine"
    return [
        Finding(name, Verdict.OK, said) if works else Finding(name, Verdict.BROKEN, said, remedy)
        for name, works, said in self_tests
    ]


def _unknown(name: str) -> Finding:
    return Finding(name, Verdict.WARNING, "config.yaml cannot be used", "correct it first")


VITAL_CHECKS: tuple[Callable[[Vitals], Finding], ...] = (
    disk_has_room,
    config_is_valid,
    audit_can_be_written,
    tenants_are_readable,
    sandbox_isolates,
)
INSTALLATION_CHECKS: tuple[Callable[[Installation], Finding], ...] = (
    state_directory_is_private,
    secrets_are_private,
    secret_references_resolve,
    admin_can_log_in,
    proxies_are_named,
    a_model_answers,
    audit_chain_is_whole,
    descriptors_suffice,
    sandboxes_find_their_way_out,
)
