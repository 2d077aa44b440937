//! Recording, as applications do it: functions in PostgreSQL; in SQLite, of seats, tables of the same names, whose triggers do the work.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de};
use uuid::Uuid;

use super::{Tx, Value};

/// A chat request that begins.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChatRequest {
    #[serde(deserialize_with = "uuid")]
    pub user_id: Uuid,
    prompt: Option<String>,
    session_id: Option<String>,
    model: Option<String>,
    request_type: Option<String>,
    category: Option<String>,
    complexity: Option<String>,
}

/// What became of one. What is not given stays as it was.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChatOutcome {
    #[serde(deserialize_with = "uuid")]
    pub request_id: Uuid,
    status: Option<String>,
    response: Option<String>,
    tokens_used: Option<i32>,
    /// Whole cents.
    cost: Option<i32>,
    /// Milliseconds.
    duration: Option<i32>,
    user_rating: Option<i32>,
    tokens_input: Option<i32>,
    tokens_output: Option<i32>,
    error_message: Option<String>,
}

fn uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(deserializer)?;
    Uuid::try_parse(&text).map_err(|_| de::Error::custom("an id is not a UUID"))
}

/// What jobs read of a text at most (`docs/semantics.md` section 3).
const TEXT_BYTES_MAX: usize = 1_000;

impl ChatRequest {
    /// # Errors
    /// Says which field the log cannot hold.
    pub fn check(&self) -> Result<(), String> {
        let read = [
            ("sessionId", &self.session_id),
            ("model", &self.model),
            ("requestType", &self.request_type),
            ("category", &self.category),
            ("complexity", &self.complexity),
        ];
        if let Some((name, _)) = read.iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX)) {
            return Err(format!("`{name}` is longer than {TEXT_BYTES_MAX} bytes"));
        }
        without_nul(read.into_iter().chain([("prompt", &self.prompt)]))
    }
}

impl ChatOutcome {
    /// # Errors
    /// As [`ChatRequest::check`].
    pub fn check(&self) -> Result<(), String> {
        if self.status.as_ref().is_some_and(|status| !["completed", "failed"].contains(&status.as_str())) {
            return Err("`status` is `completed` or `failed`".to_owned());
        }
        if self.user_rating.is_some_and(|rating| !(1..=5).contains(&rating)) {
            return Err("`userRating` is 1 to 5".to_owned());
        }
        let numbers = [
            ("tokensUsed", self.tokens_used),
            ("cost", self.cost),
            ("duration", self.duration),
            ("tokensInput", self.tokens_input),
            ("tokensOutput", self.tokens_output),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, number)| number.is_some_and(|number| number < 0)) {
            return Err(format!("`{name}` is negative"));
        }
        without_nul([("response", &self.response), ("errorMessage", &self.error_message)])
    }
}

fn without_nul<'a>(texts: impl IntoIterator<Item = (&'a str, &'a Option<String>)>) -> Result<(), String> {
    match texts.into_iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.contains('\0'))) {
        Some((name, _)) => Err(format!("`{name}` holds a NUL character")),
        None => Ok(()),
    }
}

