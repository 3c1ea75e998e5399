//! Numbers as Redis reads and writes them.

/// A whole number, in the one way of writing it: no sign but a minus, no zero before other digits, no blanks.
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// A number with a point, a fraction or an exponent; not a number is none.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: f64 = text.parse().ok()?;
    (!number.is_nan() && !text.ends_with(char::is_whitespace)).then_some(number)
}

/// As few digits as say it, never an exponent.
pub(super) fn float_text(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_way_to_write_a_whole_number() {
        let good: [(&[u8], i64); 4] =
            [(b"0", 0), (b"-1", -1), (b"9223372036854775807", i64::MAX), (b"-9223372036854775808", i64::MIN)];
        assert!(good.iter().all(|(text, number)| integer(text) == Some(*number)));
        for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "9223372036854775808", "x", "1\0"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn fractions_are_written_short() {
        assert_eq!(float(b"3.0e3"), Some(3000.0));
        assert_eq!(float(b"nan"), None);
        assert_eq!(float(b" 1"), None);
        assert_eq!(float_text(3000.0), "3000");
        assert_eq!(float_text(10.5 + 0.1), "10.6");
        assert_eq!(float_text(-0.0), "0");
        assert_eq!(float_text(1e21), "1000000000000000000000");
    }
}
