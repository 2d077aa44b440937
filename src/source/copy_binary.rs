//! Decoding PostgreSQL's binary COPY stream into a batch of events.
//!
//! Layout: PostgreSQL documentation, COPY, "Binary Format"; NUMERIC as `numeric_send` writes it.

use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

use super::batch::BatchBuilder;
use super::event::Target;
use crate::money;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Microseconds and days from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i64 = 10_957;

/// How one column's bytes are read, and where they go.
pub(super) struct Decoder {
    target: Option<Target>,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Uuid,
    Int,
    Instant,
    Bool,
    /// A decimal of USD.
    NumericUsd,
    /// A float of USD, read by its shortest decimal.
    FloatUsd,
    Ignored,
}

impl Decoder {
    /// # Errors
    /// When a column of this type cannot be that field.
    pub(super) fn new(name: &str, type_name: &str, target: Option<Target>) -> Result<Self> {
        let Some(target) = target else { return Ok(Self { target: None, form: Form::Ignored }) };
        let is_usd = name.ends_with("_usd");
        let form = match (target, type_name) {
            (Target::Cost(_), "NUMERIC") if is_usd => Form::NumericUsd,
            (Target::Cost(_), "FLOAT4" | "FLOAT8") if is_usd => Form::FloatUsd,
            (Target::Cost(_), _) if is_usd => bail!("a `…_usd` field must be NUMERIC or DOUBLE PRECISION"),
            (Target::Cost(_) | Target::Int(_), "INT2" | "INT4" | "INT8") => Form::Int,
            (Target::OccurredAt, "TIMESTAMPTZ" | "TIMESTAMP") => Form::Instant,
            (Target::EventId | Target::Text(_), "UUID") => Form::Uuid,
            (Target::EventId | Target::Text(_), "INT2" | "INT4" | "INT8") => Form::Int,
            (Target::EventId | Target::Text(_), "TEXT" | "VARCHAR" | "CHAR" | "BPCHAR" | "NAME" | "UNKNOWN" | "CITEXT") => Form::Text,
            (Target::Int(_), "BOOL") => Form::Bool,
            (Target::Int(_), "TEXT" | "UNKNOWN") => bail!("write a missing number as `CAST(NULL AS BIGINT)`"),
            _ => bail!("that type does not fit the field"),
        };
        Ok(Self { target: Some(target), form })
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.form, Form::Text)
    }
}

/// What follows the header of the stream's first message.
pub(super) fn skip_header(message: &[u8]) -> Result<&[u8]> {
    let rest = message.strip_prefix(SIGNATURE).context("The server's COPY stream has no signature")?;
    let (_, rest) = take::<4>(rest)?;
    let (extension, rest) = take::<4>(rest)?;
    let length = usize::try_from(u32::from_be_bytes(extension))?;
    rest.get(length..).context("The server's COPY stream ends in its header")
}

/// Decodes every row of a message; the trailer is skipped.
pub(super) fn decode_rows(mut bytes: &[u8], decoders: &[Decoder], builder: &mut BatchBuilder) -> Result<()> {
    while begin_row(&mut bytes, decoders.len())? {
        for decoder in decoders {
            match (next_field(&mut bytes)?, decoder.target) {
                (Some(field), _) => decode_field(decoder, field, builder)?,
                (None, Some(target)) => builder.put_null(target),
                (None, None) => {}
            }
        }
        builder.end_row();
    }
    Ok(())
}

/// The fields of the next row, NULL as `None`; `None` at the end of the message or of the stream.
pub(super) fn next_row<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<Option<[Option<&'a [u8]>; N]>> {
    if !begin_row(bytes, N)? {
        return Ok(None);
    }
    let mut fields = [None; N];
    for field in &mut fields {
        *field = next_field(bytes)?;
    }
    Ok(Some(fields))
}

