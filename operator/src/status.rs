//! What is said about a cluster, from what was observed, decided and done. Pure.
//!
//! A status that says the same as before is the same value, so that it is not written again: no times but those of
//! transitions, no error texts that differ from one try to the next, and sizes are rounded.

mod ring;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::events::EventType;
use quorate_core::ring::Epoch;

use crate::apply::ApplyError;
use crate::build::names;
use crate::crd::{KVCluster, KVClusterStatus, NodeState, Phase, RingStatus};
use crate::observe::{Observed, RingState};
use crate::plan::{Finding, Reason, Weight};
use crate::validate::Refusal;

/// A message may hold what the API server said, which can be a page.
const MESSAGE_CHARS_MAX: usize = 1024;

/// Something that a person may want to hear of once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Normal or Warning.
    pub type_: EventType,
    /// Why, in one word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl Notice {
    /// As it should be.
    pub fn normal(reason: &str, note: String) -> Self {
        Self { type_: EventType::Normal, reason: reason.to_owned(), note }
    }

    /// Worth a look.
    pub fn warning(reason: &str, note: String) -> Self {
        Self { type_: EventType::Warning, reason: reason.to_owned(), note }
    }
}

/// What one pass came to.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// What was observed.
    pub observed: &'a Observed,
    /// What the plan said.
    pub findings: Vec<Finding>,
    /// How many actions were carried out or tried.
    pub actions: usize,
    /// What failed, if anything.
    pub failure: Option<&'a ApplyError>,
}

