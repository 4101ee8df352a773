"""`heed trace` and `heed explain`: what happened to a message, and why something is not being sent.

Addresses are shown masked; --reveal shows them, with a reason that is written to the operators' log. Exit code 1 when
nothing is known of what was asked for, or there is no database to ask, 2 for wrong use.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import typer

from config.failure import Failed
from mta.terminal import Config, Json, Set, complain, operator, print_json, run_with_parts, say, settings_of

T = TypeVar("T")


def trace(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A queue id (0H2…, or 0H2….3 for one recipient), address or digest.")
    ],
    reveal: Annotated[
        str | None, typer.Option("--reveal", metavar="REASON", help="Show addresses; the reason is logged.")
    ] = None,
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show every event of a message or a person: when, where, what the peer said, how long it took; and what waits."""
    if reveal is not None and not reveal.strip():
        complain("--reveal must say why; that is kept in the operators' log.")
        raise typer.Exit(2)
    from mta.explain import event_line

    events, waiting = _asked(
        settings_of(config, overrides), lambda parts, ask: ask.trace(parts, what, reveal=reveal or "", actor=operator())
    )
    if as_json:
        print_json({"events": events, "waiting": waiting})
        return
    for event in events:
        say(event_line(event))
    for row in waiting:
        place = f"{row['queue_id']}.{row['ordinal']}"
        say(f"{place} {row['recipient']} is {row['state']}, due {row['due_at']:%Y-%m-%d %H:%M:%S}")


def explain(
    what: Annotated[str, typer.Argument(help="A campaign, site, queue id, address or digest.")],
    kind: Annotated[
        Literal["", "campaign", "site", "recipient"], typer.Option("--kind", help="Which it is, where that is unclear.")
    ] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Of this tenant's mail alone.")] = "",
    config: Config = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Say in a sentence or two why it is not being sent right now, and what would change that."""
    import asyncio

    if not what.strip():
        complain("Name a campaign, site, queue id, address or digest; `heed queue` shows what waits.")
        raise typer.Exit(2)
    settings = settings_of(config, overrides)

    async def answer(parts: Any, ask: Any) -> list[str]:
        state = await asyncio.to_thread(ask.node_state, settings)
        told: list[str] = await ask.explain(parts, what, kind=kind, tenant=tenant, state=state)
        return told

    def tell(told: list[str]) -> None:
        if as_json:
            print_json({"what": what, "sentences": told})
            return
        from bounce.outcome import printable

        for sentence in told:
            say(printable(sentence))

    def without_database(_trouble: str) -> None:
        from mta import inquiry

        tell(inquiry.explain_without_database(what, state=inquiry.node_state(settings)))

    tell(_asked(settings, answer, without_database))


def _asked(
    settings: Any,
    question: Callable[[Any, Any], Awaitable[T]],
    without_database: Callable[[str], None] | None = None,
) -> T:
    """The answer to a question about something, or exit code 1 where nothing is known of it, 2 where it is nothing.

    without_database: says what is known even then.
    """
    from mta import inquiry

    async def ask(parts: Any) -> T:
        try:
            return await question(parts, inquiry)
        except inquiry.Unknown as error:
            raise Failed(str(error)) from None
        except inquiry.Unclear as error:
            complain(str(error))
            raise typer.Exit(2) from None

    return run_with_parts(settings, ask, without_database=without_database)
