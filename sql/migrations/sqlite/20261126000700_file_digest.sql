-- The SHA-256 of files beside those in snapshot_file: of sealed ones that a run is about to create, of monthly ones that were published.
-- A file that is found and is neither here nor there is not believed.
CREATE TABLE file_digest (
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (path, sha256)
) STRICT;
