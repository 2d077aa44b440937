//! Rust source as far as the house rules read it: its words, its string literals, and which file uses which.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, named};

/// A source file without its tests.
pub struct Source {
    /// From the root of the checkout: `src/serve/app.rs`.
    pub name: String,
    /// Words and signs, `::` being one. Comments and texts are left out.
    tokens: Vec<String>,
    /// String literals, as they are written.
    pub texts: Vec<String>,
}

/// The files of `src/` that are no tests.
pub fn sources() -> Vec<Source> {
    named(files("src", "rs")).iter().filter(|(name, _)| !name.ends_with("tests.rs")).map(|(name, text)| source(name, text)).collect()
}

fn source(name: &str, whole: &str) -> Source {
    let code = whole.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (mut tokens, mut texts) = (Vec::new(), Vec::new());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some((text, length)) = text(rest) {
            texts.push(text.to_owned());
            length
        } else if first == '\'' {
            // A character; otherwise a lifetime.
            character(rest).unwrap_or(1)
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    Source { name: name.to_owned(), tokens, texts }
}

/// The string literal at the beginning of some code, and the length of all of it.
fn text(code: &str) -> Option<(&str, usize)> {
    let start = code.bytes().take(6).position(|byte| byte == b'"')?;
    let prefix = &code[..start];
    let hashes = prefix.trim_start_matches(['b', 'r']);
    if !hashes.bytes().all(|byte| byte == b'#') || (!hashes.is_empty() && !prefix.contains('r')) {
        return None;
    }
    let inside = &code[start + 1..];
    let length = if prefix.contains('r') {
        inside.find(&format!("\"{hashes}"))?
    } else {
        let mut escaped = false;
        inside.find(|next: char| {
            let ends = next == '"' && !escaped;
            escaped = next == '\\' && !escaped;
            ends
        })?
    };
    Some((&inside[..length], start + 1 + length + 1 + hashes.len()))
}

/// The length of a character literal.
fn character(code: &str) -> Option<usize> {
    let mut inside = code[1..].char_indices();
    let (_, first) = inside.next()?;
    if first == '\\' {
        return code[3..].find('\'').map(|length| length + 4);
    }
    inside.next().filter(|(_, next)| *next == '\'').map(|(length, _)| length + 2)
}

/// A module as its words: `serve`, `pages`, `usage`.
type Module = Vec<String>;

/// Which file uses which others.
pub fn uses(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let file_of: BTreeMap<Module, &str> = sources.iter().map(|source| (module_of(&source.name), source.name.as_str())).collect();
    let mut uses = BTreeMap::new();
    for source in sources {
        let others = source.paths().into_iter().filter_map(|path| {
            // The longest beginning of a path that is a file; the rest are items in it.
            (1..=path.len()).rev().find_map(|length| file_of.get(&path[..length]).copied())
        });
        uses.insert(source.name.as_str(), others.filter(|other| *other != source.name).collect());
    }
    uses
}

fn module_of(name: &str) -> Module {
    let words = name.trim_start_matches("src/").trim_end_matches(".rs");
    words.split('/').map(str::to_owned).collect()
}

impl Source {
    /// Whether it has a word, other than in texts and comments.
    pub fn has(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| token == word)
    }

    /// Every path into the crate that the file names, from the crate's root.
    fn paths(&self) -> Vec<Module> {
        let here = if self.name == "src/lib.rs" { Module::new() } else { module_of(&self.name) };
        let token = |at: usize| self.tokens.get(at).map_or("", String::as_str);
        let is_child = |word: &str| self.tokens.windows(3).any(|three| three[0] == "mod" && three[1] == word && three[2] == ";");
        let mut paths = Vec::new();
        for at in 0..self.tokens.len() {
            let is_start = token(at + 1) == "::" && (at == 0 || token(at - 1) != "::");
            let is_visibility = at >= 2 && token(at - 1) == "in" && token(at - 2) == "(";
            if !is_start || is_visibility {
                continue;
            }
            let (mut base, mut next) = (here.clone(), at);
            match token(at) {
                "crate" => base.clear(),
                "self" => {}
                "super" => {
                    base.pop();
                }
                child if is_child(child) => base.push(child.to_owned()),
                _ => continue,
            }
            while token(next + 1) == "::" && token(next + 2) == "super" {
                base.pop();
                next += 2;
            }
            self.add_tree(next + 1, &base, &mut paths);
        }
        paths
    }

    /// Adds what follows a `::` at `at`: one path, or those of a `{…}`. The place behind it.
    fn add_tree(&self, mut at: usize, base: &[String], paths: &mut Vec<Module>) -> usize {
        let token = |at: usize| self.tokens.get(at).map_or("", String::as_str);
        let mut path = base.to_vec();
        while token(at) == "::" && token(at + 1) != "{" {
            path.push(token(at + 1).to_owned());
            at += 2;
        }
        if token(at) != "::" {
            paths.push(path);
            return at;
        }
        at += 2;
        while token(at) != "}" && !token(at).is_empty() {
            let mut inner = path.clone();
            if token(at) != "self" {
                inner.push(token(at).to_owned());
            }
            at = self.add_tree(at + 1, &inner, paths);
            // Past `as name` and the comma.
            while !["}", ","].contains(&token(at)) && !token(at).is_empty() {
                at += 1;
            }
            if token(at) == "," {
                at += 1;
            }
        }
        at + 1
    }
}

/// The files of every group whose members all lead to one another.
pub fn in_cycles<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    uses.keys().copied().filter(|file| way(uses, file, file).is_some()).collect()
}

/// The shortest way of at least one step from one file to another.
pub fn way<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = std::collections::VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in uses.get(way.last()?).into_iter().flatten() {
            let longer = [way.as_slice(), &[next]].concat();
            if *next == to {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let sources = [
        source("src/lib.rs", "mod a;\nmod b;\nmod d;\nmod e;"),
        source("src/a.rs", "use std::fmt;\nfn f(sign: char) -> bool { sign == '\"' && crate::b::is(\"crate::d\") }"),
        source("src/b.rs", "mod c;\npub(in crate::d) fn is(_: &str) -> bool { c::is() } // crate::e"),
        source("src/b/c.rs", "use super::super::{a::{self as first, F}, e::G};\n#[cfg(test)]\nmod tests {\n    use crate::d;\n}"),
        source("src/d.rs", "use crate::a;"),
        source("src/e.rs", "pub struct G;"),
    ];
    let uses = uses(&sources);
    assert_eq!(Vec::from_iter(in_cycles(&uses)), ["src/a.rs", "src/b.rs", "src/b/c.rs"]);
    assert_eq!(way(&uses, "src/a.rs", "src/a.rs").unwrap(), ["src/a.rs", "src/b.rs", "src/b/c.rs", "src/a.rs"]);
    assert_eq!(sources[1].texts, ["crate::d"]);
}
