//! Kubernetes CronJobs: one per schedule.
//!
//! What Kubernetes has a word for is said in it: time zone, overlap, deadlines, attempts, and by exit code whether another attempt
//! can help. What it has none for, jitter and the schedule's own backoff, is left out and noted in a comment.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Planned, crontab, one_line};
use crate::failure::Failure;
use crate::fingerprint;

/// What the manifests say besides the schedule.
#[derive(Debug, Clone)]
pub struct Options {
    pub image: String,
    pub namespace: Option<String>,
    /// The Secret with `database-url`, `output-url` and, where it writes to a bucket, the keys of [`BUCKET_VARIABLES`].
    pub secret: String,
    /// The ConfigMap with the project's files, by [`config_map_key`].
    pub config_map: Option<String>,
    /// Paths within the project folder that the ConfigMap holds.
    pub project_files: Vec<String>,
    /// `engine.lock_lease_seconds`.
    pub lock_lease_seconds: u64,
}

/// Where a pod finds the project folder, if a ConfigMap holds it.
const PROJECT_DIR: &str = "/etc/tallyroll/project";
/// Kubernetes appends up to 11 characters to a CronJob's name.
const NAME_LENGTH: usize = 52;
/// The user of the image in `deploy/Dockerfile`.
const USER_ID: u32 = 65_532;
const LARGEST_INT32: u64 = 2_147_483_647;

/// Read from the Secret where it has them.
pub const BUCKET_VARIABLES: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "aws-access-key-id"),
    ("AWS_SECRET_ACCESS_KEY", "aws-secret-access-key"),
    ("AWS_REGION", "aws-region"),
    ("AWS_ENDPOINT_URL", "aws-endpoint-url"),
];

/// All CronJobs as one YAML stream.
///
/// # Errors
/// As [`documents`].
pub fn render(schedules: &[Planned], options: &Options) -> Result<String> {
    let mut stream = "# Made by `tallyroll render cronjobs` from schedules.toml.\n".to_owned();
    for (planned, document) in schedules.iter().zip(documents(schedules, options)?) {
        let _ = write!(stream, "---\n{}{}", comment(planned), serde_saphyr::to_string(&document)?);
    }
    Ok(stream)
}

/// The CronJobs, in the order of the schedules.
///
/// # Errors
/// When a line cannot be said in cron's words, or a name is none for Kubernetes.
pub fn documents(schedules: &[Planned], options: &Options) -> Result<Vec<Value>> {
    let label_length = 63;
    for (what, name, length, dots) in [
        ("--namespace", options.namespace.as_ref(), label_length, false),
        ("--secret", Some(&options.secret), 253, true),
        ("--config-map", options.config_map.as_ref(), 253, true),
    ] {
        if let Some(name) = name.filter(|name| !is_kubernetes_name(name, length, dots)) {
            return Err(Failure::usage(format!("`{what} {}` is no Kubernetes name", name.escape_debug()))
                .hint("lower-case letters, digits and `-`, with a letter or digit at both ends")
                .into());
        }
    }
    if one_line("--image", &options.image)?.contains(char::is_whitespace) {
        return Err(Failure::usage(format!("`--image {}` holds white space", options.image)).into());
    }
    let texts = crontab::texts(schedules)?;
    Ok(schedules.iter().zip(&texts).map(|(planned, text)| cronjob(planned, text, options)).collect())
}

/// The key in the ConfigMap of a project's file: a key has no `/`.
#[must_use]
pub fn config_map_key(path: &str) -> String {
    path.replace('/', ".")
}

fn cronjob(planned: &Planned, cron: &str, options: &Options) -> Value {
    let name = object_name(&planned.job);
    let labels = json!({
        "app.kubernetes.io/name": "tallyroll",
        "app.kubernetes.io/component": "job",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "tallyroll-render",
    });
    let attempt_seconds = attempt_seconds(planned, options);
    let mut metadata = json!({ "name": name, "labels": labels });
    if let Some(namespace) = &options.namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata,
        "spec": {
            "schedule": cron,
            "timeZone": planned.timezone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": starting_deadline_seconds(planned),
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": { "labels": labels },
                "spec": {
                    "backoffLimit": u64::from(planned.retry_count).min(LARGEST_INT32),
                    "activeDeadlineSeconds": deadline_seconds(attempt_seconds, planned.retry_count),
                    "podFailurePolicy": { "rules": [
                        // Usage, bad data, configuration: the next attempt would find the same.
                        { "action": "FailJob", "onExitCodes": { "containerName": "tallyroll", "operator": "In", "values": [2, 65, 78] } },
                        // A pod that a drained node takes along is no attempt.
                        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
                        { "action": "Count", "onExitCodes": { "containerName": "tallyroll", "operator": "In", "values": [75, 130, 143] } },
                    ] },
                    "template": {
                        "metadata": { "labels": labels },
                        "spec": pod(planned, attempt_seconds, options),
                    },
                },
            },
        },
    })
}

