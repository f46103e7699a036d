-- The store: labels once, samples narrow, and the ledger that makes a second time impossible.

CREATE TABLE gpu (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid        text NOT NULL UNIQUE,
    -- Where the GPU was seen last; its history stays with its series.
    gpu_id      text NOT NULL,
    device      text NOT NULL,
    model_name  text NOT NULL,
    hostname    text NOT NULL
);

CREATE TABLE series (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea NOT NULL UNIQUE CHECK (length(fingerprint) = 16),  -- blake2b-128 over all labels
    gpu         integer NOT NULL REFERENCES gpu (id),
    metric_name text NOT NULL,
    gpu_id      text NOT NULL,
    device      text NOT NULL,
    model_name  text NOT NULL,
    hostname    text NOT NULL,
    container   text NOT NULL,
    pod         text NOT NULL,
    namespace   text NOT NULL,
    labels_raw  text NOT NULL
);
CREATE INDEX series_gpu ON series (gpu);
CREATE INDEX series_gpu_id ON series (gpu_id);

-- No key on samples: what makes a batch count once is the ledger. No reference to series either:
-- it would cost a look-up a row, and series rows are never deleted.
CREATE TABLE sample (
    series_id   integer NOT NULL,
    ts          timestamptz NOT NULL,
    value       double precision NOT NULL
) PARTITION BY RANGE (ts);
CREATE INDEX sample_series_ts ON sample (series_id, ts);

CREATE TABLE ledger (
    stream_id   text NOT NULL,
    first_row   bigint NOT NULL CHECK (first_row >= 0),
    row_count   integer NOT NULL CHECK (row_count > 0),
    stored      integer NOT NULL CHECK (stored >= 0),
    rejected    integer NOT NULL CHECK (rejected >= 0),
    stored_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream_id, first_row),
    CHECK (stored + rejected = row_count)
);

CREATE TABLE stream_progress (
    stream_id   text PRIMARY KEY,
    source      text NOT NULL,                  -- fingerprint of what the rows are read from
    next_row    bigint NOT NULL DEFAULT 0 CHECK (next_row >= 0)
);

-- One row a batch, so that a batch's identity outlives the streamer that first cut it.
CREATE TABLE stream_lease (
    stream_id    text NOT NULL REFERENCES stream_progress (stream_id),
    first_row    bigint NOT NULL CHECK (first_row >= 0),
    row_count    integer NOT NULL CHECK (row_count > 0),
    owner        text NOT NULL,
    leased_until timestamptz NOT NULL,
    PRIMARY KEY (stream_id, first_row)
);

CREATE TABLE dead_letter (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id   text NOT NULL,
    first_row   bigint NOT NULL,                -- the row, or the first of row_count when a whole batch is bad
    row_count   integer NOT NULL DEFAULT 1 CHECK (row_count > 0),
    reason      text NOT NULL,
    payload     bytea NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letter_stream ON dead_letter (stream_id, first_row);

CREATE VIEW telemetry AS
SELECT sample.ts AS timestamp, series.metric_name, series.gpu_id, series.device, gpu.uuid,
       series.model_name, series.hostname, series.container, series.pod, series.namespace,
       sample.value, series.labels_raw
FROM sample
JOIN series ON series.id = sample.series_id
JOIN gpu ON gpu.id = series.gpu;
