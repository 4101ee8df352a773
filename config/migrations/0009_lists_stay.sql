-- A list that was deleted and comes again with its next mail would have another id, by which no unsubscribe binds it. So that
-- nothing can part them, a list stays, under its id and its name; a tenant stays by its lists.
CREATE FUNCTION list_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a list stays: its unsubscribes are known by its id';
END $$;
CREATE TRIGGER stays BEFORE DELETE OR UPDATE OF id, tenant_id, name ON list
    FOR EACH ROW EXECUTE FUNCTION list_stays();
CREATE TRIGGER stays_truncate BEFORE TRUNCATE ON list
    FOR EACH STATEMENT EXECUTE FUNCTION list_stays();
