//! What a file may hold and an import survives: instants outside of any calendar, rows without end, kilobytes that unpack to
//! gigabytes, what is no file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Date32Array, DictionaryArray, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(
    rows_that_are_no_instant_are_bad_rows,
    a_row_without_end_imports_nothing,
    what_is_no_file_is_refused_at_once,
    a_file_that_unpacks_to_gigabytes_takes_little_memory,
    a_signal_leaves_nothing,
    a_damaged_parquet_file_is_no_panic,
    what_holds_no_rows_is_not_read_for_ever,
    columns_that_nobody_can_tell_apart_are_refused,
);

const USER: &str = "user_id=00000000-0000-4000-8000-000000000001";

/// Events of no token and no cost are meant.
const EMPTY: &str = "input_tokens=0";

async fn count(fixture: &Fixture) -> i64 {
    fixture.number("SELECT COUNT(*) FROM usage_event").await
}

async fn rows_that_are_no_instant_are_bad_rows(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.95\n");
    let bad = [
        "2016-12-31T23:59:60Z",
        "2016-12-31 23:59:60.5",
        "0000-06-01T00:00:00Z",
        "-0044-03-15T12:00:00Z",
        "+10000-01-01T00:00:00Z",
        "1899-12-31T00:00:00Z",
        "2026-02-30",
        "2026-03-01T24:00:00Z",
        "infinity",
    ];
    let mut file = "occurred_at\n2026-03-01T10:00:00Z\n".to_owned();
    for instant in bad {
        writeln!(file, "{instant}").unwrap();
    }
    fixture.write("usage.csv", &file);
    let report = fixture.run_well(&["import", "usage", "usage.csv", "--set", USER, "--set", EMPTY, "--json"]);
    assert!(report.contains("\"inserted_count\":1,\"known_count\":0,\"bad_count\":9"), "{report}");
    assert_eq!(count(&fixture).await, 1);

    // PostgreSQL's infinities, as tools write them.
    let instants = TimestampMicrosecondArray::from(vec![1_772_359_201_000_000, i64::MAX, i64::MIN, -9_000_000_000_000_000_000]);
    let batch = RecordBatch::try_from_iter([("occurred_at", Arc::new(instants.with_timezone("UTC")) as ArrayRef)]).unwrap();
    write_parquet(&fixture, "instants.parquet", &batch, WriterProperties::new());
    let days = Date32Array::from(vec![20_000, i32::MAX, i32::MIN, -1_000_000]);
    let batch = RecordBatch::try_from_iter([("occurred_at", Arc::new(days) as ArrayRef)]).unwrap();
    write_parquet(&fixture, "days.parquet", &batch, WriterProperties::new());
    for file in ["instants.parquet", "days.parquet"] {
        let report = fixture.run_well(&["import", "usage", file, "--set", USER, "--set", EMPTY, "--json"]);
        assert!(report.contains("\"inserted_count\":1,\"known_count\":0,\"bad_count\":3"), "{file}: {report}");
    }
    assert_eq!(count(&fixture).await, 3);
    fixture.run_well(&["run-job", "usage_daily", "--as-of", "2026-04-15T00:00:00Z"]);
}

async fn a_row_without_end_imports_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let good = "2026-03-01T10:00:00Z";
    fixture.write("one.csv", &format!("occurred_at,error_message\n{good},a\n{good},\"{}", "x,y\n".repeat(6_000_000)));
    fixture.write("header.csv", &"x".repeat(20_000_000));
    fixture.write("one.jsonl", &format!("{{\"occurred_at\":\"{good}\"}}\n{{\"occurred_at\":\"{}\"}}\n", "x".repeat(20_000_000)));
    // Sparse: it takes no room, and no newline ever comes.
    let mut sparse = File::create(fixture.path().join("sparse.jsonl")).unwrap();
    sparse.seek(SeekFrom::Start(40_000_000_000)).unwrap();
    sparse.write_all(b"x").unwrap();
    for (file, line) in [("one.csv", 3), ("header.csv", 1), ("one.jsonl", 2), ("sparse.jsonl", 1)] {
        let refused = limited(&fixture, &["import", "usage", file, "--set", USER, "--set", EMPTY]);
        assert_eq!(refused.code, Some(65), "{file}: {refused:?}");
        let expected = format!("The row from line {line} of `{file}` on is longer than 16 MiB; nothing was imported");
        assert!(refused.stderr.contains(&expected), "{file}: {}", refused.stderr);
    }
    assert_eq!(count(&fixture).await, 0);
}

async fn what_is_no_file_is_refused_at_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let path = |name: &str| fixture.path().join(name);
    assert!(Command::new("mkfifo").arg(path("pipe.csv")).status().unwrap().success());
    std::fs::create_dir(path("folder.jsonl")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("device.parquet")).unwrap();
    for file in ["pipe.csv", "folder.jsonl", "device.parquet"] {
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_tallyroll"), "import", "usage", file, "--set", USER, "--set", EMPTY]);
        let refused = Finished::of(&command.current_dir(fixture.path()).env("DATABASE_URL", &fixture.url).output().unwrap());
        assert_eq!(refused.code, Some(2), "{file}: {refused:?}");
        assert!(refused.stderr.contains(&format!("`{file}` is no regular file")), "{}", refused.stderr);
    }
}