fn pod(planned: &Planned, attempt_seconds: u64, options: &Options) -> Value {
    let from_secret = |key: &str| json!({ "secretKeyRef": { "name": options.secret, "key": key } });
    let mut environment = vec![
        json!({ "name": "DATABASE_URL", "valueFrom": from_secret("database-url") }),
        json!({ "name": "TALLYROLL__OUTPUT__URL", "valueFrom": from_secret("output-url") }),
        json!({ "name": "TALLYROLL__LOG__FORMAT", "value": "json" }),
    ];
    for (variable, key) in BUCKET_VARIABLES {
        let mut source = from_secret(key);
        source["secretKeyRef"]["optional"] = json!(true);
        environment.push(json!({ "name": variable, "valueFrom": source }));
    }
    let mut mounts = vec![json!({ "name": "tmp", "mountPath": "/tmp" })];
    let mut volumes = vec![json!({ "name": "tmp", "emptyDir": {} })];
    if let Some(config_map) = &options.config_map {
        environment.push(json!({ "name": "TALLYROLL_PROJECT", "value": PROJECT_DIR }));
        mounts.push(json!({ "name": "project", "mountPath": PROJECT_DIR, "readOnly": true }));
        let items: Vec<Value> = options.project_files.iter().map(|path| json!({ "key": config_map_key(path), "path": path })).collect();
        let mut source = json!({ "name": config_map });
        if !items.is_empty() {
            source["items"] = json!(items);
        }
        volumes.push(json!({ "name": "project", "configMap": source }));
    }
    json!({
        "restartPolicy": "Never",
        "activeDeadlineSeconds": attempt_seconds,
        // The first signal lets the window that is being written be finished.
        "terminationGracePeriodSeconds": 60,
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "tallyroll",
            "image": options.image,
            "args": planned.arguments(lock_wait_seconds(planned, options)),
            "env": environment,
            "resources": {
                "requests": { "cpu": "250m", "memory": "256Mi" },
                "limits": { "cpu": "2", "memory": "1Gi" },
            },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}

/// A pod that was killed keeps the job's lock until its lease ends; the next one outwaits it.
fn lock_wait_seconds(planned: &Planned, options: &Options) -> u64 {
    planned.queue_seconds().max(options.lock_lease_seconds.saturating_add(15))
}

/// One attempt: the wait for the lock, then the schedule's timeout.
fn attempt_seconds(planned: &Planned, options: &Options) -> u64 {
    planned.timeout_seconds.saturating_add(lock_wait_seconds(planned, options)).min(LARGEST_INT32)
}

/// All attempts, and what Kubernetes waits between them: 10 seconds, doubled each time, six minutes at most.
fn deadline_seconds(attempt_seconds: u64, retry_count: u32) -> u64 {
    let doubled: u64 = (0..retry_count.min(6)).map(|retry| (10_u64 << retry).min(360)).sum();
    let backoffs = doubled + u64::from(retry_count.saturating_sub(6)) * 360;
    attempt_seconds * (u64::from(retry_count) + 1) + backoffs
}

/// How late a start may come. Kubernetes wants fewer than 100 missed slots within it, and a run takes all that is due anyway.
fn starting_deadline_seconds(planned: &Planned) -> u64 {
    if !planned.is_caught_up {
        return 120;
    }
    (90 * 3_600 / planned.line.minutes.len() as u64).min(86_400)
}

/// A job's name within RFC 1123. Where two jobs could come to one name, a digest of the job's keeps them apart.
fn object_name(job: &str) -> String {
    let name = format!("tallyroll-{}", job.to_ascii_lowercase().replace('_', "-"));
    let is_exact = !job.bytes().any(|byte| byte.is_ascii_uppercase()) && is_kubernetes_name(&name, NAME_LENGTH, false);
    if is_exact {
        return name;
    }
    let digest = &fingerprint::of([job])[..8];
    let head: String = name.chars().take(NAME_LENGTH - digest.len() - 1).collect();
    format!("{}-{digest}", head.trim_end_matches('-'))
}

fn is_kubernetes_name(name: &str, length: usize, dots: bool) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_outer = |byte: Option<u8>| byte.is_some_and(|byte| is_inner(byte) && byte != b'-');
    let is_label = |label: &str| label.bytes().all(is_inner) && is_outer(label.bytes().next()) && is_outer(label.bytes().last());
    name.len() <= length && if dots { name.split('.').all(is_label) } else { is_label(name) }
}

/// What of the schedule the manifest does not say.
fn comment(planned: &Planned) -> String {
    let mut comment = String::new();
    if planned.jitter_seconds > 0 {
        let _ = writeln!(comment, "# Kubernetes has no jitter: the schedule's {} s are left out.", planned.jitter_seconds);
    }
    if planned.retry_count > 0 {
        let _ = writeln!(
            comment,
            "# Between attempts Kubernetes waits 10 s, doubled each time up to 6 minutes, not the schedule's {} s.",
            planned.backoff_seconds
        );
    }
    comment
}
