-- A dead letter that an operator dropped: its payload is gone, and the row stays, so that
-- `telemq verify` can still account for its rows.
ALTER TABLE dead_letter ADD COLUMN dropped_at timestamptz;
