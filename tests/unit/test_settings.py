"""Settings from all their sources: later ones win, every mistake is reported at once, and none is swallowed."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from config.settings import Endpoint, Settings, SettingsError, default_toml, endpoint
from config.sources import default_files, known_keys, load

SHIPPED = Path(__file__).parents[2] / "config" / "default.toml"


def problems(
    text: str = "", *overrides: str, directory: Path | None = None, environment: dict[str, str] | None = None
) -> list[str]:
    files = []
    if directory is not None:
        files = [directory / "heed.toml"]
        files[0].write_text(text)
    with pytest.raises(SettingsError) as refused:
        load(files, list(overrides), environment or {})
    return refused.value.problems


def test_the_shipped_file_is_the_model() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == default_toml()
    assert load([SHIPPED], environment={}) == load(environment={}) == Settings()


def test_every_option_says_what_it_is_and_the_shipped_file_names_each() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:# )?([a-z_]+) =", text, re.MULTILINE))
    for key in known_keys():
        assert key.rpartition(".")[2] in named
    for field in Settings.model_fields.values():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            assert all(option.description for option in section.model_fields.values())
    values = tomllib.loads(text)
    assert {"data_dir", "database", "delivery"} <= values.keys()


def test_later_sources_win(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text('workers = 1\n[log]\nlevel = "error"\n[delivery]\nport = 1\n')
    other.write_text("workers = 2\n[delivery]\nport = 2\nidle_seconds = 9\n")
    environment = {"HEED_WORKERS": "3", "HEED_DELIVERY__PORT": "3"}
    settings = load([one, other], ["workers=4"], environment)
    assert (settings.workers, settings.delivery.port, settings.delivery.idle_seconds) == (4, 3, 9.0)
    assert settings.log.level == "error"


def test_what_tests_and_benchmarks_set_is_no_option() -> None:
    load(environment={"HEED_TEST_DATABASE_URL": "x", "HEED_BENCH_SECONDS": "1", "HEED_SEND_PASSWORD": "x", "PATH": "/"})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("delivry.port=1", "--set delivry.port: delivry: there is no such option"),
        ("delivery.prot=1", "delivery.prot: there is no such option; did you mean delivery.port?"),
        ("colour=blue", "colour: there is no such option"),
        ("_env_file=x", "_env_file: there is no such option"),
        ("_cli_parse_args=true", "_cli_parse_args: there is no such option"),
        ("workers", "is written key=value"),
        ("=1", "is written key=value"),
        ("workers=many", "--set workers: workers = 'many': "),
        ("workers=-1", "workers = '-1': input should be greater than or equal to 0"),
        ("workers.x=1", "--set workers.x: workers: input should be a valid integer"),
        ("submission.listen=nowhere", "is written host:port, or [IPv6 address]:port"),
        ("submission.listen=a:99999", "a port is a number from 0 to 65535"),
        ("identity.hostname=no host", "is a host name such as mail.example.com"),
        ("identity.web_url=http://example.com", "identity.web_url"),
        ("delivery.retry_seconds=60,0", "each wait is more than 0"),
        ("delivery.retry_seconds=", "delivery.retry_seconds"),
        ("suppression.poll_seconds=4", "poll_seconds is at most half of max_staleness"),
        ("suppression.max_staleness=50", "queue.lease_timeout_seconds is at least twice suppression.max_staleness"),
        ("tls.key=/tmp/key.pem", "certificate and key are set together"),
        ("delivery.routes.example.com=a b", "delivery.routes.example.com = 'a b': is written host:port"),
        ('submission.trusted_networks=[{network = "10.1.0.1/16", tenant = "a"}]', "is written like 10.1.0.0/16"),
        ("roles=all", "roles"),
        ("submission.listen=a..b:25", "is written host:port, or [IPv6 address]:port"),
        ("delivery.next_hop=[:::]", "is written host:port, or [IPv6 address]:port"),
        ("delivery.next_hop=mx.example.com:0", "a port to connect to is a number from 1 to 65535"),
        ("delivery.routes.a b=mx.example.com", "delivery.routes.a b = 'a b': is a domain such as example.com"),
        ("delivery.nameservers=127.0.0.1:9x", "delivery.nameservers.0 = '127.0.0.1:9x': is the IP address of a DNS"),
        ("delivery.nameservers=192.0.2.53,dns.example.com", "delivery.nameservers.1 = 'dns.example.com': is the IP"),
        ("delivery.nameservers=192.0.2.53:0", "is the IP address of a DNS server, such as 192.0.2.53"),
        ("database.url=foo", "database.url: is written postgresql://user:password@host:port/name"),
        ("database.url=postgresql://heed:a@b@db/heed", "write %40 for an @"),
        ("database.url=postgresql://heed@db:many/heed", "is written postgresql://user:password@host:port/name"),
        ("database.url=postgresql://db/heed?sslmode", "is written postgresql://user:password@host:port/name"),
        ("inbound.forward_to=x", "is a mail address such as postmaster@example.com"),
        ("inbound.forward_to=x@answers.heed.localhost", "must not be at identity.mail_domain"),
        ("identity.web_url=https://example.com:99999", "is written https://host or https://host:port"),
        ("identity.web_url=https://example.com/", "is written https://host or https://host:port"),
        (f"identity.mail_domain={'.'.join(['a' * 60] * 4)}", "at most 190 characters"),
        ("events.file_dir=a\0b", "is a path, in which there is no NUL"),
        ("delivery.idle_seconds=nan", "finite"),
        ("delivery.delay_notice_seconds=inf", "finite"),
        ('submission.trusted_networks=[{network = "10.1.0.0/16", tenant = "a b"}]', "a tenant's name is 1 to 63"),
    ],
)
def test_a_mistake_is_reported_with_its_place_and_what_would_be_right(override: str, said: str) -> None:
    [problem] = problems("", override)
    assert said in problem


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = 'workers = "x"\nnonsense = 1\n[delivery]\nport = 0\nroutes = {"example.com" = "::"}\n[log]\nlevel = "loud"\n'
    found = problems(
        text, "sink.listen=x", "what", directory=tmp_path, environment={"HEED_QUEUE__CLAIM_BATCH": "0", "HEED_X": "1"}
    )
    assert len(found) == 9
    for part in ("workers", "nonsense", "delivery.port", "example.com", "log.level", "--set sink.listen", "'what'",
                 "HEED_QUEUE__CLAIM_BATCH", "HEED_X"):  # fmt: skip
        assert any(part in problem for problem in found), part
    assert sum(str(tmp_path) in problem for problem in found) == 5


@pytest.mark.parametrize("text", ["workers = ", "\xff", "workers = 1\nworkers = 2"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "heed.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"heed\.toml: not valid TOML"):
        load([path], environment={})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml: No such file"):
        load([tmp_path / "nothing.toml", tmp_path], environment={})


def test_a_machine_s_own_file_is_read_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "heed.toml"
    monkeypatch.setattr("config.sources.DEFAULT_FILE", path)
    assert default_files() == []
    path.write_text("workers = 3")
    assert load(default_files(), environment={}).workers == 3


def test_a_machine_s_own_file_that_may_not_be_looked_at_is_no_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # no directory keeps root, who may run this, from looking into it; a name that is too long keeps everybody
    forbidden = Path("/", "x" * 300)
    monkeypatch.setattr("config.sources.DEFAULT_FILE", forbidden)
    assert default_files() == [forbidden]
    with pytest.raises(SettingsError, match="too long"):
        load(default_files(), environment={})


@pytest.mark.parametrize(
    "environment",
    [
        {"HEED_DATABASE": "postgresql://heed:hunter2@db/heed"},
        {"HEED_DATABASE__URLS": "postgresql://heed:hunter2@db/heed"},
        {"HEED_DATABASE__URL__X": "postgresql://heed:hunter2@db/heed"},
        {"HEED_DATABASE__CONNECTIONS": "postgresql://heed:hunter2@db/heed"},
    ],
)
def test_no_message_holds_the_password_of_the_database(environment: dict[str, str]) -> None:
    assert "hunter2" not in "".join(problems(environment=environment))
    assert "hunter2" not in repr(load(environment={"HEED_DATABASE__URL": "postgresql://heed:hunter2@db/heed"}))


def test_tables_and_options_do_not_replace_each_other() -> None:
    assert problems("", "database=x", "database.url=y")
    assert problems("", "delivery.routes=x", "delivery.routes.example.com=y")


def test_lists_may_be_written_with_commas() -> None:
    settings = load([], ["submission.listen=127.0.0.1:1, [::1]:2", "delivery.retry_seconds=5,10"], {})
    assert settings.submission.listen == ["127.0.0.1:1", "[::1]:2"]
    assert settings.delivery.retry_seconds == [5.0, 10.0]


def test_lists_may_be_written_as_in_a_file() -> None:
    settings = load([], ['submission.listen=["127.0.0.1:1", "[::1]:2"]', "inbound.listen=[::1]:3", "roles=['web']"], {})
    assert (settings.submission.listen, settings.inbound.listen) == (["127.0.0.1:1", "[::1]:2"], ["[::1]:3"])
    assert settings.roles == ["web"]


def test_name_servers_are_addresses_with_or_without_a_port() -> None:
    given = "delivery.nameservers=192.0.2.53, 2001:db8::53, [2001:db8::53], [2001:db8::53]:5353"
    servers = load([], [given], {}).delivery.nameservers
    assert servers == ["192.0.2.53:53", "[2001:db8::53]:53", "[2001:db8::53]:53", "[2001:db8::53]:5353"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///heed", "postgres://db", "postgresql://heed:hunter%402@db.example.com:5432/heed",
        "postgresql://heed@/postgres?host=%2Fvar%2Flib&port=5432", "postgresql://heed@/postgres?host=/var/lib/x",
        "postgresql://a:5432,[2001:db8::1]:5433/heed?sslmode=verify-full&target_session_attrs=read-write",
    ],
)  # fmt: skip
def test_what_asyncpg_takes_is_a_database(url: str) -> None:
    database = load([], [f"database.url={url}"], {}).database
    assert database.url is not None
    assert database.url.get_secret_value() == url


def test_mail_to_postmaster_may_go_to_any_mailbox_elsewhere() -> None:
    assert load([], ["inbound.forward_to=post.master+heed@example.com"], {}).inbound.forward_to is not None


def test_an_empty_text_switches_an_option_off() -> None:
    assert load([], ["delivery.next_hop="], {"HEED_DELIVERY__NEXT_HOP": "a:1"}).delivery.next_hop is None


def test_routes_may_be_given_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "heed.toml"
    path.write_text('[delivery.routes]\n"example.org" = "mx.example.net"\n')
    settings = load([path], ["delivery.routes.example.com=mx.example.net:26"], {})
    assert settings.delivery.routes == {"example.org": "mx.example.net:25", "example.com": "mx.example.net:26"}


def test_trusted_networks_may_be_given_in_the_environment() -> None:
    text = '[{network = "2001:db8::/32", tenant = "acme", message_class = "transactional"}]'
    [network] = load(environment={"HEED_SUBMISSION__TRUSTED_NETWORKS": text}).trusted_networks
    assert (network.network, network.tenant, network.message_class) == ("2001:db8::/32", "acme", "transactional")


def test_only_the_sandbox_trusts_the_loopback_and_runs_a_sink() -> None:
    sandbox, mx = load(environment={}), load([], ["delivery.mode=mx"], {})
    assert {network.tenant for network in sandbox.trusted_networks} == {"sandbox"}
    assert (sandbox.runs_sink, sandbox.creates_keys, mx.trusted_networks) == (True, True, [])
    assert (mx.runs_sink, mx.creates_keys) == (False, False)
    assert not load([], ["delivery.next_hop=127.0.0.1:1"], {}).runs_sink


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("mx.example.com:25", None, Endpoint("mx.example.com", 25)),
        ("[2001:db8::1]:25", None, Endpoint("2001:db8::1", 25)),
        ("mx.example.com", 25, Endpoint("mx.example.com", 25)),
        ("[::1]", 53, Endpoint("::1", 53)),
    ],
)
def test_endpoints(text: str, default: int | None, expected: Endpoint) -> None:
    assert endpoint(text, default) == expected
    assert endpoint(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", ":25", "a:", "a:b", "a:65536", "::1:25", "[::1]", "a b:25", "a", "[a]:25:25", "a:²"]
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|host"):
        endpoint(text)


def test_no_site_can_take_the_room_of_a_campaign_and_no_campaign_that_of_a_worker() -> None:
    """Or a site that takes nothing would never be found full, and one campaign would stop all the others."""
    queue = Settings().queue
    assert queue.memory_per_site < queue.memory_per_campaign < queue.memory_recipients
