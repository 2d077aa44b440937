//! One row of PostgreSQL as values. What no type of ours can hold is [`Value::Other`]: shown where a row is shown, never taken for data.

use chrono::{DateTime, NaiveDate, TimeDelta};
use sqlx::postgres::{PgRow, PgTypeInfo, PgTypeKind};
use sqlx::{Column, Decode, Postgres, Row as _, Type, TypeInfo, ValueRef};
use uuid::Uuid;

use crate::store::value::{Value, hex};

pub(super) fn decode(row: &PgRow) -> Result<Vec<Value>, sqlx::Error> {
    row.columns().iter().map(|column| value(row, column.ordinal(), column.type_info())).collect()
}

fn value(row: &PgRow, index: usize, type_info: &PgTypeInfo) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
    let other = |bytes: &[u8]| Value::Other(String::from_utf8_lossy(bytes).into_owned());
    Ok(match type_info.name() {
        "BOOL" => i64::from(get::<bool>(row, index)?).into(),
        "INT2" => i64::from(get::<i16>(row, index)?).into(),
        "INT4" => i64::from(get::<i32>(row, index)?).into(),
        "INT8" => get::<i64>(row, index)?.into(),
        "FLOAT4" => Value::Float(get::<f32>(row, index)?.into()),
        "FLOAT8" => Value::Float(get(row, index)?),
        "DATE" => date(i32::from_be_bytes(exactly(bytes)?)),
        "TIMESTAMPTZ" | "TIMESTAMP" => instant(i64::from_be_bytes(exactly(bytes)?)),
        "UUID" => get::<Uuid>(row, index)?.into(),
        "NUMERIC" => numeric(bytes).ok_or_else(|| sqlx::Error::Decode("no NUMERIC".into()))?,
        "JSON" | "XML" => other(bytes),
        // A version, then the text.
        "JSONB" => other(bytes.get(1..).unwrap_or_default()),
        "BYTEA" => Value::Other(hex(bytes)),
        _ if <String as Type<Postgres>>::compatible(type_info) => get::<String>(row, index)?.into(),
        _ if matches!(type_info.kind(), PgTypeKind::Enum(_)) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        name => Value::Other(format!("a value of type {name}")),
    })
}

fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, index: usize) -> Result<T, sqlx::Error> {
    row.try_get(index)
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], sqlx::Error> {
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{} bytes where {N} belong", bytes.len()).into()))
}

/// Days from 2000-01-01. sqlx panics on those that chrono cannot count.
fn date(days: i32) -> Value {
    match days {
        i32::MAX => return Value::Other("infinity".to_owned()),
        i32::MIN => return Value::Other("-infinity".to_owned()),
        _ => {}
    }
    let epoch = NaiveDate::from_ymd_opt(2000, 1, 1);
    let date = epoch.and_then(|epoch| epoch.checked_add_signed(TimeDelta::days(days.into())));
    date.map_or_else(|| Value::Other(format!("{days} days from 2000-01-01")), Value::Date)
}

/// Microseconds from 2000-01-01; as [`date`].
fn instant(micros: i64) -> Value {
    const EPOCH_MICROS: i64 = 946_684_800_000_000;
    match micros {
        i64::MAX => return Value::Other("infinity".to_owned()),
        i64::MIN => return Value::Other("-infinity".to_owned()),
        _ => {}
    }
    let instant = micros.checked_add(EPOCH_MICROS).and_then(DateTime::from_timestamp_micros);
    instant.map_or_else(|| Value::Other(format!("{micros} microseconds from 2000-01-01")), Value::Instant)
}

/// A NUMERIC as text, every digit of it: the number of digits to the base of 10,000, the weight of the first, the sign, the digits
/// shown after the point, and the digits, each of 16 bits (`numeric_send` of PostgreSQL).
fn numeric(bytes: &[u8]) -> Option<Value> {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let (&[_, weight, sign, shown_digits], digits) = words.split_first_chunk::<4>()?;
    let sign = match sign {
        0x0000 => "",
        0x4000 => "-",
        0xC000 => return Some(Value::Other("NaN".to_owned())),
        0xD000 => return Some(Value::Other("infinity".to_owned())),
        0xF000 => return Some(Value::Other("-infinity".to_owned())),
        _ => return None,
    };
    if digits.is_empty() {
        return Some(Value::Text("0".to_owned()));
    }
    let weight = i32::from(weight.cast_signed());
    // The group that stands `power` places of 10,000 before the point.
    let group = |power: i32| usize::try_from(weight - power).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0);
    let groups = |powers: std::ops::Range<i32>| powers.rev().map(|power| format!("{:04}", group(power))).collect::<Vec<_>>().concat();
    let mut text = format!("{sign}{}{}", group(weight.max(0)), groups(0..weight.max(0)));
    if shown_digits > 0 {
        let fraction = groups(-i32::from(shown_digits.div_ceil(4))..0);
        text.push('.');
        text.push_str(&fraction[..usize::from(shown_digits)]);
    }
    Some(Value::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_is_read_to_its_last_digit() {
        let read =
            |words: &[u16]| numeric(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>()).unwrap().to_text().unwrap();
        assert_eq!(read(&[0, 0, 0, 2]), "0");
        assert_eq!(read(&[2, 0, 0, 2, 12, 3400]), "12.34");
        assert_eq!(read(&[2, 1, 0x4000, 0, 1, 5]), "-10005");
        assert_eq!(read(&[1, 1, 0, 1, 7]), "70000.0");
        // 0.000012
        assert_eq!(read(&[1, 0xfffe, 0, 6, 1200]), "0.000012");
        assert_eq!(read(&[1, 0xffff, 0, 4, 5000]), "0.5000");
        assert_eq!(read(&[0, 0, 0xC000, 0]), "NaN");
    }
}
