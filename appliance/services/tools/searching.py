"""``find`` and ``grep``, which run in a sandbox.

Patterns come from a model and files from anybody: a pattern that never ends, or
a million files, take the tenant's own share of the machine and nobody else's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from msgspec import UNSET, Meta, UnsetType

from appliance.model.globs import LONGEST, to_regex
from appliance.model.workspace_paths import printable, relative_path
from appliance.sandboxes.base import WORKSPACE, Access
from appliance.services.sandboxes.output import RunResult
from appliance.services.sandboxes.sandboxes import SandboxRequest, SandboxTenant
from appliance.services.tools.arguments import FILE_ALIASES, forgiving
from appliance.services.tools.base import (
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.services.tools.files import PathText, require_access
from appliance.services.tools.search_output import Match, parse_found, parse_matches
from appliance.services.workspace_access import in_workspace
from appliance.services.workspaces import hidden_from
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_entries import EntryKind, describe

SECONDS = 60.0
MOST_FOUND = 5000
MOST_OUTPUT = 1024 * 1024  # bytes
_NAMES: Mapping[str, str] = {**FILE_ALIASES, "query": "pattern", "regex": "pattern", "dir": "path"}
_NOT_ENTERED = (".git", "node_modules")

# Words of the model reach the shell as arguments, never as text of the script.
_LIST = r"""
list() {
  set -- -regex "$files" "$@"
  [ -z "$prune" ] || set -- \( -name .git -o -name node_modules \) -prune -o "$@"
  LC_ALL=$names find . -regextype posix-extended -mindepth 1 "$@"
}
"""
_FIND = (
    "names=$1 files=$2 prune=$3 most=$4\n"
    + _LIST
    + r"""list -printf '%y%P\0' | head -z -n "$most" """
)
_GREP = (
    "names=$1 files=$2 prune=$3 most=$4 one=$5 pattern=$6 icase=$7 literal=$8 around=$9\n"
    + _LIST
    + r"""
if command -v rg >/dev/null 2>&1; then
  set -- rg --no-config --no-messages --no-heading --color=never -n -H -0
  [ -z "$literal" ] || set -- "$@" -F
else
  set -- grep -s --color=never -n -H -Z -I -D skip
  if [ -n "$literal" ]; then set -- "$@" -F; else set -- "$@" -P; fi
fi
[ -z "$icase" ] || set -- "$@" -i
set -- "$@" -C "$around" -e "$pattern" --
"$@" /dev/null || [ $? -lt 2 ] || exit 2
if [ -n "$one" ]; then "$@" "$one"; else list -type f -print0 | xargs -0 -r "$@"; fi |
  head -c "$most"
