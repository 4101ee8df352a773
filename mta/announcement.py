"""What `heed run` says when it is ready: where it listens, and what to try."""

import shlex
import sys
from pathlib import Path

from config.settings import Settings, endpoint
from mta.installation import Paths


def announcement(settings: Settings) -> str:
    """The lines for the operator."""
    submission = settings.submission
    lines = ["", "Heed is ready."]
    if settings.runs_sink:
        lines.append("  sandbox       nothing leaves this machine: all mail goes to Heed's own sink")
    rows = [
        ("submission", ", ".join(submission.listen) + " (STARTTLS), " + ", ".join(submission.listen_tls) + " (TLS)"),
        ("inbound", ", ".join(settings.inbound.listen)),
        ("web", ", ".join(settings.web.listen)),
        ("sink", settings.sink.listen if settings.runs_sink else ""),
        ("next hop", settings.delivery.next_hop or ""),
        ("metrics", f"http://{settings.metrics.listen}/metrics"),
    ]
    lines += [f"  {name:<13} {value}" for name, value in rows if value]
    if settings.sandbox and submission.listen:
        where = endpoint(submission.listen[0])
        lines += [
            "",
            "Try it in a second shell:",
            f"  swaks --server {where} --from news@example.com --to reader@example.net \\",
            "        --header 'List-Id: <weekly.example.com>' --header 'Subject: Hello'",
        ]
    if settings.runs_sink:
        lines += [
            f"  {_command()} sink show --maildir {shlex.quote(str(Paths(settings.data_dir).sink))}",
            "",
            "The first command sends a mail, the second shows what the sink received.",
        ]
    return "\n".join([*lines, ""])


def _command() -> str:
    """How heed was started, for a line to copy."""
    started = Path(sys.argv[0])
    return str(started) if started.name == "heed" else "heed"
