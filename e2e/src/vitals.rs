//! What a node says of itself in its metrics, without a secret and without the operator.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, ensure};

/// How long a node may take to answer.
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(2);

/// The metrics that are one number, by name.
#[derive(Debug)]
pub struct Vitals(BTreeMap<String, f64>);

impl Vitals {
    /// Asks the node whose peer port is behind `url`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn read(url: &str) -> Result<Self, Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_SECONDS_MAX).build()?;
        let answer = client.get(format!("{url}/metrics")).send().await?;
        let status = answer.status();
        ensure(status.is_success(), || format!("{url}/metrics: {status}"))?;
        Ok(Self::parse(&answer.text().await?))
    }

    fn parse(text: &str) -> Self {
        let number = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(number).collect())
    }

    /// What keeps the node from being a whole part of the ring: it owes nobody anything, and reaches everybody.
    pub fn lack(&self) -> Option<String> {
        let is = |name: &str, wanted: f64| {
            let found = self.0.get(name).copied();
            (found != Some(wanted)).then(|| format!("{name} is {found:?}, not {wanted}"))
        };
        let partitions = self.0.get("quorate_partitions").copied().unwrap_or(f64::NAN);
        is("quorate_ready", 1.0)
            .or_else(|| is("quorate_partitions_in_full", partitions))
            .or_else(|| is("quorate_partitions_unretired", 0.0))
            .or_else(|| is("quorate_partitions_syncing", 0.0))
            .or_else(|| is("quorate_partitions_leaving", 0.0))
            .or_else(|| is("quorate_hints_owed", 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "# HELP quorate_ready 1\nquorate_ready 1\nquorate_partitions 8\n\
        quorate_partitions_in_full 8\nquorate_partitions_unretired 0\nquorate_partitions_syncing 0\n\
        quorate_partitions_leaving 0\nquorate_hints_owed 0\nquorate_members{state=\"up\"} 3\n";

    #[test]
    fn who_owes_hints_is_not_whole() {
        assert_eq!(Vitals::parse(WELL).lack(), None);
        let owing = WELL.replace("hints_owed 0", "hints_owed 2");
        let lack = Vitals::parse(&owing).lack().unwrap_or_default();
        assert!(lack.contains("quorate_hints_owed"), "{lack}");
    }

    #[test]
    fn what_is_not_said_is_lacking() {
        assert!(Vitals::parse("").lack().is_some());
    }
}
