"""Finding and loading weights that lie in an ELF section of an executable."""

import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.providers import frozen_weights
from appliance.providers.frozen_weights import Section

HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
ENTRY = struct.Struct("<IIQQQQIIQQ")
PROGBITS, STRTAB, NOBITS = 1, 3, 8


def elf(sections: dict[str, bytes], *, kind: int = PROGBITS) -> bytes:
    """The smallest ELF file that carries ``sections``."""
    contents, names, table = b"", b"\0", [ENTRY.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for name, content in [*sections.items(), (".shstrtab", b"")]:
        start = len(names)
        names += name.encode() + b"\0"
        if name == ".shstrtab":
            content, kind = names, STRTAB
        offset = HEADER.size + len(contents)
        table.append(ENTRY.pack(start, kind, 0, 0, offset, len(content), 0, 0, 1, 0))
        contents += content
    header = HEADER.pack(
        b"\x7fELF", 2, 1, 2, 62, 1, 0, 0, HEADER.size + len(contents), 0, 64, 0, 0, 64,
        len(table), len(table) - 1,
    )  # fmt: skip
    return header + contents + b"".join(table)


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    path = tmp_path / "app"
    path.write_bytes(elf({".weights.a.gguf": b"GGUF one", ".weights.b.gguf": b"GGUF two!"}))
    return path


def test_a_section_is_found_by_its_name(executable: Path) -> None:
    name = frozen_weights.section_name("b.gguf")

    section = frozen_weights.find_section(executable, name)

    assert section is not None
    start, size = section.offset, section.size
    assert executable.read_bytes()[start : start + size] == b"GGUF two!"


def test_a_section_that_is_not_there_is_not_found(executable: Path) -> None:
    assert frozen_weights.find_section(executable, ".weights.c.gguf") is None


def test_a_section_without_bytes_in_the_file_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "app"
    path.write_bytes(elf({".weights.a.gguf": b"x"}, kind=NOBITS))

    assert frozen_weights.find_section(path, ".weights.a.gguf") is None


def test_the_running_interpreter_can_be_read() -> None:
    section = frozen_weights.find_section(Path(sys.executable).resolve(), ".text")

    assert section is not None
    assert section.size > 0


def test_a_file_cut_anywhere_gives_nothing_rather_than_a_failure(executable: Path) -> None:
    whole = executable.read_bytes()
    for length in range(len(whole)):
        executable.write_bytes(whole[:length])
        assert frozen_weights.find_section(executable, ".weights.b.gguf") is None


@given(content=st.binary(max_size=300), prefix=st.sampled_from([b"", b"\x7fELF\x02\x01"]))
def test_any_other_file_gives_nothing(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, prefix: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(prefix + content)

    assert frozen_weights.find_section(path, ".weights.a.gguf") is None


def test_an_opened_section_is_a_sealed_file_of_its_own(executable: Path) -> None:
    section = frozen_weights.find_section(executable, ".weights.a.gguf")
    assert section is not None

    memory = frozen_weights.open_section(executable, section, label="a.gguf")

    try:
        assert Path(f"/proc/self/fd/{memory}").read_bytes() == b"GGUF one"
        assert os.read(memory, 4) == b"GGUF"
        assert not os.get_inheritable(memory)
        with pytest.raises(PermissionError):
            os.write(memory, b"changed")
    finally:
        os.close(memory)


def test_an_executable_that_ends_too_early_is_an_error(executable: Path) -> None:
    size = executable.stat().st_size

    with pytest.raises(OSError, match="ends before its weights"):
        frozen_weights.open_section(executable, Section(size - 4, 100), label="x")


def test_from_source_nothing_is_carried() -> None:
    assert frozen_weights.frozen_executable() is None
    assert not frozen_weights.carried("a.gguf")
    assert frozen_weights.open_carried("a.gguf") is None
    assert frozen_weights.unpacked("a.gguf") is None


def test_a_frozen_executable_opens_what_it_carries(
    executable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(executable))

    assert frozen_weights.carried("a.gguf")
    assert not frozen_weights.carried("c.gguf")
    assert frozen_weights.open_carried("c.gguf") is None
    memory = frozen_weights.open_carried("a.gguf")
    assert memory is not None
    assert os.read(memory, 100) == b"GGUF one"
    os.close(memory)


def test_weights_of_a_build_without_objcopy_are_found_where_they_were_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    assert frozen_weights.unpacked("a.gguf") is None

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_bytes(b"GGUF")

    assert frozen_weights.unpacked("a.gguf") == tmp_path / "models" / "a.gguf"
