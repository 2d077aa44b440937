//! What the owner of one database tried to become more: by a superuser that comes along, and by roles that are of the whole server.

use super::owners::run_as;
use super::{ROLES, database, drop_roles, share_roles, with_roles};
use crate::support::{Engine, Fixture};

/// A role that can log in, and an empty database of its own.
pub async fn owned() -> (Fixture, String) {
    let owned = Fixture::empty(Engine::Postgres).await;
    let name = format!("own-{}", database(&owned));
    owned.execute(&format!("CREATE ROLE \"{name}\" LOGIN")).await;
    let full_name = owned.rows("SELECT current_database()::TEXT").await.remove(0);
    owned.execute(&format!("ALTER DATABASE {full_name} OWNER TO \"{name}\"")).await;
    (owned, name)
}

pub async fn drop_owner(owned: &Fixture, name: String) {
    owned.execute(&format!("REASSIGN OWNED BY \"{name}\" TO postgres")).await;
    drop_roles(owned, &[name]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_runs_nothing_that_an_owner_made() {
    let _one_at_a_time = ROLES.lock().await;
    let roles = with_roles().await;
    let (owned, name) = owned().await;
    let as_owner = |sql: String| {
        let owned = &owned;
        let name = &name;
        async move {
            let path = "SET LOCAL search_path = tallyroll, public";
            owned.execute(&format!("DO $do$ BEGIN SET LOCAL ROLE \"{name}\"; {path}; {sql}; END $do$")).await;
        }
    };
    // Before the schema is there: tables of the seed, with a trigger, at which a superuser's `migrate` would stumble.
    as_owner("CREATE TABLE public.ai_usage_log (id UUID)".to_owned()).await;
    for arguments in [&["migrate"][..], &["migrate", "--dry-run"], &["migrate", "--roles"]] {
        let refused = owned.run(arguments);
        assert_eq!(refused.code, Some(78), "{arguments:?} {refused:?}");
        assert!(refused.stderr.contains("owner of the tables") || refused.stderr.contains(&name), "{}", refused.stderr);
    }
    as_owner("DROP TABLE public.ai_usage_log".to_owned()).await;
    let migrated = run_as(&owned, &name, &["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");

    let evil = format!("EXECUTE 'ALTER ROLE \"{name}\" SUPERUSER'; EXCEPTION WHEN insufficient_privilege THEN NULL;");
    for sql in [
        format!("CREATE FUNCTION public.evil() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN BEGIN {evil} END; RETURN NEW; END $$"),
        "CREATE TRIGGER evil BEFORE INSERT ON job_run FOR EACH ROW EXECUTE FUNCTION public.evil()".to_owned(),
        "CREATE TRIGGER evil BEFORE INSERT ON seat_usage_event FOR EACH ROW EXECUTE FUNCTION public.evil()".to_owned(),
        format!(
            "CREATE OR REPLACE FUNCTION tallyroll_give_result_table(p_table REGCLASS) RETURNS VOID LANGUAGE plpgsql \
             AS $$ BEGIN {evil} END $$"
        ),
        "CREATE TABLE tallyroll.bait (n INTEGER); COMMENT ON TABLE tallyroll.bait IS 'Result of a job of the project'".to_owned(),
        format!(
            "CREATE FUNCTION public.same(VARCHAR, VARCHAR) RETURNS BOOLEAN LANGUAGE plpgsql AS $$ BEGIN BEGIN {evil} END; RETURN $1::TEXT = $2::TEXT; END $$"
        ),
        format!(
            "CREATE FUNCTION tallyroll.format(TEXT, TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$ BEGIN BEGIN {evil} END; RETURN 'TRUE'; END $$"
        ),
        "CREATE OPERATOR public.= (LEFTARG = VARCHAR, RIGHTARG = VARCHAR, FUNCTION = public.same)".to_owned(),
    ] {
        as_owner(sql).await;
    }
    owned.log("2026-03-21T10:00:00Z", &[]).await;
    for arguments in [
        &["run-job", "usage_daily", "--downstream"][..],
        &["run-due"],
        &["reconcile"],
        &["check"],
        &["status"],
        &["runs"],
        &["record", "seat-change", "--org", "1"],
        &["migrate"],
    ] {
        let refused = owned.run(arguments);
        assert!([Some(78), Some(2)].contains(&refused.code), "{arguments:?} {refused:?}");
        if refused.code == Some(78) {
            assert!(refused.stderr.contains("superuser") && refused.stderr.contains(&name), "{}", refused.stderr);
        }
    }
    // Roles and rights are given all the same, and the owner and its runner go on.
    owned.accept_triggers().await;
    owned.run_well(&["migrate", "--roles"]);
    let is_super = format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{name}'");
    assert_eq!(owned.rows(&is_super).await, ["0"]);
    let ran = run_as(&owned, &name, &["run-job", "usage_daily", "--downstream"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    drop_owner(&owned, name).await;
    drop(roles);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_another_database_becomes_no_migrator_unasked() {
    let _one_at_a_time = ROLES.lock().await;
    let first = with_roles().await;
    let (owned, name) = owned().await;
    let migrated = run_as(&owned, &name, &["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let is_member = format!("SELECT pg_has_role('{name}', 'tallyroll_migrator', 'MEMBER')");

    first.execute("COMMENT ON ROLE tallyroll_migrator IS NULL").await;
    // What the owner says in its own database decides nothing.
    owned.execute("INSERT INTO tallyroll.tallyroll_setting VALUES ('shares_roles', 'yes')").await;
    let refused = owned.run(&["migrate", "--roles"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains(&name) && refused.stderr.contains("COMMENT ON ROLE tallyroll_migrator"), "{}", refused.stderr);
    assert_eq!(owned.rows(&is_member).await, ["0"]);
    assert_eq!(owned.rows("SELECT nspowner::REGROLE::TEXT FROM pg_namespace WHERE nspname = 'tallyroll'").await, [format!("\"{name}\"")]);
    // A database whose owner is a superuser needs no word for itself alone.
    first.run_well(&["migrate", "--roles"]);

    share_roles(&first).await;
    owned.run_well(&["migrate", "--roles"]);
    assert_eq!(owned.rows(&is_member).await, ["1"]);
    // Nor does a database give its results to a member that another one brought.
    first.execute("COMMENT ON ROLE tallyroll_migrator IS NULL").await;
    let refused = first.run(&["migrate", "--roles"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    share_roles(&first).await;
    drop_owner(&owned, name).await;
}
