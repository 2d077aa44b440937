"""Reads peak-seat files with pyarrow and DuckDB and prints, as JSON, what each says: `readers.py OUT_FOLDER`."""

import json
import sys
from glob import glob

import duckdb
import pyarrow.parquet

out = sys.argv[1]
current, final, usage = f"{out}/peak_seats/current", f"{out}/peak_seats/final", f"{out}/usage_monthly"


def arrow(paths):
    files = [pyarrow.parquet.ParquetFile(path) for path in paths]
    rows = [row for file in files for row in file.read().to_pylist()]
    return files, rows


files, rows = arrow(sorted(glob(f"{current}/*/*.parquet")))
_, journal = arrow(sorted(glob(f"{final}/*/*/*.parquet")))
usage_files, usage_rows = arrow(sorted(glob(f"{usage}/*/usage_monthly_customer.parquet")))
closed = [row for row in rows if row["state"] == "final"]
total = lambda rows, column: int(sum(row[column] or 0 for row in rows))


def duck(sql):
    return [int(value or 0) for value in duckdb.sql(sql).fetchall()[0]]


print(json.dumps({
    "schema": {field.name: str(field.type) for field in files[0].schema_arrow},
    "physical": {column.name: column.physical_type for column in (files[0].schema.column(i) for i in range(len(files[0].schema)))},
    "format_version": files[0].metadata.format_version,
    "footer": sorted(key.decode() for key in files[0].metadata.metadata if not key.startswith(b"ARROW")),
    "usage_schema": {field.name: str(field.type) for field in usage_files[0].schema_arrow} if usage_files else {},
    "arrow_current": [len(closed), total(closed, "peak_seats"), total(closed, "overage_seats")],
    "arrow_journal": [total(journal, "peak_seats_delta"), total(journal, "overage_seats_delta")],
    "arrow_usage_nanos": int(sum(row["total_cost_usd"] or 0 for row in usage_rows) * 10**9),
    "duckdb_current": duck(f"SELECT count(*), sum(peak_seats), sum(overage_seats) FROM read_parquet('{current}/**/*.parquet') WHERE state = 'final'"),
    "duckdb_journal": duck(f"SELECT sum(peak_seats_delta), sum(overage_seats_delta) FROM read_parquet('{final}/**/*.parquet')"),
    "duckdb_csv": duck(f"SELECT sum(peak_seats_delta), sum(overage_seats_delta) FROM read_csv('{final}/**/*.csv', header = true)"),
    "duckdb_types": {name: kind for name, kind, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{current}/**/*.parquet', hive_partitioning = false)").fetchall()},
}))
