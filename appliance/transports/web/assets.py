"""The files that pages load: a fixed table, each address good for ever.

The address holds a digest of all files together, so that modules can import
each other by plain relative names, and a browser may keep what it has until
the next release changes the address.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_COMPRESSED = ".gz"
_DIGEST_LENGTH = 16  # hexadecimal digits: it tells releases apart and guards nothing


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    media_type: str
    compressed: bytes | None = None  # with gzip, where the build made it


class Assets:
    """Every file there is, by name."""

    def __init__(self, files: Mapping[str, Asset]) -> None:
        self._files = dict(files)
        digest = hashlib.sha256()
        for name, asset in sorted(self._files.items()):
            digest.update(f"{name} {len(asset.content)}\n".encode() + asset.content)
        self.digest = digest.hexdigest()[:_DIGEST_LENGTH]

    @classmethod
    def of(cls, folders: Iterable[Traversable]) -> "Assets":
        """The files of ``folders``; a folder that was not built has none."""
        found = {
            file.name: file.read_bytes()
            for folder in folders
            if folder.is_dir()
            for file in folder.iterdir()
            if file.is_file()
        }
        return cls(
            {
                name: Asset(content, media_type, found.get(f"{name}{_COMPRESSED}"))
                for name, content in found.items()
                if (media_type := _TYPES.get(f".{name.rpartition('.')[2]}")) is not None
            }
        )

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def find(self, digest: str, name: str) -> Asset | None:
        """The file of that address; None for one of another release, too."""
        return self._files.get(name) if digest == self.digest else None
