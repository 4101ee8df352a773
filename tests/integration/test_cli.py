"""The heed command as people run it: help, wrong use, no database, and JSON that other programs can read."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from config.database import load_queries, migrations
from config.keyring import Keyring
from config.sources import load
from mta.announcement import announcement
from mta.certificate import ensure_certificate
from mta.installation import Paths
from suppression.digest import Digest, Kind, Scope
from suppression.entry import Channel, NewEntry
from suppression.log import SuppressionLog
from suppression.prove import digest_text
from suppression.tokens import Purpose, Token, Tokens
from tests.support.daemon import founded
from tests.support.suppressions import asked, opened

ROOT = Path(__file__).parents[2]
COMMANDS = [
    [], ["run"], ["check-config"], ["classify"], ["tenant"], ["tenant", "add"], ["tenant", "list"], ["tenant", "set"],
    ["group"], ["group", "add"], ["group", "join"], ["group", "list"], ["credential"], ["credential", "add"],
    ["credential", "list"], ["credential", "revoke"], ["dkim"], ["dkim", "new"],
    ["dkim", "show"], ["dkim", "retire"], ["suppress"], ["suppress", "add"], ["suppress", "check"],
    ["suppress", "remove"], ["suppress", "import"], ["suppress", "export"], ["consent"], ["consent", "add"],
    ["consent", "import"], ["prove"],
    ["verify-log"], ["queue"], ["send"], ["sink"], ["sink", "run"], ["sink", "show"],
]  # fmt: skip


def heed(*arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command, as from a shell without a configuration."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEED_")}
    done = subprocess.run(
        [sys.executable, "-m", "mta.cli", *arguments], capture_output=True, text=True, input=given, timeout=60,
        cwd=ROOT, env={**inherited, "COLUMNS": "120", **environment}, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    return done


class Installation:
    """Commands on a test's database and directory, which are an installation already."""

    def __init__(self, url: str, directory: Path) -> None:
        founded(directory)
        self._options = ["--set", f"data_dir={directory}", "--set", f"database.url={url}"]

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return heed(*arguments, *self._options, given=given)

    def text(self, *arguments: str, given: str = "") -> str:
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str, given: str = "") -> Any:
        return json.loads(self.text(*arguments, "--json", given=given))


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    return Installation(database_url, tmp_path)


def test_every_command_has_help() -> None:
    """One process for all of them: what is tested is that each can be built and says what it does."""
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom mta.cli import application\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    done = CliRunner().invoke(application(), [*line.split(), '--help'])\n"
        "    assert done.exit_code == 0 and not done.exception, (line, done.output)\n"
        "    assert 'Usage' in done.output and 'Exit codes' in done.output, (line, done.output)\n"
    )
    lines = "\n".join(" ".join(command) for command in COMMANDS)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, input=lines, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("words", "completed"), [("heed campaign p", "pause"), ("heed verif", "verify-log")])
def test_a_shell_is_told_how_words_go_on(words: str, completed: str) -> None:
    asked = {"_HEED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    script = "import sys; sys.argv = ['heed']; from mta.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | asked, cwd=ROOT, check=False
    )
    assert done.stdout.split() == [completed]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command"], "No such command"),
        (["tenant", "add"], "Missing argument"),
        (["queue", "--most", "0"], "--most"),
        (["dkim", "new", "example.com", "--algorithm", "dsa"], "--algorithm"),
        (["check-config", "--set", "wrong.key=1", "--set", "workers=x"], "wrong.key"),
        (["sink", "run", "--listen", "nowhere"], "--listen 'nowhere': is written host:port"),
        (["send", "--to", "nowhere"], "--to 'nowhere': is written host:port"),
        (["send", "--set", "submission.listen="], "submission.listen"),
        (["report", "spring", "--tenant", "acme", "--json", "--format", "csv"], "contradict each other"),
        (["webhook", "add", "acme", "https://a..b/"], "is like https://app.example.com/mail-events"),
        (["usage", "--month", "9999-12"], "is no month"),
        (["events", "replay", "--webhook", "1", "--since", "2999-01-01"], "in the future"),
        (["events", "replay", "--webhook", "1", "--since", "0001-01-01T00:00+23:59"], "is no time"),
        (["consent", "add", "a@example.com", "--tenant", "a", "--basis", "b", "--source", "c", "--at", "noon"], "--at"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    done = heed(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""


@pytest.fixture
async def powerless_url(database_url: str) -> AsyncIterator[str]:
    """A database as a role sees it that may connect and nothing else."""
    role = f"powerless_{os.getpid()}"
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"CREATE ROLE {role} LOGIN")
    parts = urlsplit(database_url)
    yield f"postgresql://{role}@{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}"
    await connection.execute(f"DROP ROLE {role}")
    await connection.close()


@pytest.mark.parametrize(
    ("situation", "rounds"),
    [("no database", 2), ("no directory", 2), ("no key", 1), ("no rights", 1), ("all is well", 4)],
)
def test_whatever_is_typed_there_is_no_traceback(
    situation: str, rounds: int, tmp_path: Path, database_url: str, powerless_url: str
) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "x" if situation == "no directory" else tmp_path / "node"
    if situation == "no key":  # one that can't be read, whoever tests
        (directory / "keys" / "master.key").mkdir(parents=True)
        (directory / "sink" / "new").mkdir(parents=True)
        (directory / "sink" / "new" / "lost").symlink_to(tmp_path / "nowhere")
    elif situation != "no directory":
        founded(directory)
    urls = {"no database": "postgresql://heed@127.0.0.1:1/x", "no rights": powerless_url}
    url = urls.get(situation, database_url)
    options = ["--set", f"data_dir={directory}", "--set", f"database.url={url}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.wrong_use", "1", str(rounds), *options],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), (done.stdout, done.stderr)