impl Tx {
    /// Counts the seat assignments of an org and appends what changed to the seat ledger.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_seat_change(&mut self, org: &str, reason: &str) -> Result<()> {
        let sql =
            self.dialect().pick("SELECT record_seat_change($1, $2)", "INSERT INTO record_seat_change (org_id, reason) VALUES ($1, $2)");
        self.execute(sql, &[org.into(), reason.into()]).await?;
        Ok(())
    }

    /// Gives users of a namespace a seat type.
    ///
    /// # Errors
    /// What the database says.
    pub async fn upsert_seat_assignment(
        &mut self,
        namespace: i64,
        users: &[i64],
        seat_type: &str,
        organization: Option<i64>,
    ) -> Result<()> {
        // All in one call on PostgreSQL, all before the count on SQLite: no count in between stands in the ledger.
        let sql = self.dialect().pick(
            "SELECT upsert_seat_assignment($1, string_to_array($2, ',')::BIGINT[], \
             array_fill($3::TEXT, ARRAY[cardinality(string_to_array($2, ','))]), CAST($4 AS BIGINT))",
            "INSERT INTO upsert_seat_assignment (namespace_id, user_id, seat_type, organization_id) \
             SELECT $1, value, $3, $4 FROM json_each('[' || $2 || ']')",
        );
        let users = users.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        self.execute(sql, &[namespace.into(), users.into(), seat_type.into(), organization.into()]).await?;
        Ok(())
    }

    /// Notes that a user used an AI feature; the first use takes a seat.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_ai_seat_usage(&mut self, user: Uuid, org: &str, event_type: &str, description: &str) -> Result<()> {
        let sql = self.dialect().pick(
            "SELECT record_ai_seat_usage($1, $2, $3, $4)",
            "INSERT INTO record_ai_seat_usage (user_id, org_id, event_type, event_description) VALUES ($1, $2, $3, $4)",
        );
        self.execute(sql, &[user.into(), org.into(), event_type.into(), description.into()]).await?;
        Ok(())
    }

    /// Begins a chat request; its id, or none where there is no such user.
    ///
    /// # Errors
    /// What the database says.
    pub async fn track_chat_request(&mut self, request: &ChatRequest, now: DateTime<Utc>) -> Result<Option<String>> {
        let user: Value = request.user_id.into();
        if self.query("SELECT 1 AS one FROM users WHERE id = $1", std::slice::from_ref(&user)).await?.is_empty() {
            return Ok(None);
        }
        let text = |text: &Option<String>| Value::from(text.clone());
        let kind: Value = request.request_type.as_deref().unwrap_or("chat").into();
        let (prompt, session_id, model) = (text(&request.prompt), text(&request.session_id), text(&request.model));
        let (category, complexity) = (text(&request.category), text(&request.complexity));
        if let Self::Postgres(_) = self {
            let sql = "SELECT CAST(track_chat_request($1, CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), $5, CAST($6 AS TEXT), CAST($7 AS TEXT)) AS TEXT) AS id";
            let rows = self.query(sql, &[user, prompt, session_id, model, kind, category, complexity]).await?;
            return rows.first().map(|row| row.text("id")).transpose();
        }
        let sql = "INSERT INTO chat_requests (user_id, session_id, prompt, model, status, started_at) VALUES ($1, $2, $3, $4, 'pending', $5) RETURNING id";
        let rows = self.query(sql, &[user.clone(), session_id, prompt, model, now.into()]).await?;
        let Some(id) = rows.first().map(|row| row.text("id")).transpose()? else { return Ok(None) };
        let sql = "INSERT INTO request_analytics (user_id, request_id, request_type, category, complexity) VALUES ($1, $2, $3, $4, $5)";
        self.execute(sql, &[user, id.as_str().into(), kind, category, complexity]).await?;
        Ok(Some(id))
    }

    /// Completes a chat request, or adds to it what is known only later; its status, or none where there is no such request.
    ///
    /// # Errors
    /// What the database says.
    pub async fn complete_chat_request(&mut self, outcome: &ChatOutcome, now: DateTime<Utc>) -> Result<Option<String>> {
        let id: Value = outcome.request_id.into();
        let find = "SELECT status FROM chat_requests WHERE id = $1";
        if self.query(find, std::slice::from_ref(&id)).await?.is_empty() {
            return Ok(None);
        }
        let number = |number: Option<i32>| Value::from(number.map(i64::from));
        let ChatOutcome { tokens_used, cost, duration, user_rating, tokens_input, tokens_output, .. } = *outcome;
        let [status, response, error_message] =
            [&outcome.status, &outcome.response, &outcome.error_message].map(|text| Value::from(text.clone()));
        if let Self::Postgres(_) = self {
            // The statement is prepared once: a NULL has to be of the type that a number is sent as.
            let sql = "SELECT complete_chat_request($1, CAST($2 AS TEXT), CAST($3 AS TEXT), CAST(CAST($4 AS BIGINT) AS INTEGER), CAST(CAST($5 AS BIGINT) AS INTEGER), \
                 CAST(CAST($6 AS BIGINT) AS INTEGER), CAST(CAST($7 AS BIGINT) AS INTEGER), CAST(CAST($8 AS BIGINT) AS INTEGER), CAST(CAST($9 AS BIGINT) AS INTEGER), CAST($10 AS TEXT))";
            let numbers = [tokens_used, cost, duration, user_rating, tokens_input, tokens_output].map(number);
            let parameters: Vec<Value> = [id.clone(), status, response].into_iter().chain(numbers).chain([error_message]).collect();
            self.execute(sql, &parameters).await?;
        } else {
            self.complete_in_sqlite(outcome, now).await?;
        }
        let rows = self.query(find, &[id]).await?;
        rows.first().map(|row| row.text("status")).transpose()
    }

    /// What the function of the name does in PostgreSQL (`sql/functions/chat.sql`).
    async fn complete_in_sqlite(&mut self, outcome: &ChatOutcome, now: DateTime<Utc>) -> Result<()> {
        let number = |number: Option<i32>| Value::from(number.map(i64::from));
        let id: Value = outcome.request_id.into();
        let text = |text: &Option<String>| Value::from(text.clone());
        let (input, output) = (outcome.tokens_input, outcome.tokens_output);
        let both = input.or(output).map(|_| (i64::from(input.unwrap_or(0)) + i64::from(output.unwrap_or(0))).min(i32::MAX.into()));
        let sql = "UPDATE chat_requests SET status = COALESCE($2, NULLIF(status, 'pending'), 'completed'), response = COALESCE($3, response), \
                 tokens_used = COALESCE($4, tokens_used, $5), cost = COALESCE($6, cost), duration = COALESCE($7, duration), \
                 error_message = COALESCE($8, error_message), completed_at = COALESCE(completed_at, $9) \
             WHERE id = $1";
        let parameters = [
            id.clone(),
            text(&outcome.status),
            text(&outcome.response),
            number(outcome.tokens_used),
            both.into(),
            number(outcome.cost),
            number(outcome.duration),
            text(&outcome.error_message),
            now.into(),
        ];
        self.execute(sql, &parameters).await?;
        let sql = "UPDATE request_analytics SET user_rating = COALESCE($2, user_rating), tokens_input = COALESCE($3, tokens_input), \
                 tokens_output = COALESCE($4, tokens_output), response_time = COALESCE($5, response_time), \
                 was_successful = (SELECT status = 'completed' FROM chat_requests WHERE id = $1) \
             WHERE id = (SELECT id FROM request_analytics WHERE request_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1)";
        let (rating, input, output) = (number(outcome.user_rating), number(input), number(output));
        let is_described =
            self.execute(sql, &[id.clone(), rating.clone(), input.clone(), output.clone(), number(outcome.duration)]).await? > 0;
        if !is_described && [&rating, &input, &output].into_iter().any(|value| *value != Value::Null) {
            let sql = "INSERT INTO request_analytics (user_id, request_id, user_rating, tokens_input, tokens_output, was_successful) \
                 SELECT user_id, id, $2, $3, $4, status = 'completed' FROM chat_requests WHERE id = $1";
            self.execute(sql, &[id, rating, input, output]).await?;
        }
        Ok(())
    }

    /// Rows of the seat ledger came with ids of their own: the next row gets a larger one. SQLite sees to that by itself.
    ///
    /// # Errors
    /// What the database says.
    pub async fn pass_ledger_ids(&mut self) -> Result<()> {
        if let Self::Postgres(_) = self {
            self.query("SELECT tallyroll.tallyroll_pass_ledger_ids() AS last_id", &[]).await?;
        }
        Ok(())
    }
}
