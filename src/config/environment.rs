//! Settings from the environment: `DATABASE_URL` and `TALLYROLL__SECTION__KEY`, each also as `…_FILE`, the path of a file that holds
//! the value. No error quotes a value, nor the path: a value that was meant for the plain name may stand there.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::failure::Failure;
use crate::text_file;

/// A setting's key, its value, and the variable it came from.
pub(super) type Override = (String, String, String);

const PREFIX: &str = "TALLYROLL__";

/// Bytes of a file that holds a value: a secret is short.
const VALUE_MAX_BYTES: usize = 64 << 10;

/// The settings among the variables of a process; the more specific ones last.
pub(super) fn overrides(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Vec<Override>> {
    let mut found = Vec::new();
    for (name, value) in environment {
        // Skip variables that are not UTF-8.
        let Ok(name) = name.into_string() else { continue };
        let (base, is_from_file) = name.strip_suffix("_FILE").map_or((name.as_str(), false), |base| (base, true));
        let key = match base.strip_prefix(PREFIX) {
            Some(rest) => rest.to_lowercase().replace("__", "."),
            None if base == "DATABASE_URL" => "database.url".to_owned(),
            None => continue,
        };
        let value = if is_from_file {
            read_value(&name, &value)?
        } else {
            value.into_string().map_err(|_| Failure::config(format!("The value of `{name}` is not text (UTF-8)")))?
        };
        found.push((key, value, format!("environment `{name}`")));
    }
    // DATABASE_URL sorts first: the specific TALLYROLL__DATABASE__URL wins.
    found.sort_by(|left, right| left.2.cmp(&right.2));
    Ok(found)
}

fn read_value(name: &str, path: &OsString) -> Result<String> {
    let failure = || Failure::config(format!("The file that `{name}` names cannot be read"));
    let text = text_file::read(Path::new(path)).and_then(|text| text.context("there is no such file"));
    match text {
        Ok(text) if text.len() <= VALUE_MAX_BYTES => Ok(text.trim_end().to_owned()),
        Ok(_) => Err(failure().hint(format!("it has more than {VALUE_MAX_BYTES} bytes; it holds the value and nothing else")).into()),
        Err(error) => Err(failure().caused_by(error).hint("it is the path of a file that holds the value, readable for this user").into()),
    }
}