def test_all_mistakes_of_a_configuration_are_shown(tmp_path: Path) -> None:
    done = heed("check-config", "--config", str(tmp_path / "none.toml"), "--set", "workers=x", HEED_NONSENSE="1")
    assert done.returncode == 2
    for part in ("none.toml", "workers", "HEED_NONSENSE"):
        assert part in done.stderr


def test_check_config_prints_what_would_be_used_and_no_secret() -> None:
    url = "database.url=postgresql://heed:hunter2@db/heed"
    plain, machine = heed("check-config", "--set", url), heed("check-config", "--set", url, "--json")
    assert "delivery.port = 25" in plain.stdout
    assert json.loads(machine.stdout)["delivery"]["port"] == 25
    assert "hunter2" not in plain.stdout + machine.stdout


@pytest.mark.parametrize("command", ["check-config", "run"])
def test_a_certificate_that_no_listener_could_show_is_wrong_configuration(tmp_path: Path, command: str) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
        ensure_certificate(directory, f"{'a' * 63}.example.com")
    options = ["--set", f"data_dir={tmp_path}/node", "--set", f"tls.certificate={one}/certificate.pem", "--set"]
    for key, said in ((tmp_path / "none", "none: No such file"), (other / "key.pem", "its own private key")):
        done = heed(command, *options, f"tls.key={key}")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"tls.key = {key}: " in done.stderr
        assert said in done.stderr
    assert heed("check-config", *options, f"tls.key={one}/key.pem").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["tenant", "list"], ["queue", "--json"], ["suppress", "check", "anna@example.net"], ["verify-log"],
        ["credential", "add", "acme", "app"], ["dkim", "show"],
    ],
)  # fmt: skip
def test_without_a_database_a_command_says_so_at_once(tmp_path: Path, arguments: list[str]) -> None:
    url = "database.url=postgresql://heed:hunter2@127.0.0.1:1/heed"
    done = heed(*arguments, "--set", url, "--set", f"data_dir={founded(tmp_path)}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "database: no connection to the database: nothing listens there; "
        "is PostgreSQL running where database.url says?\n"
    )
    assert "hunter2" not in done.stderr
    assert "anna" not in done.stderr


