"""The harness itself: its figures, what it reads of wrk, its report and options. No load."""

import json
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.bench import __main__ as command
from tests.bench import report
from tests.bench.load import Figures, Round, Target, parse_report, script
from tests.bench.processes import MeasurementFailed
from tests.bench.report import Row, at_least, at_least_share, at_most, failed
from tests.bench.samples import added, median, percentile
from tests.bench.stage import Plan

# Figures


def test_a_percentile_is_a_value_that_was_measured() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]

    assert percentile(samples, 0.5) == 3.0
    assert percentile(samples, 0.99) == 5.0
    assert percentile(samples, 0.2) == 1.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], share)


def test_nothing_has_no_percentile_and_no_median() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="no samples"):
        median([])


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5
    assert median([9.0, 1.0, 3.0]) == 3.0


def test_what_is_added_is_the_difference_of_the_same_percentile() -> None:
    assert added([3.0, 4.0, 9.0], [1.0, 2.0, 3.0], 0.5) == 2.0


@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.floats(0.01, 1))
def test_a_percentile_lies_among_its_samples(samples: list[float], share: float) -> None:
    assert percentile(samples, share) in samples


# wrk


def wrk_output(**changes: int) -> str:
    said = {"answers": 200, "microseconds": 2_000_000, "refused": 0, "broken": 0}
    said |= {"p50": 1500, "p99": 9000} | changes
    return f"Running 2s test @ http://127.0.0.1\n  1 threads\nbench {json.dumps(said)}\n"


def test_a_report_of_wrk_becomes_a_round() -> None:
    one = parse_report(wrk_output())

    assert (one.answers, one.seconds, one.rate) == (200, 2.0, 100.0)
    assert (one.p50_ms, one.p99_ms) == (1.5, 9.0)


@pytest.mark.parametrize("changes", [{"refused": 1}, {"broken": 3}, {"answers": 0}])
def test_a_round_with_errors_is_no_measurement(changes: dict[str, int]) -> None:
    with pytest.raises(MeasurementFailed):
        parse_report(wrk_output(**changes))


@pytest.mark.parametrize(
    "said", ["", "unable to connect to 127.0.0.1:1 Connection refused", "bench"]
)
def test_a_wrk_without_a_report_is_no_measurement(said: str) -> None:
    with pytest.raises(MeasurementFailed, match="nothing useful"):
        parse_report(said)


def test_the_script_posts_the_body_in_the_name_of_each_token() -> None:
    text = script(Target("x", "http://127.0.0.1", b'{"a": "b"}', ("one", "two")))

    assert '{"a": "b"}' in text
    assert '{ "one", "two" }' in text
    assert 'bench {"answers": %d' in text


@pytest.mark.parametrize(("body", "token"), [(b"]==]", "t"), (b"{}", 'a"b'), (b"{}", "a\\b")])
def test_what_would_leave_a_lua_literal_is_refused(body: bytes, token: str) -> None:
    with pytest.raises(ValueError, match="Lua"):
        script(Target("x", "http://127.0.0.1", body, (token,)))


def test_figures_are_the_medians_of_their_rounds() -> None:
    figures = Figures([Round(n, 1.0, n / 10, n, cpu) for n, cpu in [(9, 5.0), (1, None), (4, 7.0)]])

    assert (figures.rate, figures.p50_ms, figures.p99_ms, figures.answers) == (4, 0.4, 4, 14)
    assert figures.cpu_us == 6.0
    assert Figures([Round(1, 1.0, 1, 1)]).cpu_us is None


# The report


@pytest.mark.parametrize(
    ("row", "met", "text"),
    [
        (Row("x", 800, bar=at_least(800)), True, "≥ 800"),
        (Row("x", 799, bar=at_least(800)), False, "≥ 800"),
        (Row("x", 2.6, bar=at_most(2.5)), False, "≤ 2.50"),
        (Row("x", 45, baseline=100, bar=at_least_share(0.45)), True, "≥ 45%"),
        (Row("x", 44, baseline=100, bar=at_least_share(0.45)), False, "≥ 45%"),
        (Row("x", 44, bar=at_least_share(0.45)), None, "≥ 45%"),
        (Row("x", None, bar=at_least(1)), None, "≥ 1"),
    ],
)
def test_a_bar_is_met_or_not_or_unknown(row: Row, met: bool | None, text: str) -> None:  # noqa: FBT001 - a column of the table
    assert row.met is met
    assert str(row.bar) == text


def test_a_row_without_a_baseline_has_no_ratio() -> None:
    assert Row("x", 1).ratio is None
    assert Row("x", 1, baseline=0).ratio is None
    assert Row("x", 1, baseline=4).ratio == 0.25


SECTIONS = {
    "json": [Row("Completions", 1234.5, "/s", 2000, "bare app", at_least_share(0.45))],
    "wake": [failed("wake", "nginx is missing [bold]really[/bold]")],
}


def test_the_table_shows_value_baseline_ratio_bar_and_verdict() -> None:
    output = StringIO()
    report.print_table(Console(file=output, width=140), SECTIONS)

    line = next(line for line in output.getvalue().splitlines() if "Completions" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["Completions", "1,234", "/s", "2,000 bare app", "62%", "≥ 45%", "yes"]
    assert "not run" in output.getvalue()
    assert "nginx is missing [bold]really[/bold]" in output.getvalue()


def test_markdown_has_the_same_rows() -> None:
    lines = report.markdown(SECTIONS).splitlines()

    assert lines[2] == "| Completions | 1,234 | /s | 2,000 bare app | 62% | ≥ 45% | yes |"
    assert lines[3] == "| wake | n/a |  |  |  |  | not run |"


def test_json_keeps_every_row_with_its_section() -> None:
    kept = json.loads(report.as_json(SECTIONS, {"quick": True}))

    assert kept["quick"] is True
    first, second = kept["rows"]
    assert (first["section"], first["met"], first["bar"]) == ("json", True, "≥ 45%")
    assert (second["value"], second["met"]) == (None, None)
    assert "nginx is missing" in second["note"]


# The command line


def test_some_measurements_can_be_chosen() -> None:
    options = command.parse_options(["--quick", "--only", "json,wake", "--command", "dist/x --y"])

    assert options.only == ("json", "wake")
    assert options.command == ["dist/x", "--y"]


def test_an_unknown_measurement_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse_options(["--only", "speed"])

    assert ended.value.code == 2
    assert "'speed' is none of latency, integrity, json" in capsys.readouterr().err


def test_the_quick_plan_has_a_value_for_everything_the_whole_one_has() -> None:
    whole, quick = Plan(), Plan.quick()

    assert quick.seconds <= whole.seconds
    assert quick.pairs < whole.pairs
    assert max(quick.populations) < max(whole.populations)
