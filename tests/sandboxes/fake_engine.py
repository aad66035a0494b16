"""A container engine that makes no containers: a script that notes what it was asked."""

from dataclasses import dataclass
from pathlib import Path

from appliance.sandboxes.container_engine import ContainerEngine
from appliance.sandboxes.podman_arguments import Engine

_SCRIPT = """#!/bin/sh
cd "{folder}"
for argument; do printf '%s\\n' "$argument"; done >>asked
echo "--" >>asked
for word; do
  case $word in
    create)
      for argument; do
        case $argument in *.env) cat "$argument" >>variables; ls -l "$argument" >>modes ;; esac
      done
      [ ! -e create.fails ] || {{ cat create.fails >&2; exit 125; }}
      exit 0 ;;
    init) [ ! -e init.fails ] || {{ cat init.fails >&2; exit 125; }}; exit 0 ;;
    inspect)
      case $* in
        *image*) [ -e image ] || exit 1; cat image; exit 0 ;;
        *Pid*) cat pid; exit 0 ;;
        *) cat state; exit 0 ;;
      esac ;;
    start) cat >/dev/null & . ./command; exit $? ;;
    ps) cat containers; exit 0 ;;
    rm | kill) exit 0 ;;
  esac
done
"""


@dataclass(frozen=True, slots=True)
class FakeEngine:
    """Its files say how it behaves: ``create.fails``, ``init.fails``, ``command``, ``state``."""

    folder: Path
    engine: ContainerEngine

    @property
    def asked(self) -> list[list[str]]:
        text = (self.folder / "asked").read_text() if (self.folder / "asked").exists() else ""
        return [call.split("\n") for call in text.removesuffix("\n--\n").split("\n--\n") if call]

    def calls(self, command: str) -> list[list[str]]:
        return [call for call in self.asked if command in call]

    def set(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def fake_engine(folder: Path, kind: Engine = Engine.PODMAN) -> FakeEngine:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / kind.value
    program.write_text(_SCRIPT.format(folder=folder))
    program.chmod(0o755)
    fake = FakeEngine(
        folder,
        ContainerEngine(
            kind=kind,
            program=str(program),
            options=["--fake"],
            environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        ),
    )
    fake.set("state", "exited false 0\n")
    fake.set("command", "echo out; echo err >&2")
    fake.set("containers", "")
    fake.set("pid", "0")
    return fake
