-- Sessions of the page that somebody has logged out of, until they would have ended by themselves: a digest of what the cookie says.
SET LOCAL lock_timeout = '10s';

CREATE TABLE tallyroll.session_revoked (
    session_digest TEXT PRIMARY KEY,
    ends_at TIMESTAMPTZ NOT NULL
);
