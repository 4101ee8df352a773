"""Other people's mail servers as the next hop of a test's daemon: Debian's Postfix and Exim, as private instances.

Both take whatever recipient they are offered and find out afterwards: mail to example.net goes on to a peer of the
test's, example.org is their own, with nobody but `full` (whose mailbox is full) and `away` (who is on holiday, of
Exim's). Their notices go to Heed's inbound listener. Owns its processes and directory, and leaves none behind.
Raises MtaUnavailable with the reason when there is no such server here, MtaError with its log when it does not start.
"""

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, Literal

import psutil

from tests.support.ports import free_port

MAIL_DOMAIN: Final = "answers.example.com"
"""Whose mail the servers bring to Heed."""

Returned = Literal["message", "header"]

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
_FETCH_SECONDS: Final = 120
_EXIM_USER: Final = b"Debian-exim"
_USER: Final = "mail"


class MtaUnavailable(Exception):
    """The server can't be had here; the text says why."""


class MtaError(AssertionError):
    """The server did not start; the text ends with its log."""


class Mta:
    """What the servers have in common: a directory that their own users can reach, a process, a log."""

    hostname = "mx.example.org"

    def __init__(self, *, inbound_port: int, onward_port: int, returned: Returned) -> None:
        self.port = free_port()
        self._inbound_port = inbound_port
        self._onward_port = onward_port
        self._returned = returned
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()

    @property
    def log(self) -> str:
        """What it has said so far."""
        files = sorted(self._directory.glob("log/*"))
        return "\n".join(file.read_text("utf-8", "replace") for file in files)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start it for the time of a block, and end it whatever happens."""
        with reachable_directory() as self._directory:
            (self._directory / "log").mkdir()
            try:
                self._launch()
                await self._greets()
                yield
            finally:
                await asyncio.to_thread(self._destroy)

    def _launch(self) -> None:
        command = self._prepared()
        with (self._directory / "log/output").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | self._environment(),
                cwd=self._directory,
                start_new_session=True,
            )

    def _prepared(self) -> list[str]:
        """Write the configuration; the command that runs the server in the foreground."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return {}

    async def _greets(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                greeting = await reader.read(100)
                writer.close()
                if greeting.startswith(b"220"):
                    return
            await asyncio.sleep(_POLL_SECONDS)
        raise MtaError(f"{type(self).__name__} did not start; its log:\n{self.log}")

    def _destroy(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        for left in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(left.pid) == process.pid or self._is_below(left.exe()) or self._is_below(left.cwd()):
                    left.send_signal(signal.SIGKILL)
        process.wait()

    def _is_below(self, path: str) -> bool:
        return Path(path).is_relative_to(self._directory)


class Postfix(Mta):
    """Debian's Postfix, with configuration, queue and data of its own."""

    @staticmethod
    def require() -> None:
        """Raise MtaUnavailable where it can't be started."""
        if os.geteuid() != 0:
            raise MtaUnavailable("Postfix starts as root only")
        if shutil.which("postfix") is None:
            raise MtaUnavailable("Postfix is not installed")

    def _prepared(self) -> list[str]:
        etc, queue, data, mail = (self._directory / name for name in ("etc", "queue", "data", "mail"))
        for directory in (etc, queue, data, mail):
            directory.mkdir(mode=0o755)
        shutil.chown(data, "postfix")
        shutil.chown(mail, _USER)
        full = mail / "full"
        full.write_bytes(b"From somebody\n\n" + b"x" * 40_000 + b"\n\n")
        shutil.chown(full, _USER)
        (etc / "main.cf").write_text(self._main())
        (etc / "master.cf").write_text(self._master())
        return ["postfix", "-c", str(etc), "start-fg"]

    def _main(self) -> str:
        routes = (
            f"{MAIL_DOMAIN}=smtp:[127.0.0.1]:{self._inbound_port}, example.net=smtp:[127.0.0.1]:{self._onward_port}"
        )
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": self._directory / "queue",
            "data_directory": self._directory / "data",
            "maillog_file": "/dev/stdout",
            "myhostname": self.hostname,
            "mydestination": "",
            "alias_maps": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "relay_domains": f"example.net, {MAIL_DOMAIN}",
            "transport_maps": f"inline:{{ {routes} }}",
            "virtual_mailbox_domains": "example.org",
            "virtual_mailbox_maps": "inline:{ full@example.org=full }",
            "virtual_mailbox_base": self._directory / "mail",
            "virtual_uid_maps": f"static:{_uid(_USER)}",
            "virtual_gid_maps": f"static:{_uid(_USER)}",
            "virtual_minimum_uid": "1",
            "smtpd_reject_unlisted_recipient": "no",
            "message_size_limit": "30000",
            "virtual_mailbox_limit": "30000",
            "bounce_size_limit": "1" if self._returned == "header" else "50000",
            "smtp_tls_security_level": "none",
            "delay_warning_time": "1s",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
        }
        return "".join(f"{name} = {value}\n" for name, value in settings.items())

    def _master(self) -> str:
        services = f"""
            127.0.0.1:{self.port} inet n - n - - smtpd
            cleanup unix n - n - 0 cleanup
            qmgr unix n - n 300 1 qmgr
            rewrite unix - - n - - trivial-rewrite
            bounce unix - - n - 0 bounce
            defer unix - - n - 0 bounce
            trace unix - - n - 0 bounce
            flush unix n - n 1000? 0 flush
            proxymap unix - - n - - proxymap
            smtp unix - - n - - smtp
            showq unix n - n - - showq
            error unix - - n - - error
            retry unix - - n - - error
            virtual unix - n n - - virtual
            anvil unix - - n - 1 anvil
            scache unix - - n - 1 scache
            postlog unix-dgram n - n - 1 postlogd
        """
        return "".join(f"{line.strip()}\n" for line in services.splitlines() if line.strip())


class Exim(Mta):
    """Debian's Exim, run from its unpacked package."""

    def __init__(self, root: Path, *, inbound_port: int, onward_port: int, returned: Returned) -> None:
        super().__init__(inbound_port=inbound_port, onward_port=onward_port, returned=returned)
        self._program = root / "usr/sbin/exim4"
        self._libraries = library_path(root)

    def _prepared(self) -> list[str]:
        for name in ("spool", "mail", "log"):
            directory = self._directory / name
            directory.mkdir(mode=0o755, exist_ok=True)
            shutil.chown(directory, _USER)
        configuration = self._directory / "exim.conf"
        configuration.write_text(self._configuration())
        return [str(self._program), "-C", str(configuration), "-bdf", "-q1s"]

    def _environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": self._libraries}

    def _configuration(self) -> str:
        body = "false" if self._returned == "header" else "true"
        # in clear it says behind the last content that it is done, and waits for the reply
        in_clear = "*" if self._returned == "header" else ""
        return f"""
            primary_hostname = {self.hostname}
            exim_path = {self._program}
            spool_directory = {self._directory}/spool
            log_file_path = {self._directory}/log/%slog
            pid_file_path = {self._directory}/spool/exim.pid
            keep_environment = LD_LIBRARY_PATH
            deliver_drop_privilege = true
            local_interfaces = 127.0.0.1
            daemon_smtp_ports = {self.port}
            disable_ipv6 = true
            rfc1413_query_timeout = 0s
            tls_advertise_hosts =
            smtputf8_advertise_hosts = *
            acl_smtp_rcpt = everybody
            bounce_return_body = {body}
            delay_warning = 1s
            delay_warning_condition = yes

            begin acl
            everybody:
              accept

            begin routers
            heed:
              driver = manualroute
              domains = {MAIL_DOMAIN}
              transport = heed
              route_list = * 127.0.0.1
              self = send
            onward:
              driver = manualroute
              domains = example.net
              transport = onward
              route_list = * 127.0.0.1
              self = send
            full:
              driver = accept
              domains = example.org
              local_parts = full
              transport = mailbox
            away:
              driver = accept
              domains = example.org
              local_parts = away
              transport = vacation
            former:
              driver = redirect
              domains = example.org
              local_parts = former
              allow_fail
              data = :fail: No such person at this address

            begin transports
            heed:
              driver = smtp
              port = {self._inbound_port}
              hosts_avoid_tls = {in_clear}
            onward:
              driver = smtp
              port = {self._onward_port}
              hosts_avoid_tls = *
            mailbox:
              driver = appendfile
              file = {self._directory}/mail/full
              quota = 1
              user = {_USER}
            vacation:
              driver = autoreply
              from = away@example.org
              to = $sender_address
              subject = Away until Monday
              text = Your mail about "$h_subject:" was not delivered to my desk: I am away.
              user = {_USER}

            begin retry
            late@example.net * F,1d,1s
            """


@contextlib.contextmanager
def unpacked_exim() -> Iterator[Path]:
    """Exim's package and the libraries that it lacks here, unpacked below a directory; raises MtaUnavailable.

    Nothing is installed, so there is no user of the name that was compiled in: the copy gets another one's name.
    """
    if os.geteuid() != 0:
        raise MtaUnavailable("Exim starts as root only")
    for tool in ("apt-get", "dpkg", "ldd"):
        if shutil.which(tool) is None:
            raise MtaUnavailable(f"Exim's package can't be had without {tool}")
    with reachable_directory() as root:
        _unpack("exim4-daemon-light", root)
        program = root / "usr/sbin/exim4"
        for library in _libraries_of(root):
            if _missing(program, root):
                _unpack(library, root)
        if missing := _missing(program, root):
            raise MtaUnavailable(f"Exim lacks {', '.join(missing)}")
        content = program.read_bytes()
        if content.count(_EXIM_USER + b"\0") != 1:
            raise MtaUnavailable("Exim's package has another form than is known here")
        program.write_bytes(content.replace(_EXIM_USER, _USER.encode().ljust(len(_EXIM_USER), b"\0")))
        program.chmod(stat.S_IMODE(program.stat().st_mode) & ~stat.S_ISUID)
        yield root


@contextlib.contextmanager
def reachable_directory() -> Iterator[Path]:
    """A temporary directory that the servers' own users can pass through, unlike one of the tests'."""
    with tempfile.TemporaryDirectory(prefix="heed-mta-", ignore_cleanup_errors=True) as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


def library_path(root: Path) -> str:
    """Where an unpacked program finds its libraries."""
    return ":".join(str(path) for path in root.glob("usr/lib/*-linux-*"))


def _unpack(package: str, root: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            # not as _apt, which can't write there
            fetch = ["apt-get", "-o", "APT::Sandbox::User=root", "download", package]
            subprocess.run(fetch, cwd=directory, check=True, capture_output=True, timeout=_FETCH_SECONDS)
            for file in Path(directory).glob("*.deb"):
                subprocess.run(["dpkg", "-x", str(file), str(root)], check=True, capture_output=True)
        except (subprocess.SubprocessError, OSError) as error:
            raise MtaUnavailable(f"the package {package} can't be fetched ({type(error).__name__})") from None


def _libraries_of(root: Path) -> list[str]:
    """Packages that Exim depends on and that are not here."""
    shown = subprocess.run(["apt-cache", "depends", "exim4-daemon-light"], capture_output=True, text=True, check=False)
    names = re.findall(r"Depends: (lib\S+)", shown.stdout)
    return [name for name in names if subprocess.run(["dpkg", "-s", name], capture_output=True, check=False).returncode]


def _missing(program: Path, root: Path) -> list[str]:
    environment = os.environ | {"LD_LIBRARY_PATH": library_path(root)}
    shown = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False, env=environment)
    return re.findall(r"(\S+) => not found", shown.stdout)


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid
