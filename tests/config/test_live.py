import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.config.live import POLL_INTERVAL, LiveConfig
from appliance.config.schema import GatewayConfig
from appliance.model.errors import ConfigInvalid

GOOD = "models: {max_output_tokens: 100}\n"
BETTER = "models: {max_output_tokens: 2000}\n"
BAD = "modles: {}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


def limit(config: GatewayConfig) -> int:
    return config.models.max_output_tokens


def replace(path: Path, text: str) -> None:
    """As an editor does that writes a new file and renames it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def remove(path: Path) -> None:
    path.unlink()


async def until(condition: Callable[[], bool]) -> None:
    """Let virtual seconds pass. How many is unknown: the file is read in a real thread."""
    while not condition():  # noqa: ASYNC110 - nothing tells of a refusal
        await trio.sleep(POLL_INTERVAL)


def test_the_first_config_must_be_good(path: Path) -> None:
    path.write_text(BAD)
    with pytest.raises(ConfigInvalid, match=r"config\.yaml: line 1: modles: unknown key"):
        LiveConfig(path)
    path.unlink()
    with pytest.raises(ConfigInvalid, match="No such file"):
        LiveConfig(path)


def test_a_reload_takes_what_changed_and_tells_subscribers(path: Path) -> None:
    told: list[int] = []
    live = LiveConfig(path, on_change=[lambda config: told.append(limit(config))])
    live.subscribe(lambda config: told.append(-limit(config)))
    assert (limit(live.current), told) == (100, [])
    path.write_text(BETTER)
    assert live.reload()
    assert (limit(live.current), told) == (2000, [2000, -2000])


def test_a_reload_of_the_same_tells_nobody(path: Path) -> None:
    told: list[GatewayConfig] = []
    live = LiveConfig(path, on_change=[told.append])
    path.write_text("# a comment\n" + GOOD)
    assert live.reload()
    assert told == []


@pytest.mark.parametrize("content", [BAD.encode(), b"", b"a: [", b"a: \xff", b"x" * 2_000_000])
def test_a_bad_file_keeps_the_last_good_config_and_says_why(path: Path, content: bytes) -> None:
    live = LiveConfig(path)
    path.write_bytes(content)
    assert not live.reload()
    assert limit(live.current) == 100
    assert live.problem is not None
    assert live.problem.startswith(str(path))
    path.write_text(BETTER)
    assert live.reload()
    assert live.problem is None
    assert limit(live.current) == 2000


def test_a_file_that_is_gone_keeps_the_last_good_config(path: Path) -> None:
    live = LiveConfig(path)
    path.unlink()
    assert not live.reload()
    assert "No such file" in str(live.problem)
    assert limit(live.current) == 100


def test_a_fifo_in_place_of_the_file_does_not_hang(path: Path) -> None:
    live = LiveConfig(path)
    path.unlink()
    os.mkfifo(path)
    assert not live.reload()
    assert "not a regular file" in str(live.problem)


def test_a_check_may_refuse_a_config_that_reads_well(path: Path) -> None:
    def check(config: GatewayConfig) -> None:
        if limit(config) > 1000:
            raise ConfigInvalid.at("models.max_output_tokens", "too many")

    told: list[GatewayConfig] = []
    live = LiveConfig(path, checks=[check], on_change=[told.append])
    path.write_text(BETTER)
    assert not live.reload()
    assert live.problem == "models.max_output_tokens: too many"
    assert (limit(live.current), told) == (100, [])


def test_what_waits_for_the_next_start_is_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveConfig(path)
    path.write_text("server: {bind: '127.0.0.1:1'}\n")
    with caplog.at_level(logging.INFO, "appliance"):
        assert live.reload()
    assert [record.__dict__.get("keys") for record in caplog.records] == [None, "server.bind"]


async def test_a_change_is_taken_within_a_second(
    path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    live = LiveConfig(path)
    taken = trio.Event()
    live.subscribe(lambda _: taken.set())
    await nursery.start(live.watch)
    replace(path, BETTER)
    await taken.wait()
    assert limit(live.current) == 2000


async def test_a_bad_file_is_complained_about_once_and_then_mended(
    path: Path,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = LiveConfig(path)
    await nursery.start(live.watch)
    replace(path, BAD)
    await until(lambda: "modles" in str(live.problem))
    await trio.sleep(10 * POLL_INTERVAL)
    assert len(caplog.records) == 1
    replace(path, GOOD)
    await until(lambda: live.problem is None)


async def test_a_file_that_vanishes_and_returns_is_noticed(
    path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    live = LiveConfig(path)
    await nursery.start(live.watch)
    remove(path)
    await until(lambda: "No such file" in str(live.problem))
    replace(path, BETTER)
    await until(lambda: live.problem is None)
    assert limit(live.current) == 2000


async def test_a_mounted_config_map_is_followed_when_its_link_is_swapped(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for name, text in (("one", GOOD), ("two", BETTER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    (tmp_path / "data").symlink_to("one")
    live = LiveConfig(tmp_path / "data" / "config.yaml")
    await nursery.start(live.watch)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(tmp_path / "data")
    await until(lambda: limit(live.current) == 2000)
