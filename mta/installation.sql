-- Whose database it is.

-- name: installation
-- The key check of this installation, if it has one.
SELECT key_check FROM installation;

-- name: install
-- Remember whose database this is.
INSERT INTO installation (key_check) VALUES ($1) ON CONFLICT DO NOTHING;
