-- The statements of suppression/consent.py.

-- name: record
-- Write down consents; runs under the log head's lock, in the transaction that lifts what they lift.
INSERT INTO consent (person, scope, tenant_id, list_id, basis, source, evidence, actor, at, recorded_at)
SELECT * FROM unnest(
    $1::bigint[], $2::smallint[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::timestamptz[]
)
RETURNING id;

-- name: consenting
-- Those of some persons who consented to a list, or to all mail of its tenant.
SELECT DISTINCT person FROM consent
WHERE person = ANY ($1::bigint[]) AND tenant_id = $2 AND (scope = 2 OR (scope = 3 AND list_id = $3));

-- name: count_since
-- How many consents of one person were recorded since a time.
SELECT count(*) FROM consent WHERE person = $1 AND recorded_at > now() - $2 * interval '1 second';

-- name: of_person
-- All consents of one person.
SELECT id, scope, tenant_id, list_id, basis, source, evidence, actor, at, recorded_at
FROM consent WHERE person = $1 ORDER BY id