/// Whether another row follows; fails where it has not as many fields.
#[inline]
pub(super) fn begin_row(bytes: &mut &[u8], field_count: usize) -> Result<bool> {
    if bytes.is_empty() {
        return Ok(false);
    }
    let (count, rest) = take::<2>(bytes)?;
    let count = i16::from_be_bytes(count);
    if count == -1 {
        *bytes = &[];
        return Ok(false);
    }
    ensure!(usize::try_from(count)? == field_count, "The server's COPY stream has rows of {count} fields");
    *bytes = rest;
    Ok(true)
}

/// The next field of a row, NULL as `None`.
#[inline]
pub(super) fn next_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    let (length, rest) = take::<4>(bytes)?;
    *bytes = rest;
    let Ok(length) = usize::try_from(i32::from_be_bytes(length)) else { return Ok(None) };
    let Some((field, rest)) = rest.split_at_checked(length) else { bail!("The server's COPY stream ends inside a field") };
    *bytes = rest;
    Ok(Some(field))
}

/// A TIMESTAMPTZ in microseconds since the Unix epoch.
pub(super) fn instant_micros(field: &[u8]) -> Result<i64> {
    Ok(integer(field)?.saturating_add(EPOCH_MICROS))
}

/// A DATE in days since the Unix epoch.
pub(super) fn date_days(field: &[u8]) -> Result<i32> {
    Ok(i32::try_from(integer(field)?.saturating_add(EPOCH_DAYS))?)
}

fn decode_field(decoder: &Decoder, field: &[u8], builder: &mut BatchBuilder) -> Result<()> {
    let Some(target) = decoder.target else { return Ok(()) };
    match decoder.form {
        Form::Ignored => Ok(()),
        Form::Text => builder.put_text(target, std::str::from_utf8(field).context("A text is not UTF-8")?),
        Form::Uuid => builder.put_uuid(target, Uuid::from_slice(field)?),
        Form::Int => builder.put_int(target, integer(field)?),
        Form::Bool => builder.put_int(target, field.first().copied().unwrap_or(0).into()),
        Form::Instant => builder.put_instant(target, instant_micros(field)?),
        Form::NumericUsd => builder.put_cost(target, numeric_nanos(field)?),
        Form::FloatUsd => {
            let text = match *field {
                [a, b, c, d] => f32::from_be_bytes([a, b, c, d]).to_string(),
                _ => f64::from_be_bytes(take::<8>(field)?.0).to_string(),
            };
            builder.put_cost(target, money::parse_usd_nanos(&text).ok())
        }
    }
}

