-- Tables of sha-api, version 1. sha-api executes this file on first use; an administrator can execute it beforehand.
CREATE TABLE IF NOT EXISTS messages (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    message bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now()
);
-- Corrupt rows that `verify --repair` moved out of messages.
CREATE TABLE IF NOT EXISTS messages_quarantine (
    digest bytea NOT NULL,
    message bytea NOT NULL,
    stored_at timestamptz NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (digest, found_at)
);
-- Time and result of each complete verification.
CREATE TABLE IF NOT EXISTS messages_verified (
    verified_at timestamptz PRIMARY KEY DEFAULT now(),
    damaged bigint NOT NULL
);
-- Version of the tables.
CREATE TABLE IF NOT EXISTS messages_version (version integer PRIMARY KEY);
INSERT INTO messages_version VALUES (1) ON CONFLICT DO NOTHING;
