from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.checking import find_problems
from appliance.config.documents import write_document
from appliance.config.fields import parse_bind
from appliance.config.loading import default_config_text, parse_config, render_config
from appliance.config.rules import exposure_problem
from appliance.config.schema import AdminKeyConfig, GatewayConfig, ServerConfig, quota_defaults
from appliance.model.errors import ConfigInvalid
from appliance.model.money import Price
from appliance.model.quotas import Quotas

HASH = "sha256:" + "ab" * 32

# As in the contract, with a whole hash.
EXAMPLE = f"""
server:    {{bind: 127.0.0.1:18789, admin_keys: [{{label: first, hash: "{HASH}"}}]}}
providers:
  stub:    {{dialect: openai, base_url: "http://127.0.0.1:9101/v1", api_key: "env:STUB_KEY"}}
  claude:  {{dialect: anthropic, api_key: "cred:anthropic"}}
models:
  default: stub/mock                       # what agent `main` uses
  aliases: {{fast: stub/mock, smart: claude/claude-sonnet-4-5}}
  failover: {{smart: [claude/claude-sonnet-4-5, stub/mock]}}
  rate_card: {{"stub/mock": {{input: "1.00", output: "2.00", cache_read: "0.10",
                              cache_write: "1.25", reasoning: "2.00"}}}}
quotas:    {{requests_per_minute: 600, cost_per_month: "50.00"}}
billing:   {{currency: USD}}
"""


def parse(text: str) -> GatewayConfig:
    return parse_config(text, name="config.yaml")


def fields_of(text: str) -> dict[str, tuple[str, str]]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert caught.value.detail.startswith("config.yaml: ")
    return {field.field: (field.reason, field.remedy) for field in caught.value.fields}


def problem(text: str, key: str) -> str:
    reason, remedy = fields_of(text)[key]
    return f"{reason} ({remedy})" if remedy else reason


def test_the_example_of_the_contract_is_read() -> None:
    config = parse(EXAMPLE)
    assert config.server.admin_keys == [AdminKeyConfig(label="first", hash=HASH)]
    assert config.providers["claude"].dialect == "anthropic"
    assert config.models.failover["smart"] == ["claude/claude-sonnet-4-5", "stub/mock"]
    assert config.models.rate_card["stub/mock"].price() == Price(
        input=10**9,
        output=2 * 10**9,
        cache_read=10**8,
        cache_write=125 * 10**7,
        reasoning=2 * 10**9,
    )
    assert quota_defaults(config) == Quotas(requests_per_minute=600, cost_per_month=50 * 10**9)
    assert config.billing.currency == "USD"


def test_everything_has_a_default() -> None:
    assert parse("{}") == GatewayConfig()
    assert quota_defaults(GatewayConfig()) == Quotas()


def test_an_empty_file_is_refused_so_that_a_truncated_one_is_not_taken() -> None:
    assert "the file is empty" in problem("", "")
    assert "the file is empty" in problem("# nothing\n", "")
    assert "expected a mapping" in problem("[]", "")


def test_what_was_not_written_is_not_rendered() -> None:
    text = render_config(parse("providers: {a: {dialect: openai}}\nmodels: {default: a/b}"))
    assert text == "providers:\n  a:\n    dialect: openai\nmodels:\n  default: a/b\n"


def test_what_is_rendered_reads_the_same() -> None:
    config = parse(EXAMPLE)
    assert parse(render_config(config)) == config


