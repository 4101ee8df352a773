-- The statements of suppression/transfer.py.

-- name: import_state
-- How far the import of a source has come.
SELECT offset_bytes, read, added, refused FROM suppression_import WHERE source = $1;

-- name: import_advanced
-- Say how far it has come, in the commit that brings it there; nothing when another process was faster.
INSERT INTO suppression_import (source, offset_bytes, read, added, refused, updated_at)
VALUES ($1, $3, $4, $5, $6, now())
ON CONFLICT (source) DO UPDATE SET
    offset_bytes = $3, read = $4, added = $5, refused = $6, updated_at = now()
WHERE suppression_import.offset_bytes = $2
RETURNING offset_bytes;

-- name: export
-- Begin to read all that is in force, in the order of the log, as it is now.
DECLARE exported NO SCROLL CURSOR FOR
SELECT entry.person, entry.scope, entry.kind, entry.tenant_id, entry.list_id, entry.channel, entry.position, entry.at
FROM suppression_log AS entry JOIN suppression USING (position) ORDER BY entry.position;

-- name: export_next
-- The next of it.
FETCH 5000 FROM exported;
