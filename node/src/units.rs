//! Durations and sizes as people write them: `5s`, `500ms`, `64Mi`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

/// A number of bytes: a whole number, alone or with `Ki`, `Mi`, `Gi` or `Ti`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Size(pub(crate) u64);

/// A text that is no quantity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("{0:?} is not a duration: write a whole number and ms, s, m or h, such as 500ms or 5s")]
    Span(String),
    #[error("{0:?} is not a size: write a whole number of bytes, or one with Ki, Mi, Gi or Ti, such as 64Mi")]
    Size(String),
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parse = || {
            let (number, unit) = split(text)?;
            let unit_ms = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            number.checked_mul(unit_ms).map(Duration::from_millis)
        };
        parse().map(Self).ok_or_else(|| UnitError::Span(text.to_owned()))
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parse = || {
            let (number, unit) = split(text)?;
            let power = match unit {
                "" => 0,
                "Ki" => 1,
                "Mi" => 2,
                "Gi" => 3,
                "Ti" => 4,
                _ => return None,
            };
            number.checked_mul(1024u64.pow(power))
        };
        parse().map(Self).ok_or_else(|| UnitError::Size(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! through_text {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = UnitError;

            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
through_text!(Span Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_parse_and_round_trip() {
        assert_eq!("500ms".parse::<Span>().unwrap().0, Duration::from_millis(500));
        assert_eq!("2m".parse::<Span>().unwrap().0, Duration::from_secs(120));
        assert_eq!("64Mi".parse::<Size>().unwrap().0, 64 << 20);
        assert_eq!("7".parse::<Size>().unwrap().0, 7);
        let span = Span(Duration::from_secs(5));
        assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
    }

    #[test]
    fn what_is_no_quantity_says_what_to_write() {
        for text in ["", "5", "s", "-1s", "1.5s", "5 s", "99999999999999999999s", "18446744073709551615h"] {
            let error = text.parse::<Span>().unwrap_err().to_string();
            assert!(error.contains("such as 500ms"), "{text}: {error}");
        }
        for text in ["", "Mi", "5MB", "1e9", "99999999999Ti"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
