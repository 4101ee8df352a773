-- The statements of suppression/consent.py.

-- name: record
-- Write down consents; runs under the log head's lock, in the transaction that lifts what they lift.
INSERT INTO consent (person, scope, tenant_id, list_id, basis, source, evidence, actor, at, recorded_at)
SELECT * FROM unnest(
    $1::bigint[], $2::smallint[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::timestamptz[]
)
RETURNING id;

-- name: lists_of
-- The lists that persons consented to, each asked for one tenant; 0: all mail of the tenant.
SELECT DISTINCT consent.person, consent.tenant_id, CASE WHEN consent.scope = 2 THEN 0 ELSE consent.list_id END
FROM unnest($1::bigint[], $2::integer[]) AS asked (person, tenant_id)
JOIN consent ON consent.person = asked.person AND consent.tenant_id = asked.tenant_id
WHERE consent.scope IN (2, 3);

-- name: count_since
-- How many consents of one person were recorded since a time.
SELECT count(*) FROM consent WHERE person = $1 AND recorded_at > now() - $2 * interval '1 second';

-- name: of_person
-- All consents of one person.
SELECT id, scope, tenant_id, list_id, basis, source, evidence, actor, at, recorded_at
FROM consent WHERE person = $1 ORDER BY id
