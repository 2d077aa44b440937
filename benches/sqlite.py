"""Tallyroll against plain SQL in SQLite, in one run: `sqlite.py TALLYROLL ROWS`. The same five tables by SQL, from the same log."""

import pathlib
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta

tallyroll, rows = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
start = datetime(2026, 1, 10)
step = timedelta(days=90) / rows
# Few users write most of it, each mostly for one customer, as in load.sql.
dice = random.Random(5)


def events():
    for number in range(rows):
        user, customer = int(20_000 * dice.random() ** 2), dice.random()
        customer = None if customer < 0.04 else 1 + int(dice.random() * 1999) if customer < 0.12 else 1 + user % 2000
        kind = dice.random()
        yield (
            f"00000000-0000-4000-8000-{user:012x}",
            f"user{user}@example.com",
            customer,
            None if customer is None else f"Customer {customer}",
            "report" if kind < 0.7 else "insight" if kind < 0.9 else "widget" if kind < 0.97 else "scheduled",
            200 + int(dice.random() * 4000),
            50 + int(dice.random() * 1500),
            ("gpt-4o" if user % 3 == 0 else "claude-sonnet-4-20250514") if dice.random() < 0.9 else "claude-haiku-4",
            300 + int(dice.random() * 8000) if dice.random() < 0.98 else None,
            int(dice.random() * 3),
            "success" if dice.random() < 0.98 else "error",
            (start + number * step).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )


SUMS = ["request_count", "success_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "total_tokens", "input_cost_nanos",
        "output_cost_nanos", "total_cost_nanos", "success_total_tokens", "success_cost_nanos", "success_latency_ms_sum", "success_latency_count", "tool_turns"]
DAILY = """CREATE TABLE plain_daily AS SELECT substr(created_at, 1, 10) AS usage_date, user_id, customer_id, request_type, model_used AS model,
    MAX(user_email) AS user_email, MAX(customer_name) AS customer_name, COUNT(*) AS request_count,
    COUNT(*) FILTER (WHERE status = 'success') AS success_count, COUNT(*) FILTER (WHERE status = 'error') AS error_count,
    COUNT(*) FILTER (WHERE total_cost_nanos IS NULL) AS unpriced_count, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,
    SUM(total_tokens) AS total_tokens, SUM(input_cost_nanos) AS input_cost_nanos, SUM(output_cost_nanos) AS output_cost_nanos,
    SUM(total_cost_nanos) AS total_cost_nanos, COALESCE(SUM(total_tokens) FILTER (WHERE status = 'success'), 0) AS success_total_tokens,
    SUM(total_cost_nanos) FILTER (WHERE status = 'success') AS success_cost_nanos,
    COALESCE(SUM(latency_ms) FILTER (WHERE status = 'success'), 0) AS success_latency_ms_sum,
    COUNT(latency_ms) FILTER (WHERE status = 'success') AS success_latency_count, MAX(latency_ms) AS latency_ms_max, SUM(tool_turns) AS tool_turns,
    MIN(created_at) AS first_request_at, MAX(created_at) AS last_request_at
    FROM ai_usage_log GROUP BY 1, 2, 3, 4, 5"""


def summary(name, window, key, label, unique):
    sums = ", ".join(f"SUM({column}) AS {column}" for column in SUMS)
    start = "usage_date" if window == "usage_date" else "substr(usage_date, 1, 7) || '-01'"
    return f"""CREATE TABLE plain_{name} AS SELECT {start} AS {window}, {key}, MAX({label}) AS {label}, {sums}, MAX(latency_ms_max) AS latency_ms_max,
        MIN(first_request_at) AS first_request_at, MAX(last_request_at) AS last_request_at, COUNT(DISTINCT {unique[1]}) AS {unique[0]}
        FROM plain_daily GROUP BY 1, 2"""


TABLES = {"daily": (DAILY, "usage_date, user_id, customer_id, request_type, model, user_email, customer_name")}
for window, column in (("daily", "usage_date"), ("monthly", "usage_month")):
    user, customer = ("user_id", "user_email", ("unique_customers", "customer_id")), ("customer_id", "customer_name", ("unique_users", "user_id"))
    for name, (key, label, unique) in (("user", user), ("customer", customer)):
        TABLES[f"{window}_{name}"] = (summary(f"{window}_{name}", column, key, label, unique), f"{column}, {key}, {label}, {unique[0]}")

with tempfile.TemporaryDirectory() as folder:
    command = [tallyroll, "-C", folder, "--database-url", "sqlite://bench.db"]
    subprocess.run([*command, "migrate"], check=True, stdout=subprocess.DEVNULL)
    database = sqlite3.connect(pathlib.Path(folder) / "bench.db", isolation_level=None)
    database.execute("BEGIN")
    database.executemany("INSERT INTO ai_usage_log (user_id, user_email, customer_id, customer_name, request_type, input_tokens, output_tokens, "
                         "model_used, latency_ms, tool_turns, status, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", events())
    database.execute("COMMIT")
    database.execute("SELECT SUM(total_tokens) FROM ai_usage_log").fetchall()
    started = time.monotonic()
    subprocess.run([*command, "run-job", "usage_daily", "--downstream", "--as-of", "2026-04-20"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ours = time.monotonic() - started
    started = time.monotonic()
    for name, (statement, keys) in TABLES.items():
        database.execute(statement)
        database.execute(f"CREATE UNIQUE INDEX plain_{name}_key ON plain_{name} ({', '.join(keys.split(', ')[:5 if name == 'daily' else 2])})")
    plain = time.monotonic() - started
    for name, (_, keys) in TABLES.items():
        columns = ", ".join([keys, *SUMS, "latency_ms_max", "first_request_at", "last_request_at"])
        # Ids are text in ours.
        theirs = columns.replace("customer_id,", "CAST(customer_id AS TEXT) AS customer_id,")
        sides = [f"SELECT {columns} FROM usage_{name}", f"SELECT {theirs} FROM plain_{name}"]
        differences = sum(database.execute(f"SELECT COUNT(*) FROM ({one} EXCEPT {other})").fetchone()[0] for one, other in (sides, sides[::-1]))
        print(f"usage_{name} {database.execute(f'SELECT COUNT(*) FROM usage_{name}').fetchone()[0]} rows, {differences} differ")
    print(f"SQLite, {rows} rows: Tallyroll, everything {ours:.1f} s; plain SQL, five summaries {plain:.1f} s; ratio {ours / plain:.2f}")
