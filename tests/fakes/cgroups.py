"""Control groups made of ordinary directories and files."""

import errno
import os
import shutil
from pathlib import Path

from appliance.sandboxes.cgroup_files import CgroupFs

V2_FILES = {
    "cgroup.procs": "",
    "cgroup.kill": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cgroup.subtree_control": "",
    "cpu.stat": "usage_usec 0\nuser_usec 0\n",
}
V2_BY_CONTROLLER = {
    "memory": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.oom.group": "0",
        "memory.peak": "0",
        "memory.events": "low 0\noom_kill 0\n",
    },
    "pids": {"pids.max": "max"},
    "cpu": {"cpu.max": "max 100000", "cpu.weight": "100"},
    "io": {"io.weight": "default 100"},
}
V1_BY_CONTROLLER = {
    "pids": {"pids.max": "max"},
    "memory": {
        "memory.limit_in_bytes": "-1",
        "memory.memsw.limit_in_bytes": "-1",
        "memory.use_hierarchy": "1",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        "memory.max_usage_in_bytes": "0",
    },
    "cpu": {"cpu.shares": "1024", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"},
    "cpuacct": {"cpuacct.usage": "0"},
}


class FakeCgroupFs(CgroupFs):
    """As strict as the kernel about what a group has and when it can be removed."""

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}  # name of a file -> errno of its writing
        self.order: list[str] = []

    def mount_v2(self, base: Path, *controllers: str) -> None:
        """The group that was given to us, with ourselves in it."""
        base.mkdir(parents=True)
        for name, text in V2_FILES.items():
            (base / name).write_text(text)
        (base / "cgroup.controllers").write_text(" ".join(controllers))
        (base / "cgroup.procs").write_text(f"{os.getpid()}\n")

    def mount_v1(self, mount: Path, controller: str) -> None:
        mount.mkdir(parents=True)
        (mount / "cgroup.procs").write_text("")
        for name, text in V1_BY_CONTROLLER[controller].items():
            (mount / name).write_text(text)

    def make(self, group: Path) -> None:
        if group.exists():
            return
        group.mkdir()
        if (group.parent / "cgroup.controllers").exists():
            handed_on = (group.parent / "cgroup.subtree_control").read_text().split()
            (group / "cgroup.controllers").write_text(" ".join(handed_on))
            files = dict(V2_FILES)
            for controller in handed_on:
                files.update(V2_BY_CONTROLLER[controller])
        else:
            names = {
                file.name: file.read_text() for file in group.parent.iterdir() if file.is_file()
            }
            files = {**names, "tasks": "", "cgroup.procs": ""}
        for name, text in files.items():
            (group / name).write_text(text)

    def remove(self, group: Path) -> None:
        if not group.exists():
            raise FileNotFoundError(errno.ENOENT, "gone", str(group))
        if (group / "cgroup.procs").read_text() or any(one.is_dir() for one in group.iterdir()):
            raise OSError(errno.EBUSY, "in use", str(group))
        shutil.rmtree(group)

    def write(self, file: Path, value: str | int) -> None:
        self.order.append(f"{file.name} {value}")
        if file.name in self.refused:
            raise OSError(self.refused[file.name], "refused", str(file))
        if not file.exists():
            raise FileNotFoundError(errno.ENOENT, "no such file", str(file))
        match file.name:
            case "cgroup.subtree_control":
                self._hand_on(file, str(value).removeprefix("+"))
            case "cgroup.procs":
                self._move(file.parent, int(value))
            case "cgroup.kill":
                for group in self.below(file.parent):
                    (group / "cgroup.procs").write_text("")
                    (group / "cgroup.events").write_text("populated 0\n")
            case _:
                file.write_text(f"{value}\n")

    def enter(self, group: Path, pid: int) -> None:
        """What a process of the sandbox does."""
        (group / "cgroup.procs").write_text(f"{pid}\n")
        while (group / "cgroup.events").exists():
            (group / "cgroup.events").write_text("populated 1\n")
            group = group.parent

    def _hand_on(self, file: Path, controller: str) -> None:
        group = file.parent
        if controller not in (group / "cgroup.controllers").read_text().split():
            raise OSError(errno.ENOENT, "no such controller", str(file))
        if (group / "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, "it holds processes", str(file))
        file.write_text(" ".join({*file.read_text().split(), controller}))

    def _move(self, group: Path, pid: int) -> None:
        for other in (group.parent, group.parent.parent):
            procs = other / "cgroup.procs"
            if procs.exists():
                left = [line for line in procs.read_text().split() if int(line) != pid]
                procs.write_text("".join(f"{line}\n" for line in left))
        with (group / "cgroup.procs").open("a") as file:
            file.write(f"{pid}\n")
