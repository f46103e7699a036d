-- A role for Grafana that reads telemetry and nothing else. Run it once, as the owner of the database:
--
--     psql "$TELEMQ_DSN" -v password='…' -f reader.sql
--
-- Samples are read through their views and functions, partitions through their parent. The payloads
-- of dead letters are left out: they hold whatever somebody has sent.

CREATE ROLE telemq_grafana LOGIN PASSWORD :'password' CONNECTION LIMIT 10;
GRANT USAGE ON SCHEMA public TO telemq_grafana;
GRANT SELECT ON gpu, series, sample, chunk, chunk_sample, every_sample, telemetry TO telemq_grafana;
GRANT SELECT ON ledger, stream_progress, stream_lease, sample_dropped TO telemq_grafana;
GRANT SELECT (id, stream_id, first_row, row_count, reason, at, dropped_at) ON dead_letter
    TO telemq_grafana;
-- Whoever looks at a year by accident is told so, and holds nobody up.
ALTER ROLE telemq_grafana SET default_transaction_read_only = on;
ALTER ROLE telemq_grafana SET statement_timeout = '30s';
ALTER ROLE telemq_grafana SET jit = off;
ALTER ROLE telemq_grafana SET timezone = 'UTC';
