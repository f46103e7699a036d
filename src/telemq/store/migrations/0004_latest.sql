-- The newest sample of a series that its chunks hold, if it is later than `after`. Arrays of times
-- ascend, so it is the last of a part; an hour's parts may overlap.
CREATE FUNCTION chunk_latest(series integer, after timestamptz)
RETURNS TABLE (ts timestamptz, value double precision)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT newest.ts, newest.value
    FROM (
        SELECT chunk.hour + (1800000000 + chunk.times[chunk.samples]::bigint)
                   * interval '1 microsecond' AS ts,
               coalesce(chunk.small[chunk.samples]::double precision, chunk.wide[chunk.samples])
                   AS value
        FROM chunk
        WHERE chunk.series_id = series AND chunk.hour = (
            SELECT max(c.hour) FROM chunk c
            WHERE c.series_id = series AND c.hour > after - interval '1 hour')
    ) AS newest
    WHERE newest.ts > after ORDER BY newest.ts DESC LIMIT 1
$$;

-- How much was stored lately, without reading the whole ledger: it grows at its end only.
CREATE INDEX ledger_stored_at ON ledger USING brin (stored_at);
