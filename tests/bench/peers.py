"""What a user would run instead of Heed: Postfix as a relay, with and without OpenDKIM, in a private instance.

Configuration, queue and milter socket are in a directory of our own; the system's Postfix is not touched. Two
submission ports lead into one queue: mail of the first is signed. Needs root, as Postfix does. Raises Missing, which
says what to install or to be.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support.ports import free_port

_PROGRAMS: Final = {
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "postfix": "postfix",
    "postconf": "postfix",
    "opendkim": "opendkim",
}
_LOAD: Final = ("smtp-source", "smtp-sink")
_SELECTOR: Final = "bench"
_START_SECONDS: Final = 15.0
# service, type, chroot never, wakeup, process limit, command
_SERVICES: Final = """
cleanup    unix n - n - 0 cleanup
qmgr       unix n - n 300 1 qmgr
rewrite    unix - - n - - trivial-rewrite
bounce     unix - - n - 0 bounce
defer      unix - - n - 0 bounce
trace      unix - - n - 0 bounce
proxymap   unix - - n - - proxymap
smtp       unix - - n - - smtp
relay      unix - - n - - smtp
showq      unix n - n - - showq
error      unix - - n - - error
retry      unix - - n - - error
discard    unix - - n - - discard
anvil      unix - - n - 1 anvil
scache     unix - - n - 1 scache
postlog    unix-dgram n - n - 1 postlogd
"""


class Missing(Exception):
    """What is measured can't be run here; the text says what is missing."""


def require(*, peers: bool) -> None:
    """See that the load generator and, where they are wanted, the peers can be run. Raises Missing."""
    wanted = list(_PROGRAMS) if peers else list(_LOAD)
    absent = sorted({_PROGRAMS[name] for name in wanted if _path(name) is None})
    if absent:
        raise Missing(f"needs the Debian packages {' and '.join(absent)}: apt-get install {' '.join(absent)}")
    if peers and os.geteuid() != 0:
        raise Missing("needs root, because Postfix does; rows without a peer run without: --only F,G,H,I,J")


def program(name: str) -> str:
    """The path of a program of the peers. Raises Missing."""
    path = _path(name)
    if path is None:
        raise Missing(f"needs the Debian package {_PROGRAMS[name]}")
    return path


def versions() -> tuple[str, str]:
    """Of Postfix and of OpenDKIM; empty where there is none."""
    postfix = opendkim = ""
    if _path("postconf"):
        postfix = _output([program("postconf"), "-d", "-h", "mail_version"]).strip()
    if _path("opendkim"):
        opendkim = _output([program("opendkim"), "-V"]).partition("\n")[0].rpartition(" v")[2]
    return postfix, opendkim


class Postfix:
    """A Postfix that relays everything to a port of the loopback interface, one transaction for each recipient."""

    def __init__(self, directory: Path, next_hop: int) -> None:
        self.signed_port, self.unsigned_port = free_port(), free_port()
        self._directory = directory
        self._configuration, self._queue = directory / "etc", directory / "queue"
        self._next_hop = next_hop
        self._milter: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> list[int]:
        """Its main process and the milter; the others descend from them."""
        found = [] if self._milter is None else [self._milter.pid]
        lock = self._queue / "pid" / "master.pid"
        return found + ([int(lock.read_text())] if lock.exists() else [])

    def start(self) -> None:
        """Return when both ports take mail."""
        self._directory.mkdir(mode=0o755, exist_ok=True)
        for directory in (self._configuration, self._queue, self._directory / "data"):
            directory.mkdir(mode=0o755)
        shutil.chown(self._directory / "data", "postfix")
        self._start_milter()
        (self._configuration / "main.cf").write_text(self._main())
        (self._configuration / "master.cf").write_text(self._master())
        self._run("start")
        for port in (self.signed_port, self.unsigned_port):
            _await_port(port)

    def stop(self) -> None:
        """End it, and forget what it may have queued."""
        if (self._configuration / "master.cf").exists():
            subprocess.run(
                [program("postfix"), "-c", str(self._configuration), "stop"], check=False, capture_output=True
            )
        if self._milter is not None:
            self._milter.send_signal(signal.SIGTERM)
            self._milter.wait(10)

    def _run(self, command: str) -> None:
        done = subprocess.run(
            [program("postfix"), "-c", str(self._configuration), command], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise Missing(f"postfix {command}: {done.stderr.strip()}")

    def _start_milter(self) -> None:
        user = pwd.getpwnam("opendkim")
        home = self._directory / "opendkim"
        home.mkdir(mode=0o755)
        key, configuration = home / "key.pem", home / "opendkim.conf"
        subprocess.run(["openssl", "genrsa", "-traditional", "-out", str(key), "2048"], check=True, capture_output=True)
        key.chmod(0o600)
        for path in (home, key):
            os.chown(path, user.pw_uid, user.pw_gid)
        configuration.write_text(
            f"Syslog no\nMode s\nRequireSafeKeys no\nDomain example.com\nSelector {_SELECTOR}\nKeyFile {key}\n"
            f"UserID opendkim\nSocket local:{home / 'milter.sock'}\nUMask 000\nCanonicalization relaxed/relaxed\n"
            "OversignHeaders From\nInternalHosts 127.0.0.1\n"
        )
        self._milter = subprocess.Popen(
            [program("opendkim"), "-f", "-x", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _await(lambda: (home / "milter.sock").exists(), "opendkim does not start")

    def _main(self) -> str:
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": self._queue,
            "data_directory": self._directory / "data",
            "maillog_file": self._directory / "postfix.log",
            "maillog_file_prefixes": self._directory,
            "myhostname": "mta.example.com",
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "relayhost": f"[127.0.0.1]:{self._next_hop}",
            "alias_maps": "",
            "local_recipient_maps": "",
            "disable_dns_lookups": "yes",
            "smtp_tls_security_level": "none",
            "smtpd_client_connection_count_limit": 0,
            "smtpd_recipient_restrictions": "permit_mynetworks,reject",
            "default_process_limit": 200,
            "default_destination_concurrency_limit": 50,
            "smtp_destination_recipient_limit": 1,
            "milter_default_action": "tempfail",
        }
        return "".join(f"{name} = {value}\n" for name, value in settings.items())

    def _master(self) -> str:
        milter = f"unix:{self._directory / 'opendkim' / 'milter.sock'}"
        ports = f"{self.signed_port} inet n - n - - smtpd -o smtpd_milters={milter}\n"
        ports += f"{self.unsigned_port} inet n - n - - smtpd -o syslog_name=unsigned\n"
        return ports + _SERVICES.lstrip()


def _path(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def _await_port(port: int) -> None:
    def answers() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
                return client.recv(3) == b"220"
        except OSError:
            return False

    _await(answers, f"nobody answers on port {port}")


def _await(holds: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise Missing(complaint)
        time.sleep(0.05)