fn write_parquet(fixture: &Fixture, path: &str, batch: &RecordBatch, properties: WriterProperties) {
    // As other tools write: without Arrow's own types beside Parquet's.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let file = File::create(fixture.path().join(path)).unwrap();
    let mut writer = ArrowWriter::try_new_with_options(file, batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// Runs with 3 GB of address space: what takes more is ended by the system.
fn limited(fixture: &Fixture, arguments: &[&str]) -> Finished {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 3000000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tallyroll")]).args(arguments);
    command
        .current_dir(fixture.path())
        .env_clear()
        .env("DATABASE_URL", &fixture.url)
        .env("RUST_LOG", "error")
        .env("POLARS_MAX_THREADS", "1");
    command.env("TOKIO_WORKER_THREADS", "2").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    Finished::of(&command.output().unwrap())
}

async fn a_file_that_unpacks_to_gigabytes_takes_little_memory(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let zstd = || WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    let instants =
        |count: usize| Arc::new(TimestampMicrosecondArray::from(vec![1_772_359_200_000_000; count]).with_timezone("UTC")) as ArrayRef;
    let ids = |count: usize| Arc::new(StringArray::from_iter_values((0..count).map(|_| Uuid::new_v4().to_string()))) as ArrayRef;
    let with_notes = |notes: ArrayRef| {
        let count = notes.len();
        RecordBatch::try_from_iter([("event_id", ids(count)), ("occurred_at", instants(count)), ("notes", notes)]).unwrap()
    };
    // One text of 4 MB, for each of 700 rows.
    let text = "x".repeat(4_000_000);
    let one = DictionaryArray::<Int32Type>::new(vec![0; 700].into(), Arc::new(StringArray::from(vec![text.as_str()])));
    write_parquet(&fixture, "dictionary.parquet", &with_notes(Arc::new(one)), zstd().build());
    // The same by common beginnings, and in a page of 560 MB.
    let starts = StringArray::from_iter_values((0..100).map(|row| format!("{text}{row}")));
    let properties = zstd()
        .set_dictionary_enabled(false)
        .set_column_encoding("notes".into(), Encoding::DELTA_BYTE_ARRAY)
        .set_data_page_size_limit(1 << 31)
        .build();
    write_parquet(&fixture, "starts.parquet", &with_notes(Arc::new(starts)), properties);
    let many = StringArray::from_iter_values((0..140).map(|_| &text));
    let properties = zstd().set_dictionary_enabled(false).set_data_page_size_limit(1 << 31).set_write_batch_size(1_000).build();
    write_parquet(&fixture, "page.parquet", &with_notes(Arc::new(many)), properties);
    // Lists.
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..3).map(|_| Some(vec![Some(0_i64); 1_000])));
    let lists = RecordBatch::try_from_iter([("occurred_at", instants(3)), ("tags", Arc::new(lists) as ArrayRef)]).unwrap();
    write_parquet(&fixture, "lists.parquet", &lists, zstd().build());
    for name in ["dictionary", "starts", "page", "lists"] {
        let size = std::fs::metadata(fixture.path().join(format!("{name}.parquet"))).unwrap().len();
        assert!(size < 200_000, "{name}: {size}");
    }

    let report = limited(&fixture, &["import", "usage", "dictionary.parquet", "--set", USER, "--set", EMPTY, "--json"]);
    assert!(report.stdout.contains("\"inserted_count\":700"), "{report:?}");
    let report = limited(&fixture, &["import", "usage", "starts.parquet", "--set", USER, "--set", EMPTY, "--json"]);
    assert!(report.stdout.contains("\"inserted_count\":100"), "{report:?}");
    let refused = limited(&fixture, &["import", "usage", "page.parquet", "--set", USER, "--set", EMPTY]);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("The pages of `page.parquet` unpack to more than 512 MiB at once"), "{}", refused.stderr);
    let refused = limited(&fixture, &["import", "usage", "lists.parquet", "--set", USER, "--set", EMPTY]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("Column `tags` of `lists.parquet` holds lists or records"), "{}", refused.stderr);
    assert_eq!(count(&fixture).await, 800);
}

