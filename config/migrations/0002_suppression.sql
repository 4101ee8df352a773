-- The suppression log, what is in force of it, and consents. No address: persons and keys are keyed 64-bit digests.
-- Nothing here refers to lists, campaigns or messages by a foreign key: suppressions outlive them.

-- One row: the newest position of the log. Whoever appends holds this row's lock until the commit, so positions are
-- gapless and their order is the order of commits: a reader that has seen position n can never miss one below it.
CREATE TABLE suppression_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    hash bytea NOT NULL,
    at timestamptz NOT NULL
) WITH (fillfactor = 20);
INSERT INTO suppression_head (position, hash, at) VALUES (0, decode(repeat('00', 32), 'hex'), 'epoch');

-- The log. hash = SHA-256 of the previous hash and of all other columns (suppression/entry.py has the encoding).
-- action: 1 suppress, 2 lift by consent, 3 lift by the operator, 4 signed head.
-- scope: 1 everything, 2 tenant, 3 list, 4 group of tenants. kind: 1 unsubscribe, 2 complaint, 3 hard bounce, 4 manual,
-- 5 legal. key: the scope key; effect: what is stopped for this key after the entry: 0 nothing, 1 campaigns, 2 all mail.
-- cancelled: how many queued recipients the same commit cancelled.
CREATE TABLE suppression_log (
    position bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    action smallint NOT NULL CHECK (action BETWEEN 1 AND 4),
    scope smallint NOT NULL CHECK (scope BETWEEN 0 AND 4),
    kind smallint NOT NULL CHECK (kind BETWEEN 0 AND 5),
    effect smallint NOT NULL CHECK (effect BETWEEN 0 AND 2),
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    cancelled integer NOT NULL,
    message_id bigint NOT NULL,
    person bigint NOT NULL,
    key bigint NOT NULL,
    channel text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL
);
-- Serves the story of one person, and the preference page.
CREATE INDEX suppression_log_person ON suppression_log (person);
-- Serves the question when the head was last signed.
CREATE INDEX suppression_log_signed ON suppression_log (position) WHERE action = 4;

CREATE FUNCTION suppression_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the suppression log is append-only';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON suppression_log
    FOR EACH ROW EXECUTE FUNCTION suppression_log_is_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON suppression_log
    FOR EACH STATEMENT EXECUTE FUNCTION suppression_log_is_append_only();

-- What is in force: one row a key and kind, from the entry that suppressed until the entry that lifts. position: the
-- entry of the log that put it in force. effect: what this kind alone stops.
CREATE TABLE suppression (
    key bigint NOT NULL,
    kind smallint NOT NULL,
    effect smallint NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (key, kind)
);

-- Consents, as recorded. One that is newer than an unsubscribe of its scope lifts it (log action 2, which names the id).
-- at: when the person consented; recorded_at: when it was written down here. evidence: an optional reference.
CREATE TABLE consent (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person bigint NOT NULL,
    scope smallint NOT NULL CHECK (scope BETWEEN 1 AND 4),
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    basis text NOT NULL,
    source text NOT NULL,
    evidence text NOT NULL,
    actor text NOT NULL,
    at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL
);
-- Serves the question whether a person consented to a tenant's list.
CREATE INDEX consent_person ON consent (person, tenant_id, list_id);

-- How far an import of a file has come: a restart goes on behind what is committed. source: SHA-256 of what is imported
-- and how. offset_bytes: the file is done up to here.
CREATE TABLE suppression_import (
    source bytea PRIMARY KEY,
    offset_bytes bigint NOT NULL,
    read bigint NOT NULL,
    added bigint NOT NULL,
    refused bigint NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Answers given to authenticated calls that carried an idempotency key: the same key gets the same answer again.
CREATE TABLE suppression_request (
    tenant_id integer NOT NULL,
    idempotency_key text NOT NULL,
    request_sha256 bytea NOT NULL,
    answer text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, idempotency_key)
);