def test_a_role_without_rights_is_told_what_it_needs(tmp_path: Path, powerless_url: str) -> None:
    done = heed("tenant", "list", "--set", f"data_dir={founded(tmp_path)}", "--set", f"database.url={powerless_url}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("database: permission denied for")
    assert "own the database" in done.stderr


def test_a_doctor_makes_no_key(tmp_path: Path, database_url: str) -> None:
    done = heed("doctor", "--set", f"data_dir={tmp_path / 'node'}", "--set", f"database.url={database_url}")
    assert (done.returncode, "master.key is missing: put back your copy" in done.stdout) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_doctor_goes_on_where_there_is_no_database(tmp_path: Path) -> None:
    url = "database.url=postgresql://heed:hunter2@127.0.0.1:1/heed"
    done = heed("doctor", "--json", "--set", url, "--set", f"data_dir={founded(tmp_path)}")
    assert done.returncode == 1
    levels = {finding["name"]: finding["level"] for finding in json.loads(done.stdout)}
    assert (levels["installation"], levels["data-dir"], levels["master-key"]) == ("failed", "ok", "ok")


@pytest.mark.parametrize(
    "command",
    [
        "queue", "top --once", "suppress check a@example.com", "suppress add a@example.com", "report spring --tenant a",
        "trace a@example.com", "tenant list", "verify-log", "events tail", "campaign pause --tenant a --reason b",
    ],
)  # fmt: skip
def test_in_a_wrong_directory_no_command_makes_an_installation(tmp_path: Path, command: str) -> None:
    done = heed(*command.split(), "--set", f"data_dir={tmp_path / 'var'}")
    assert (done.returncode, done.stdout) == (1, "")
    said = "`heed run` makes one; -c or --set data_dir=… says where yours is"
    assert done.stderr == f"there is no installation in {tmp_path}/var: {said}\n"
    assert not list(tmp_path.iterdir())


def test_a_doctor_makes_no_installation_and_a_key_alone_is_none(tmp_path: Path) -> None:
    told = json.loads(heed("doctor", "--json", "--set", f"data_dir={tmp_path / 'var'}").stdout)
    assert [each["level"] for each in told if "no installation" in each["text"]] == ["failed"]
    assert not list(tmp_path.iterdir())
    keyed = heed("queue", "--set", f"data_dir={founded(tmp_path)}")  # of a node whose configuration names a database
    assert (keyed.returncode, "--set database.url=… says where yours is" in keyed.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_a_tenant_may_be_made_before_the_first_start(tmp_path: Path, database_url: str) -> None:
    options = ["--set", f"data_dir={tmp_path / 'var'}", "--set", f"database.url={database_url}"]
    first, second = (heed("tenant", "add", name, *options) for name in ("acme", "brand"))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stderr == f"A new installation is made in {tmp_path}/var.\n"
    assert second.stderr == ""


@pytest.mark.parametrize("command", ["run", "doctor"])
async def test_commits_that_a_crash_may_undo_are_refused(
    installation: Installation, database_url: str, command: str
) -> None:
    connection = await asyncpg.connect(database_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await connection.close()
    done = await asyncio.to_thread(installation.run, command)
    assert done.returncode == 1
    assert "database: synchronous_commit is off" in done.stdout + done.stderr


def test_a_data_directory_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = heed("tenant", "list", "--set", f"data_dir={tmp_path}/file/x", "--set", "database.url=postgresql:///x")
    assert done.returncode == 1
    assert f"{tmp_path}/file" in done.stderr


def test_tenants_and_credentials(installation: Installation) -> None:
    assert installation.text("tenant", "list") == "There are no tenants.\n"
    assert installation.json("tenant", "add", "acme") == {"id": 1, "name": "acme"}
    again = installation.run("tenant", "add", "acme")
    assert (again.returncode, again.stderr) == (1, "tenant 'acme' exists already\n")
    assert installation.run("tenant", "add", "no blanks").returncode == 2
    made = installation.json("credential", "add", "acme", "[red]app", "--class", "transactional")
    assert (made["username"], made["class"], len(made["password"])) == ("[red]app", "transactional", 32)
    assert "[red]app" in installation.text("credential", "list", "acme")
    assert installation.run("credential", "add", "acme", "[red]app").stderr == "user name '[red]app' is taken\n"
    given = installation.text("credential", "add", "acme", "[/x]", "--password-stdin", given="correct horse battery\n")
    assert given == "Credential [/x] is made.\n"
    short = installation.run("credential", "add", "acme", "third", "--password-stdin", given="short\n")
    assert (short.returncode, "12 characters" in short.stderr) == (2, True)
    assert installation.text("credential", "revoke", "[/x]") == "Credential [/x] is revoked.\n"
    assert installation.run("credential", "revoke", "[/x]").returncode == 1
    listed = {row["username"]: row["revoked_at"] is not None for row in installation.json("credential", "list", "acme")}
    assert listed == {"[red]app": False, "[/x]": True}
    unknown = installation.run("credential", "list", "nobody")
    assert (unknown.returncode, "there is no tenant 'nobody'" in unknown.stderr) == (1, True)


def test_where_answers_go(installation: Installation) -> None:
    installation.text("tenant", "add", "acme")
    assert installation.json("tenant", "replies", "acme")["reply_address"] is None
    set_ = installation.json("tenant", "replies", "acme", "--to", "service@acme.example")
    assert installation.json("tenant", "replies", "acme") == set_
    assert set_["reply_address"] == "service@acme.example"
    assert re.fullmatch(r"[a-z2-7]{63}@answers\.heed\.localhost", set_["redirect_to"])
    assert set_["redirect_to"] in installation.text("tenant", "replies", "acme")
    for wrong in ("nonsense", "x@Answers.heed.localhost"):
        assert installation.run("tenant", "replies", "acme", "--to", wrong).returncode == 2
    assert installation.run("tenant", "replies", "acme", "--to", "a@example.org", "--off").returncode == 2
    assert installation.run("tenant", "replies", "nobody", "--to", "a@example.org").returncode == 1
    assert installation.json("tenant", "replies", "acme") == set_
    assert installation.text("tenant", "replies", "acme", "--off") == "Answers are not read here.\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tenant", "add", "a\udcff"], 2), (["credential", "list", "a\udcff"], 1),
        (["credential", "revoke", "a\udcff"], 1), (["suppress", "check", "a\udcff@example.net"], 2),
    ],
)  # fmt: skip
def test_octets_that_are_no_text_are_refused_like_any_other(
    installation: Installation, arguments: list[str], code: int
) -> None:
    assert installation.run(*arguments).returncode == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["suppress", "check", "a@example.net", "--list", "news"], "give --tenant too"),
        (["suppress", "add", "a@example.net", "--group", "all", "--tenant", "acme"], "leave --tenant and --list out"),
        (["suppress", "add", "notanaddress"], "that is not a mail address"),
        (["prove", "x"], "neither an address nor a token nor a digest"),
        (["tenant", "add", ""], "a tenant's name is 1 to 63 letters"),
        (["group", "add", ""], "a group's name is 1 to 63 letters"),
        (["credential", "add", "acme", "no blanks"], "a user name is 1 to 128 printable ASCII characters"),
        (["webhook", "add", "sandbox", "foo"], "a webhook's URL is like https://app.example.com/mail-events"),
        (["events", "export", "--since", "1h", "--campaign", "spring"], "--campaign needs --tenant"),
    ],
)
def test_what_makes_no_sense_is_wrong_use(installation: Installation, arguments: list[str], said: str) -> None:
    installation.run("tenant", "add", "sandbox")
    done = installation.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_question_about_an_unknown_list_is_refused_and_makes_none(installation: Installation) -> None:
    installation.text("tenant", "add", "acme")
    check = ("suppress", "check", "anna@example.net", "--tenant")
    done = installation.run(*check, "acme", "--list", "news")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "tenant acme has no list 'news', and no other\n")
    installation.text("suppress", "add", "bob@example.net", "--tenant", "acme", "--list", "weekly")
    remove = ("suppress", "remove", "bob@example.net", "--tenant", "acme", "--list", "news", "--reason", "asked")
    for command in ((*check, "acme", "--list", "news"), remove):
        done = installation.run(*command)
        assert (done.returncode, done.stderr) == (1, "tenant acme has no list 'news'; it has: weekly\n")
    assert installation.run(*check, "nobody").returncode == 1
    assert installation.run(*check, "acme", "--list", "weekly").returncode == 3