async fn a_signal_leaves_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut file = "occurred_at,input_tokens\n".to_owned();
    for row in 0..400_000 {
        writeln!(file, "2026-03-01T10:00:00Z,{row}").unwrap();
    }
    fixture.write("usage.csv", &file);
    // All of the second file's rows are bad: no statement is waited for in it.
    fixture.write("bad.csv", &file.replace("T10", "T99"));
    for (file, signal, code) in [("usage.csv", "TERM", 143), ("bad.csv", "INT", 130)] {
        let import = fixture.command(&["import", "usage", file, "--set", USER, "--set", EMPTY]).spawn().unwrap();
        let status = format!("/proc/{}/status", import.id());
        // Both signals are caught from the moment on that the import begins.
        let is_caught = |text: String| {
            let mask =
                text.lines().find_map(|line| line.strip_prefix("SigCgt:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & 0x4002 == 0x4002)
        };
        while !is_caught(std::fs::read_to_string(&status).unwrap()) {
            tokio::task::yield_now().await;
        }
        assert!(Command::new("kill").args([&format!("-{signal}"), &import.id().to_string()]).status().unwrap().success());
        let output = import.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(count(&fixture).await, 0);
        assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
    }
}

async fn a_damaged_parquet_file_is_no_panic(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let instants = Arc::new(TimestampMicrosecondArray::from(vec![1_772_359_200_000_000; 9]).with_timezone("UTC")) as ArrayRef;
    let notes = Arc::new(StringArray::from_iter_values((0..9).map(|row| format!("note {row}")))) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("occurred_at", instants), ("notes", notes)]).unwrap();
    write_parquet(&fixture, "whole.parquet", &batch, WriterProperties::new());
    let whole = std::fs::read(fixture.path().join("whole.parquet")).unwrap();
    let mut damaged = 0;
    for at in (4..90).step_by(2) {
        let mut bytes = whole.clone();
        bytes[at] ^= 2;
        std::fs::write(fixture.path().join("usage.parquet"), bytes).unwrap();
        let ended = fixture.run(&["import", "usage", "usage.parquet", "--set", USER, "--set", EMPTY]);
        assert!(matches!(ended.code, Some(0 | 2 | 65)), "byte {at}: {ended:?}");
        damaged += usize::from(ended.stderr.contains("is damaged in a way"));
    }
    assert!(damaged > 0);
}

async fn what_holds_no_rows_is_not_read_for_ever(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut packed =
        flate2::write::GzEncoder::new(File::create(fixture.path().join("blank.jsonl.gz")).unwrap(), flate2::Compression::best());
    for _ in 0..20 {
        packed.write_all(&vec![b'\n'; 1 << 20]).unwrap();
    }
    packed.finish().unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let refused = fixture.run(&[&["import", "usage", "blank.jsonl.gz"], more].concat());
        assert!(refused.code == Some(65) && refused.stderr.contains("longer than 16 MiB"), "{refused:?}");
    }
    // Empty members of gzip are no rows either; a signal is heard among them.
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    member.write_all(b"").unwrap();
    let member = member.finish().unwrap();
    let mut file = File::create(fixture.path().join("empty.csv.gz")).unwrap();
    file.write_all(&member.repeat(3_000_000)).unwrap();
    for more in [&[][..], &["--dry-run"], &["--format", "auto"]] {
        let mut import = fixture.command(&[&["import", "usage", "empty.csv.gz"], more].concat()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(import.try_wait().unwrap().is_none(), "it was at work: {more:?}");
        assert!(Command::new("kill").arg(import.id().to_string()).status().unwrap().success());
        let told = std::time::Instant::now();
        assert_eq!(import.wait().unwrap().code(), Some(143), "{more:?}");
        assert!(told.elapsed() < std::time::Duration::from_secs(10));
    }
    // What the kernel makes up is no file, whatever leads to it.
    std::os::unix::fs::symlink("/proc/self/environ", fixture.path().join("link.csv")).unwrap();
    let refused = fixture.run(&["import", "usage", "link.csv"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("of the kernel's") && !refused.stderr.contains("RUST_LOG"), "{refused:?}");
    // A preview of numbers that do not add up in 64 bits.
    let largest = i64::MAX;
    fixture.write("large.csv", &format!("occurred_at,user_id,model,input_tokens\n{}", format!("2026-01-02,a,m,{largest}\n").repeat(2)));
    fixture.run_well(&["import", "usage", "large.csv", "--dry-run"]);
}

async fn columns_that_nobody_can_tell_apart_are_refused(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("twice.csv", "occurred_at,user_id,input_tokens,user_id,note,note\n2026-01-02,a,1,b,x,y\n");
    let refused = fixture.run(&["import", "usage", "twice.csv"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("two columns `user_id`"), "{refused:?}");
    fixture.run_well(&["import", "usage", "twice.csv", "--set", "user_id=ann"]);
    let format = "description = \"d\"\nrecognised_by = [\"a\"]\n";
    for (more, expected) in [
        ("[words.status]\nsuccess = [\"ok\"]\nerror = [\"OK\"]\n", "has two meanings"),
        ("[adds]\ninput_tokens = [\"input_tokens\"]\n", "to itself"),
    ] {
        fixture.write("formats/own.toml", &format!("{format}{more}"));
        let refused = fixture.run(&["import", "usage", "twice.csv", "--format", "own"]);
        assert!(refused.code == Some(78) && refused.stderr.contains(expected), "{refused:?}");
    }
}
