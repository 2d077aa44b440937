//! Nano-USD: exact money as integers, read from and printed as decimals.
//!
//! Pure. Rule: `docs/semantics.md` section 2. No float touches money.

use anyhow::{Result, bail};

/// Nano-USD in one USD.
pub const NANOS_PER_USD: i64 = 1_000_000_000;

/// Decimal places of one nano-USD.
const NANO_DIGITS: u32 = 9;

/// Why a decimal is no amount of money that Tallyroll can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMoney {
    #[error("not a decimal number")]
    NotANumber,
    #[error("larger than 9,223,372,036 USD")]
    TooLarge,
}

/// Reads a plain decimal of USD (`12.5`, `-0.000001`, `1e-7`) as nano-USD; digits past the ninth are rounded half-even.
///
/// # Errors
/// [`NotMoney`] for anything that is not a finite decimal number, or does not fit 64 bits of nano-USD.
pub fn parse_usd_nanos(text: &str) -> Result<i64, NotMoney> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| NotMoney::NotANumber)?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return Err(NotMoney::NotANumber);
    }
    let mut value: i128 = 0;
    let mut scale = i64::from(exponent);
    // 30 digits are past any amount that fits, and leave room in 128 bits; later digits only break ties.
    let mut taken = 0;
    let mut sticky = false;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if taken >= 30 {
            sticky |= byte != b'0';
            scale += 1;
        } else {
            value = value * 10 + i128::from(byte - b'0');
            taken += u32::from(value != 0);
        }
    }
    scale -= i64::try_from(fraction.len()).map_err(|_| NotMoney::TooLarge)?;
    let shift = scale + i64::from(NANO_DIGITS);
    let nanos = if value == 0 {
        0
    } else if shift >= 0 {
        let shift = u32::try_from(shift).map_err(|_| NotMoney::TooLarge)?;
        10_i128.checked_pow(shift).and_then(|power| value.checked_mul(power)).ok_or(NotMoney::TooLarge)?
    } else if shift < -38 {
        0
    } else {
        let divisor = 10_i128.pow(u32::try_from(-shift).map_err(|_| NotMoney::TooLarge)?);
        // A tie that later digits break upwards is no tie.
        let (quotient, rest) = (value / divisor, value % divisor);
        if sticky && rest * 2 == divisor { quotient + 1 } else { div_half_even(value, divisor) }
    };
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos).map_err(|_| NotMoney::TooLarge)
}

/// `numerator / divisor`, rounded half-even. The divisor must be positive.
#[must_use]
pub fn div_half_even(numerator: i128, divisor: i128) -> i128 {
    let quotient = numerator.div_euclid(divisor);
    let twice_rest = numerator.rem_euclid(divisor) * 2;
    let round_up = twice_rest > divisor || (twice_rest == divisor && quotient % 2 != 0);
    quotient + i128::from(round_up)
}

/// Prints nano-USD as a decimal of USD with `places` digits after the point, rounded half-even once.
#[must_use]
pub fn format_usd(nanos: i128, places: u32) -> String {
    let places = places.min(NANO_DIGITS);
    let rounded = div_half_even(nanos, 10_i128.pow(NANO_DIGITS - places));
    let unit = 10_u128.pow(places);
    let sign = if rounded < 0 { "-" } else { "" };
    let magnitude = rounded.unsigned_abs();
    if places == 0 {
        return format!("{sign}{magnitude}");
    }
    let width = usize::try_from(places).unwrap_or(9);
    format!("{sign}{}.{:0width$}", magnitude / unit, magnitude % unit)
}

/// A sum that must fit the stored 64 bits.
///
/// # Errors
/// Names `what` when it does not fit: never a wrap.
pub fn fit_stored(sum: i128, what: &str) -> Result<i64> {
    match i64::try_from(sum) {
        Ok(value) => Ok(value),
        Err(_) => bail!("The sum of `{what}` is {sum}, which does not fit the stored 64 bits"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_become_exact_nanos() {
        for (text, nanos) in [
            ("0", 0),
            ("1", 1_000_000_000),
            ("-0.000001", -1_000),
            ("12.5", 12_500_000_000),
            (".5", 500_000_000),
            ("1e-7", 100),
            ("0.0000000005", 0),
            ("0.0000000015", 2),
            ("0.00000000050000000000000000000000000001", 1),
            ("9223372036.854775807", i64::MAX),
            ("00000000000000000000000000000000000000001.5", 1_500_000_000),
        ] {
            assert_eq!(parse_usd_nanos(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_not_money_is_refused() {
        for text in ["", "-", ".", "NaN", "inf", "1,5", "0x10", "1e", "1e99999999999", "--1", "1.2.3", "١"] {
            assert_eq!(parse_usd_nanos(text), Err(NotMoney::NotANumber), "{text}");
        }
        for text in ["9223372036.854775808", "1e30", "99999999999999999999999999999999999999999999"] {
            assert_eq!(parse_usd_nanos(text), Err(NotMoney::TooLarge), "{text}");
        }
    }

    #[test]
    fn presentation_rounds_half_even_once() {
        assert_eq!(format_usd(1_500, 6), "0.000002");
        assert_eq!(format_usd(2_500, 6), "0.000002");
        assert_eq!(format_usd(-1_500, 6), "-0.000002");
        assert_eq!(format_usd(123_456_789_012, 9), "123.456789012");
        assert_eq!(format_usd(2_500_000_000, 0), "2");
    }

    proptest! {
        #[test]
        fn nanos_survive_print_and_parse(nanos in any::<i64>()) {
            prop_assert_eq!(parse_usd_nanos(&format_usd(i128::from(nanos), 9)), Ok(nanos));
        }

        #[test]
        fn half_even_is_never_more_than_half_off(numerator in -1_000_000_i128..1_000_000, divisor in 1_i128..1_000) {
            let twice_error = (div_half_even(numerator, divisor) * divisor - numerator).abs() * 2;
            prop_assert!(twice_error <= divisor);
            if twice_error == divisor {
                prop_assert_eq!(div_half_even(numerator, divisor) % 2, 0);
            }
        }
    }
}
