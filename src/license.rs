//! Signed offline licences, and signed reports: Ed25519 (RFC 8032) over JSON with its keys in a fixed order.
//!
//! A licence signs `{expiryDate, id, seats, startDate}` in this order, without spaces; `startDate` stands last and is left out of
//! older licences, as is `seats` where there is no limit. Source: the seat-usage seed.

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{alphabet, engine::DecodePaddingMode};
use chrono::{DateTime, Utc};
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::import::instant::parse_instant;
use crate::seats::calendar::implausible;

/// What a licence says, in the order in which it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct License {
    pub expiry_date: String,
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<String>,
}

/// A licence file: the licence with its signature in Base64.
#[derive(Debug, Deserialize)]
struct Signed {
    #[serde(flatten)]
    license: License,
    #[serde(alias = "signature")]
    sig: String,
}

impl License {
    /// The bytes that are signed.
    ///
    /// # Errors
    /// Never: every value is plain.
    pub fn signed_text(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// The instants that it begins and ends at.
    ///
    /// # Errors
    /// [`Failure`] of kind bad-data where one is none, or lies outside of what a subscription can have as of `now`, or both are reversed.
    pub fn term(&self, now: DateTime<Utc>) -> Result<Term> {
        let bad = |what: String| Failure::bad_data(format!("Licence `{}`: {what}", self.id)).hint(ASK);
        let read = |name: &str, text: &str| {
            let at = parse_instant(text).map_err(|error| bad(format!("`{name}` is `{text}`")).caused_by(error))?;
            match implausible(at.timestamp_micros(), now.timestamp_micros()) {
                Some(problem) => Err(anyhow::Error::from(bad(format!("`{name}` ({text}) {problem}")))),
                None => Ok(at),
            }
        };
        let start_at = self.start_date.as_ref().map(|text| read("startDate", text)).transpose()?;
        let end_at = read("expiryDate", &self.expiry_date)?;
        if start_at.is_some_and(|start_at| end_at <= start_at) {
            return Err(bad("it expires before it starts".to_owned()).into());
        }
        Ok(Term { start_at, end_at })
    }

    /// The failure that an expired licence is.
    #[must_use]
    pub fn expired(&self) -> Failure {
        Failure::bad_data(format!("Licence `{}` has expired: it ended at {}", self.id, self.expiry_date)).hint(ASK)
    }
}

const ASK: &str = "ask whoever signed it for another";

/// When a licence is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Older licences say none.
    pub start_at: Option<DateTime<Utc>>,
    pub end_at: DateTime<Utc>,
}

impl Term {
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.end_at <= now
    }
}

/// Reads a licence and checks its signature.
///
/// `text` is the licence's JSON with a key `sig`, or that JSON in Base64, with or without a prefix that ends in `_`.
///
/// # Errors
/// [`Failure`] of kind bad-data for what is no licence or is not signed with that key, of kind usage for what is no key.
pub fn verify(text: &str, public_key_pem: &str) -> Result<License> {
    let key = VerifyingKey::from_public_key_pem(public_key_pem.trim())
        .map_err(|error| Failure::usage("The public key is no Ed25519 key in PEM (`-----BEGIN PUBLIC KEY-----`)").caused_by(error))?;
    let signed = parse(text.trim()).map_err(|error| {
        Failure::bad_data("The file is no licence")
            .caused_by(error)
            .hint("it holds JSON with `expiryDate`, `id`, `seats`, `startDate` and `sig`, plain or in Base64")
    })?;
    let signature = decode_base64(&signed.sig).and_then(|bytes| Signature::from_slice(&bytes).context("It is not 64 bytes"));
    let checked = signature.and_then(|signature| Ok(key.verify_strict(signed.license.signed_text()?.as_bytes(), &signature)?));
    checked.map_err(|error| {
        Failure::bad_data(format!("The signature of licence `{}` is not the key's", signed.license.id))
            .caused_by(error)
            .hint("the file was changed, or it was signed with another key")
    })?;
    Ok(signed.license)
}

/// The signature of a text, in Base64.
///
/// # Errors
/// [`Failure`] of kind usage for what is no private key.
pub fn sign(text: &str, private_key_pem: &str) -> Result<String> {
    let key = SigningKey::from_pkcs8_pem(private_key_pem.trim())
        .map_err(|error| Failure::usage("The key is no Ed25519 private key in PEM (`-----BEGIN PRIVATE KEY-----`)").caused_by(error))?;
    Ok(STANDARD.encode(key.sign(text.as_bytes()).to_bytes()))
}

