-- Serves the trace of one message: ids grow with time, so that its events lie in few ranges of the table; a handful of
-- outliers in a range, from deferrals, does not widen it. Costs next to nothing when events are written.
CREATE INDEX event_message ON event USING brin (message_id int8_minmax_multi_ops) WITH (pages_per_range = 32);
