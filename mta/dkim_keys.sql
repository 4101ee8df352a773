-- name: add
-- A new key; no row when the selector was ever used for that domain: its record may be cached somewhere, and two tenants'
-- keys can't be published under one name.
INSERT INTO dkim_key (tenant_id, domain, selector, algorithm, private_key, public_key)
SELECT $1, $2, $3, $4, $5, $6
WHERE NOT EXISTS (SELECT FROM dkim_key k WHERE k.domain = $2 AND k.selector = $3)
ON CONFLICT DO NOTHING
RETURNING selector;

-- name: listed
-- A tenant's keys with what is published of them, for the command line; every tenant's where none is named.
SELECT tenant_id, domain, selector, algorithm, public_key, created_at, retired_at
FROM dkim_key
WHERE $1::integer IS NULL OR tenant_id = $1
ORDER BY tenant_id, domain, created_at, selector;

-- name: retire
-- Sign no more with a key; no row when there is none, or it is retired already.
UPDATE dkim_key
SET retired_at = now()
WHERE tenant_id = $1 AND domain = $2 AND selector = $3 AND retired_at IS NULL
RETURNING selector;

-- name: in_use
-- The keys with which mail of any of these domains may be signed, newest first.
SELECT domain, selector, algorithm, private_key
FROM dkim_key
WHERE tenant_id = $1 AND domain = ANY ($2::text[]) AND retired_at IS NULL
ORDER BY created_at DESC, selector DESC;
