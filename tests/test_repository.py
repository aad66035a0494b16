"""The rules of the house, as far as a machine can check them."""

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"

# A module longer than this holds two nouns.
MODULE_LINES_MAX = 450
FILE_BYTES_MAX = 400_000
LARGER = {"appliance/services/price_list.json": 600_000}  # generated, one model a line

# Layers whose every module has tests that name it.
TESTED_LAYERS = ("model", "protocols", "storage", "services")

# Where packages come from, and where this was written, is nobody's business but
# the machine's. Put together here so that this file passes its own test.
FORBIDDEN_TEXT = re.compile(
    "|".join(
        re.escape("".join(parts))
        for parts in (
            ("py", "pi.org"),
            ("pythonhosted", ".org"),
            ("registry.", "npmjs"),
            ("registry.", "yarnpkg"),
            ("deb.", "debian.org"),
            ("security.", "debian.org"),
            ("archive.", "ubuntu.com"),
            ("proxy.", "golang.org"),
            ("static.", "crates.io"),
            ("file:///", "opt/"),
            ("/opt/", "pypi"),
            ("/opt/", "wheels"),
            ("/wo", "rk/main"),
            ("/wo", "rk/shared"),
            ("/wo", "rk/."),
            ("/root/", "."),
        )
    )
)
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
NO_COVER = "pragma: " + "no cover"

NOQA = re.compile(r"#\s*noqa\b(?!: [A-Z]+\d+(, [A-Z]+\d+)* - \S)")
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore(?!\[[a-z, -]+\])")

PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
MAKE_COMMAND = re.compile(r"(?:^|[`\s(])make((?: [A-Z]+=\S+)*(?: [a-z][a-z-]*)+)", re.MULTILINE)
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


@cache
def kept_files() -> tuple[Path, ...]:
    """What is, or is about to be, part of the repository."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    names = sorted({name for name in listing.decode().split("\0") if name})
    return tuple(path for path in (ROOT / name for name in names) if path.is_file())


def texts() -> Iterator[tuple[Path, str]]:
    for path in kept_files():
        try:
            yield path.relative_to(ROOT), path.read_text()
        except UnicodeDecodeError:
            continue  # a picture or the like


def sources(*folders: str) -> list[Path]:
    return [
        path
        for path in kept_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


def lines_that_match(pattern: re.Pattern[str], *folders: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources(*folders)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if pattern.search(line)
    ]


def locks() -> list[Path]:
    return sorted(REQUIREMENTS.glob("*.txt"))


def pins(lock: Path) -> dict[str, str]:
    found = (PINNED.match(line) for line in lock.read_text().splitlines())
    return {normal(match[1]): match[2] for match in found if match}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# What people read


def test_no_module_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): length
        for path in sources("appliance")
        if (length := len(path.read_text().splitlines())) > MODULE_LINES_MAX
    }
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources("appliance", "build")
        if ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


@pytest.mark.parametrize("layer", TESTED_LAYERS)
def test_every_module_has_tests(layer: str) -> None:
    """Its own file, or one of the layer's that imports it by name."""
    tests = {path: path.read_text() for path in sources("tests") if layer in path.parts}
    names = {path.name for path in tests}
    untested = []
    for path in sources("appliance"):
        relative = path.relative_to(ROOT / "appliance")
        if relative.parts[0] != layer or path.name == "__init__.py":
            continue
        package = ".".join(("appliance", *relative.parts[:-1]))
        stem = re.escape(path.stem)
        imported = re.compile(
            rf"{re.escape(package)}\.{stem}\b|from {re.escape(package)} import [^)]*?\b{stem}\b"
        )
        if f"test_{path.name}" not in names and not any(map(imported.search, tests.values())):
            untested.append(str(relative))
    assert untested == []


def test_nothing_is_left_for_later() -> None:
    assert lines_that_match(UNFINISHED, "appliance", "build", "tests") == []


def test_every_suppression_names_its_rule_and_its_reason() -> None:
    assert lines_that_match(NOQA, "appliance", "build", "tests") == []
    # The reason may stand in the comment above: several ignores often share one.
    assert lines_that_match(TYPE_IGNORE, "appliance", "build", "tests") == []
    assert lines_that_match(re.compile(NO_COVER), "appliance", "build", "tests") == []


def test_nothing_is_skipped_without_a_reason() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("tests")
        for tree in [ast.parse(path.read_text())]
        for explained in [reasoned(tree)]
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"skip", "skipif", "xfail", "importorskip"}
        and ast.unparse(node.value) in {"pytest", "pytest.mark"}
        and node not in explained
    ]
    assert silent == []


def reasoned(tree: ast.AST) -> set[ast.AST]:
    """Whatever is called with a reason: in so many words, or as the text of a skip."""
    return {
        call.func
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and (
            any(keyword.arg == "reason" for keyword in call.keywords)
            or (ast.unparse(call.func) == "pytest.skip" and call.args)
        )
    }


# What the repository holds


def test_no_file_names_a_registry_or_a_machine() -> None:
    named = [
        f"{path}:{number}: {match[0]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := FORBIDDEN_TEXT.search(line))
    ]
    assert named == []


def test_no_file_is_large() -> None:
    large = {
        str(path.relative_to(ROOT)): size
        for path in kept_files()
        if (size := path.stat().st_size) > LARGER.get(str(path.relative_to(ROOT)), FILE_BYTES_MAX)
    }
    assert large == {}


def test_scripts_can_be_run() -> None:
    scripts = [path for path, text in texts() if text.startswith("#!")]

    assert Path(".ci/run") in scripts
    assert [str(path) for path in scripts if not os.access(ROOT / path, os.X_OK)] == []


# Lock files


@pytest.mark.parametrize("lock", locks(), ids=lambda path: path.name)
def test_everything_locked_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    entries = [
        entry
        for entry in re.split(r"\n(?=\S)", text)
        if entry.strip() and not entry.startswith("#")
    ]

    assert entries
    assert [entry for entry in entries if not PINNED.match(entry)] == []
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert " @ " not in text
    assert not re.search(r"^\s*--?(?!hash)[a-z]", text, re.MULTILINE)


def test_what_the_package_needs_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {normal(re.split(r"[^\w.-]", entry)[0]) for entry in project["dependencies"]}

    assert needed - pins(REQUIREMENTS / "run.txt").keys() == set()


@pytest.mark.parametrize("asked", sorted(REQUIREMENTS.glob("*.in")), ids=lambda path: path.name)
def test_what_is_asked_for_is_locked(asked: Path) -> None:
    wanted = {
        normal(re.split(r"[^\w.-]", line)[0])
        for line in asked.read_text().splitlines()
        if line and not line.startswith(("#", "-"))
    }

    assert wanted - pins(asked.with_suffix(".txt")).keys() == set()


def test_lock_files_agree() -> None:
    run = pins(REQUIREMENTS / "run.txt")
    different = {
        f"{lock.name}: {name}": (version, run[name])
        for lock in locks()
        for name, version in pins(lock).items()
        if run.get(name, version) != version
    }
    assert different == {}


# Commands


def test_every_target_is_explained_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))

    assert phony == explained


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_commands_that_are_documented_exist(page: str) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    text = (ROOT / page).read_text()
    if page.endswith(".md"):
        # Prose may well say "make" without meaning the program.
        text = "\n".join(re.findall(r"`[^`]+`|^(?: {4}|\$ |make ).*$", text, re.MULTILINE))
    named = {
        word
        for command in MAKE_COMMAND.findall(text)
        for word in re.sub(r" [A-Z]+=\S+", "", command).split()[:1]
    }

    assert named
    assert named - targets == set()
