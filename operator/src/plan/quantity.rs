//! Kubernetes quantities, compared by value: the API server stores `1024Mi` as `1Gi`, which is no difference.

/// The value in billionths, exact for every suffix (Ei in billionths stays far below 2^127). None for what is not a
/// quantity.
pub(crate) fn nanos(text: &str) -> Option<i128> {
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale = scale(suffix)?;
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || !whole.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.chars() {
        unit /= 10;
        value = value.checked_add(unit.checked_mul(i128::from(digit.to_digit(10)?))?)?;
    }
    Some(sign * value)
}

/// Whether one quantity is less than another; false for what is no quantity, which the API server lets not pass.
pub(crate) fn is_less(left: &str, right: &str) -> bool {
    matches!((nanos(left), nanos(right)), (Some(left), Some(right)) if left < right)
}

/// A quantity of bytes, rounded up to a whole one.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    const NANOS_A_BYTE: i128 = 1_000_000_000;
    let nanos = nanos(text).filter(|nanos| *nanos >= 0)?;
    u64::try_from(nanos.checked_add(NANOS_A_BYTE - 1)? / NANOS_A_BYTE).ok()
}

/// Billionths of one unit with this suffix.
fn scale(suffix: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    const SUFFIXES: [(&str, i128); 16] = [
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("", NANO),
        ("k", NANO * 1_000),
        ("M", NANO * 1_000_000),
        ("G", NANO * 1_000_000_000),
        ("T", NANO * 1_000_000_000_000),
        ("P", NANO * 1_000_000_000_000_000),
        ("E", NANO * 1_000_000_000_000_000_000),
        ("Ki", NANO << 10),
        ("Mi", NANO << 20),
        ("Gi", NANO << 30),
        ("Ti", NANO << 40),
        ("Pi", NANO << 50),
        ("Ei", NANO << 60),
    ];
    SUFFIXES.iter().find(|(name, _)| *name == suffix).map(|(_, scale)| *scale).or_else(|| exponent(suffix))
}

/// `e3` and `E-2`.
fn exponent(suffix: &str) -> Option<i128> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = u32::try_from(power + 9).ok()?;
    10_i128.checked_pow(power)
}

#[cfg(test)]
mod tests {
    use super::{bytes, is_less, nanos};

    #[test]
    fn equal_values_are_equal_however_they_are_written() {
        for (left, right) in [
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("+2", "2"),
            (".5", "500m"),
            ("100M", "1e8"),
            ("-1", "-1000m"),
        ] {
            assert_eq!(nanos(left), nanos(right), "{left} and {right}");
            assert!(nanos(left).is_some(), "{left}");
        }
    }

    #[test]
    fn less_is_less_by_value_and_never_for_what_is_no_quantity() {
        assert!(is_less("9Gi", "10Gi") && is_less("1000Mi", "1Gi"));
        assert!(!is_less("1Gi", "1024Mi") && !is_less("", "1Gi") && !is_less("1Gi", "much"));
    }

    #[test]
    fn bytes_are_whole() {
        assert_eq!(bytes("64Mi"), Some(64 << 20));
        assert_eq!(bytes("1.5k"), Some(1500));
        assert_eq!(bytes("1m"), Some(1));
        assert_eq!((bytes("-1"), bytes("lots")), (None, None));
    }

    #[test]
    fn what_is_no_quantity_has_no_value() {
        for text in ["", "Gi", "1 Gi", "1gi", "ten", "1.2.3", "--1", "1e"] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }
}
