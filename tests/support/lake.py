"""What DuckDB and pyarrow find in a lake: each day with its events and tokens."""
import duckdb
import pyarrow.dataset

FILES = "read_parquet('out/usage_event/**/*.parquet', hive_partitioning = true)"
for row in duckdb.sql(f"SELECT CAST(event_date AS VARCHAR), count(*), CAST(sum(total_tokens) AS BIGINT) FROM {FILES} GROUP BY 1 ORDER BY 1").fetchall():
    print(*row, sep="|")
read = pyarrow.dataset.dataset("out/usage_event", format="parquet", partitioning="hive").to_table()
assert str(read.schema.field("occurred_at").type) == "timestamp[us, tz=UTC]", read.schema
assert str(read.schema.field("user_id").type) == "string", read.schema
assert read.num_rows == duckdb.sql(f"SELECT count(*) FROM {FILES}").fetchall()[0][0]
