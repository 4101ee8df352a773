"""Import of consents from files: person, list, basis, source, time and a reference to what proves it.

As with suppressions it goes in batches, each a commit that says how far the file is done. A row counts only with a time
that names its zone, a basis and a source, its own or those given for the whole file: a consent whose time is guessed
would lift what the person has said since. A row without them is counted as refused, and changes nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from config.database import Database
from suppression.consent import Consent, consent_time, record
from suppression.digest import Digest, Scope
from suppression.log import Appending, SuppressionLog
from suppression.spreadsheet import Row
from suppression.transfer import Importer, ImportOrder, Put

TIME_COLUMNS: Final = (
    "at", "time", "timestamp", "date", "consentedat", "consenttime", "consentdate", "optintime", "optinat",
    "confirmedat", "confirmtime", "subscribedat", "createdat",
)  # fmt: skip
LIST_COLUMNS: Final = ("list", "listid", "listname", "newsletter", "audience")
BASIS_COLUMNS: Final = ("basis", "legalbasis", "consentbasis", "optin")
SOURCE_COLUMNS: Final = ("source", "form", "origin", "signupsource")
EVIDENCE_COLUMNS: Final = ("evidence", "reference", "proof", "evidencereference")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for rows that don't say it themselves."""

    basis: str = ""
    source: str = ""
    at: float | None = None


class ConsentImporter(Importer):
    """Imports consents of one tenant."""

    what = "consents"
    columns = (TIME_COLUMNS, LIST_COLUMNS, BASIS_COLUMNS, SOURCE_COLUMNS, EVIDENCE_COLUMNS)

    def __init__(
        self,
        database: Database,
        log: SuppressionLog,
        digest: Digest,
        list_id: Callable[[int, str], Awaitable[int]],
        defaults: Defaults,
    ) -> None:
        """`list_id` makes an id of a tenant and the name of a list."""
        super().__init__(database, log, digest)
        self._list_id = list_id
        self._defaults = defaults

    async def _prepare(self, order: ImportOrder, batch: list[Row]) -> Put:
        read = [await self._consent(order, row) for row in batch]
        consents = [consent for consent in read if consent is not None]

        async def put(appending: Appending) -> tuple[int, int]:
            # the batch's own clock decides what lies in the future
            timely = [consent for consent in consents if (consent.at or 0.0) <= appending.now]
            if timely:
                await record(appending, timely)
            return len(timely), len(batch) - len(timely)

        return put

    async def _consent(self, order: ImportOrder, row: Row) -> Consent | None:
        time, list_name, basis, source, evidence = row.more
        basis, source = basis or self._defaults.basis, source or self._defaults.source
        at = consent_time(time) if time else self._defaults.at
        if row.person is None or at is None or not basis or not source:
            return None
        list_id = await self._list_id(order.tenant_id, list_name) if list_name else order.list_id
        scope = Scope.LIST if list_id else Scope.TENANT
        return Consent(row.person, scope, order.tenant_id, list_id, basis, source, order.actor, at, evidence)
