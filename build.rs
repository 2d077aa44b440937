//! Rebuilds when a migration is added: `sqlx::migrate!` reads the folder while the crate compiles.

fn main() {
    println!("cargo:rerun-if-changed=sql/migrations");
}
