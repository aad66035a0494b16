"""Model weights carried inside the frozen executable.

``make binary`` puts each weights file into an ELF section of its own, in front
of the archive that the start-up code unpacks. So one file carries the models,
and a start that needs none of them never reads them: it costs neither time nor
memory until a model is loaded. Loading copies the section into a sealed memfd,
because llama.cpp opens a path and reads it from its first byte.
"""

import fcntl
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

# What no ELF file we wrote can exceed; more means a damaged or hostile header.
_SECTIONS_MAX: Final = 4096
_NAMES_MAX_BYTES: Final = 1 << 20

_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")  # ELF64, little endian
_SECTION = struct.Struct("<IIQQQQIIQQ")
_ELFCLASS64: Final = 2
_LITTLE_ENDIAN: Final = 1
_NOBITS: Final = 8  # sh_type of a section that takes no room in the file

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section's bytes lie in the executable."""

    offset: int
    size: int


def section_name(file_name: str) -> str:
    """The section that carries the weights file ``file_name``."""
    return f".weights.{file_name}"


def find_section(executable: Path, name: str) -> Section | None:
    """Find section ``name`` in an ELF file; None if it has none or is no ELF file we can read.

    Raises OSError if the file cannot be read at all.
    """
    with executable.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            sections = _sections(file)
        except (struct.error, UnicodeDecodeError, ValueError):
            return None
    section = sections.get(name)
    if section is None or section.offset + section.size > size:
        return None
    return section


def open_section(executable: Path, section: Section, *, label: str) -> int:
    """Copy ``section`` into a sealed memfd and return its descriptor, at offset 0.

    The descriptor is the caller's to close and is not inherited by programs
    started later. Its pages are memory that cannot be paged out, so open it in
    the process that loads the model, once. Raises OSError.
    """
    memory = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with executable.open("rb") as file:
            _copy(file.fileno(), memory, section)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        os.lseek(memory, 0, os.SEEK_SET)
    except BaseException:
        os.close(memory)
        raise
    return memory


def frozen_executable() -> Path | None:
    """The frozen executable this process runs from; None when run from source."""
    return Path(sys.executable) if getattr(sys, "frozen", False) else None


def carried(file_name: str) -> bool:
    """Whether the running executable carries ``file_name`` in a section."""
    executable = frozen_executable()
    return executable is not None and find_section(executable, section_name(file_name)) is not None


def open_carried(file_name: str) -> int | None:
    """Open the carried weights ``file_name`` as a memfd (see ``open_section``).

    None when this is no frozen executable or it does not carry that file.
    ``/proc/self/fd/<descriptor>`` is the path to load in this process.
    """
    executable = frozen_executable()
    if executable is None:
        return None
    section = find_section(executable, section_name(file_name))
    if section is None:
        return None
    return open_section(executable, section, label=file_name)


def unpacked(file_name: str) -> Path | None:
    """The weights file in the unpacked archive, where a build without objcopy puts it."""
    folder = getattr(sys, "_MEIPASS", None)
    if folder is None:
        return None
    path = Path(folder) / "models" / file_name
    return path if path.is_file() else None


def _sections(file: BinaryIO) -> dict[str, Section]:
    fields = _HEADER.unpack(file.read(_HEADER.size))
    magic, elf_class, byte_order = fields[:3]
    if magic != b"\x7fELF" or elf_class != _ELFCLASS64 or byte_order != _LITTLE_ENDIAN:
        raise ValueError("not a 64-bit little-endian ELF file")
    table_offset = fields[8]
    entry_size, count, names_index = fields[13:16]
    if entry_size != _SECTION.size or count > _SECTIONS_MAX or names_index >= count:
        raise ValueError("a section table we do not write")
    file.seek(table_offset)
    table = list(_SECTION.iter_unpack(file.read(entry_size * count)))
    if len(table) != count:
        raise ValueError("the section table is cut off")
    names_offset, names_size = table[names_index][4:6]
    if names_size > _NAMES_MAX_BYTES:
        raise ValueError("the table of section names is too large")
    file.seek(names_offset)
    names = file.read(names_size)
    return {
        _name(names, entry[0]): Section(offset=entry[4], size=entry[5])
        for entry in table
        if entry[1] != _NOBITS
    }


def _name(names: bytes, start: int) -> str:
    return names[start : names.index(b"\0", start)].decode("ascii")


def _copy(source: int, target: int, section: Section) -> None:
    offset, left = section.offset, section.size
    while left:
        sent = os.sendfile(target, source, offset, min(left, 1 << 26))
        if sent == 0:
            raise OSError("the executable ends before its weights do")
        offset += sent
        left -= sent
