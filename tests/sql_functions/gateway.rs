//! A database whose users are known by a token that a gateway has checked.

use sqlx::Connection;

use super::{ANN, BOB, ROLES, database, drop_roles, is_refused, login, try_rows, with_roles};

/// The seed's database knows its users by a token that a gateway has checked.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_gateway_a_user_is_who_its_token_says() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    fixture.execute("CREATE ROLE authenticated").await;
    fixture.execute("CREATE SCHEMA auth").await;
    fixture
        .execute("CREATE FUNCTION auth.uid() RETURNS UUID LANGUAGE sql STABLE AS $$ SELECT NULLIF(current_setting('request.jwt.claim.sub', TRUE), '')::UUID $$")
        .await;
    fixture.execute("GRANT USAGE ON SCHEMA auth TO PUBLIC").await;
    fixture.run_well(&["migrate", "--roles"]);
    let (gateway_role, direct_role) = (format!("gate-{}", database(&fixture)), format!("ann-{}", database(&fixture)));
    let mut gateway = login(&fixture, &gateway_role, "authenticated").await;
    for statement in ["SET ROLE authenticated".to_owned(), format!("SET request.jwt.claim.sub = '{BOB}'")] {
        try_rows(&mut gateway, &statement).await.unwrap();
    }
    assert_eq!(try_rows(&mut gateway, "SELECT DISTINCT user_id::TEXT FROM usage_daily").await.unwrap(), [BOB]);
    try_rows(&mut gateway, &format!("SELECT get_user_ai_usage('{BOB}')::TEXT")).await.unwrap();
    assert!(is_refused(&try_rows(&mut gateway, &format!("SELECT get_user_ai_usage('{ANN}')::TEXT")).await));
    // Who logs in by itself is who it logged in as, whatever it sets.
    let mut direct = login(&fixture, &direct_role, "tallyroll_user").await;
    try_rows(&mut direct, &format!("SET request.jwt.claim.sub = '{BOB}'")).await.unwrap();
    assert_eq!(try_rows(&mut direct, "SELECT DISTINCT user_id::TEXT FROM usage_daily").await.unwrap(), [ANN]);
    for connection in [gateway, direct] {
        connection.close().await.unwrap();
    }
    drop_roles(&fixture, &[gateway_role, direct_role, "authenticated".to_owned()]).await;
}