/// Letters `_` that may end a prefix.
const MAX_PREFIXES: usize = 64;

fn parse(text: &str) -> Result<Signed> {
    if text.starts_with('{') {
        // The error itself would quote a value; a licence is as good as money.
        return serde_json::from_str(text)
            .map_err(|error| anyhow!("a key is missing, of another type, or not JSON ({:?})", error.classify()));
    }
    // Base64 for URLs has `_` among its letters: which one ends the prefix, if there is one, only trying tells.
    let text: String = text.split_whitespace().collect();
    let starts = std::iter::once(0).chain(text.match_indices('_').map(|(place, _)| place + 1));
    let read = |rest: &str| -> Result<Signed> { Ok(serde_json::from_slice(&decode_base64(rest)?)?) };
    starts.take(MAX_PREFIXES).find_map(|start| read(&text[start..]).ok()).context("it is neither JSON nor Base64 of JSON")
}

/// Base64 of either alphabet, padded or not.
fn decode_base64(text: &str) -> Result<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let standard: String = text
        .chars()
        .map(|letter| {
            if letter == '-' {
                '+'
            } else if letter == '_' {
                '/'
            } else {
                letter
            }
        })
        .collect();
    GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(standard).map_err(|_| anyhow!("It is not Base64"))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
    use pkcs8_pem::LineEnding;

    use super::*;
    use crate::failure::exit_code;
    use ed25519_dalek::pkcs8::spki::der::pem as pkcs8_pem;

    fn keys(seed: u8) -> (String, String) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let private = key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
        (private, key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap())
    }

    fn signed(license: &License, private: &str) -> String {
        let text = license.signed_text().unwrap();
        let sig = sign(&text, private).unwrap();
        text.replacen('{', &format!("{{\"sig\":\"{sig}\","), 1)
    }

    #[test]
    fn the_start_date_stands_last_and_older_licences_stay_valid() {
        let (private, public) = keys(1);
        let mut license = License {
            expiry_date: "2027-01-15T00:00:00.000Z".to_owned(),
            id: "lic \"1\" <ü>".to_owned(),
            seats: Some(50),
            start_date: Some("2026-01-15T00:00:00.000Z".to_owned()),
        };
        let text = license.signed_text().unwrap();
        assert_eq!(
            text,
            r#"{"expiryDate":"2027-01-15T00:00:00.000Z","id":"lic \"1\" <ü>","seats":50,"startDate":"2026-01-15T00:00:00.000Z"}"#
        );
        assert_eq!(verify(&signed(&license, &private), &public).unwrap(), license);
        license.start_date = None;
        assert!(license.signed_text().unwrap().ends_with("\"seats\":50}"));
        assert_eq!(verify(&signed(&license, &private), &public).unwrap(), license);
        license.seats = None;
        let key = format!("vendor_ee_{}", STANDARD.encode(signed(&license, &private)));
        assert_eq!(verify(&key, &public).unwrap(), license);
        assert_eq!(verify(key.trim_start_matches("vendor_ee_"), &public).unwrap(), license);
    }

    #[test]
    fn a_changed_licence_or_another_key_is_refused() {
        let (private, public) = keys(1);
        let license = License { expiry_date: "2027-01-15".into(), id: "a".into(), seats: Some(50), start_date: None };
        let text = signed(&license, &private);
        for bad in [
            text.replace("50", "51"),
            text.replace("\"id\":\"a\"", "\"id\":\"a\",\"startDate\":\"2026-01-01\""),
            text.replace("\"sig\":\"", "\"sig\":\"A"),
            "{}".to_owned(),
            "no licence".to_owned(),
        ] {
            assert_eq!(exit_code(&verify(&bad, &public).unwrap_err()), 65, "{bad}");
        }
        assert_eq!(exit_code(&verify(&text, &keys(2).1).unwrap_err()), 65);
        assert_eq!(exit_code(&verify(&text, "no key").unwrap_err()), 2);
        assert_eq!(exit_code(&sign("x", &public).unwrap_err()), 2);
    }
}
