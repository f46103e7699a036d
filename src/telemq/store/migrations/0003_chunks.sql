-- Closed partitions are rewritten as chunks: the samples of one series in one hour, as arrays.
-- A tenth of the bytes, and what a query of a series reads lies together.
CREATE TABLE chunk (
    hour        timestamptz NOT NULL,           -- a whole hour of UTC
    series_id   integer NOT NULL,
    part        integer NOT NULL CHECK (part >= 0),  -- an hour with very many samples has several
    samples     integer NOT NULL,
    times       integer[] NOT NULL,             -- microseconds from the middle of the hour, ascending
    -- The values in the order of the times: whole numbers that 2 bytes hold, else as they are.
    small       smallint[],
    wide        double precision[],
    PRIMARY KEY (series_id, hour, part),
    CHECK (samples > 0 AND samples = cardinality(times)),
    CHECK (num_nonnulls(small, wide) = 1),
    CHECK (samples = coalesce(cardinality(small), cardinality(wide)))
);
-- Chunks are made hour after hour, so a few hundred bytes find those that are too old.
CREATE INDEX chunk_hour ON chunk USING brin (hour);

-- Unpacked by a SELECT list, which streams: a function in FROM would keep what it gives first.
CREATE VIEW chunk_sample AS
SELECT chunk.series_id, chunk.hour,
       chunk.hour + (1800000000 + s.time::bigint) * interval '1 microsecond' AS ts,
       coalesce(s.small::double precision, s.wide) AS value
FROM chunk
CROSS JOIN LATERAL (
    SELECT unnest(chunk.times) AS time, unnest(chunk.small) AS small, unnest(chunk.wide) AS wide
) AS s;

-- Every sample, wherever it lies.
CREATE VIEW every_sample AS
SELECT series_id, ts, value FROM sample
UNION ALL
SELECT series_id, ts, value FROM chunk_sample;

-- The same of a window of time, both ends included; the planner inlines it, and then reads only
-- the partitions and chunks of the window. From `every_sample` it would read all chunks.
CREATE FUNCTION samples_between(since timestamptz, until timestamptz)
RETURNS TABLE (series_id integer, ts timestamptz, value double precision)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT series_id, ts, value FROM sample WHERE ts >= since AND ts <= until
    UNION ALL
    SELECT series_id, ts, value FROM chunk_sample
    WHERE hour > since - interval '1 hour' AND hour <= until AND ts >= since AND ts <= until
$$;

CREATE OR REPLACE VIEW telemetry AS
SELECT sample.ts AS timestamp, series.metric_name, series.gpu_id, series.device, gpu.uuid,
       series.model_name, series.hostname, series.container, series.pod, series.namespace,
       sample.value, series.labels_raw
FROM every_sample AS sample
JOIN series ON series.id = sample.series_id
JOIN gpu ON gpu.id = series.gpu;

CREATE FUNCTION telemetry_between(since timestamptz, until timestamptz)
RETURNS SETOF telemetry LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sample.ts, series.metric_name, series.gpu_id, series.device, gpu.uuid,
           series.model_name, series.hostname, series.container, series.pod, series.namespace,
           sample.value, series.labels_raw
    FROM samples_between(since, until) AS sample
    JOIN series ON series.id = sample.series_id
    JOIN gpu ON gpu.id = series.gpu
$$;

-- Partitions that were emptied: one may go when no snapshot can see what was in it.
CREATE TABLE partition_emptied (
    partition   text PRIMARY KEY,
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- the transaction that did it last
    at          timestamptz NOT NULL DEFAULT now()
);

-- Samples that were dropped because of their age: `telemq verify` accounts for them.
CREATE TABLE sample_dropped (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    before      timestamptz NOT NULL,           -- all of them were older
    samples     bigint NOT NULL CHECK (samples > 0)
);
