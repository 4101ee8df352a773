-- name: tenant_by_name
-- The tenant of a name.
SELECT id, name FROM tenant WHERE name = $1 AND disabled_at IS NULL;

-- name: tenants
-- All tenants, for the command line.
SELECT t.id, t.name, t.created_at, t.disabled_at IS NOT NULL AS disabled, t.consent_required,
    (SELECT count(*) FROM credential c WHERE c.tenant_id = t.id AND c.revoked_at IS NULL) AS credentials
FROM tenant t
ORDER BY t.name;

-- name: add_tenant
-- A new tenant; no row when the name is taken.
INSERT INTO tenant (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id;

-- name: tenant_name
-- The name of a tenant.
SELECT name FROM tenant WHERE id = $1;

-- name: reply_address
-- Where a tenant wants answers to its mail, sealed.
SELECT reply_address FROM tenant WHERE id = $1;

-- name: set_reply_address
-- Remember where, or forget it.
UPDATE tenant SET reply_address = $2 WHERE id = $1;

-- name: credential
-- What AUTH needs to know of a user name.
SELECT c.secret, c.class, c.tenant_id, t.name AS tenant
FROM credential c
JOIN tenant t ON t.id = c.tenant_id
WHERE c.username = $1 AND c.revoked_at IS NULL AND t.disabled_at IS NULL;

-- name: add_credential
-- A new user name; no row when it is taken.
INSERT INTO credential (tenant_id, username, secret, class) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING id;

-- name: credentials
-- User names of a tenant, for the command line.
SELECT username, class, created_at, revoked_at FROM credential WHERE tenant_id = $1 ORDER BY username;

-- name: revoke_credential
-- Switch a user name off.
UPDATE credential SET revoked_at = now() WHERE username = $1 AND revoked_at IS NULL RETURNING id;

-- name: list_id
-- The id of a list, if it is known.
SELECT id FROM list WHERE tenant_id = $1 AND name = $2;

-- name: list_names
-- The newest lists of a tenant.
SELECT name FROM list WHERE tenant_id = $1 ORDER BY id DESC LIMIT 20;

-- name: add_list
-- A list that is seen for the first time; no row when another worker was quicker.
INSERT INTO list (tenant_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id;

-- name: list_name
-- The name of a list.
SELECT name FROM list WHERE id = $1;

-- name: campaign_by_name
-- A tenant's campaign, if it is known.
SELECT id, content_key FROM campaign WHERE tenant_id = $1 AND name = $2;

-- name: add_campaign
-- A campaign that is seen for the first time; no row when another worker was quicker.
INSERT INTO campaign (tenant_id, name, content_key) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING id, content_key;

-- name: campaign
-- A campaign by its id.
SELECT tenant_id, name, content_key FROM campaign WHERE id = $1;
