-- The statements of suppression/groups.py.

-- name: add
-- A new group; no row when the name is taken.
INSERT INTO tenant_group (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id;

-- name: all
-- Every group with the names of its tenants.
SELECT g.id, g.name, coalesce(array_agg(t.name ORDER BY t.name) FILTER (WHERE t.id IS NOT NULL), '{}') AS tenants
FROM tenant_group g
LEFT JOIN group_member m ON m.group_id = g.id
LEFT JOIN tenant t ON t.id = m.tenant_id
GROUP BY g.id, g.name
ORDER BY g.name;

-- name: members
-- Which tenants are in which groups, and since when.
SELECT member.position, log.at, member.tenant_id, member.group_id
FROM group_member AS member JOIN suppression_log AS log USING (position)