@pytest.mark.parametrize("embedded", [True, False])
def test_the_config_that_init_writes_is_valid(*, embedded: bool) -> None:
    key = AdminKeyConfig(label='the "first": #1', hash=HASH)
    text = default_config_text(admin_keys=[key], bind="127.0.0.1:0", embedded=embedded)
    config = parse(text)
    assert config.server.admin_keys == [key]
    assert config.server.bind == "127.0.0.1:0"
    assert (config.models.default is not None) is embedded
    assert parse(default_config_text(admin_keys=[])).server.admin_keys == []


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("sever: {}", "sever", "did you mean 'server'?"),
        ("server: {bnd: x}", "server.bnd", "did you mean 'bind'?"),
        ("models: {alias: {}}", "models.alias", "did you mean 'aliases'?"),
        (
            "providers: {a: {dialect: openai, baseurl: x}}",
            "providers.a.baseurl",
            "did you mean 'base_url'?",
        ),
        ("quotas: {token_per_day: 1}", "quotas.token_per_day", "did you mean 'tokens_per_day'?"),
        ("defaults: {agents: {main: {modell: x}}}", "defaults.agents.main.modell", "'model'"),
        ("egress: {zzz: 1}", "egress.zzz", "valid keys: allow_private"),
        ("defaults: {memory: {x: 1}}", "defaults.memory.x", "no keys are defined here yet"),
        ("__proto__: {server: {}}", "__proto__", "valid keys: server, providers"),
        ("constructor: 1", "constructor", "valid keys: server, providers"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(
    text: str, key: str, remedy: str
) -> None:
    reason, told = fields_of(text)[key]
    assert reason == "unknown key"
    assert remedy in told


def test_every_mistake_in_a_file_is_reported_with_its_line() -> None:
    text = (
        "server:\n  bnd: 1\n  keep_alive_timeout: 0\nmodels:\n  max_output_tokens: x\n"
        "logging: {level: inof}\nserver: {}\n"
    )
    with pytest.raises(ConfigInvalid) as caught:
        parse(text.replace("server: {}\n", ""))
    assert caught.value.detail == (
        "config.yaml: line 2: server.bnd: unknown key (did you mean 'bind'?);"
        " line 3: server.keep_alive_timeout: expected a number > 0.0;"
        " line 5: models.max_output_tokens: expected a whole number, got text;"
        " line 6: logging.level: must be one of debug, info, warning, error (did you mean 'info'?)"
    )
    assert "given twice" in problem(text, "server")


@pytest.mark.parametrize("price", ["1.00", "1", "1e1", "true", "null", "[]", "-0.5", '"-1"', '"x"'])
def test_a_price_that_is_no_decimal_in_quotes_is_refused(price: str) -> None:
    rate = f"input: {price}, output: '1'"
    text = f"providers: {{a: {{dialect: openai}}}}\nmodels: {{rate_card: {{a/b: {{{rate}}}}}}}"
    assert "models.rate_card.a/b.input" in fields_of(text)


def test_a_token_class_without_a_price_costs_what_its_kind_costs() -> None:
    rate = 'input: "3", output: "5"'
    config = parse(
        f"providers: {{a: {{dialect: openai}}}}\nmodels: {{rate_card: {{a/b: {{{rate}}}}}}}"
    )
    price = config.models.rate_card["a/b"].price()
    assert (price.cache_read, price.cache_write) == (price.input, price.input)
    assert price.reasoning == price.output


def test_a_price_of_nothing_is_not_a_missing_price() -> None:
    rate = 'input: "3", output: "5", cache_read: "0"'
    config = parse(
        f"providers: {{a: {{dialect: openai}}}}\nmodels: {{rate_card: {{a/b: {{{rate}}}}}}}"
    )
    assert config.models.rate_card["a/b"].price().cache_read == 0


@pytest.mark.parametrize(
    "reference", ["sk-live-12345", "env:", "env:A B", "file:relative", "cred:../kek", "env", ""]
)
def test_a_literal_secret_is_refused_and_not_repeated(reference: str) -> None:
    text = f"providers: {{a: {{dialect: openai, api_key: '{reference}'}}}}"
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert "must be a reference to a secret" in caught.value.detail
    assert "12345" not in caught.value.detail


@pytest.mark.parametrize("key", ["sha256:abc", "admin:secret-key", "md5:" + "a" * 64, HASH + "0"])
def test_an_admin_key_is_a_hash(key: str) -> None:
    text = f"server: {{admin_keys: [{{label: a, hash: '{key}'}}]}}"
    assert "must read sha256:" in problem(text, "server.admin_keys[0].hash")


def test_two_admin_keys_need_two_labels() -> None:
    text = f"server: {{admin_keys: [{{label: a, hash: '{HASH}'}}, {{label: a, hash: '{HASH}'}}]}}"
    assert "given twice" in problem(text, "server.admin_keys[1].label")


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("localhost:0", "localhost", 0),
        ("[::1]:18789", "::1", 18789),
        ("gateway.example.org:443", "gateway.example.org", 443),
    ],
)
def test_an_address_is_host_and_port(bind: str, host: str, port: int) -> None:
    assert parse_bind(bind) == (host, port)


@pytest.mark.parametrize(
    "bind",
    ["", ":80", "127.0.0.1", "127.0.0.1:", "h:65536", "h:-1", "::1:80", "[x]:1", "a b:1", "h:٣",
     "127.0.0.1:80\n", "h:99999999999", "[127.0.0.1]:1"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(bind: str) -> None:
    with pytest.raises(ValueError, match=r"address|IPv6"):
        parse_bind(bind)


@pytest.mark.parametrize("bind", ["0.0.0.0:1", "[::]:1", "192.168.1.1:1", "example.org:1"])
def test_an_address_others_can_reach_needs_tls_or_a_proxy(bind: str) -> None:
    assert "read every token" in problem(f"server: {{bind: '{bind}'}}", "server.bind")
    parse(f"server: {{bind: '{bind}', behind_proxy: true}}")
    parse(f"server: {{bind: '{bind}', tls: {{cert: /c.pem, key: /k.pem}}}}")


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_a_loopback_address_needs_neither(bind: str) -> None:
    assert parse(f"server: {{bind: '{bind}'}}").server.bind == bind


def test_the_bind_of_the_command_line_is_judged_like_the_file() -> None:
    assert exposure_problem(ServerConfig(), bind="0.0.0.0:80") is not None
    assert exposure_problem(ServerConfig(), bind="127.0.0.1:80") is None


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "http://a:b@c/", "http://x/?q=1", "http://x/#f", "http://x:0/", "x",
     "http://x:99999/", "http://a b/", "http://ex\u0430mple.org/", "http://a\\b"],
)  # fmt: skip
def test_a_base_url_with_a_trap_in_it_is_refused(url: str) -> None:
    text = write_document({"providers": {"a": {"dialect": "openai", "base_url": url}}})
    assert "providers.a.base_url" in fields_of(text)


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "x"}, {"X-Api-Key": "x"}, {"a b": "x"}, {"a": "x\r\ny: z"}, {"a": "é"},
     {"Host": "x"}, {"a": 1}, [], {"Transfer-Encoding": "chunked"}],
)  # fmt: skip
def test_a_header_that_could_carry_a_key_or_split_a_message_is_refused(headers: Any) -> None:
    text = write_document({"providers": {"a": {"dialect": "openai", "headers": headers}}})
    assert "providers.a.headers" in fields_of(text)


def test_a_provider_has_a_dialect_we_speak() -> None:
    assert fields_of("providers: {a: {}}")["providers.a.dialect"][0] == "missing"
    assert "did you mean 'openai'?" in problem(
        "providers: {a: {dialect: openia}}", "providers.a.dialect"
    )


@pytest.mark.parametrize("name", ["openclaw", "A", "a/b", "", "-a", "a" * 65])
def test_a_provider_name_that_would_be_confused_is_refused(name: str) -> None:
    fields = fields_of(write_document({"providers": {name: {"dialect": "openai"}}}))
    assert f"providers.{name}"[:80] in {field[:80] for field in fields}


@pytest.mark.parametrize("alias", ["openclaw", "openclaw:main", "a/b", "a b", ""])
def test_an_alias_that_would_be_confused_is_refused(alias: str) -> None:
    text = write_document(
        {"providers": {"p": {"dialect": "openai"}}, "models": {"aliases": {alias: "p/m"}}}
    )
    assert f"models.aliases.{alias}" in fields_of(text)