impl Outcome<'_> {
    fn first(&self, weight: Weight) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.reason.weight() == weight)
    }

    /// The sentence of all findings of a weight.
    fn all(&self, weight: Weight) -> String {
        let messages = self.findings.iter().filter(|finding| finding.reason.weight() == weight);
        messages.map(|finding| finding.message.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// What is wrong, in one word and in a sentence.
    fn problem(&self) -> Option<(String, String)> {
        // A conflict and a node that does not take the epoch yet pass by themselves.
        let refused = match self.failure {
            Some(error @ ApplyError::Refused { .. }) => Some(("ApplyFailed".to_owned(), error.to_string())),
            _ => None,
        };
        refused.or_else(|| Some((self.first(Weight::Problem)?.reason.to_string(), self.all(Weight::Problem))))
    }
}

/// The findings of a cluster that is not built.
pub fn refused(refusals: &[Refusal]) -> Vec<Finding> {
    let reason = |refusal: &Refusal| match refusal {
        Refusal::NotSupportedYet { .. } => Reason::NotSupportedYet,
        Refusal::OutOfRange { .. } => Reason::InvalidSpec,
    };
    refusals.iter().map(|refusal| Finding { reason: reason(refusal), message: refusal.to_string() }).collect()
}

/// The status that follows.
pub fn status(cluster: &KVCluster, outcome: &Outcome<'_>, now: Timestamp) -> KVClusterStatus {
    let observed = outcome.observed;
    let epoch = match &observed.ring {
        RingState::Present(ring) => ring.epoch.as_deref(),
        RingState::Absent | RingState::Malformed(_) => None,
    };
    let members = ring::members(epoch, observed);
    let ring = ring::ring(epoch, cluster, observed);
    let ready_nodes = count(members.iter().filter(|member| member.state == Some(NodeState::Serving)));
    let view = View { outcome, epoch, ring: &ring, ready_nodes };
    let old = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = cluster.metadata.generation;
    KVClusterStatus {
        observed_generation: generation,
        phase: Some(view.phase(cluster.spec.paused)),
        nodes: count(observed.pods.iter()),
        ready_nodes,
        selector: Some(names::selector_text(&cluster.name_any())),
        conditions: view
            .conditions(cluster.spec.paused)
            .into_iter()
            .map(|said| condition(said, old, generation, now))
            .collect(),
        ring: Some(ring),
        members,
    }
}

/// What changed that a person may want to hear of.
pub fn transitions(old: Option<&KVClusterStatus>, new: &KVClusterStatus) -> Vec<Notice> {
    let before = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    new.conditions
        .iter()
        .filter_map(|now| transition(before.iter().find(|c| c.type_ == now.type_), now))
        .collect()
}

fn transition(before: Option<&Condition>, now: &Condition) -> Option<Notice> {
    let was = before.map(|condition| condition.status.as_str());
    let changed = was != Some(now.status.as_str());
    let reason_changed = before.is_some_and(|condition| condition.reason != now.reason);
    let message = now.message.clone();
    match (now.type_.as_str(), now.status.as_str()) {
        ("Ready", "True") if changed => Some(Notice::normal("Ready", message)),
        ("Available", "False") if was == Some("True") => Some(Notice::warning(&now.reason, message)),
        ("Degraded", "True") if changed || reason_changed => Some(Notice::warning(&now.reason, message)),
        ("Degraded", "False") if was == Some("True") => Some(Notice::normal("Recovered", message)),
        ("Paused", "True") if changed => Some(Notice::normal("Paused", message)),
        ("Paused", "False") if was == Some("True") => Some(Notice::normal("Resumed", message)),
        ("Progressing", "False") if is_refusal(&now.reason) && (changed || reason_changed) => {
            Some(Notice::warning(&now.reason, message))
        }
        _ => None,
    }
}

fn is_refusal(reason: &str) -> bool {
    [
        Reason::ChangeNotSupported,
        Reason::VolumesCannotGrow,
        Reason::NotSupportedYet,
        Reason::InvalidSpec,
        Reason::BelowFactor,
        Reason::DataLossRefused,
    ]
    .iter()
    .any(|r| r.to_string() == reason)
}

/// A condition before it has times.
struct Said {
    type_: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

fn say(
    type_: &'static str,
    status: &'static str,
    reason: impl Into<String>,
    message: impl Into<String>,
) -> Said {
    Said { type_, status, reason: reason.into(), message: message.into() }
}

fn condition(said: Said, old: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
    let same = old.iter().find(|c| c.type_ == said.type_ && c.status == said.status);
    Condition {
        type_: said.type_.to_owned(),
        status: said.status.to_owned(),
        reason: said.reason,
        message: said.message.chars().take(MESSAGE_CHARS_MAX).collect(),
        observed_generation: generation,
        // Stored with whole seconds: a finer time would differ from what is read back.
        last_transition_time: same
            .map_or_else(|| Time(whole_seconds(now)), |c| c.last_transition_time.clone()),
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

struct View<'a> {
    outcome: &'a Outcome<'a>,
    epoch: Option<&'a Epoch>,
    ring: &'a RingStatus,
    ready_nodes: i32,
}

impl View<'_> {
    fn conditions(&self, paused: bool) -> [Said; 5] {
        [self.ready(), self.available(), self.progressing(), self.degraded(), said_paused(paused)]
    }

    fn ready(&self) -> Said {
        let members = self.epoch.map(ring::member_count).unwrap_or_default();
        if let Some((reason, message)) = self.outcome.problem() {
            return say("Ready", "False", reason, message);
        }
        if self.epoch.is_some() && self.ready_nodes == members {
            return say("Ready", "True", "AllNodesReady", format!("{members} of {members} nodes are ready"));
        }
        match self.outcome.first(Weight::Waiting).or(self.outcome.first(Weight::Refused)) {
            Some(finding) if self.epoch.is_none() => {
                say("Ready", "False", finding.reason.to_string(), finding.message.clone())
            }
            _ if self.epoch.is_none() => say("Ready", "False", "Creating", "the ring is being made"),
            _ => say(
                "Ready",
                "False",
                "NodesNotReady",
                format!("{} of {members} nodes are ready{}", self.ready_nodes, self.unready()),
            ),
        }
    }

    /// What the first of the nodes that are not ready says of it.
    fn unready(&self) -> String {
        let says = self.outcome.observed.pods.iter().find_map(|pod| {
            let reason = pod.status()?.health.reason.as_ref()?;
            Some(format!("; {}: {reason}", pod.name))
        });
        says.unwrap_or_default()
    }

    /// Unknown is neither yes nor no: where no node answers the operator, clients may still reach them.
    fn available(&self) -> Said {
        let RingStatus { partitions, partitions_at_quorum, .. } = self.ring;
        if self.epoch.is_none() {
            return say("Available", "False", "NoEpoch", "the first epoch is not committed yet");
        }
        if self.outcome.observed.pods.iter().all(|pod| pod.status().is_none()) {
            return say(
                "Available",
                "Unknown",
                Reason::MembersSilent.to_string(),
                "no node answers the operator",
            );
        }
        if partitions_at_quorum == partitions {
            return say(
                "Available",
                "True",
                "QuorumEverywhere",
                format!("all {partitions} partitions are at quorum"),
            );
        }
        let message = format!("{partitions_at_quorum} of {partitions} partitions are at quorum");
        say("Available", "False", "QuorumLost", message)
    }

    fn progressing(&self) -> Said {
        if let Some(finding) = self.outcome.first(Weight::Refused) {
            return say(
                "Progressing",
                "False",
                finding.reason.to_string(),
                self.outcome.all(Weight::Refused),
            );
        }
        if let Some(finding) = self.outcome.first(Weight::Waiting) {
            return say("Progressing", "True", finding.reason.to_string(), self.outcome.all(Weight::Waiting));
        }
        if self.outcome.actions > 0 {
            return say("Progressing", "True", "Applying", "objects are being brought to what the spec says");
        }
        say("Progressing", "False", "Converged", "everything is as the spec says")
    }

    fn degraded(&self) -> Said {
        match self.outcome.problem() {
            Some((reason, message)) => say("Degraded", "True", reason, message),
            None => say("Degraded", "False", "AsExpected", "nothing is wrong"),
        }
    }

    /// The worst that holds.
    fn phase(&self, paused: bool) -> Phase {
        let refused = self.outcome.first(Weight::Refused).is_some();
        let problem = self.outcome.problem().is_some();
        let available = self.available().status != "False";
        match self.epoch {
            _ if paused => Phase::Paused,
            None if refused => Phase::Refused,
            None if problem => Phase::Degraded,
            None => Phase::Creating,
            Some(_) if !available => Phase::Unavailable,
            Some(_) if problem => Phase::Degraded,
            Some(_) if refused => Phase::Refused,
            Some(_) if self.ready().status == "True" && self.progressing().status == "False" => Phase::Ready,
            Some(_) => Phase::Progressing,
        }
    }
}

fn said_paused(paused: bool) -> Said {
    if paused {
        say(
            "Paused",
            "True",
            "PausedBySpec",
            "spec.paused is true: nothing is changed, and this status is kept up to date",
        )
    } else {
        say("Paused", "False", "NotPaused", "changes are carried out")
    }
}

fn count(items: impl Iterator) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::KVClusterSpec;
    use crate::fixtures::{at_rest, before_the_first_epoch, cluster, says, settings, validated};
    use crate::observe::NodeAnswer;
    use crate::plan::decide;
    use crate::validate::validate;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The status of a cluster whose plan was carried out.
    fn status_of(cluster: &KVCluster, observed: &Observed, now: Timestamp) -> KVClusterStatus {
        let (findings, actions) = match validate(cluster, &settings()) {
            Ok(validated) => {
                let plan = decide(&validated, observed);
                let steps = plan.steps();
                (plan.findings, steps)
            }
            Err(refusals) => (refused(&refusals), 0),
        };
        status(cluster, &Outcome { observed, findings, actions, failure: None }, now)
    }

    fn words(status: &KVClusterStatus) -> String {
        let conditions: Vec<String> = status
            .conditions
            .iter()
            .map(|condition| format!("{}/{}", condition.status, condition.reason))
            .collect();
        format!("{:?} {}", status.phase.unwrap(), conditions.join(" "))
    }

    type Wish = fn(&mut KVClusterSpec);
    type Fate = fn(&mut Observed);

    fn silent(observed: &mut Observed, ordinals: &[usize]) {
        for ordinal in ordinals {
            observed.pods[*ordinal].node = NodeAnswer::Silent("refused".to_owned());
        }
    }

    /// Phase, then Ready, Available, Progressing, Degraded and Paused.
    #[test]
    fn what_is_said_of_what_is_seen() {
        let as_is: Wish = |_| {};
        let cases: [(Wish, Fate, &str); 10] = [
            (
                as_is,
                |_| {},
                "Ready True/AllNodesReady True/QuorumEverywhere False/Converged False/AsExpected False/NotPaused",
            ),
            (
                as_is,
                |seen| seen.pods[0].ready = false,
                "Progressing False/NodesNotReady True/QuorumEverywhere False/Converged False/AsExpected False/NotPaused",
            ),
            (
                as_is,
                |seen| silent(seen, &[0]),
                "Degraded False/MembersSilent True/QuorumEverywhere False/Converged True/MembersSilent False/NotPaused",
            ),
            (
                as_is,
                |seen| silent(seen, &[0, 1]),
                "Unavailable False/MembersSilent False/QuorumLost False/Converged True/MembersSilent False/NotPaused",
            ),
            (
                as_is,
                |seen| silent(seen, &[0, 1, 2]),
                "Degraded False/MembersSilent Unknown/MembersSilent False/Converged True/MembersSilent False/NotPaused",
            ),
            (
                as_is,
                |seen| says(seen, 0, |node| node.epoch = None),
                "Progressing False/NodesNotReady True/QuorumEverywhere True/PushingEpoch False/AsExpected False/NotPaused",
            ),
            (
                |spec| spec.nodes = 5,
                |_| {},
                "Progressing True/AllNodesReady True/QuorumEverywhere True/WaitingForNodes False/AsExpected False/NotPaused",
            ),
            (
                |spec| spec.replication.read_quorum = 3,
                |_| {},
                "Refused True/AllNodesReady True/QuorumEverywhere False/ChangeNotSupported False/AsExpected False/NotPaused",
            ),
            (
                |spec| spec.protocols.udp.enabled = true,
                |_| {},
                "Refused True/AllNodesReady True/QuorumEverywhere False/NotSupportedYet False/AsExpected False/NotPaused",
            ),
            (
                |spec| spec.paused = true,
                |_| {},
                "Paused True/AllNodesReady True/QuorumEverywhere False/Converged False/AsExpected True/PausedBySpec",
            ),
        ];
        for (wish, fate, expected) in cases {
            let mut observed = at_rest(&validated("demo", |_| {}));
            fate(&mut observed);
            assert_eq!(words(&status_of(&cluster("demo", wish), &observed, at(0))), expected);
        }
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let mut observed = at_rest(&validated("demo", |_| {}));
        observed.pods[1].ready = false;
        says(&mut observed, 1, |node| {
            node.health.reason = Some("no partition has a quorum of owners up".to_owned())
        });
        let status = status_of(&cluster("demo", |_| {}), &observed, at(0));
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(ready.message, "2 of 3 nodes are ready; demo-1: no partition has a quorum of owners up");
    }

    #[test]
    fn a_new_cluster_is_creating_and_not_degraded() {
        let observed = before_the_first_epoch(&validated("demo", |_| {}));
        for observed in [Observed::default(), observed] {
            let status = status_of(&cluster("demo", |_| {}), &observed, at(0));
            assert_eq!(status.phase, Some(Phase::Creating));
            assert!(words(&status).ends_with("False/AsExpected False/NotPaused"), "{}", words(&status));
        }
    }

    #[test]
    fn a_status_that_says_the_same_is_the_same() {
        let observed = at_rest(&validated("demo", |_| {}));
        let mut demo = cluster("demo", |_| {});
        let first = status_of(&demo, &observed, at(100));
        // As it comes back from the API server.
        let stored = serde_json::from_value(serde_json::to_value(&first).unwrap()).unwrap();
        demo.status = Some(stored);
        assert_eq!(status_of(&demo, &observed, at(200)), first);
        assert_eq!(transitions(demo.status.as_ref(), &first), []);
    }

    #[test]
    fn the_time_of_a_transition_is_that_of_its_change() {
        let mut observed = at_rest(&validated("demo", |_| {}));
        let mut demo = cluster("demo", |_| {});
        demo.status = Some(status_of(&demo, &observed, at(100)));
        silent(&mut observed, &[0]);
        let later = status_of(&demo, &observed, at(200));
        let times: Vec<(&str, i64)> = later
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.last_transition_time.0.as_second()))
            .collect();
        assert_eq!(
            times,
            [("Ready", 200), ("Available", 100), ("Progressing", 100), ("Degraded", 200), ("Paused", 100)]
        );
    }

    #[test]
    fn people_hear_once_of_what_begins_and_ends() {
        let mut observed = at_rest(&validated("demo", |_| {}));
        let mut demo = cluster("demo", |_| {});
        let well = status_of(&demo, &observed, at(100));
        assert_eq!(reasons(&transitions(None, &well)), ["Ready"]);
        demo.status = Some(well);
        silent(&mut observed, &[0, 1]);
        let ill = status_of(&demo, &observed, at(200));
        assert_eq!(reasons(&transitions(demo.status.as_ref(), &ill)), ["QuorumLost", "MembersSilent"]);
        demo.status = Some(ill);
        let well = status_of(&demo, &at_rest(&validated("demo", |_| {})), at(300));
        assert_eq!(reasons(&transitions(demo.status.as_ref(), &well)), ["Ready", "Recovered"]);
    }

    fn reasons(notices: &[Notice]) -> Vec<&str> {
        notices.iter().map(|notice| notice.reason.as_str()).collect()
    }

    #[test]
    fn what_the_api_server_refused_is_said_and_a_conflict_is_not() {
        let observed = at_rest(&validated("demo", |_| {}));
        let demo = cluster("demo", |_| {});
        let say = |failure: &ApplyError| {
            let outcome =
                Outcome { observed: &observed, findings: Vec::new(), actions: 1, failure: Some(failure) };
            words(&status(&demo, &outcome, at(0)))
        };
        let refused =
            ApplyError::Refused { what: "StatefulSet demo".to_owned(), message: "is immutable".to_owned() };
        assert!(say(&refused).contains("True/ApplyFailed"), "{}", say(&refused));
        let conflict = ApplyError::Conflict { what: "ConfigMap demo-ring".to_owned() };
        assert!(say(&conflict).contains("False/AsExpected"), "{}", say(&conflict));
    }
}