def test_a_replay_says_the_time_that_was_meant(installation: Installation) -> None:
    installation.text("tenant", "add", "acme")
    made = installation.json("webhook", "add", "acme", "https://app.example.com/")
    since = ("--since", "2020-01-01T09:00:00+02:00")
    assert "since 2020-01-01 07:00:00 UTC" in installation.text(
        "events", "replay", "--webhook", str(made["id"]), *since
    )


def test_dkim_keys(installation: Installation) -> None:
    installation.text("tenant", "add", "acme")
    [record] = installation.json(
        "dkim", "new", "example.com", "--tenant", "acme", "--selector", "s1", "--algorithm", "ed25519"
    )
    assert record["name"] == "s1._domainkey.example.com"
    assert record["value"].startswith("v=DKIM1; k=ed25519; p=")
    assert installation.json("dkim", "show", "example.com") == [record]
    twice = installation.run(
        "dkim", "new", "example.com", "--tenant", "acme", "--selector", "s1", "--algorithm", "ed25519"
    )
    assert twice.returncode == 1
    assert "retired" in installation.text("dkim", "retire", "example.com", "s1", "--tenant", "acme")
    assert installation.run("dkim", "retire", "example.com", "s1", "--tenant", "acme").returncode == 1
    assert installation.json("dkim", "show") == []
    assert installation.run("dkim", "new", "not a domain", "--tenant", "acme", "--algorithm", "ed25519").returncode == 1


