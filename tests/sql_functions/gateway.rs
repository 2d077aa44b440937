//! A database whose users are known by a token that a gateway has checked.

use sqlx::{Connection, PgConnection};

use super::{ANN, BOB, ROLES, database, drop_roles, is_refused, login, try_rows, with_roles};
use crate::support::Fixture;

/// The seed's `auth.uid()`, which believes a setting; here only with the rights of the gateway's group.
async fn with_auth() -> Fixture {
    let fixture = with_roles().await;
    for sql in [
        "CREATE ROLE authenticated",
        "CREATE SCHEMA auth",
        "CREATE FUNCTION auth.uid() RETURNS UUID LANGUAGE sql STABLE AS $$ SELECT NULLIF(current_setting('request.jwt.claim.sub', TRUE), '')::UUID \
             WHERE CURRENT_USER = 'authenticated' $$",
    ] {
        fixture.execute(sql).await;
    }
    fixture.run_well(&["migrate", "--roles"]);
    fixture
}

async fn ask_as_bob(connection: &mut PgConnection) -> Result<Vec<String>, String> {
    for statement in ["SET ROLE authenticated".to_owned(), format!("SET request.jwt.claim.sub = '{BOB}'")] {
        try_rows(connection, &statement).await.unwrap();
    }
    try_rows(connection, "SELECT DISTINCT user_id::TEXT FROM usage_daily").await
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_gateway_a_user_is_who_its_token_says() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_auth().await;
    let direct_role = format!("ann-{}", database(&fixture));
    let mut gateway = login(&fixture, "authenticator", "authenticated").await;
    assert_eq!(ask_as_bob(&mut gateway).await.unwrap(), [BOB]);
    try_rows(&mut gateway, &format!("SELECT get_user_ai_usage('{BOB}')::TEXT")).await.unwrap();
    assert!(is_refused(&try_rows(&mut gateway, &format!("SELECT get_user_ai_usage('{ANN}')::TEXT")).await));
    // As the seed grants it, but for itself alone.
    let count = fixture.number("SELECT COUNT(*) FROM ai_usage_log").await;
    try_rows(&mut gateway, &format!("SELECT log_ai_usage('{BOB}', p_input_tokens => 5)::TEXT")).await.unwrap();
    for other in [format!("'{ANN}'"), "NULL".to_owned()] {
        let refused = try_rows(&mut gateway, &format!("SELECT log_ai_usage({other})::TEXT")).await;
        assert!(is_refused(&refused), "{refused:?}");
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM ai_usage_log").await, count + 1);
    assert!(is_refused(&try_rows(&mut gateway, "INSERT INTO ai_usage_log (user_id) VALUES (gen_random_uuid())").await));
    assert_eq!(try_rows(&mut gateway, "SELECT DISTINCT user_id::TEXT FROM ai_usage_log").await.unwrap(), [BOB]);
    // Who logs in by itself is who it logged in as, whatever it sets.
    let mut direct = login(&fixture, &direct_role, "tallyroll_user").await;
    try_rows(&mut direct, &format!("SET request.jwt.claim.sub = '{BOB}'")).await.unwrap();
    assert_eq!(try_rows(&mut direct, "SELECT DISTINCT user_id::TEXT FROM usage_daily").await.unwrap(), [ANN]);
    for connection in [gateway, direct] {
        connection.close().await.unwrap();
    }
    drop_roles(&fixture, &["authenticator".to_owned(), direct_role, "authenticated".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_authenticated_is_no_gateway() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_auth().await;
    let name = format!("eve-{}", database(&fixture));
    let mut member = login(&fixture, &name, "authenticated").await;
    assert_eq!(ask_as_bob(&mut member).await.unwrap(), Vec::<String>::new());
    assert!(is_refused(&try_rows(&mut member, &format!("SELECT get_user_ai_usage('{BOB}')::TEXT")).await));
    assert!(is_refused(&try_rows(&mut member, &format!("SELECT log_ai_usage('{BOB}')::TEXT")).await));
    // The administrator names another gateway.
    fixture.execute(&format!("UPDATE tallyroll.tallyroll_setting SET value = '{name}' WHERE name = 'gateway'")).await;
    assert_eq!(ask_as_bob(&mut member).await.unwrap(), [BOB]);
    member.close().await.unwrap();
    drop_roles(&fixture, &[name, "authenticated".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_somebody_else_says_nothing_about_users() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_auth().await;
    let stranger = format!("mal-{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{stranger}\"")).await;
    fixture.execute(&format!("ALTER FUNCTION auth.uid() OWNER TO \"{stranger}\"")).await;
    let mut gateway = login(&fixture, "authenticator", "authenticated").await;
    assert_eq!(ask_as_bob(&mut gateway).await.unwrap(), Vec::<String>::new());
    fixture.execute(&format!("INSERT INTO tallyroll.tallyroll_setting VALUES ('auth_owner', '{stranger}')")).await;
    assert_eq!(ask_as_bob(&mut gateway).await.unwrap(), [BOB]);
    // Whoever owns the schema could put another in its place.
    fixture.execute("ALTER FUNCTION auth.uid() OWNER TO postgres").await;
    fixture.execute("DELETE FROM tallyroll.tallyroll_setting WHERE name = 'auth_owner'").await;
    assert_eq!(ask_as_bob(&mut gateway).await.unwrap(), [BOB]);
    fixture.execute(&format!("ALTER SCHEMA auth OWNER TO \"{stranger}\"")).await;
    assert_eq!(ask_as_bob(&mut gateway).await.unwrap(), Vec::<String>::new());
    fixture.execute("ALTER SCHEMA auth OWNER TO postgres").await;
    gateway.close().await.unwrap();
    drop_roles(&fixture, &["authenticator".to_owned(), stranger, "authenticated".to_owned()]).await;
}