pub(super) fn integer(field: &[u8]) -> Result<i64> {
    match *field {
        [a, b] => Ok(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Ok(i32::from_be_bytes([a, b, c, d]).into()),
        _ => Ok(i64::from_be_bytes(take::<8>(field)?.0)),
    }
}

/// A NUMERIC of USD in nano-USD, rounded half-even; `None` for NaN, an infinity, or one that does not fit.
///
/// Sent as digits of base 10,000: count, weight of the first, sign, display scale, digits.
fn numeric_nanos(field: &[u8]) -> Result<Option<i64>> {
    const POSITIVE: u16 = 0x0000;
    const NEGATIVE: u16 = 0x4000;
    /// Base-10,000 digits after the point that nine decimal places reach into.
    const SCALE_DIGITS: i32 = 3;

    let (count, rest) = take::<2>(field)?;
    let (weight, rest) = take::<2>(rest)?;
    let (sign, rest) = take::<2>(rest)?;
    let (_, digits) = take::<2>(rest)?;
    let sign = u16::from_be_bytes(sign);
    if sign != POSITIVE && sign != NEGATIVE {
        return Ok(None);
    }
    ensure!(digits.len() == usize::from(u16::from_be_bytes(count)) * 2, "A NUMERIC has another length than it says");
    // The value in units of 10^-12: digit i weighs 10000^(weight - i).
    let mut position = i32::from(i16::from_be_bytes(weight)) + SCALE_DIGITS;
    if position > 8 {
        return Ok(None);
    }
    // Nearly every cost is below 10,000 USD and has at most twelve decimal places: it fits 64 bits.
    let left = position + 1 - i32::from(u16::from_be_bytes(count).min(100));
    if position <= SCALE_DIGITS && left >= 0 {
        let digit = |pair: &[u8; 2]| u64::from(u16::from_be_bytes(*pair));
        let scaled = digits.as_chunks::<2>().0.iter().fold(0_u64, |scaled, pair| scaled * 10_000 + digit(pair));
        let scaled = scaled * 10_000_u64.pow(left.unsigned_abs());
        let (quotient, rest) = (scaled / 1_000, scaled % 1_000);
        let nanos = quotient + u64::from(rest > 500 || (rest == 500 && quotient % 2 != 0));
        return Ok(i64::try_from(nanos).ok().map(|nanos| if sign == NEGATIVE { -nanos } else { nanos }));
    }
    let mut scaled: i128 = 0;
    let mut is_sticky = false;
    for pair in digits.chunks_exact(2) {
        let digit = i128::from(u16::from_be_bytes([pair[0], pair[1]]));
        if let Ok(exponent) = u32::try_from(position) {
            scaled += digit * 10_000_i128.pow(exponent);
        } else {
            is_sticky |= digit != 0;
        }
        position -= 1;
    }
    let exact_tie = scaled.rem_euclid(1_000) == 500;
    let nanos = if exact_tie && is_sticky { scaled.div_euclid(1_000) + 1 } else { money::div_half_even(scaled, 1_000) };
    Ok(i64::try_from(if sign == NEGATIVE { -nanos } else { nanos }).ok())
}

#[inline]
fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8])> {
    // Not by `context`, which is called for every field and not inlined.
    match bytes.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((*head, rest)),
        None => bail!("The server's COPY stream ends too early"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(weight: i16, sign: u16, digits: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&u16::try_from(digits.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&weight.to_be_bytes());
        bytes.extend_from_slice(&sign.to_be_bytes());
        bytes.extend_from_slice(&0_u16.to_be_bytes());
        for digit in digits {
            bytes.extend_from_slice(&digit.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn numerics_become_exact_nanos() {
        for (weight, sign, digits, nanos) in [
            (0, 0, &[][..], Some(0)),
            (0, 0, &[12, 3456, 7890][..], Some(12_345_678_900)),
            (-1, 0, &[1][..], Some(100_000)),
            (-2, 0x4000, &[1][..], Some(-10)),
            // 0.0000000005 is a tie and goes to even; anything behind it breaks the tie.
            (-3, 0, &[500][..], Some(0)),
            (-3, 0, &[500, 1][..], Some(1)),
            (-3, 0, &[1500][..], Some(2)),
            (2, 0, &[92, 2337, 2036][..], Some(9_223_372_036_000_000_000)),
            (2, 0, &[92, 2337, 2037][..], None),
            (200, 0, &[1][..], None),
            (0, 0xC000, &[][..], None),
            (0, 0xD000, &[][..], None),
        ] {
            assert_eq!(numeric_nanos(&numeric(weight, sign, digits)).unwrap(), nanos, "{weight} {sign} {digits:?}");
        }
    }

    #[test]
    fn a_broken_stream_is_an_error_not_a_panic() {
        let mut builder = BatchBuilder::new();
        let decoders = [Decoder::new("input_tokens", "INT4", Some(Target::Int(1))).unwrap()];
        for bytes in [&[0][..], &[0, 2][..], &[0, 1, 0, 0][..], &[0, 1, 0, 0, 0, 4, 1][..], &[0, 1, 0, 0, 0, 3, 1, 2, 3][..]] {
            assert!(decode_rows(bytes, &decoders, &mut builder).is_err(), "{bytes:?}");
        }
        assert!(skip_header(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x09").is_err());
    }
}
