//! One replica leads: the holder of a Lease.
//!
//! Every write to the Lease is a compare-and-swap on its resource version, so that two replicas can never both take it,
//! and a renewal can never prolong what another has taken. (The crate kube-lease-manager patches without one: two
//! replicas that see the same Lease expire can release it under each other.) Expiry is measured by this replica's own
//! clock, from when it saw the Lease change: clocks of machines need not agree.
//!
//! Leading twice for a moment would cost nothing but writes: the ring's epochs have their own compare-and-swap.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::build::names::OPERATOR;

/// How long a Lease holds without a renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews it and the others look.
const PERIOD: Duration = Duration::from_secs(3);
/// A holder that could not renew for this long stops leading, before another may begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// A candidate.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
}

/// The Lease as this replica saw it change.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    holder: Option<String>,
    renewed: Option<MicroTime>,
    at: Instant,
}

/// What a candidate does with what it sees.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Take it, or renew it.
    Hold,
    /// It is another's, and fresh.
    Stand,
}

impl Candidate {
    /// A candidate for the Lease of this operator in a namespace.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, seen: None }
    }

    /// Waits until this replica leads.
    pub async fn lead(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be read or taken"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Renews until the leadership is lost.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            tokio::time::sleep(PERIOD).await;
            match tokio::time::timeout(PERIOD, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be renewed"),
                Err(_) => tracing::warn!("the lease cannot be renewed in time"),
            }
        }
    }

    /// Lets go, so that another replica need not wait for the Lease to expire.
    pub async fn release(&mut self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(OPERATOR).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = None;
        self.api.replace(OPERATOR, &PostParams::default(), &lease).await.map(|_| ())
    }

    /// Looks, and takes or renews. Answers whether this replica holds the Lease now.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let now = Timestamp::now();
        let Some(lease) = self.api.get_opt(OPERATOR).await? else {
            let created =
                self.api.create(&PostParams::default(), &held(Lease::default(), &self.identity, now)).await;
            return won(created);
        };
        self.see(&lease);
        if self.step(Instant::now()) == Step::Stand {
            return Ok(false);
        }
        won(self.api.replace(OPERATOR, &PostParams::default(), &held(lease, &self.identity, now)).await)
    }

    fn see(&mut self, lease: &Lease) {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let same =
            self.seen.as_ref().is_some_and(|seen| seen.holder == holder && seen.renewed == spec.renew_time);
        if !same {
            self.seen = Some(Seen { holder, renewed: spec.renew_time, at: Instant::now() });
        }
    }

    fn step(&self, now: Instant) -> Step {
        match &self.seen {
            Some(Seen { holder: Some(holder), at, .. })
                if *holder != self.identity && now - *at < DURATION =>
            {
                Step::Stand
            }
            _ => Step::Hold,
        }
    }
}

/// A conflict means that another was faster.
fn won(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// The Lease, held from now on; the resource version stays, for the compare-and-swap.
fn held(lease: Lease, identity: &str, now: Timestamp) -> Lease {
    let old = lease.spec.unwrap_or_default();
    let stays = old.holder_identity.as_deref() == Some(identity);
    let transitions = old.lease_transitions.unwrap_or_default();
    Lease {
        metadata: ObjectMeta { name: Some(OPERATOR.to_owned()), ..lease.metadata },
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if stays { old.acquire_time } else { Some(MicroTime(now)) },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if stays { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(seen: Option<Seen>) -> Candidate {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Candidate { api: Api::namespaced(client, "default"), identity: "me".to_owned(), seen }
    }

    fn seen(holder: Option<&str>, at: Instant) -> Option<Seen> {
        Some(Seen { holder: holder.map(str::to_owned), renewed: None, at })
    }

    #[tokio::test]
    async fn a_free_lease_is_taken_one_s_own_is_renewed_and_a_fresh_one_of_another_is_left() {
        let now = Instant::now();
        assert_eq!(candidate(None).step(now), Step::Hold);
        assert_eq!(candidate(seen(None, now)).step(now), Step::Hold);
        assert_eq!(candidate(seen(Some("me"), now)).step(now), Step::Hold);
        assert_eq!(candidate(seen(Some("you"), now)).step(now), Step::Stand);
        assert_eq!(candidate(seen(Some("you"), now)).step(now + DURATION), Step::Hold);
    }

    #[tokio::test]
    async fn a_lease_that_changes_counts_as_fresh_whatever_its_times_say() {
        let mut candidate = candidate(None);
        let mut lease = held(Lease::default(), "you", Timestamp::UNIX_EPOCH);
        candidate.see(&lease);
        let first = candidate.seen.clone().unwrap();
        candidate.see(&lease);
        assert_eq!(candidate.seen.clone().unwrap(), first, "nothing changed");
        lease = held(lease, "you", Timestamp::from_second(1).unwrap());
        candidate.see(&lease);
        assert_ne!(candidate.seen.clone().unwrap(), first);
    }

    #[test]
    fn transitions_are_counted_and_renewals_are_not() {
        let first = held(Lease::default(), "me", Timestamp::UNIX_EPOCH);
        let renewed = held(first.clone(), "me", Timestamp::from_second(5).unwrap());
        let (first, renewed) = (first.spec.unwrap(), renewed.spec.unwrap());
        assert_eq!(first.lease_transitions, Some(1));
        assert_eq!(renewed.lease_transitions, Some(1));
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_ne!(renewed.renew_time, first.renew_time);
    }
}
