"""What may run unseen, what is asked about, what never runs."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.exec_policy import (
    Ask,
    ExecOrder,
    ExecRules,
    Security,
    Verdict,
    judge,
    more_asking,
    programs_of,
    stricter,
    unasked,
)


def order(command: str, directory: str = "/workspace", **environment: str) -> ExecOrder:
    return ExecOrder(command=command, directory=directory, environment=environment)


def allowing(*patterns: str, ask: Ask = Ask.OFF) -> ExecRules:
    return ExecRules(security=Security.ALLOWLIST, ask=ask, allowlist=patterns)


def is_covered(command: str, *patterns: str, **more: str) -> bool:
    return judge(allowing(*patterns), order(command, **more)).is_covered


@pytest.mark.parametrize(
    ("security", "ask", "hit", "miss"),
    [
        ("deny", "off", "refuse", "refuse"),
        ("deny", "always", "refuse", "refuse"),
        ("allowlist", "off", "run", "refuse"),
        ("allowlist", "on-miss", "run", "ask"),
        ("allowlist", "always", "ask", "ask"),
        ("full", "off", "run", "run"),
        ("full", "on-miss", "run", "run"),
        ("full", "always", "ask", "ask"),
    ],
)
def test_the_verdict_follows_from_security_and_ask(
    security: str, ask: str, hit: str, miss: str
) -> None:
    rules = ExecRules(security=Security(security), ask=Ask(ask), allowlist=("ls",))

    assert judge(rules, order("ls -l")).verdict is Verdict(hit)
    assert judge(rules, order("rm -rf x")).verdict is Verdict(miss)


@pytest.mark.parametrize(
    ("fallback", "hit", "miss"),
    [("deny", 0, 0), ("allowlist", 1, 0), ("full", 1, 1)],
)
def test_where_nobody_can_be_asked_the_fallback_decides(fallback: str, hit: int, miss: int) -> None:
    rules = ExecRules(ask=Ask.ALWAYS, fallback=Security(fallback), allowlist=("ls",))

    assert unasked(rules, judge(rules, order("ls"))) == hit
    assert unasked(rules, judge(rules, order("rm x"))) == miss


@pytest.mark.parametrize(
    ("command", "patterns"),
    [
        ("ls -l", ["ls"]),
        ("ls -l", ["/bin/ls"]),
        ("ls -l", ["/usr/bin/*"]),
        ("/usr/bin/ls", ["ls"]),
        ("ls | grep x", ["ls", "grep"]),
        ("cd /tmp && ls; echo done; true", ["ls"]),
        ("set -euo pipefail; ls", ["ls"]),
        ("ls > /dev/null 2>&1", ["ls"]),
        ("LANG=C LC_ALL=C ls", ["ls"]),
        ("nice ls", ["ls"]),
        ("sh -c 'ls; ls'", ["ls"]),
        ("npm run build", ["npm run *"]),
        ("npm run", ["npm run *"]),
        ("npm run build --x", ["npm run build --x"]),
        ("git log a/b", ["git log *"]),
        ("git show a/b", ["git show ?/*"]),
        ("git log $X", ["git log *"]),
        ("./tools/build", ["/workspace/tools/*"]),
        ("tools/build", ["~/tools/build"]),
        ("/workspace/a/b/bin/x", ["/workspace/**/bin/*"]),
        ("/workspace/bin/x", ["/workspace/**/bin/*"]),
        ("find . -name '*.py'", ["find"]),
        ("printf '%s' \"$X\"", []),
        ("bash build.sh", ["bash build.sh"]),
        ("", []),
    ],
)
def test_a_line_is_covered_if_all_of_it_is(command: str, patterns: list[str]) -> None:
    assert is_covered(command, *patterns)


@pytest.mark.parametrize(
    ("command", "patterns"),
    [
        ("ls; rm x", ["ls"]),
        ("ls $(rm x)", ["ls"]),
        ("ls | rm", ["ls"]),
        ("rm", ["ls"]),
        ("ls > x", ["ls"]),
        (": > AGENTS.md", []),
        ("PATH=/workspace ls", ["ls"]),
        ("LD_PRELOAD=x ls", ["ls"]),
        ("export PATH=x; ls", ["ls", "export"]),
        ("printf -v PATH x; ls", ["ls", "printf"]),
        ("/workspace/ls", ["ls"]),
        ("/workspace/ls", ["/usr/bin/ls"]),
        ("./ls", ["ls"]),
        ("/usr/bin/../../workspace/ls", ["/usr/bin/**"]),
        ("/usr//bin/ls", ["/usr/**"]),
        ("cd x; ./build", ["/workspace/build"]),
        ("lsx", ["ls"]),
        ("ls", ["l"]),
        ("ls", [""]),
        ("ls", ["/bin/l"]),
        ("a/b/c", ["/workspace/*"]),
        ("bash", ["bash"]),
        ("bash x", ["bash"]),
        ("sudo ls", ["ls"]),
        ("sudo ls", ["sudo", "ls"]),
        ("eval ls", ["eval", "ls"]),
        ("xargs rm", ["xargs"]),
        ("find . -exec rm x", ["find"]),
        ("find . -delete", ["find"]),
        ("find . $X", ["find"]),
        ("npm install", ["npm run *"]),
        ("npm $X", ["npm run *"]),
        ("git $X --dry-run", ["git * --dry-run"]),
        ("npm run build --x", ["npm run build"]),
        ("if ls; then ls; fi", ["ls"]),
        ("$X", ["*", "**"]),
    ],
)
def test_a_line_with_anything_else_in_it_is_not_covered(command: str, patterns: list[str]) -> None:
    assert not is_covered(command, *patterns)


def test_a_variable_of_the_call_may_make_another_program_of_it() -> None:
    assert not is_covered("ls", "ls", LD_PRELOAD="/workspace/x.so")
    assert not judge(allowing("/bin/ls", "ls"), order("ls"), trusts_path=False).is_covered
    assert judge(allowing("ls"), order("/bin/ls"), trusts_path=False).is_covered
    assert is_covered("ls", "ls", LANG="C")


def test_an_exact_order_is_covered_by_its_digest_and_no_other_is() -> None:
    exact = order("if true; then rm x; fi", A="1")
    rules = ExecRules(security=Security.ALLOWLIST, exact=frozenset({exact.digest}))

    assert judge(rules, exact).verdict is Verdict.RUN
    for other in (
        order("if true; then rm y; fi", A="1"),
        order(exact.command, A="2"),
        order(exact.command),
        order(exact.command, "/workspace/x", A="1"),
    ):
        assert judge(rules, other).verdict is Verdict.REFUSE


@given(st.dictionaries(st.text(), st.text()), st.text(), st.text())
def test_a_digest_is_of_the_whole_order(env: dict[str, str], command: str, place: str) -> None:
    one = ExecOrder(command=command, directory=place, environment=env)
    again = ExecOrder(command=command, directory=place, environment=dict(reversed(env.items())))
    other = ExecOrder(command=command + "x", directory=place, environment=env)
    moved = ExecOrder(command=command, directory=place + "x", environment=env)

    assert one.digest == again.digest
    assert len({one.digest, other.digest, moved.digest}) == 3


@pytest.mark.parametrize(
    ("command", "patterns"),
    [
        ("git log | head -3", ("git", "head")),
        ("./build", ("/workspace/build",)),
        ("/workspace/build x", ("/workspace/build",)),
        ("ls; ls; rm", ("ls", "rm")),
        ("bash x", ()),
        ("ls > x", ()),
        ("if x", ()),
        ("PATH=x ls", ()),
    ],
)
def test_a_miss_says_what_would_cover_it(command: str, patterns: tuple[str, ...]) -> None:
    found = judge(allowing(ask=Ask.ON_MISS), order(command))

    assert found.patterns == patterns
    assert found.reason
    if patterns:
        assert judge(allowing(*patterns), order(command)).is_covered


WORDS = st.sampled_from(["ls", "rm", "git log", "cat x", "sh -c ls", "env A=1 ls", "echo"])
JOINTS = st.sampled_from(["; ", " | ", " && ", " || ", " & ", "\n", " $(", " <("])


@given(st.lists(st.tuples(WORDS, JOINTS), min_size=1, max_size=6), WORDS)
def test_an_allowed_program_covers_nothing_beside_it(
    parts: list[tuple[str, str]], last: str
) -> None:
    line = "".join(word + joint for word, joint in parts) + last
    line += ")" * sum(joint in {" $(", " <("} for _, joint in parts)
    held = judge(allowing("ls", "git", "cat"), order(line)).is_covered

    assert not (held and ("rm" in line or "A=1" in line))


@given(
    st.sampled_from(Security), st.sampled_from(Security), st.sampled_from(Ask), st.sampled_from(Ask)
)
def test_a_call_can_only_tighten(one: Security, two: Security, ask: Ask, more: Ask) -> None:
    rules = ExecRules(security=one, ask=ask).tightened(two, more)

    assert rules.security is stricter(one, two) is stricter(two, one)
    assert rules.ask is more_asking(ask, more) is more_asking(more, ask)
    assert stricter(rules.security, one) is rules.security
    assert more_asking(rules.ask, ask) is rules.ask
    assert ExecRules(security=one, ask=ask).tightened(None, None) == ExecRules(
        security=one, ask=ask
    )


def test_the_programs_of_a_line_are_told_once_each() -> None:
    assert programs_of("ls; ls | rm") == ("ls", "rm")
    assert programs_of("if x") is None


@pytest.mark.parametrize(
    "command", ["wait -n -p 'a[$(id)]'", "wait -p PATH", "wait $x", "wait -np'a[`id`]'"]
)
def test_wait_is_not_harmless_where_it_evaluates_its_arguments(command: str) -> None:
    assert is_covered("sleep 1 & wait; wait 12", "sleep")
    assert not is_covered(command)


@pytest.mark.parametrize(
    ("pattern", "command", "covered"),
    [
        ("/workspace/**/test_*.sh", "/workspace/test_a/test_b.sh", True),
        ("/workspace/**/test_*.sh", "/workspace/test_b.sh", True),
        ("/workspace/**/test_*.sh", "/workspace/test_a/b.sh", False),
        ("/workspace/*/a?c*", "/workspace/x/abcd", True),
        ("/workspace/*/a?c*", "/workspace/x/y/abcd", False),
        ("/workspace/**", "/workspace/x/y", True),
        ("/w/**b/*c/**/d", "/w/ab/xb/yc/z/d", True),
        ("npm a*b*c", "npm abbcbc", True),
        ("npm a*b*c", "npm abbcb", False),
    ],
)
def test_stars_match_as_far_as_they_may(pattern: str, command: str, *, covered: bool) -> None:
    assert is_covered(command, pattern) is covered


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("ls " + "*a" * 200 + "b", "ls " + "a" * 4_000),
        ("/" + "**/a" * 100 + "b", "/" + "a/" * 2_000 + "a"),
        ("/w/" + "**a*a" * 80 + "b", "/w/" + "a" * 4_000),
    ],
)
def test_no_pattern_of_a_tenant_keeps_the_gateway_busy(pattern: str, command: str) -> None:
    began = time.process_time()
    assert not is_covered(command, pattern)
    assert time.process_time() - began < 2
