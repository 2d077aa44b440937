//! What is said of a bucket's error: status, code and kind, in our own words. What a bucket answers may hold the request, with the
//! credentials that signed it, and the errors of the client hold answers and addresses; none of their text is shown.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::bounded_http::TooLong;
use crate::failure::Failure;

/// How the client's error for an answer of another status begins; it has no type that others can see.
const STATUS: &str = "Server returned non-2xx status code: ";

/// An S3 error code is longer nowhere.
const MAX_CODE_CHARS: usize = 64;

/// The longest text of the operating system or TLS about a connection that never was.
const MAX_CONNECT_CHARS: usize = 200;

/// The failure that an error is; `shown` is the file or folder that was asked for.
pub(super) fn explain(shown: &str, error: &Error) -> Failure {
    let answered = answered(error);
    let is_refused = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. } | Error::NotFound { .. })
        // Some statuses come without a kind of their own.
        || answered.as_ref().is_some_and(|(status, _)| [400, 401, 403, 404].contains(status));
    let failure = if is_refused {
        Failure::config(format!("The storage refuses `{shown}`"))
            .hint("check the bucket's name, the credentials, and their right to list, get and put")
    } else {
        Failure::try_again(format!("The storage could not do it this time: `{shown}`")).hint("this command can be repeated as it is")
    };
    let cause = match answered {
        Some((status, Some(code))) => format!("It answered {status}, {code}"),
        Some((status, None)) => format!("It answered {status}"),
        None => unanswered(error),
    };
    failure.caused_by(anyhow::anyhow!(cause))
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    successors(Some(error as &(dyn StdError + 'static)), |cause| (**cause).source())
}

/// The status of the answer, with S3's code where it looks like one.
fn answered(error: &Error) -> Option<(u16, Option<String>)> {
    causes(error).find_map(|cause| {
        let text = cause.to_string();
        let answer = text.strip_prefix(STATUS)?;
        let code = answer.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
        let is_code = |code: &&str| (1..=MAX_CODE_CHARS).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        Some((answer.get(..3)?.parse().ok()?, code.filter(is_code).map(str::to_owned)))
    })
}

/// Why there was no answer, or none that could be read.
fn unanswered(error: &Error) -> String {
    if let Some(too_long) = causes(error).find_map(|cause| cause.downcast_ref::<TooLong>()) {
        return too_long.to_string();
    }
    let what = match causes(error).find_map(|cause| cause.downcast_ref::<HttpError>()).map(HttpError::kind) {
        // Nothing was sent yet.
        Some(HttpErrorKind::Connect) => match causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last() {
            Some(error) => return format!("It cannot be reached: {:.MAX_CONNECT_CHARS$}", error.to_string()),
            None => "It cannot be reached",
        },
        Some(HttpErrorKind::Timeout) => "It did not answer in time",
        Some(HttpErrorKind::Request | HttpErrorKind::Interrupted) => "The connection ended before the answer did",
        _ if matches!(error, Error::InvalidPath { .. }) => "It lists a name that no file of ours has",
        _ => "The request could not be made, or its answer not be read",
    };
    what.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(String);

    fn text(said: &str) -> String {
        let error = Error::Generic { store: "S3", source: Box::new(Said(said.to_owned())) };
        failure::text(&explain("s3://b/x", &error).into())
    }

    #[test]
    fn only_status_and_code_are_shown() {
        let answer = |code: &str| text(&format!("{STATUS}403 Forbidden: <Error><Code>{code}</Code><Message>SECRET</Message></Error>"));
        assert_eq!(answer("AccessDenied"), "The storage refuses `s3://b/x`: It answered 403, AccessDenied");
        for code in ["", "SECRET7", "SEC RET", &"SECRET".repeat(20), "<Code>SECRET"] {
            assert_eq!(answer(code), "The storage refuses `s3://b/x`: It answered 403", "{code}");
        }
        for said in ["SECRET", "at http://SECRET/: status code: 403", "Server returned error response: SECRET"] {
            let text = text(said);
            assert!(text.starts_with("The storage could not do it this time") && !text.contains("SECRET"), "{text}");
        }
        assert!(text(&format!("{STATUS}503 Slow: SECRET")).ends_with("this time: `s3://b/x`: It answered 503"));
    }
}
