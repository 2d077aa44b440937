//! SQL as text.

use super::*;

#[test]
fn parameters_are_numbered_once_each_and_only_where_they_are_parameters() {
    let sql = "SELECT ':a', \":a\", x::text, $$ :a $$, $t$ :a $t$ -- :a\n/* :a */ FROM t WHERE d >= :a AND d < :b AND e = :a";
    let numbered = number_parameters(sql, &["a", "b"]).unwrap();
    assert_eq!(numbered.names, ["a", "b"]);
    assert!(numbered.sql.ends_with("FROM t WHERE d >= $1 AND d < $2 AND e = $1"), "{}", numbered.sql);
    assert!(numbered.sql.contains("':a', \":a\", x::text, $$ :a $$, $t$ :a $t$ -- :a\n/* :a */"), "{}", numbered.sql);
    assert_eq!(number_parameters("SELECT 'it''s :a', :a", &["a"]).unwrap().sql, "SELECT 'it''s :a', $1");
}

#[test]
fn comments_and_semicolons_behind_a_statement_are_not_of_it() {
    for (text, expected) in [
        ("SELECT 1", "SELECT 1"),
        (" -- why\nSELECT 1 ;; -- end", "-- why\nSELECT 1"),
        ("SELECT ';' /* a ; */ ; \n", "SELECT ';'"),
        ("SELECT 1 /* a /* nested */ + 1 */ ; \n", "SELECT 1 /* a /* nested */ + 1 */"),
        ("SELECT 1 -- x\rUNION SELECT 2", "SELECT 1 -- x\rUNION SELECT 2"),
        ("SELECT E'it\\'s -- ' ; -- x'", "SELECT E'it\\'s -- '"),
        ("SELECT DATE'2026-01-01'; --'", "SELECT DATE'2026-01-01'"),
        ("SELECT 1; SELECT 2;", "SELECT 1; SELECT 2"),
        ("SELECT 'ü' -- ü", "SELECT 'ü'"),
        (";; -- x\n/* y */", ""),
        ("", ""),
    ] {
        assert_eq!(bare(text), expected);
    }
    let known = |sql: &str| number_parameters(sql, &["a"]).unwrap().sql;
    assert_eq!(known("E'\\':a' || :a || e:a /* /* */ :a */"), "E'\\':a' || $1 || e$1 /* /* */ :a */");
}

#[test]
fn an_unknown_parameter_is_an_error_that_lists_the_known_ones() {
    let error = number_parameters("SELECT :window_strt", &["window_start"]).unwrap_err().to_string();
    assert_eq!(error, "Unknown parameter `:window_strt`; a statement may use `:window_start`");
}

#[test]
fn a_statement_of_the_program_is_found_by_its_name() {
    const FILE: &str = "-- about\n-- name: one\nSELECT 1;\n\n-- name: one_and\n-- why\nSELECT 'ü' ; \n";
    const ONE: &str = embedded(FILE, "one");
    assert_eq!(ONE, "SELECT 1");
    assert_eq!(embedded(FILE, "one_and"), "-- why\nSELECT 'ü'");
    assert!(std::panic::catch_unwind(|| embedded(FILE, "on")).is_err());
}

#[test]
fn a_file_splits_into_named_statements() {
    let parts = statements("-- about\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2\n");
    assert_eq!(parts.len(), 2);
    assert_eq!(parts["one"], "SELECT 1");
    assert_eq!(parts["two"], "-- why\nSELECT 2");
    assert_eq!(statements("SELECT 1;")[""], "SELECT 1");
}
