//! What `render` prints is what the schedules say: valid for Kubernetes, the same fires, the same windows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tallyroll::jobs::Jobs;
use tallyroll::project::Project;
use tallyroll::schedule::{self, Schedule};

use crate::support::seats::python;
use crate::support::{Engine, Finished, Fixture};

/// The first version in which all that a CronJob of ours holds is stable, and the newest one that there is a schema of.
const VERSIONS: [&str; 2] = ["1.31", "1.37"];
const AS_OF: &str = "2026-04-05";

fn checked(yaml: &str) -> Result<Vec<Value>, String> {
    let mut child =
        python("manifests.py").args(VERSIONS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(serde_json::from_slice(&output.stdout).unwrap()) } else { Err(error) }
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn container(cronjob: &Value) -> &Value {
    &cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
}

#[tokio::test(flavor = "multi_thread")]
async fn cronjobs_hold_against_the_schema_of_kubernetes() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let plain = fixture.run_well(&["render", "cronjobs"]);
    let documents = checked(&plain).unwrap();
    assert_eq!(documents, json_lines(&fixture.run_well(&["render", "cronjobs", "--json"])));
    assert_eq!(documents.len(), 3);
    // The check does check: what the schema does not know, and what has another type, is refused.
    for (from, to) in
        [("concurrencyPolicy", "concurencyPolicy"), ("timeZone: UTC", "timeZone: 1"), ("backoffLimit: 3", "backoffLimit: three")]
    {
        assert!(checked(&plain.replace(from, to)).is_err(), "{to}");
    }

    fixture.write("tallyroll.toml", "[engine]\nlock_lease_seconds = 100\n");
    fixture.write(
        "schedules.toml",
        "[usage_daily]\ncron = \"0 12 */2 JAN SUN\"\ntimezone = \"America/Argentina/Buenos_Aires\"\novercast = 1\n",
    );
    assert_eq!(fixture.run(&["render", "cronjobs"]).code, Some(78));
    fixture.write(
        "schedules.toml",
        "[usage_daily]\ncron = \"0 12 */2 JAN SUN\"\ntimezone = \"America/Argentina/Buenos_Aires\"\noverlap = \"queue\"\n\
         timeout = \"1m\"\nretries = { max = 8, backoff = \"1s\" }\ncatch_up = \"none\"\n",
    );
    fixture.write("sql/sources/ai_usage_log.sqlite.sql", &file("sql/sources/ai_usage_log.sqlite.sql"));
    let options = ["--namespace", "billing", "--secret", "some.secret", "--config-map", "project", "--image"];
    // Each is another type, another document or a comment where it is not quoted.
    for image in ["yes", "0x1F", "~", "1e3", "12:30:45", "2026-03-01", "a: b", "'\"", "#x", "registry:5000/tallyroll@sha256:ab"] {
        let arguments = [&["render", "cronjobs"][..], &options, &[image]].concat();
        if image.contains(' ') {
            assert_eq!(fixture.run(&arguments).code, Some(2));
            continue;
        }
        let documents = checked(&fixture.run_well(&arguments)).unwrap();
        assert_eq!(container(&documents[0])["image"], image);
        assert_eq!(documents, json_lines(&fixture.run_well(&[&arguments[..], &["--json"]].concat())));
        let spec = &documents[0]["spec"];
        assert_eq!(documents[0]["metadata"]["namespace"], "billing");
        assert_eq!(spec["schedule"], "0 12 1-31/2 1 0");
        assert_eq!(spec["timeZone"], "America/Argentina/Buenos_Aires");
        assert_eq!(spec["startingDeadlineSeconds"], 120);
        // Nine attempts of 60 s and 115 s of waiting for a lock; 10, 20, 40, 80, 160, 320, 360, 360 s between them.
        assert_eq!(spec["jobTemplate"]["spec"]["activeDeadlineSeconds"], 9 * 175 + 1_350);
        assert_eq!(strings(&container(&documents[0])["args"]), ["run-job", "usage_daily", "--lock-wait", "115"]);
        let items = spec["jobTemplate"]["spec"]["template"]["spec"]["volumes"][1]["configMap"]["items"].as_array().unwrap();
        let paths: Vec<String> =
            items.iter().map(|item| format!("{} {}", item["key"].as_str().unwrap(), item["path"].as_str().unwrap())).collect();
        assert_eq!(
            paths,
            [
                "schedules.toml schedules.toml",
                "sql.sources.ai_usage_log.sqlite.sql sql/sources/ai_usage_log.sqlite.sql",
                "tallyroll.toml tallyroll.toml",
            ]
        );
    }
    for wrong in
        [["--namespace", "a.b"], ["--secret", "Secret"], ["--config-map", "-a"], ["--namespace", ""], ["--image", ""], ["--image", "a\nb"]]
    {
        let refused = fixture.run(&["render", "cronjobs", wrong[0], wrong[1]]);
        assert_eq!(refused.code, Some(2), "{wrong:?} {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_those_of_kubernetes_and_differ() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let long = "a_summary_whose_name_says_all_that_there_is_to_say_about_it";
    let names = ["ab", "Ab", "a_b", "_ab", "ab_", &format!("{long}_1"), &format!("{long}_2")];
    for name in names {
        // SQLite takes tables whose names differ in case for one.
        let table = if *name == *"Ab" { "large_ab" } else { name };
        let job = "description = \"d\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"d\"]\nwindow = \"day\"\n";
        fixture.write(&format!("jobs/{name}.toml"), &format!("{job}writes = \"{table}\"\n"));
    }
    fixture.write("schedules.toml", &names.map(|name| format!("[{name}]\ncron = \"0 * * * *\"\n")).concat());
    let documents = checked(&fixture.run_well(&["render", "cronjobs"])).unwrap();
    let rendered: BTreeSet<&str> = documents.iter().map(|document| document["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(rendered.len(), names.len(), "{rendered:?}");
    for name in &rendered {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(name.len() <= 52 && name.bytes().all(is_inner) && !name.ends_with('-'), "{name}");
    }
    assert!(rendered.contains("tallyroll-a-b") && rendered.contains("tallyroll-ab"), "{rendered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_deploy_is_what_render_prints() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let project = format!("{}/deploy/kustomize/base/project", env!("CARGO_MANIFEST_DIR"));
    let rendered = fixture.run_well(&["-C", &project, "render", "cronjobs", "--config-map", "tallyroll-project"]);
    assert!(
        rendered == file("deploy/kustomize/cronjobs/cronjobs.yaml"),
        "render it again: deploy/kustomize/cronjobs/kustomization.yaml says how"
    );
    for name in ["schedules.toml", "tallyroll.toml"] {
        assert_eq!(file(&format!("deploy/kustomize/base/project/{name}")), file(name));
    }
    let base = checked(&file("deploy/kustomize/base/kustomization.yaml")).unwrap();
    let generated = &base[0]["configMapGenerator"][0];
    assert_eq!(generated["name"], "tallyroll-project");
    let keys: BTreeSet<&str> = strings(&generated["files"]).iter().map(|pair| pair.split_once('=').unwrap().0).collect();
    let mounted = &checked(&rendered).unwrap()[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"][1]["configMap"]["items"];
    assert_eq!(mounted.as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap()).collect::<BTreeSet<_>>(), keys);

    checked(&file("deploy/kustomize/base/network-policy.yaml")).unwrap();
    let serve = checked(&file("deploy/kustomize/serve/serve.yaml")).unwrap();
    let pod = &serve[1]["spec"]["template"];
    for (key, value) in serve[0]["spec"]["selector"].as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][key], value);
    }
    // A pod of the service is as confined as one of a job.
    let job = &checked(&rendered).unwrap()[0]["spec"]["jobTemplate"]["spec"]["template"];
    assert_eq!(pod["spec"]["securityContext"], job["spec"]["securityContext"]);
    for key in ["securityContext", "image", "resources", "volumeMounts"] {
        assert_eq!(pod["spec"]["containers"][0][key], job["spec"]["containers"][0][key], "{key}");
    }
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"], "/readyz");
}

/// The schedules of a project, and when each fires in the year from `start` on.
fn scheduled(project: &Project) -> BTreeMap<String, (Schedule, Vec<DateTime<Utc>>)> {
    let (schedules, problems) = schedule::read(project, &Jobs::load(project).unwrap()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    let year = |schedule: Schedule| {
        let mut fires = schedule.next_fires(start(), 366 * 96);
        fires.retain(|fire| *fire < start() + TimeDelta::days(366));
        (schedule, fires)
    };
    schedules.into_iter().map(|(job, schedule)| (job, year(schedule))).collect()
}

fn start() -> DateTime<Utc> {
    "2026-11-22T09:00:00Z".parse().unwrap()
}

fn fires(cron: &str, zone: &str) -> Vec<DateTime<Utc>> {
    let zone: chrono_tz::Tz = zone.parse().unwrap();
    let cron: croner::Cron = cron.parse().unwrap();
    let all = cron.iter_after(start().with_timezone(&zone)).map(|fire| fire.with_timezone(&Utc));
    all.take_while(|fire| *fire < start() + TimeDelta::days(366)).collect()
}

/// The lines of a crontab that start a job: zone, cron line, command as cron hands it to sh.
fn crontab_lines(crontab: &str) -> Vec<(String, String, String)> {
    let mut zone = String::new();
    let mut lines = Vec::new();
    for line in crontab.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("CRON_TZ=") {
            name.clone_into(&mut zone);
        } else if !line.starts_with("SHELL=") && !line.starts_with("PATH=") {
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            lines.push((zone.clone(), words[..5].join(" "), words[5].replace("\\%", "%")));
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn cronjobs_and_crontab_come_when_the_schedules_do() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    for schedules in [
        file("schedules.toml"),
        "[usage_daily]\ncron = \"0 9-17/2 * * MON-FRI\"\ntimezone = \"Europe/Paris\"\n[peak_seats]\ncron = \"30 5 13 * 7\"\n\
         [reconcile]\ncron = \"45 12 */2 FEB-APR MON\"\ntimezone = \"Asia/Kolkata\"\n"
            .to_owned(),
    ] {
        fixture.write("schedules.toml", &schedules);
        let expected = scheduled(&Project::new(fixture.path()));
        let documents = checked(&fixture.run_well(&["render", "cronjobs"])).unwrap();
        let crontab = crontab_lines(&fixture.run_well(&["render", "crontab"]));
        assert_eq!((documents.len(), crontab.len()), (expected.len(), expected.len()));
        for document in &documents {
            let (schedule, expected) = &expected[strings(&container(document)["args"])[1]];
            let spec = &document["spec"];
            let zone = spec["timeZone"].as_str().unwrap();
            assert_eq!(zone, schedule.timezone.name());
            assert!(expected.len() > 10 && fires(spec["schedule"].as_str().unwrap(), zone) == *expected, "{document}");
        }
        for (zone, cron, command) in &crontab {
            let job = command.split(' ').nth(4).unwrap();
            assert!(fires(cron, zone) == expected[job].1, "{cron} {command}");
        }
    }
}

async fn with_data() -> Fixture {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.three_subscriptions().await;
    for (day, tokens) in [("2026-02-03", "100"), ("2026-03-07", "2000"), ("2026-03-31", "7")] {
        fixture.log(&format!("{day}T10:00:00.000000Z"), &[("customer_id", "7"), ("input_tokens", tokens)]).await;
    }
    fixture.write("schedules.toml", &file("schedules.toml"));
    fixture
}

/// What the runs left: every summary and the record of each window, and the peaks.
async fn left(fixture: &Fixture) -> Vec<String> {
    let mut left = fixture.results().await;
    left.extend(fixture.rows("SELECT subscription_id, month_number, seat_type, peak_seats, state FROM peak_seats ORDER BY 1, 2, 3").await);
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn rendered_commands_write_the_windows_that_the_schedules_mean() {
    let reference = with_data().await;
    let mut scheduled = scheduled(&Project::new(reference.path()));
    // In the order in which their lines stand in what is rendered.
    for (job, (schedule, _)) in &mut scheduled {
        let downstream: &[&str] = if schedule.settings.downstream { &["--downstream"] } else { &[] };
        reference.run_well(&[&["run-job", job, "--as-of", AS_OF][..], downstream].concat());
    }
    let expected = left(&reference).await;
    assert!(expected.iter().any(|row| row.starts_with("usage_monthly_customer|2026-03-01")), "{expected:?}");

    let kubernetes = with_data().await;
    for document in checked(&kubernetes.run_well(&["render", "cronjobs"])).unwrap() {
        kubernetes.run_well(&[&strings(&container(&document)["args"])[..], &["--as-of", AS_OF]].concat());
    }
    assert_eq!(left(&kubernetes).await, expected);

    let cron = with_data().await;
    for (_, _, command) in crontab_lines(&cron.run_well(&["render", "crontab"])) {
        let finished = shell(&cron, &format!("{command} --as-of {AS_OF}"));
        assert_eq!(finished.code, Some(0), "{command} {finished:?}");
    }
    assert_eq!(left(&cron).await, expected);
}

/// Runs a command as cron does: by sh, from another folder, with the program found on PATH.
fn shell(fixture: &Fixture, command: &str) -> Finished {
    let program = Path::new(env!("CARGO_BIN_EXE_tallyroll")).parent().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).current_dir("/").env_clear().env("RUST_LOG", "error").env("DATABASE_URL", &fixture.url);
    Finished::of(&shell.env("PATH", format!("{}:/usr/bin:/bin", program.display())).output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_folder_stays_one_word() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let name = "it's 50% of \"$HOME\"; exit 9 #";
    fixture.write(&format!("{name}/schedules.toml"), "[usage_daily]\ncron = \"0 * * * *\"\n");
    let rendered = fixture.run_well(&["-C", name, "render", "crontab"]);
    let line = rendered.lines().last().unwrap();
    assert!(line.contains("\\%") && !line.replace("\\%", "").contains('%'), "{line}");
    let lines = crontab_lines(&rendered);
    // There is no database in that folder, which is found out only by one who has come there.
    let finished = shell(&fixture, &lines[0].2);
    assert!(finished.stderr.contains(&format!("{name}/tallyroll.db")), "{finished:?}");
    for name in ["back\\slash", "two\nlines"] {
        fixture.write(&format!("{name}/schedules.toml"), "[usage_daily]\ncron = \"0 * * * *\"\n");
        assert_eq!(fixture.run(&["-C", name, "render", "crontab"]).code, Some(2));
    }
    assert_eq!(fixture.run(&["-C", "two\nlines", "render", "systemd"]).code, Some(2));
    assert_eq!(fixture.run(&["render", "crontab", "--user-field=a b"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn crontab_and_units_read_so() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    fixture.write(
        "schedules.toml",
        &(file("schedules.toml")
            + "\n[usage_monthly_user]\ncron = \"0 6 1 * MON\"\ntimezone = \"Europe/Paris\"\noverlap = \"queue\"\ncatch_up = \"none\"\n"),
    );
    let dir = fixture.path().display().to_string();
    let units = fixture.run_well(&["render", "systemd"]);
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("crontab", fixture.run_well(&["render", "crontab", "--user-field"]).replace(&dir, "/srv/usage"));
        insta::assert_snapshot!("systemd", units.replace(&dir, "/srv/usage"));
    });
    let written = fixture.run_well(&["render", "systemd", "--out", "units"]);
    assert_eq!(written.lines().count(), 8);
    for unit in json_lines(&fixture.run_well(&["render", "systemd", "--json"])) {
        let name = unit["name"].as_str().unwrap();
        let text = fs::read_to_string(fixture.path().join("units").join(name)).unwrap();
        assert_eq!(unit["text"], text);
        assert!(units.contains(&format!("# {name}\n{}", text.trim_end())), "{name}");
    }
    for document in json_lines(&fixture.run_well(&["render", "crontab", "--json"])) {
        assert_eq!(strings(&document["command"])[..2], ["tallyroll", "--project"]);
    }
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"0 0 L * *\"\n");
    for what in ["cronjobs", "crontab", "systemd"] {
        let refused = fixture.run(&["render", what]);
        assert_eq!(refused.code, Some(78));
        assert!(refused.stderr.contains("[usage_daily]") && refused.stderr.contains("hint:"), "{}", refused.stderr);
    }
}

/// Every metric that `serve` and the text file have, with its labels.
pub const METRICS: [(&str, &[&str]); 16] = [
    ("tallyroll_job_last_success_timestamp_seconds", &["job"]),
    ("tallyroll_job_last_run_duration_seconds", &["job"]),
    ("tallyroll_job_last_run_rows_in", &["job"]),
    ("tallyroll_job_last_run_rows_out", &["job"]),
    ("tallyroll_job_last_run_success", &["job"]),
    ("tallyroll_job_windows_due", &["job"]),
    ("tallyroll_job_windows_failed", &["job"]),
    ("tallyroll_job_running", &["job"]),
    ("tallyroll_job_next_run_timestamp_seconds", &["job"]),
    ("tallyroll_job_runs", &["job", "state"]),
    ("tallyroll_source_watermark_age_seconds", &["source"]),
    ("tallyroll_quarantined_events", &[]),
    ("tallyroll_unpriced_events", &[]),
    ("tallyroll_scheduler_heartbeat_timestamp_seconds", &[]),
    ("tallyroll_wrong_tokens_total", &[]),
    ("tallyroll_build_info", &["version"]),
];

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let named = |expression: &str| -> Vec<String> {
        let words = expression.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
        words.filter(|word| word.starts_with("tallyroll_")).map(str::to_owned).collect()
    };
    let known = |expression: &str| {
        for metric in named(expression) {
            assert!(METRICS.iter().any(|(name, _)| *name == metric), "{metric} in {expression}");
        }
    };
    let alerts = &checked(&file("deploy/prometheus/alerts.yml")).unwrap()[0]["groups"][0]["rules"];
    for rule in alerts.as_array().unwrap() {
        let (expression, annotations) = (rule["expr"].as_str().unwrap(), rule["annotations"].to_string());
        assert!(!named(expression).is_empty(), "{rule}");
        known(expression);
        for label in ["job", "source"].iter().filter(|label| annotations.contains(&format!("$labels.{label}"))) {
            let metric = &named(expression)[0];
            assert!(METRICS.iter().any(|(name, labels)| name == metric && labels.contains(label)), "{label} in {rule}");
        }
    }
    let tests = &checked(&file("deploy/prometheus/alerts.test.yml")).unwrap()[0];
    known(&tests.to_string());
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/tallyroll.json")).unwrap();
    let mut shown = BTreeSet::new();
    for target in dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        known(target["expr"].as_str().unwrap());
        shown.extend(named(target["expr"].as_str().unwrap()));
    }
    assert_eq!(shown.len(), METRICS.len(), "the dashboard leaves out what there is: {shown:?}");
}

#[test]
fn the_image_is_built_from_all_that_is_built_in() {
    let (dockerfile, ignored) = (file("deploy/Dockerfile"), file("deploy/Dockerfile.dockerignore"));
    for (path, _) in tallyroll::project::BUILT_IN_FILES {
        let top = path.split('/').next().unwrap();
        let copied = dockerfile.lines().filter(|line| line.starts_with("COPY ")).any(|line| line.split(' ').any(|word| word == top));
        assert!(copied && ignored.lines().any(|line| line == format!("!{top}")), "{path}");
    }
}
