//! Signed licences become subscriptions, and reports are signed; the other side checks with OpenSSL.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tallyroll::license;

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(a_licence_anchors_the_months_and_the_report_is_signed);

fn openssl(fixture: &Fixture, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(fixture.path()).output().expect("the tests need openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn a_licence_anchors_the_months_and_the_report_is_signed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    openssl(&fixture, &["genpkey", "-algorithm", "ed25519", "-out", "key.pem"]);
    openssl(&fixture, &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    let sign = |text: &str| {
        fixture.write("text", text);
        openssl(&fixture, &["pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "text", "-out", "signature"]);
        STANDARD.encode(std::fs::read(fixture.path().join("signature")).unwrap())
    };
    let text = r#"{"expiryDate":"2027-01-15T09:30:00.000Z","id":"lic-7","seats":12,"startDate":"2026-01-15T09:30:00.000Z"}"#;
    let licence = text.replacen('{', &format!("{{\"sig\":\"{}\",", sign(text)), 1);
    fixture.write("licence.json", &licence);
    let shown = fixture.run_well(&["license", "verify", "licence.json", "--public-key", "public.pem"]);
    assert!(shown.contains("lic-7") && shown.contains("holds"), "{shown}");

    fixture.seats(1, "7", "2026-01-15T09:30:00.000000Z", 10).await;
    fixture.seats(2, "7", "2026-02-10T00:00:00.000000Z", 15).await;
    let import = ["import", "subscriptions", "--license", "licence.json", "--public-key", "public.pem", "--org", "7"];
    assert!(fixture.run_well(&import).contains("imported"));
    assert!(fixture.run_well(&import).contains("was there already"));
    assert_eq!(
        fixture.rows("SELECT id, org_id, committed_seats, start_at, end_at, license_id FROM subscription").await,
        ["lic-7|7|12|2026-01-15T09:30:00.000000Z|2027-01-15T09:30:00.000000Z|lic-7"]
    );

    let report = fixture.run_well(&["report", "seats", "--subscription", "lic-7", "--sign", "key.pem", "--as-of", "2026-03-20"]);
    let (signed, sig) = report.trim().rsplit_once(",\"sig\":\"").unwrap();
    assert_eq!(
        format!("{signed}}}"),
        r#"{"licenseId":"lic-7","startDate":"2026-01-15T09:30:00.000Z","months":[{"monthNumber":1,"windowStart":"2026-01-15T09:30:00.000Z","windowEnd":"2026-02-15T09:30:00.000Z","peakProvisioned":15,"peakAt":"2026-02-10T00:00:00.000Z","coverage":"complete"},{"monthNumber":2,"windowStart":"2026-02-15T09:30:00.000Z","windowEnd":"2026-03-15T09:30:00.000Z","peakProvisioned":15,"peakAt":"2026-02-15T09:30:00.000Z","coverage":"complete"}]}"#
    );
    fixture.write("text", &format!("{signed}}}"));
    std::fs::write(fixture.path().join("signature"), STANDARD.decode(sig.trim_end_matches("\"}")).unwrap()).unwrap();
    openssl(&fixture, &["pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "text", "-sigfile", "signature"]);

    // Older licences have no start: they verify, and cannot anchor months.
    let old = r#"{"expiryDate":"2027-01-15T09:30:00.000Z","id":"lic-6","seats":12}"#;
    fixture.write("old.json", &old.replacen('{', &format!("{{\"sig\":\"{}\",", sign(old)), 1));
    fixture.run_well(&["license", "verify", "old.json", "--public-key", "public.pem"]);
    for (file, text) in [("old.json", "has no `startDate`"), ("tampered.json", "is not the key's")] {
        fixture.write("tampered.json", &licence.replace("12", "99"));
        let refused = fixture.run(&["import", "subscriptions", "--license", file, "--public-key", "public.pem", "--org", "7"]);
        assert_eq!(refused.code, Some(65), "{refused:?}");
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
    let public = std::fs::read_to_string(fixture.path().join("public.pem")).unwrap();
    assert_eq!(license::verify(&licence, &public).unwrap().seats, Some(12));
}
