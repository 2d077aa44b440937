//! What settings are in force, and what is said of wrong ones.

use std::fs;

use super::*;

fn load_with(file: &str, environment: &[(&str, &str)]) -> Result<Loaded> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(CONFIG_FILE), file).unwrap();
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    load(&Project::new(dir.path()), environment, &[])
}

fn error_of(file: &str, environment: &[(&str, &str)]) -> String {
    format!("{:#}", load_with(file, environment).unwrap_err())
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let file = "[usage]\nlookback_days = 5\npricing = \"price_book\"\n";
    let loaded = load_with(file, &[("TALLYROLL__USAGE__LOOKBACK_DAYS", "9"), ("TALLYROLL__USAGE__SOURCES", "a, b")]).unwrap();
    assert_eq!(loaded.config.usage.lookback_days, 9);
    assert_eq!(loaded.config.usage.pricing, Pricing::PriceBook);
    assert_eq!(loaded.config.usage.sources, ["a", "b"]);
    assert_eq!(loaded.config.billing.grace_hours, 72);
    let origin = |key: &str| loaded.settings.iter().find(|setting| setting.key == key).unwrap().origin.clone();
    assert_eq!(origin("usage.lookback_days"), "environment `TALLYROLL__USAGE__LOOKBACK_DAYS`");
    assert!(origin("usage.pricing").ends_with(CONFIG_FILE));
    assert_eq!(origin("billing.grace_hours"), "default");
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "postgres://app:p@ss:w0rd@db.internal/usage\n").unwrap();
    let loaded = load_with("", &[("DATABASE_URL_FILE", secret.path().to_str().unwrap())]).unwrap();
    assert_eq!(loaded.config.database.url.expose_secret(), "postgres://app:p@ss:w0rd@db.internal/usage");
    let shown = loaded.settings.iter().find(|setting| setting.key == "database.url").unwrap();
    assert_eq!(shown.value, "postgres://app@db.internal:5432/usage");
    assert!(!format!("{:?}", loaded.config).contains("w0rd"));
}

#[test]
fn a_wrong_secret_is_not_quoted() {
    let file = "[output]\nurl = \"URL\"\n";
    for url in [
        "s3://AKIA:CanarY@bucket/x",
        "s3://AKIA/CanarY@bucket",
        "s3://CanarY:x/y",
        "s3://b?secret=CanarY",
        "s3://b/a//CanarY",
        "gs://CanarY",
        "k:CanarY@b/x",
    ] {
        let error = error_of(&file.replace("URL", url), &[]);
        assert!(error.contains("output.url") && !error.contains("CanarY"), "{error}");
    }
    for (key, value) in [("database", "url"), ("serve", "token"), ("serve", "writer_token"), ("notify", "webhook_url"), ("output", "url")] {
        let error = error_of(&format!("[{key}]\n{value} = [\"CanarY\"]\n"), &[]);
        assert!(error.contains(&format!("`{key}.{value}` is not a text")) && !error.contains("CanarY"), "{error}");
    }
    for environment in [("DATABASE_URL_FILE", "/nowhere/CanarY"), ("TALLYROLL__SERVE__TOKEN_FILE", "CanarY")] {
        let error = error_of("", &[environment]);
        assert!(error.contains(environment.0) && !error.contains("CanarY"), "{error}");
    }
}

#[test]
fn a_wrong_setting_names_its_key_its_origin_and_the_nearest_key() {
    assert!(error_of("[usage]\nsource = []", &[]).contains("Unknown key `usage.source` in"));
    assert!(error_of("", &[("TALLYROLL__DATABASE__ULR", "x")]).contains("environment `TALLYROLL__DATABASE__ULR`"));
    assert!(error_of("[billing]\ngrace_hours = \"long\"", &[]).contains("grace_hours"));
    assert!(error_of("[reporting]\ntimezone = \"Mars/Olympus\"", &[]).contains("Mars/Olympus"));
    assert!(error_of("[quarantine]\nmax_ratio = 2.0", &[]).contains("between 0 and 1"));
    assert!(error_of("[usage", &[]).contains("is not TOML"));
    let days = error_of("", &[("TALLYROLL__DASHBOARD__DAYS", "7,abc")]);
    assert!(days.contains("`dashboard.days` in environment `TALLYROLL__DASHBOARD__DAYS`"), "{days}");
    for number in ["83920174650192837465019283746501", "0xdeadbeefdeadbeefdeadbeefdeadbeef", "98765432109876543210"] {
        let told = error_of(&format!("[serve]\ntoken = {number}\n"), &[]);
        assert!(told.contains("line 2, column 9") && !told.contains("839") && !told.contains("295") && !told.contains("987"), "{told}");
    }
    let broken = error_of("[serve]\ntoken = \"CanarY\n", &[]);
    assert!(broken.contains("line 2, column ") && !broken.contains("CanarY"), "{broken}");
    let failure = load_with("[usage]\nsource = []", &[]).unwrap_err();
    assert_eq!(failure::exit_code(&failure), 78);
    assert_eq!(failure::find(&failure).unwrap().hint.as_deref(), Some("did you mean `usage.sources`?"));
}