def test_suppressions_never_show_an_address(installation: Installation) -> None:
    installation.text("tenant", "add", "acme")
    added = installation.run(
        "suppress", "add", "anna@example.net", "--tenant", "acme", "--reason", "asked anna@example.net"
    )
    assert added.returncode == 0
    checked = installation.run("suppress", "check", "anna@example.net", "--tenant", "acme")
    wrong = installation.run("suppress", "check", "anna at example.net")
    assert (wrong.returncode, wrong.stderr) == (2, "that is not a mail address\n")
    assert "anna" not in added.stdout + added.stderr + checked.stdout + checked.stderr
    assert json.loads(installation.run("verify-log", "--json").stdout)["entries"] == 1
    assert installation.run("suppress", "add", "anna@example.net", "--list", "x").returncode == 2


async def test_the_story_of_a_bounce_by_address_token_and_digest(
    installation: Installation, database_url: str, tmp_path: Path
) -> None:
    """Whatever names the person, it is the same story, with the chain's hashes for who wants to check it."""
    installation.text("tenant", "add", "acme")
    keyring = Keyring.load(tmp_path / "keys" / "master.key")
    digest = Digest(keyring.digest_key)
    bob, eva = digest.person("bob@example.net"), digest.person("eva@example.net")
    reason = "unknown-user (5.1.1): permanent"
    async with opened(database_url) as database:
        log = SuppressionLog(database, digest)
        bounce = NewEntry(bob, Scope.TENANT, Kind.HARD_BOUNCE, 1, 0, Channel.BOUNCE, "session", 3, 17, reason)
        await log.append([bounce, asked(eva), asked(bob, tenant_id=1)])
        await database.pool.execute(
            "INSERT INTO outcome (message_id, ordinal, tenant_id, list_id, campaign_id, message_class, state, attempts,"
            " person, received_at, at, status, reply_code, class, remote_mta, diagnostic) SELECT n, 0, 1, 0, 3, 0,"
            " state, 1, $1, now(), now() + n * interval '1 day', status, 250, '', '', ''"
            " FROM (VALUES (-9, 1::smallint, '2.0.0'), (9, 4::smallint, '5.7.1')) AS made (n, state, status)",
            bob,
        )
    token = Tokens(keyring).issue(Token(Purpose.RETURN_PATH, 1, 0, 3, bob, 17))
    names = ["Bob@Example.net", token.upper(), digest_text(bob)]
    texts = await asyncio.gather(*(asyncio.to_thread(installation.text, "prove", name) for name in names))
    told = await asyncio.gather(*(asyncio.to_thread(installation.json, "prove", name) for name in names))
    assert len(set(texts)) == 1
    assert told == told[:1] * 3
    text = " ".join(texts[0].split())
    assert (
        f"suppressed: hard-bounce by bounce, scope tenant 1, by session, 0 cancelled, position 1, because of {reason}"
        in text
    )
    assert text.index("delivered 2.0.0") < text.index("suppressed: hard-bounce") < text.index("suppressed 5.7.1")
    assert "nothing was sent after a suppression" in text
    first, second = told[0]["entries"]
    assert (first["channel"], first["reason"], first["intact"], first["previous"]) == (
        "bounce",
        reason,
        True,
        "00" * 32,
    )
    assert (first["position"], second["position"]) == (1, 3)
    assert told[0]["head"] == {"position": 3, "hash": second["hash"]}
    assert [attempt["state"] for attempt in told[0]["attempts"]] == ["delivered", "suppressed"]
    assert told[0]["sent_after_suppression"] == []


def test_an_empty_queue(installation: Installation) -> None:
    assert installation.text("queue").startswith("0 queued, 0 leased, 0 held")
    shown = installation.json("queue")
    assert (shown["totals"], shown["groups"]) == ({"queued": 0, "leased": 0, "held": 0}, [])


