-- The statements of suppression/api.py.

-- name: earlier_answer
-- The answer that was given to an idempotency key, and to which request.
SELECT request_sha256, answer FROM suppression_request WHERE tenant_id = $1 AND idempotency_key = $2;

-- name: keep_answer
-- Keep an answer for its idempotency key, in the commit of what it tells.
INSERT INTO suppression_request (tenant_id, idempotency_key, request_sha256, answer, at)
VALUES ($1, $2, $3, $4, clock_timestamp());
