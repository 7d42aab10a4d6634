"""The catalogue's tables, as the migrations that lead to them; what the columns mean.

Knows SQL alone. A script is never changed once it was released: the next one changes what it made.
"""

from __future__ import annotations

# `number` outlives its task, so that a version number never means two things.
_SCHEMA_1 = """
CREATE TABLE task (
    tenant TEXT NOT NULL, task_id TEXT NOT NULL, active INTEGER,
    created_at REAL NOT NULL, updated_at REAL NOT NULL,
    PRIMARY KEY (tenant, task_id)
) WITHOUT ROWID;
CREATE TABLE version (
    tenant TEXT NOT NULL, task_id TEXT NOT NULL, version INTEGER NOT NULL,
    digests TEXT NOT NULL, method TEXT NOT NULL, sites TEXT NOT NULL,
    position_offset TEXT NOT NULL, prefix_tokens INTEGER NOT NULL, bytes INTEGER NOT NULL,
    base_model TEXT, description TEXT, created_at REAL NOT NULL,
    PRIMARY KEY (tenant, task_id, version),
    FOREIGN KEY (tenant, task_id) REFERENCES task (tenant, task_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE number (
    tenant TEXT NOT NULL, task_id TEXT NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (tenant, task_id)
) WITHOUT ROWID;
"""

# `parts` is null where a version is its own only part, `defaults` where it has none,
# `base_fingerprint` also where the version is older than this schema.
_SCHEMA_2 = """
ALTER TABLE version ADD COLUMN parts TEXT;
ALTER TABLE version ADD COLUMN defaults TEXT;
ALTER TABLE version ADD COLUMN base_fingerprint TEXT;
"""

# `hash` is the sha256 of a key, which itself is nowhere. `mark` holds facts that stay true
# whatever is deleted. `usage.task_id` is empty for requests of no task; usage outlives its task.
# `blob` has what live versions need: `uses` counts them, `bytes` is null where only compositions
# are left of a version that was older than this schema. `footprint` sums up a tenant.
# `gram` has each run of three characters of each task_id, which has up to 64: so up to 62 `place`s.
# Triggers keep these in step with `task` and `version`, whoever writes those.
_SCHEMA_3 = """
CREATE TABLE api_key (
    hash TEXT NOT NULL PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
    scopes TEXT NOT NULL, description TEXT, created_at REAL NOT NULL, revoked_at REAL
) WITHOUT ROWID;
CREATE TABLE mark (name TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE tenant_limits (
    tenant TEXT NOT NULL PRIMARY KEY, max_tasks INTEGER, max_bytes INTEGER, max_running INTEGER,
    max_waiting INTEGER, tokens_per_minute INTEGER, weight REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE usage (
    tenant TEXT NOT NULL, task_id TEXT NOT NULL, requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, prefix_tokens INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL,
    PRIMARY KEY (tenant, task_id)
) WITHOUT ROWID;
CREATE TABLE blob (
    tenant TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER, uses INTEGER NOT NULL,
    PRIMARY KEY (tenant, digest)
) WITHOUT ROWID;
CREATE INDEX unsized ON blob (tenant, digest) WHERE bytes IS NULL;
CREATE TABLE footprint (
    tenant TEXT NOT NULL PRIMARY KEY, tasks INTEGER NOT NULL, versions INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE gram (
    tenant TEXT NOT NULL, gram TEXT NOT NULL, task_id TEXT NOT NULL,
    PRIMARY KEY (tenant, gram, task_id)
) WITHOUT ROWID;
CREATE TABLE place (n INTEGER NOT NULL PRIMARY KEY);

CREATE TRIGGER blob_added AFTER INSERT ON blob BEGIN
    UPDATE footprint SET bytes = bytes + coalesce(NEW.bytes, 0) WHERE tenant = NEW.tenant;
END;
CREATE TRIGGER blob_sized AFTER UPDATE OF bytes ON blob BEGIN
    UPDATE footprint SET bytes = bytes + coalesce(NEW.bytes, 0) - coalesce(OLD.bytes, 0)
    WHERE tenant = NEW.tenant;
END;
CREATE TRIGGER blob_removed AFTER DELETE ON blob BEGIN
    UPDATE footprint SET bytes = bytes - coalesce(OLD.bytes, 0) WHERE tenant = OLD.tenant;
END;

INSERT INTO footprint SELECT tenant, count(*), 0, 0 FROM task GROUP BY tenant;
UPDATE footprint SET versions =
    (SELECT count(*) FROM version WHERE version.tenant = footprint.tenant);
INSERT INTO blob
    SELECT tenant, digest, max(bytes), count(*) FROM (
        SELECT DISTINCT tenant, task_id, version, value AS digest,
            CASE WHEN parts IS NULL THEN bytes END AS bytes
        FROM version, json_each(digests)
    ) GROUP BY tenant, digest;
INSERT INTO place
    WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 62) SELECT n FROM c;
INSERT INTO gram
    SELECT DISTINCT tenant, substr(task_id, n, 3), task_id FROM task, place
    WHERE n <= length(task_id) - 2;

CREATE TRIGGER task_added AFTER INSERT ON task BEGIN
    INSERT INTO gram
        SELECT DISTINCT NEW.tenant, substr(NEW.task_id, n, 3), NEW.task_id FROM place
        WHERE n <= length(NEW.task_id) - 2;
    INSERT INTO footprint VALUES (NEW.tenant, 1, 0, 0)
    ON CONFLICT DO UPDATE SET tasks = tasks + 1;
END;
CREATE TRIGGER task_removed AFTER DELETE ON task BEGIN
    DELETE FROM gram WHERE tenant = OLD.tenant AND task_id = OLD.task_id AND gram IN
        (SELECT substr(OLD.task_id, n, 3) FROM place WHERE n <= length(OLD.task_id) - 2);
    UPDATE footprint SET tasks = tasks - 1 WHERE tenant = OLD.tenant;
END;
CREATE TRIGGER version_added AFTER INSERT ON version BEGIN
    UPDATE footprint SET versions = versions + 1 WHERE tenant = NEW.tenant;
    INSERT INTO blob
        SELECT DISTINCT NEW.tenant, value, CASE WHEN NEW.parts IS NULL THEN NEW.bytes END, 1
        FROM json_each(NEW.digests) WHERE true
    ON CONFLICT DO UPDATE SET uses = uses + 1, bytes = coalesce(bytes, excluded.bytes);
END;
CREATE TRIGGER version_removed AFTER DELETE ON version BEGIN
    UPDATE footprint SET versions = versions - 1 WHERE tenant = OLD.tenant;
    UPDATE blob SET uses = uses - 1
    WHERE tenant = OLD.tenant AND digest IN (SELECT value FROM json_each(OLD.digests));
    DELETE FROM blob
    WHERE tenant = OLD.tenant AND digest IN (SELECT value FROM json_each(OLD.digests))
        AND uses = 0;
END;
"""

MIGRATIONS = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3)
