//! Watermarks: how far each source has been looked at (`docs/semantics.md` section 5).

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::Tx;

impl Tx {
    /// How far a source has been looked at, if ever.
    ///
    /// # Errors
    /// What the database says.
    pub async fn watermark(&mut self, source: &str) -> Result<Option<String>> {
        let rows = self.query("SELECT position FROM usage_watermark WHERE source = $1", &[source.into()]).await?;
        rows.first().map(|row| row.text("position")).transpose()
    }

    /// Moves the watermark of a source. The marks of changes before it go; one that was set since is not in the plan, and stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_watermark(&mut self, source: &str, position: &str, now: DateTime<Utc>) -> Result<()> {
        let sql = "INSERT INTO usage_watermark (source, position, updated_at) VALUES ($1, $2, $3) \
             ON CONFLICT (source) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at";
        self.execute(sql, &[source.into(), position.into(), now.into()]).await?;
        let sql = self.pick(
            "DELETE FROM usage_dirty_day WHERE source = $1 AND pg_visible_in_snapshot(marked_xid, CAST($2 AS PG_SNAPSHOT))",
            // SQLite has one writer at a time: no mark can have been set since the plan was made.
            "DELETE FROM usage_dirty_day WHERE source = $1 AND $2 = $2",
        );
        self.execute(sql, &[source.into(), position.into()]).await?;
        Ok(())
    }
}