@pytest.mark.parametrize(
    ("models", "key"),
    [
        ("default: stb/mock", "models.default"),
        ("default: nothing", "models.default"),
        ("embedding: stb/mock", "models.embedding"),
        ("aliases: {a: stb/mock}", "models.aliases.a"),
        ("failover: {a: [stub/x, stb/mock]}", "models.failover.a[1]"),
        ("failover: {stb/mock: [stub/x]}", "models.failover.stb/mock"),
        ("balance: {a: [{model: stub/x}, {model: stb/mock}]}", "models.balance.a[1].model"),
        ("balance: {a: [{model: stub/x, weight: 0}]}", "models.balance.a[0].weight"),
        ("balance: {a: []}", "models.balance.a"),
        ("timeouts: {nobody: {idle: 1}}", "models.timeouts.nobody"),
        ("timeouts: {stub/x: {idle: 0}}", "models.timeouts.stub/x.idle"),
        ("rate_card: {stb/mock: {input: '1', output: '1'}}", "models.rate_card.stb/mock"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(models: str, key: str) -> None:
    text = f"providers: {{stub: {{dialect: openai}}}}\nmodels: {{{models}}}"
    assert key in fields_of(text)


def test_a_name_that_is_nearly_right_is_told_so() -> None:
    text = "providers: {stub: {dialect: openai}}\nmodels: {aliases: {fast: stub/m}, default: fats}"
    assert problem(text, "models.default") == "'fats' is no alias (did you mean 'fast'?)"
    text = "providers: {stub: {dialect: openai}}\ndefaults: {agents: {main: {model: stbu/m}}}"
    assert "did you mean 'stub'?" in problem(text, "defaults.agents.main.model")


def test_a_failover_chain_may_have_a_name_of_its_own() -> None:
    text = "providers: {p: {dialect: openai}}\nmodels: {failover: {safe: [p/m]}, default: safe}"
    assert parse(text).models.default == "safe"


@pytest.mark.parametrize("chain", ["[]", "[x]", "p/m", "[1]", "null"])
def test_a_failover_chain_is_a_list_of_models(chain: str) -> None:
    text = f"providers: {{p: {{dialect: openai}}}}\nmodels: {{failover: {{safe: {chain}}}}}"
    assert any(key.startswith("models.failover.safe") for key in fields_of(text))


def test_the_embedded_model_has_no_address_and_the_others_no_file() -> None:
    fields = fields_of("providers: {a: {dialect: embedded, base_url: 'http://x'}}")
    assert "providers.a.base_url" in fields
    fields = fields_of("providers: {a: {dialect: openai, model_path: /m.gguf}}")
    assert "providers.a.model_path" in fields


@pytest.mark.parametrize("quotas", ["5", "[]", "{tokens_per_day: -1}", "{cost_per_day: 1.5}"])
def test_quotas_are_checked_like_everywhere(quotas: str) -> None:
    assert any(key.startswith("quotas") for key in fields_of(f"quotas: {quotas}"))


def test_the_quotas_of_a_template_are_checked_where_they_stand() -> None:
    fields = fields_of("templates: {small: {quotas: {tokns_per_day: 1}, config: {}}}")
    assert "templates.small.quotas.tokns_per_day" in fields


def test_the_config_of_a_template_is_an_overlay() -> None:
    fields = fields_of("templates: {small: {config: {server: {}, defalts: {}}}}")
    assert "only the gateway's own config" in fields["templates.small.config.server"][0]
    assert fields["templates.small.config.defalts"][1] == "did you mean 'defaults'?"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("server: {awake_tenants: 1.5}", "server.awake_tenants"),
        ("server: {awake_tenants: true}", "server.awake_tenants"),
        ("server: {awake_tenants: 0}", "server.awake_tenants"),
        ("server: {behind_proxy: yes}", "server.behind_proxy"),
        ("server: {tls: {cert: /a}}", "server.tls.key"),
        ("server: {tls: {cert: a.pem, key: /k}}", "server.tls.cert"),
        ("server: {trusted_proxies: [x], behind_proxy: true}", "server.trusted_proxies[0]"),
        ("server: {trusted_proxies: [10.0.0.0/8]}", "server.trusted_proxies"),
        ("server: {allowed_origins: ['https://x/path']}", "server.allowed_origins[0]"),
        ("server: null", "server"),
        ("server: []", "server"),
        ("providers: []", "providers"),
        ("providers: {a: 1}", "providers.a"),
        ("billing: {currency: usd}", "billing.currency"),
        ("sandbox: {binds: ['/a:/../b']}", "sandbox.binds[0]"),
        ("backup: {store: {url: 'http://x'}}", "backup.store.url"),
        ("env: {'A-B': x}", "env.A-B"),
        ("defaults: {agents: {Main: {}}}", "defaults.agents.Main"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_at_its_key(text: str, key: str) -> None:
    assert key in fields_of(text)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_keys = st.sampled_from([*GatewayConfig.__struct_fields__, "default", "stub/mock", "x"])
_nearly = st.recursive(
    _json, lambda inner: st.dictionaries(_keys, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(_keys, _nearly, max_size=5))
def test_what_the_check_lets_through_converts(raw: dict[str, Any]) -> None:
    """The two readers of the schema agree in both directions."""
    problems = list(find_problems(raw, GatewayConfig))
    if problems:
        assert all(problem.reason for problem in problems)
    else:
        assert isinstance(msgspec.convert(raw, GatewayConfig), GatewayConfig)


def test_what_msgspec_refuses_the_check_refuses_too() -> None:
    assert list(find_problems({"server": {"awake_tenants": float("nan")}}, GatewayConfig))
    assert list(find_problems({1: 2}, GatewayConfig))
    assert list(find_problems({"env": {1: "x"}}, GatewayConfig))


def test_a_config_is_never_changed() -> None:
    config = parse("{}")
    with pytest.raises(AttributeError):
        config.server = ServerConfig()  # type: ignore[misc] # that is the point
