-- name: count
-- Count a bounce, once for each message, and forget what is too old to matter for the same person.
WITH forgotten AS (
    DELETE FROM bounce_count
    WHERE person = $1 AND tenant_id = $2 AND at < to_timestamp($4) - make_interval(days => $6)
)
INSERT INTO bounce_count (person, tenant_id, message_id, at, class)
VALUES ($1, $2, $3, to_timestamp($4), $5)
ON CONFLICT DO NOTHING;

-- name: earlier
-- When this person's other messages of a tenant came back since the last one that was delivered and stayed so.
SELECT b.at
FROM bounce_count b
WHERE b.person = $1 AND b.tenant_id = $2 AND b.message_id <> $3
    AND b.at > coalesce(
        (
            SELECT max(o.at)
            FROM outcome o
            WHERE o.person = $1 AND o.tenant_id = $2 AND o.state = 1
                AND NOT EXISTS (
                    SELECT FROM bounce_count c
                    WHERE c.person = $1 AND c.tenant_id = $2 AND c.message_id = o.message_id
                )
        ),
        '-infinity'
    );
