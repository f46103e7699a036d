-- Who may ask the gateway. A token's secret is 256 random bits and only its SHA-256 is kept: nobody
-- can guess so many, so a slow hash, which passwords need, would protect nothing and cost each look.
CREATE TABLE api_token (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL CHECK (name <> ''),
    scope       text NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    digest      bytea NOT NULL CHECK (octet_length(digest) = 32),
    made_at     timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,                    -- null is never
    revoked_at  timestamptz,
    used_at     timestamptz                     -- to the minute
);
-- A name is free again when its token was revoked; the line stays, to tell who had one.
CREATE UNIQUE INDEX api_token_name ON api_token (name) WHERE revoked_at IS NULL;