def test_the_queue_of_what_there_is_not(installation: Installation) -> None:
    installation.text("tenant", "add", "acme")
    installation.text("suppress", "add", "bob@example.net", "--tenant", "acme", "--list", "weekly")
    for options, said in (
        (["--tenant", "nope"], "there is no tenant 'nope'; `heed tenant list` shows them\n"),
        (["--campaign", "nope"], "there is no campaign 'nope'; `heed campaign list` shows them\n"),
        (
            ["--tenant", "acme", "--campaign", "1"],
            "there is no campaign '1' of tenant acme; `heed campaign list` shows",
        ),
        (["--list", "nope"], "there is no list 'nope'"),
    ):
        done = installation.run("queue", *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(said)
    assert installation.text("queue", "--tenant", "acme", "--list", "weekly").endswith("Nothing is queued that fits.\n")
    assert installation.text("queue", "--site", "nope").endswith("No mail for a site of that name is queued.\n")


@pytest.mark.parametrize("command", ["tenant list", "campaign pause --site mx.example.net --reason wrong"])
def test_another_master_key_is_refused(
    installation: Installation, tmp_path: Path, database_url: str, command: str
) -> None:
    installation.text("tenant", "add", "acme")
    other = Installation(database_url, tmp_path / "other").run(*command.split())
    assert other.returncode == 1
    assert "another master key" in other.stderr


async def test_a_command_leaves_the_schema_of_an_older_version_alone(empty_database_url: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(empty_database_url)
    first = migrations()[0]
    await connection.execute(load_queries("config", "database.sql").create_migration_table)
    await connection.execute(first.sql)
    record = "INSERT INTO migration (number, name, sha256) VALUES ($1, $2, $3)"
    await connection.execute(record, first.number, first.name, first.sha256)
    older = Installation(empty_database_url, tmp_path)
    for command in (["usage"], ["campaign", "list"], ["tenant", "add", "acme"]):
        done = await asyncio.to_thread(older.run, *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "database: the database has the schema of an older version: `heed run` brings it up to date\n"
        )
    assert "older version" in (await asyncio.to_thread(older.run, "doctor")).stdout
    assert await connection.fetchval("SELECT count(*) FROM migration") == 1
    await connection.close()


def test_before_the_first_start_a_command_makes_the_schema(empty_database_url: str, tmp_path: Path) -> None:
    assert Installation(empty_database_url, tmp_path).json("tenant", "add", "acme") == {"id": 1, "name": "acme"}


def test_classify_says_what_a_message_is_and_what_it_can_not_read(tmp_path: Path) -> None:
    missing = heed("classify", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "none: No such file" in missing.stderr
    done = heed("classify", "-", "--json", given="From: a@example.com\nSubject: hello\n\nhello\n")
    assert (done.returncode, json.loads(done.stdout)["recipients"]) == (0, [])


def test_sending_to_nobody_fails_and_counts(tmp_path: Path) -> None:
    done = heed("send", "--count", "2", "--connections", "1", "--to", "127.0.0.1:1", "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["accepted"] == 0
    assert sum(result["failures"].values()) >= 1
    for host in ("127.0.0.1", "localhost"):  # a name may have several addresses
        plain = heed("send", "--count", "1", "--to", f"{host}:1")
        said = f"nothing listens on {host}:1; is the daemon running?\n"
        assert (plain.returncode, plain.stdout, plain.stderr.lstrip()) == (1, "", said)


def test_what_the_daemon_proposes_works_anywhere(tmp_path: Path) -> None:
    settings = load([], [f"data_dir={tmp_path / 'a b'}"], {})
    Paths(settings.data_dir).sink.mkdir(parents=True)
    [line] = [line for line in announcement(settings).splitlines() if "sink show" in line]
    shown = heed(*shlex.split(line)[1:])
    assert (shown.returncode, str(tmp_path / "a b" / "sink") in shown.stdout) == (0, True)


def test_a_sink_says_what_it_defers_with() -> None:
    assert "get 450" in heed("sink", "run", "--help").stdout


def test_an_empty_sink_and_one_whose_port_is_taken(tmp_path: Path) -> None:
    shown = heed("sink", "show", "--maildir", str(tmp_path), "--json")
    assert (shown.returncode, json.loads(shown.stdout)["messages"]) == (0, 0)
    taken = heed("sink", "run", "--listen", "192.0.2.1:1")
    assert taken.returncode == 1
    assert "choose another with --listen" in taken.stderr
