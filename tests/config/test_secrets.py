import os
from pathlib import Path

import pytest

from appliance.config.secrets import LARGEST, resolve
from appliance.model.errors import ConfigInvalid

KEY = "providers.stub.api_key"


def fetch(reference: str, directory: Path | None = None, **environ: str) -> str:
    return resolve(
        reference,
        environ=environ,
        credentials_directory=None if directory is None else str(directory),
        key=KEY,
    )


def refusal(reference: str, directory: Path | None = None, **environ: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        fetch(reference, directory, **environ)
    assert [field.field for field in caught.value.fields] == [KEY]
    return caught.value.detail


def test_a_secret_comes_from_the_environment() -> None:
    assert fetch("env:STUB_KEY", STUB_KEY="sk-1") == "sk-1"


def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-2\n")
    assert fetch(f"file:{tmp_path}/key") == "sk-2"


def test_a_secret_comes_from_systemd(tmp_path: Path) -> None:
    (tmp_path / "anthropic").write_text("sk-3\n")
    assert fetch("cred:anthropic", tmp_path) == "sk-3"


def test_a_missing_secret_names_the_key_and_the_way_out(tmp_path: Path) -> None:
    assert refusal("env:NOPE") == f"{KEY}: the environment variable NOPE is not set; set it"
    assert "No such file" in refusal(f"file:{tmp_path}/nope")
    assert "No such file" in refusal("cred:nope", tmp_path)
    assert "add LoadCredential=nope:/PATH" in refusal("cred:nope")


@pytest.mark.parametrize("literal", ["sk-live-98765", "plain", "", "cred:../kek", "file:kek"])
def test_a_literal_secret_is_refused_and_not_repeated(literal: str) -> None:
    detail = refusal(literal)
    assert "must be a reference" in detail
    assert "98765" not in detail


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    assert "is empty" in refusal(f"file:{tmp_path}/key")
    assert "is empty" in refusal("env:A", A=" ")


def test_a_secret_that_would_split_a_header_is_refused_and_not_repeated() -> None:
    detail = refusal("env:A", A="sk-1\r\nX-Evil: 1")
    assert "control characters" in detail
    assert "Evil" not in detail


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refusal(f"file:{tmp_path}/fifo")
    assert "not a regular file" in refusal(f"file:{tmp_path}")
    assert "not a regular file" in refusal("file:/dev/zero")


def test_a_file_that_is_no_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "larger than" in refusal(f"file:{tmp_path}/large")
    assert "not UTF-8 text" in refusal(f"file:{tmp_path}/binary")
