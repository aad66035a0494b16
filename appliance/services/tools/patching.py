"""``apply_patch``: several files changed at once, or none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from appliance.model.patch_lines import Fuzz
from appliance.model.patches import (
    AddFile,
    Change,
    DeleteFile,
    Outcome,
    PatchRefused,
    UpdateFile,
    apply_patch,
    parse_patch,
)
from appliance.model.workspace_paths import file_path, printable
from appliance.services.tools.arguments import forgiving
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.services.tools.files import read_whole, require_access, require_unchanged
from appliance.services.workspace_access import in_workspace, replace
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_entries import Entry

MIB = 1024 * 1024
LARGEST_FILE = 8 * MIB  # bytes
MOST_READ = 32 * MIB  # bytes of all files together
_NAMES: Mapping[str, str] = {"patch": "input", "patchText": "input", "patch_text": "input"}


class PatchParams(ToolParams, frozen=True, kw_only=True):
    input: Annotated[str, Meta(min_length=1, description="The whole patch.")]


async def patch(call: ToolCall, params: PatchParams) -> ToolResult:
    require_access(call, writing=True)
    try:
        changes = [_confined(change) for change in parse_patch(params.input)]
        outcome = await in_workspace(
            call.tenant, call.key.agent, lambda workspace: _carry_out(workspace, changes)
        )
    except PatchRefused as problem:
        # It may quote a file.
        text = f"Nothing was changed: {problem}"
        return ToolResult(text=text, is_error=True, untrusted=Source.FILE)
    lines = [f"A {printable(path)}" for path in outcome.added]
    lines += [f"M {printable(path)}" for path in outcome.changed]
    lines += [f"M {printable(old)} -> {printable(new)}" for old, new in outcome.moved]
    lines += [f"D {printable(path)}" for path in outcome.deleted]
    if outcome.fuzz is not Fuzz.EXACT:
        lines.append("(some lines fit only without regard to spaces or quotes; check the result)")
    details = {
        "added": outcome.added,
        "changed": outcome.changed,
        "deleted": outcome.deleted,
        "moved": [list(pair) for pair in outcome.moved],
    }
    return ToolResult(text="Applied the patch:\n" + "\n".join(lines), details=details)


def _confined(change: Change) -> Change:
    """The same with paths as the workspace has them. Raises ``InvalidRequest``."""
    match change:
        case AddFile(path, content):
            return AddFile(file_path(path, field="input"), content)
        case DeleteFile(path):
            return DeleteFile(file_path(path, field="input"))
        case UpdateFile(path, hunks, move_to):
            target = None if move_to is None else file_path(move_to, field="input")
            return UpdateFile(file_path(path, field="input"), hunks, target)


def _carry_out(workspace: Workspace, changes: list[Change]) -> Outcome:
    files = _Files(workspace)
    outcome = apply_patch(changes, files.read)
    files.write(outcome.contents)
    return outcome


@dataclass(slots=True)
class _Files:
    """The files as they were read, and the way back if a change cannot be finished."""

    workspace: Workspace
    before: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # content and tag
    _left: int = MOST_READ

    def read(self, path: str) -> str | None:
        try:
            data, etag = read_whole(self.workspace, path, limit=min(LARGEST_FILE, self._left))
        except FileNotFoundError:
            return None
        if b"\0" in data:
            raise PatchRefused(f"{printable(path)} is a binary file")
        self._left -= len(data)
        self.before[path] = (data, etag)
        return data.decode(errors="surrogateescape")

    def write(self, contents: Mapping[str, str | None]) -> None:
        """Make all changes; after a failure take back those that were made."""
        # First what is new or changed: as long as that may fail, nothing is gone.
        ordered = sorted(contents.items(), key=lambda item: item[1] is None)
        done: list[str] = []
        try:
            for path, text in ordered:
                self._write(path, text)
                done.append(path)
        except BaseException as failure:
            lost = [path for path in reversed(done) if not self._restore(path)]
            if lost:
                names = ", ".join(printable(path) for path in lost)
                raise ToolFailed(
                    f"the patch was applied in part, since {failure}; these stay changed: {names}"
                ) from failure
            raise

    def _write(self, path: str, text: str | None) -> None:
        known = self.before.get(path)
        require = _unchanged(path, None if known is None else known[1])
        if text is not None:
            replace(self.workspace, path, text.encode(errors="surrogateescape"), require)
        elif known is not None:
            require(Entry.of(path, self.workspace.stat(path)))
            self.workspace.unlink(path)

    def _restore(self, path: str) -> bool:
        known = self.before.get(path)
        try:
            if known is None:
                self.workspace.unlink(path)
            else:
                replace(self.workspace, path, known[0])
        except Exception:  # noqa: BLE001 - whatever it is, the others are still to be restored
            return False
        return True


def _unchanged(path: str, etag: str | None) -> Callable[[Entry | None], None]:
    def require(entry: Entry | None) -> None:
        if etag is not None:
            require_unchanged(path, entry, etag)
        elif entry is not None:
            raise PatchRefused(f"{printable(path)} is there already")

    return require


_DESCRIPTION = """\
Change several files of the workspace at once; if one change does not fit, none is made.
The patch is text of this form:

*** Begin Patch
*** Add File: path/new.txt
+every line of a new file
*** Update File: path/old.py
*** Move to: path/renamed.py
@@ def function_that_holds_the_place():
 a line before, as it is
-a line that goes
+a line that comes
*** Delete File: path/gone.txt
*** End Patch

"Move to" and "@@" lines are optional. Quote some three lines before and after each change."""


def tools() -> tuple[Tool[Any], ...]:
    return (
        forgiving(
            name="apply_patch",
            group="fs",
            label="Apply a patch",
            description=_DESCRIPTION,
            params=PatchParams,
            call=patch,
            effect=Effect.WRITE,
            is_parallel=False,
            aliases=_NAMES,
        ),
    )
