"""`heed run`, `heed check-config` and `heed classify`: the daemon, its configuration, and how it reads answers.

None of them needs a database that runs already.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from config.failure import file_trouble
from mta.terminal import Config, Json, Set, carried_out, complain, loaded, print_json, say, settings_of

if TYPE_CHECKING:
    from config.settings import Settings


def run(config: Config = None, overrides: Set = None) -> None:
    """Run the daemon in the foreground until SIGTERM."""
    settings = settings_of(config, overrides)
    _check_certificate(settings)
    _run_daemon(settings)


def _run_daemon(settings: "Settings") -> None:
    from config.log import configure

    configure(settings.log.level, settings.log.format)
    # prometheus_client decides at its import whether it shares values between processes
    from mta.metrics_directory import forget_metrics, share_metrics

    try:
        share_metrics(settings.data_dir)
    except OSError as error:
        complain(f"{settings.data_dir}: {error.strerror}; data_dir must be a directory of this user")
        raise typer.Exit(1) from None
    from mta.announcement import announcement
    from mta.supervisor import StartError, Supervisor

    async def main() -> int:
        return await Supervisor(settings).run(lambda: say(announcement(settings)))

    try:
        raise typer.Exit(carried_out(main()))
    except StartError as error:
        complain(f"heed can't start: {error}")
        raise typer.Exit(1) from None
    finally:
        forget_metrics()


def check_config(config: Config = None, overrides: Set = None, as_json: Json = False) -> None:
    """Check the configuration, and print it as it would be used. Exit code 2 when something is wrong."""
    settings = settings_of(config, overrides)
    _check_certificate(settings)
    values = settings.model_dump(mode="json")
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                say(f"{name}.{key} = {inner!r}")
        else:
            say(f"{name} = {value!r}")
    say("The configuration is valid.")


def _check_certificate(settings: "Settings") -> None:
    """End with exit code 2 where no listener could show the certificate that is named."""
    from mta.certificate import chain_trouble

    certificate, key = settings.tls.certificate, settings.tls.key
    if certificate and key and (trouble := chain_trouble(certificate, key)):
        complain(f"tls.certificate = {certificate}, tls.key = {key}: {trouble}")
        raise typer.Exit(2)


def classify(
    files: Annotated[list[str], typer.Argument(help="Messages, mbox files or Maildirs; - for standard input.")],
    as_json: Json = False,
) -> None:
    """Say what messages are (bounce, complaint, auto-reply …) and what Heed would do. Needs no database."""
    import orjson

    from bounce.report import classify_paths

    loaded()

    try:
        for item in classify_paths(files):
            if as_json:
                sys.stdout.write(orjson.dumps(item).decode() + "\n")
            else:
                _print_reading(item)
    except OSError as error:
        complain(file_trouble(error))
        raise typer.Exit(1) from None


def _print_reading(item: dict[str, Any]) -> None:
    say(f"{item['file']}: {item['kind']} {item['feedback_type'] or ''}".rstrip())
    for recipient in item["recipients"]:
        verdict = "suppress" if recipient["suppress"] else "keep"
        fields = [recipient[name] for name in ("address", "action", "status", "reply_code", "class")]
        words = " ".join(str(field) for field in fields if field)
        say(f"  {words}: {verdict} ({recipient['reason']})")
