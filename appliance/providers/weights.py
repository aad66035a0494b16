"""Where the embedded models' weights are.

The first of these that holds the file counts: the path in the config, the
folder named by ``OPENCLAW_MODELS_DIR``, the Debian package's folder (mapped
into memory, so shared between processes), ``models/`` beside the source, and
the frozen executable itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import appliance
from appliance.providers import frozen_weights

CHAT: Final = "smollm2-135m-instruct-q4_1.gguf"
EMBEDDING: Final = "minilm-q8_0.gguf"
CHAT_MODEL: Final = "smollm2-135m"
EMBEDDING_MODEL: Final = "all-minilm-l6-v2"

FOLDER_VARIABLE: Final = "OPENCLAW_MODELS_DIR"
PACKAGE_FOLDER: Final = Path("/usr/share/openclawmu/models")


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file: at ``path``, or carried in the executable under ``file_name``."""

    file_name: str
    path: Path | None

    @property
    def arguments(self) -> tuple[str, ...]:
        """How the worker's command line names it."""
        if self.path is None:
            return ("--carried", self.file_name)
        return ("--model", str(self.path))


def find_weights(
    file_name: str, *, configured: str | None, environ: Mapping[str, str]
) -> Weights | None:
    """Find ``file_name``; None if it is nowhere. A configured path is not looked for elsewhere."""
    if configured is not None:
        path = Path(configured)
        return Weights(path.name, path) if path.is_file() else None
    for folder in _folders(environ):
        if (folder / file_name).is_file():
            return Weights(file_name, folder / file_name)
    if (unpacked := frozen_weights.unpacked(file_name)) is not None:
        return Weights(file_name, unpacked)
    return Weights(file_name, None) if frozen_weights.carried(file_name) else None


def embedding_model(configured: str | None) -> str:
    """What the embedding model is called whose file the config names, or names none."""
    return EMBEDDING_MODEL if configured is None else Path(configured).stem


def _folders(environ: Mapping[str, str]) -> list[Path]:
    named = environ.get(FOLDER_VARIABLE)
    beside_the_source = Path(appliance.__file__).resolve().parents[1] / "models"
    return [*([Path(named)] if named else []), PACKAGE_FOLDER, beside_the_source]
