//! The tokens: whether one could be guessed, and what happens to those who try wrong ones.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret as _;

use crate::config::Serve;
use crate::failure::Failure;

/// The least number of characters. A limit on tries would also lock out whoever holds the right token, so no number of tries may find it.
const CHARACTERS_MIN: usize = 32;
/// The least number of characters that are not predictable from those before. In 32 random hexadecimal digits there are 24, give or
/// take 3.
const NEW_CHARACTERS_MIN: usize = 16;

/// Checks the tokens that are set.
///
/// # Errors
/// [`Failure`] of kind config for one that could be guessed, and where the two are the same.
pub fn check_all(serve: &Serve) -> Result<(), Failure> {
    let (token, writer_token) = (serve.token.expose_secret(), serve.writer_token.expose_secret());
    for (key, token) in [("serve.token", token), ("serve.writer_token", writer_token)] {
        if !token.is_empty() {
            check(key, token)?;
        }
    }
    if !token.is_empty() && token == writer_token {
        return Err(Failure::config("`serve.writer_token` is the same as `serve.token`, which may do more")
            .hint("`openssl rand -hex 32` makes another one"));
    }
    Ok(())
}

/// Checks that a token is long and does not simply repeat itself. No program can tell whether it is random.
///
/// # Errors
/// [`Failure`] of kind config.
fn check(key: &str, token: &str) -> Result<(), Failure> {
    let problem = if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        "has a space or another character that no header can carry".to_owned()
    } else if token.len() < CHARACTERS_MIN {
        format!("has fewer than {CHARACTERS_MIN} characters: it could be guessed")
    } else if new_characters(token.as_bytes()) < NEW_CHARACTERS_MIN {
        "repeats itself or goes on as the alphabet does: it could be guessed".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::config(format!("`{key}` {problem}")).hint("`openssl rand -hex 32` makes one"))
}

/// How many characters are unpredictable: not the same as the one before, not its neighbour in the alphabet, and not a pair with it
/// that was there before.
fn new_characters(token: &[u8]) -> usize {
    let mut seen = BTreeSet::new();
    token.windows(2).filter(|pair| seen.insert([pair[0], pair[1]]) && pair[0].abs_diff(pair[1]) > 1).count()
}

/// After this many wrong tokens in a minute, every further one has to wait for its answer, whoever tries it.
const FREE_TRIES: usize = 5;
const PENALTY: Duration = Duration::from_secs(2);
/// After this many wrong tokens in a minute, further ones are refused at once, so that few requests wait.
const MAX_TRIES: usize = 20;

/// The wrong tokens that were tried, by programs and on the login page.
#[derive(Default)]
pub(super) struct WrongTokens(Mutex<Tries>);

#[derive(Default)]
struct Tries {
    lately: VecDeque<DateTime<Utc>>,
    count: u64,
}

impl WrongTokens {
    /// How many there have been since the server started.
    pub(super) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Counts one. Returns how long its answer has to wait, or none if there were too many lately.
    pub(super) fn add(&self, peer: Option<SocketAddr>, now: DateTime<Utc>) -> Option<Duration> {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tried.count += 1;
        // They are forgotten when the clock is set back, too.
        tried.lately.retain(|at| (now - *at).abs() < TimeDelta::minutes(1));
        if tried.lately.len() >= MAX_TRIES {
            return None;
        }
        tried.lately.push_back(now);
        let peer = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
        let is_last = tried.lately.len() == MAX_TRIES;
        tracing::warn!(
            peer,
            count = tried.count,
            "A wrong token{}",
            if is_last { "; more are counted, not logged, for a minute" } else { "" }
        );
        Some(if tried.lately.len() > FREE_TRIES { PENALTY } else { Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_could_be_guessed_is_none() {
        for weak in [
            "",
            "guess me",
            "0123456789abcde",
            "short-but-random-7f3a9c1e",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "0000000000000000000000000000000000000000000000000000000000000001",
            "abababababababababababababababababababab",
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
            "0123456789abcdef0123456789abcdef0123456789abcdef",
            "passwordpasswordpasswordpassword",
            "changeme-changeme-changeme-changeme",
            "letmeinletmeinletmeinletmeinletmein",
            "secret token of more than thirty-two characters",
            "ünd-siebenundzwanzig-andere-zeichen",
        ] {
            let problem = check("serve.token", weak).unwrap_err();
            assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains("openssl rand -hex 32")), "{weak}: {problem}");
            assert!(weak.is_empty() || !problem.to_string().contains(weak), "the token is not told");
        }
    }

    #[test]
    fn a_random_token_is_one() {
        let mut random = [0_u8; 32];
        for _ in 0..1_000 {
            getrandom::fill(&mut random).unwrap();
            check("serve.token", &crate::fingerprint::hex(&random)).unwrap();
        }
        for made in ["8b6f0b1e-5d0b-4a36-9d5e-2f7c1a4be093", "J7cH/2mKq0Zx+vRt9YwLdP3sEuNb5gAf", "Xk2$9!vQz@7#Lm&4wR%tB^8nJ*pC5yHd"] {
            check("serve.token", made).unwrap();
        }
    }

    #[test]
    fn a_flood_is_answered_slowly_then_refused_and_ends_with_its_minute() {
        let (wrong, now) = (WrongTokens::default(), DateTime::UNIX_EPOCH + TimeDelta::days(1));
        let waits: Vec<Option<Duration>> = (0..1_000).map(|_| wrong.add(None, now)).collect();
        assert!(waits[..5].iter().all(|wait| *wait == Some(Duration::ZERO)) && waits[5..20].iter().all(|wait| *wait == Some(PENALTY)));
        assert!(waits[20..].iter().all(Option::is_none));
        assert_eq!(wrong.count(), 1_000);
        assert!(wrong.add(None, now + TimeDelta::minutes(1)).is_some());
        assert!(wrong.add(None, now - TimeDelta::hours(1)).is_some(), "a clock set back does not make the minute an hour");
    }
}