"""
)


class FindParams(ToolParams, frozen=True, kw_only=True):
    pattern: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=LONGEST,
            description="Such as *.py or src/**/test_*.{js,ts}.",
        ),
    ]
    path: PathText = "."
    limit: Annotated[int, Meta(ge=1, le=MOST_FOUND)] = 1000


class GrepParams(ToolParams, frozen=True, kw_only=True):
    pattern: Annotated[
        str, Meta(min_length=1, max_length=LONGEST, description="A regular expression.")
    ]
    path: PathText = "."
    glob: (
        Annotated[
            str,
            Meta(min_length=1, max_length=LONGEST, description="Only in such files, as *.py."),
        ]
        | UnsetType
    ) = UNSET
    ignore_case: bool = False
    literal: Annotated[bool, Meta(description="Take the pattern as plain text.")] = False
    context: Annotated[int, Meta(ge=0, le=20, description="Lines around each match.")] = 0
    limit: Annotated[int, Meta(ge=1, le=1000, description="Matches.")] = 100


class Searches(Protocol):
    """``Sandboxes``, as far as it is needed here."""

    async def run(
        self,
        tenant: SandboxTenant,
        request: SandboxRequest,
        *,
        timeout: float,  # noqa: ASYNC109 - see ``Sandboxes.run``
        max_output_bytes: int,
    ) -> RunResult: ...


@dataclass(frozen=True, slots=True)
class SearchTools:
    sandboxes: Searches

    async def find(self, call: ToolCall, params: FindParams) -> ToolResult:
        require_access(call)
        folder = relative_path(params.path)
        if await _kind(call, folder) is not EntryKind.DIRECTORY:
            raise ToolFailed(f"{printable(folder)} is not a directory")
        files = _expression(params.pattern, "pattern")
        names = _locale_of_names(params.pattern)
        arguments = (names, files, _prune(params.pattern, folder), str(params.limit + 1))
        ran = await self._run(call, folder, _FIND, arguments, locale=names)
        covered = {f"{name}/" for name in hidden_from(call.key.agent)}
        found = [path for path in parse_found(ran.output, folder) if path not in covered]
        shown = sorted(found[: params.limit])
        lines = [printable(path) for path in shown]
        notice = _unfinished(ran) or (
            f"the first {params.limit} of more; choose a narrower pattern or path"
            if len(found) > params.limit
            else ""
        )
        return _result(lines, notice, "nothing matches", {"found": len(shown)})

    async def grep(self, call: ToolCall, params: GrepParams) -> ToolResult:
        require_access(call)
        if "\n" in params.pattern or "\0" in params.pattern:
            raise ToolFailed("the pattern is for one line; it holds no line break and no NUL")
        path = relative_path(params.path)
        kind = await _kind(call, path)
        folder, one = path, ""
        if kind is EntryKind.FILE:
            folder, _, name = path.rpartition("/")
            one = f"./{name}"
        elif kind is not EntryKind.DIRECTORY:
            raise ToolFailed(f"{printable(path)} is neither a file nor a directory")
        glob = "**" if params.glob is UNSET else params.glob
        arguments = (
            _locale_of_names(glob),
            _expression(glob, "glob"),
            _prune(glob, folder),
            str(MOST_OUTPUT),
            one,
            _without_surrogates(params.pattern),
            "1" if params.ignore_case else "",
            "1" if params.literal else "",
            str(params.context),
        )
        locale = _locale_of_text(params.pattern)
        ran = await self._run(call, folder, _GREP, arguments, locale=locale)
        if ran.ending.exit_code == 2 and not ran.output:
            reason = ran.errors.decode(errors="replace").strip()[:500]
            raise ToolFailed(f"the pattern cannot be used: {reason}; or set literal")
        matches = parse_matches(ran.output, folder)
        return _grepped(matches, ran, params)

    async def _run(
        self, call: ToolCall, folder: str, script: str, arguments: Sequence[str], *, locale: str
    ) -> RunResult:
        request = SandboxRequest(
            agent=call.key.agent,
            command=("/bin/sh", "-c", script, "search", *arguments),
            directory=f"{WORKSPACE}/{folder}" if folder else WORKSPACE,
            environment={"LC_ALL": locale},
            purpose="search",
            has_egress=False,
            access=Access.READ,
            session=call.key.short,
            run_id=call.run_id,
            credential=call.caller.credential,
        )
        ran = await self.sandboxes.run(
            call.tenant, request, timeout=SECONDS, max_output_bytes=MOST_OUTPUT + 64 * 1024
        )
        if ran.ending.exit_code in {126, 127} and not ran.output:
            raise ToolFailed("there are no programs for searching in the sandbox")
        return ran


async def _kind(call: ToolCall, path: str) -> EntryKind:
    """Before a sandbox is started for nothing; raises ``NotFound`` and ``PathRefused``."""
    if not path:
        return EntryKind.DIRECTORY

    def look(workspace: Workspace) -> EntryKind:
        return describe(workspace, path).kind

    return await in_workspace(call.tenant, call.key.agent, look, about=path)


def _expression(glob: str, name: str) -> str:
    try:
        return to_regex(_without_surrogates(glob))
    except ValueError as exc:
        raise ToolFailed(f"{name}: {exc}") from exc


def _prune(glob: str, folder: str) -> str:
    """Nobody means what tools keep in there, unless they name it."""
    return "" if any(name in glob or name in folder for name in _NOT_ENTERED) else "1"


def _locale_of_names(glob: str) -> str:
    """Byte by byte, names that are not UTF-8 are found; "?" and sets are about characters."""
    return "C" if glob.isascii() and not {"?", "["} & set(glob) else "C.UTF-8"


def _locale_of_text(pattern: str) -> str:
    """The same of lines; files that are not UTF-8 count as binary where characters matter."""
    return "C" if pattern.isascii() and not {".", "[", "\\"} & set(pattern) else "C.UTF-8"


def _without_surrogates(text: str) -> str:
    return text.encode(errors="replace").decode()


def _unfinished(ran: RunResult) -> str:
    if ran.timed_out:
        return f"the search was ended after {SECONDS:g} s; choose a narrower pattern or path"
    if ran.over_disk or ran.ending.out_of_memory or ran.ending.killed:
        return ran.reason or "the search was ended before it was done"
    return ""


def _grepped(matches: Sequence[Match], ran: RunResult, params: GrepParams) -> ToolResult:
    lines: list[str] = []
    count = 0
    notice = _unfinished(ran)
    for match in matches:
        count += match.is_match
        if count > params.limit:
            count -= 1
            notice = f"the first {params.limit} matches of more; choose a narrower pattern or path"
            break
        if lines and match.begins_group and params.context:
            lines.append("--")
        lines.append(match.shown)
    if not notice and len(ran.output) >= MOST_OUTPUT:
        notice = "there is more; choose a narrower pattern or path"
    return _result(lines, notice, "no line matches", {"matches": count})


def _result(
    lines: Sequence[str], notice: str, nothing: str, details: Mapping[str, object]
) -> ToolResult:
    text = "\n".join(lines) or f"({nothing})"
    if notice:
        text += f"\n\n[{notice[0].upper()}{notice[1:]}.]"
    return ToolResult(text=text, details={**details, "more": bool(notice)}, untrusted=Source.FILE)


def tools(sandboxes: Searches) -> tuple[Tool[Any], ...]:
    search = SearchTools(sandboxes)
    return (
        forgiving(
            name="find",
            group="fs",
            label="Find files",
            description=(
                "Find files and directories by name. A pattern without a slash is about names at "
                "any depth; ** crosses directories. .git and node_modules are left out unless "
                "named."
            ),
            params=FindParams,
            call=search.find,
            aliases=_NAMES,
        ),
        forgiving(
            name="grep",
            group="fs",
            label="Search in files",
            description=(
                "Search text files for a regular expression; shows path:line: text. "
                ".git and node_modules are left out unless named."
            ),
            params=GrepParams,
            call=search.grep,
            aliases=_NAMES,
        ),
    )
