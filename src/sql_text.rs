//! SQL files as text: named statements, and `:name` parameters turned into `$1`, `$2`, ….
//!
//! A file may hold one statement, or several, each under a line `-- name: <name>`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// The statements of a file by name; one without a `-- name:` line is called `""`.
#[must_use]
pub fn statements(text: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(rest) = line.trim().strip_prefix("-- name:") {
            rest.trim().clone_into(&mut name);
            found.entry(name.clone()).or_default();
        } else {
            let statement = found.entry(name.clone()).or_default();
            statement.push_str(line);
            statement.push('\n');
        }
    }
    for statement in found.values_mut() {
        *statement = bare(statement).to_owned();
    }
    if found.len() > 1 {
        found.remove("");
    }
    found
}

/// One statement of a file that is part of the program, for a `const`: a name that the file lacks stops the build.
///
/// # Panics
/// Where the file has no statement of the name.
#[must_use]
pub const fn embedded(file: &'static str, name: &str) -> &'static str {
    let (mut rest, mut found) = (file, None);
    loop {
        let (line, after) = split_line(rest);
        if let Some(start) = found
            && (rest.is_empty() || name_of(line).is_some())
        {
            let statement = file.split_at(file.len() - rest.len()).0.split_at(start).1.trim_ascii();
            return match statement.as_bytes().split_last() {
                Some((b';', _)) => statement.split_at(statement.len() - 1).0.trim_ascii_end(),
                _ => statement,
            };
        }
        assert!(!rest.is_empty(), "the file has no statement of this name");
        if let Some(named) = name_of(line)
            && is_same(named, name)
        {
            found = Some(file.len() - after.len());
        }
        rest = after;
    }
}

const fn split_line(text: &str) -> (&str, &str) {
    let mut at = 0;
    while at < text.len() {
        at += 1;
        if text.as_bytes()[at - 1] == b'\n' {
            break;
        }
    }
    text.split_at(at)
}
/// The name of a line `-- name: <name>`.
const fn name_of(line: &str) -> Option<&str> {
    const MARK: &str = "-- name:";
    match line.split_at_checked(MARK.len()) {
        Some((mark, name)) if is_same(mark, MARK) => Some(name.trim_ascii()),
        _ => None,
    }
}
const fn is_same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut at = 0;
    while at < left.len() && at < right.len() && left[at] == right[at] {
        at += 1;
    }
    at == left.len() && at == right.len()
}

/// A statement without the blanks around it and without the comments and semicolons behind it, so that it can be a part of another.
#[must_use]
pub fn bare(sql: &str) -> &str {
    let (mut at, mut end) = (0, 0);
    while let Some(first) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let next = at + opaque_length(rest).max(first.len_utf8());
        // The databases differ in where a comment in a comment ends: such a text stays as it is.
        let is_comment = rest.starts_with("--") || (rest.starts_with("/*") && !sql[at + 2..next].contains("/*"));
        at = next;
        if !is_comment && !first.is_whitespace() && first != ';' {
            end = at;
        }
    }
    sql[..end].trim_start()
}

/// A statement with numbered parameters, the values' order (`$1` is `names[0]`), and the line of its file that it begins in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    pub sql: String,
    pub names: Vec<String>,
    pub line: usize,
}

/// Replaces each `:name` outside of strings, quoted identifiers, comments and `::casts` by `$n`.
///
/// # Errors
/// A parameter that is not in `known`.
pub fn number_parameters(sql: &str, known: &[&str]) -> Result<Numbered> {
    number_typed_parameters(sql, known, |_| None)
}

/// As [`number_parameters`], with `CAST($n AS type)` for a parameter that `type_of` gives a type: a server that sees a
/// parameter first in a place of any type would take it for a text.
///
/// # Errors
/// A parameter that is not in `known`.
pub fn number_typed_parameters(sql: &str, known: &[&str], type_of: impl Fn(&str) -> Option<&'static str>) -> Result<Numbered> {
    let mut names: Vec<String> = Vec::new();
    let sql = replace_parameters(sql, known, |name| {
        let index = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        match type_of(name) {
            Some(type_name) => format!("CAST(${} AS {type_name})", index + 1),
            None => format!("${}", index + 1),
        }
    })?;
    Ok(Numbered { sql, names, line: 1 })
}

/// Replaces each `:name` by what `replacement` gives for it: literals, where a statement takes no parameters.
///
/// # Errors
/// A parameter that is not in `known`.
pub fn replace_parameters(sql: &str, known: &[&str], mut replacement: impl FnMut(&str) -> String) -> Result<String> {
    let mut output = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let skipped = opaque_length(rest);
        if skipped > 0 {
            output.push_str(&rest[..skipped]);
            rest = &rest[skipped..];
            continue;
        }
        let name_length = match rest.strip_prefix(':') {
            Some(after) => after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count(),
            None => 0,
        };
        if name_length == 0 {
            output.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let name = &rest[1..=name_length];
        if !known.contains(&name) {
            let all = known.iter().map(|name| format!("`:{name}`")).collect::<Vec<_>>().join(", ");
            bail!("Unknown parameter `:{name}`; a statement may use {all}");
        }
        output.push_str(&replacement(name));
        rest = &rest[name_length + 1..];
    }
    Ok(output)
}

/// Bytes of the string, identifier, comment or `::` that `sql` begins with; 0 when it begins with none.
fn opaque_length(sql: &str) -> usize {
    let through = |open: usize, close: &str| sql[open..].find(close).map_or(sql.len(), |at| open + at + close.len());
    if sql.starts_with("::") {
        2
    } else if sql.starts_with("--") {
        sql.find(['\n', '\r']).map_or(sql.len(), |at| at + 1)
    } else if sql.starts_with("/*") {
        comment_length(sql)
    } else if sql.starts_with(['\'', '"', '`']) {
        through(1, &sql[..1])
    } else if sql.starts_with("E'") || sql.starts_with("e'") {
        escaped_length(sql)
    } else if let Some(rest) = sql.strip_prefix('$') {
        let tag = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        if sql[tag + 1..].starts_with('$') { through(tag + 2, &sql[..tag + 2]) } else { 0 }
    } else if sql.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        // Whole, so that the E of DATE'2026-01-01' begins no string.
        sql.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(sql.len())
    } else {
        0
    }
}

/// PostgreSQL's comments nest. Where SQLite's would end earlier, the rest is no SQL anyway.
fn comment_length(sql: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < sql.len() {
        let step = match sql.as_bytes().get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                2
            }
            Some(b"*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    sql.len()
}

/// PostgreSQL's `E'…'`, in which a backslash escapes.
fn escaped_length(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let mut at = 2;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return at + 1,
            _ => at += 1,
        }
    }
    sql.len()
}

/// Puts `name` between double quotes, as an SQL identifier on either database.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
