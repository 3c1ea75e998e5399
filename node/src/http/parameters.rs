//! What a request asks for in its query: `?w=all&ttl=1h`.
//!
//! Whatever is not known is refused: a parameter that was misspelt, and did nothing, would be found out too late.

use std::str::FromStr as _;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use quorate_core::quorum::Consistency;

use crate::units::Span;

/// Which parameters an operation takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Takes {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) ttl: bool,
}

/// What the query says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Parameters {
    /// Owners that must reply.
    pub(super) read: Consistency,
    /// Owners that must acknowledge.
    pub(super) write: Consistency,
    /// How long the value lives.
    pub(super) ttl: Option<Duration>,
}

/// A query that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ParameterError {
    #[error("there is no parameter {name:?} here: this request takes {known}")]
    Unknown { name: String, known: String },
    #[error("the parameter {0:?} is given twice")]
    Twice(String),
    #[error("{name}={value:?} is not a number of replicas: write one, quorum, all or a number")]
    Consistency { name: String, value: String },
    #[error(
        "ttl={0:?} is not a time to live: write whole seconds, or a number and ms, s, m or h, such as 90s; not 0"
    )]
    Ttl(String),
}

impl Takes {
    fn known(self) -> String {
        let names = [
            (self.read, "r"),
            (self.write, "w"),
            (self.read || self.write, "consistency"),
            (self.ttl, "ttl"),
        ];
        names.into_iter().filter_map(|(taken, name)| taken.then_some(name)).collect::<Vec<_>>().join(", ")
    }
}

impl Parameters {
    /// Reads a query, of a request that takes these.
    pub(super) fn parse(query: Option<&str>, takes: Takes) -> Result<Self, ParameterError> {
        let (mut both, mut read, mut write, mut ttl) = (None, None, None, None);
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name), decode(value));
            let place = match name.as_str() {
                "r" if takes.read => &mut read,
                "w" if takes.write => &mut write,
                "consistency" if takes.read || takes.write => &mut both,
                "ttl" if takes.ttl && ttl.is_some() => return Err(ParameterError::Twice(name)),
                "ttl" if takes.ttl => {
                    ttl = Some(time_to_live(&value)?);
                    continue;
                }
                _ => return Err(ParameterError::Unknown { name, known: takes.known() }),
            };
            if place.replace(consistency(&name, &value)?).is_some() {
                return Err(ParameterError::Twice(name));
            }
        }
        let or_both = |own: Option<Consistency>| own.or(both).unwrap_or_default();
        Ok(Self { read: or_both(read), write: or_both(write), ttl })
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn consistency(name: &str, value: &str) -> Result<Consistency, ParameterError> {
    match value {
        "one" => Ok(Consistency::One),
        "quorum" => Ok(Consistency::Quorum),
        "all" => Ok(Consistency::All),
        number => number
            .parse()
            .ok()
            .filter(|count| *count > 0)
            .map(Consistency::Exactly)
            .ok_or_else(|| ParameterError::Consistency { name: name.to_owned(), value: value.to_owned() }),
    }
}

/// Whole seconds, or a number and a unit.
pub(super) fn time_to_live(value: &str) -> Result<Duration, ParameterError> {
    let seconds = || value.parse().ok().map(Duration::from_secs);
    let span = seconds().or_else(|| Some(Span::from_str(value).ok()?.0));
    span.filter(|span| !span.is_zero()).ok_or_else(|| ParameterError::Ttl(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Takes = Takes { read: false, write: true, ttl: true };
    const GET: Takes = Takes { read: true, write: false, ttl: false };
    const DELETE: Takes = Takes { read: true, write: true, ttl: false };

    fn parse(query: &str, takes: Takes) -> Result<Parameters, ParameterError> {
        Parameters::parse(Some(query), takes)
    }

    #[test]
    fn what_is_asked_for_is_read() {
        assert_eq!(Parameters::parse(None, PUT), Ok(Parameters::default()));
        let all = parse("w=all&ttl=90", PUT).unwrap();
        assert_eq!((all.write, all.ttl), (Consistency::All, Some(Duration::from_secs(90))));
        assert_eq!(parse("ttl=2h", PUT).unwrap().ttl, Some(Duration::from_secs(7200)));
        assert_eq!(parse("r=%32", GET).unwrap().read, Consistency::Exactly(2));
        let both = parse("consistency=quorum", DELETE).unwrap();
        assert_eq!((both.read, both.write), (Consistency::Quorum, Consistency::Quorum));
        let one_of_both = parse("r=one&consistency=all", DELETE).unwrap();
        assert_eq!((one_of_both.read, one_of_both.write), (Consistency::One, Consistency::All));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_to_write() {
        let says = |query: &str, takes, sentence: &str| {
            let error = parse(query, takes).unwrap_err().to_string();
            assert!(error.contains(sentence), "{query}: {error}");
        };
        says("tll=5", PUT, "takes w, consistency, ttl");
        says("ttl=5", GET, "takes r, consistency");
        says("r=1&r=1", GET, "twice");
        says("consistency=one&consistency=one", GET, "twice");
        says("w=many", PUT, "write one, quorum, all or a number");
        says("w=0", PUT, "write one, quorum, all or a number");
        says("w=-1", PUT, "write one, quorum, all or a number");
        for ttl in ["", "0", "0s", "-1", "soon", "1.5"] {
            says(&format!("ttl={ttl}"), PUT, "such as 90s");
        }
    }
}
