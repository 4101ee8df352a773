-- Groups of tenants that share one policy, and tenants whose campaign mail needs a recorded consent.

CREATE TABLE tenant_group (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Which tenants are in a group: the entries of the log that say so (action 5), by tenant. For ever: what was said to a group
-- binds whoever joins it, and must not end because a tenant leaves. position: of the entry.
CREATE TABLE group_member (
    tenant_id integer PRIMARY KEY,
    group_id integer NOT NULL,
    position bigint NOT NULL
);

-- Action 5: tenant_id joins the group list_id. In entries of scope 4 list_id is the group's id, and tenant_id the tenant
-- through which it came. NOT VALID: what is there satisfies the narrower rule, and must not be read under the lock.
ALTER TABLE suppression_log DROP CONSTRAINT suppression_log_action_check;
ALTER TABLE suppression_log
    ADD CONSTRAINT suppression_log_action_check CHECK (action BETWEEN 1 AND 5) NOT VALID;

-- Campaign mail of such a tenant goes only to persons of whom a consent is recorded.
ALTER TABLE tenant ADD COLUMN consent_required boolean NOT NULL DEFAULT false;
