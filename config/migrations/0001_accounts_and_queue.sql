-- Accounts, names and the queue. Times are UTC; addresses are ciphertext, and persons keyed 64-bit digests.

-- One row: which installation this database belongs to. key_check proves that a node's master key is the one that
-- wrote the ciphertext and the digests here; a node with another key must not start.
CREATE TABLE installation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    key_check bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A worker process, from its start to its end. What a row that is gone had leased goes back to the queue.
CREATE TABLE worker (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenant (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

-- class: 0 campaign, 1 transactional. secret: an argon2id hash.
CREATE TABLE credential (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant (id),
    username text NOT NULL UNIQUE,
    secret text NOT NULL,
    class smallint NOT NULL CHECK (class IN (0, 1)),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- Names are kept for ever: tokens and suppressions refer to them by id, and outlive what they name.
CREATE TABLE list (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant (id),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

-- The campaign named '' takes what was submitted without one. content_key is sealed by the master key; without it the
-- campaign's messages and recipients can't be read any more.
CREATE TABLE campaign (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant (id),
    name text NOT NULL,
    content_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

-- private_key: PKCS #8, sealed by the master key. A retired key signs nothing more, but its record may still be needed.
CREATE TABLE dkim_key (
    tenant_id integer NOT NULL REFERENCES tenant (id),
    domain text NOT NULL,
    selector text NOT NULL,
    algorithm text NOT NULL CHECK (algorithm IN ('rsa-sha256', 'ed25519-sha256')),
    private_key bytea NOT NULL,
    public_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    PRIMARY KEY (tenant_id, domain, selector)
);

-- The content of a submitted message, once for all of its recipients. lane: the distribution column, id % 16.
-- envelope and content are encrypted with the campaign's key; content is compressed before, so storage must not try again.
CREATE TABLE message (
    lane smallint NOT NULL,
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    class smallint NOT NULL,
    received_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    envelope bytea NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (lane, id)
);
ALTER TABLE message ALTER COLUMN content SET STORAGE EXTERNAL;

-- A recipient that is not final yet. state:
--   0 queued  from submission, a deferral, or a dead worker's lease; claimed when due_at has come
--   1 leased  by worker_id, which alone may change the row; a worker that is gone loses it
--   2 held    while its campaign is paused
-- The final states are rows of "outcome"; the row here is deleted in the same transaction.
CREATE TABLE recipient (
    lane smallint NOT NULL,
    message_id bigint NOT NULL,
    ordinal integer NOT NULL,
    state smallint NOT NULL CHECK (state IN (0, 1, 2)),
    class smallint NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    delay_reported boolean NOT NULL DEFAULT false,
    worker_id integer,
    due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    person bigint NOT NULL,
    address bytea NOT NULL,
    site text,
    last_outcome text,
    PRIMARY KEY (lane, message_id, ordinal)
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 1
);
ALTER TABLE message SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 1
);

-- Serves the claim: one lane's due recipients of a class, oldest first.
CREATE INDEX recipient_due ON recipient (lane, class, due_at) WHERE state = 0;
-- Serves the cancellation of what is queued for a person that is suppressed.
CREATE INDEX recipient_person ON recipient (person);

-- What became of a recipient. state: 1 delivered, 2 bounced, 3 expired, 4 suppressed, 5 cancelled. Append only.
CREATE TABLE outcome (
    message_id bigint NOT NULL,
    ordinal integer NOT NULL,
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    message_class smallint NOT NULL,
    state smallint NOT NULL CHECK (state BETWEEN 1 AND 5),
    attempts smallint NOT NULL,
    person bigint NOT NULL,
    received_at timestamptz NOT NULL,
    at timestamptz NOT NULL,
    site text,
    status text NOT NULL,
    reply_code smallint NOT NULL,
    class text NOT NULL,
    remote_mta text NOT NULL,
    diagnostic text NOT NULL
);
-- Serves the story of one person.
CREATE INDEX outcome_person ON outcome (person);
-- Serves reports over a span of time, and retention.
CREATE INDEX outcome_at ON outcome USING brin (at);
