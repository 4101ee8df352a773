-- Idempotency keys were kept as apps chose them, and an app may well choose an address; so was a plain digest of each request,
-- from which an address can be guessed. Both are keyed digests from now on. What is repeated over this change is done again.
DELETE FROM suppression_request;
