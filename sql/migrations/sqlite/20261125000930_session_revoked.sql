-- Sessions of the page that somebody has logged out of, until they would have ended by themselves: a digest of what the cookie says.
CREATE TABLE session_revoked (
    session_digest TEXT PRIMARY KEY,
    ends_at TEXT NOT NULL
) STRICT;
