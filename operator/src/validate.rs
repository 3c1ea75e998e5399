//! From what was asked to what can be done: [`ValidatedCluster`] is the only input of the builders.
//!
//! The API server has refused malformed objects already; what is refused here is well-formed and not available in this
//! version. Nothing is changed for a cluster that is refused: half of a wish is worse than none.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use quorate_core::ring::Replication;

use crate::build::names;
use crate::crd::{
    Conflicts, Durability, ImageSpec, KVCluster, Mode, PodSpec, PullPolicy, Quorum, ReadModifyWrite,
    ResourcesSpec, RespSpec, StorageSpec, SyncSpec, ZonesSpec,
};
use crate::plan::quantity;

/// What the operator itself was configured with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The image of nodes whose KVCluster names none.
    pub node_image: String,
    /// Where the operator runs; its namespace may reach the admin API. None outside Kubernetes.
    pub operator_namespace: Option<String>,
}

/// A KVCluster that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCluster {
    /// Its name, a DNS label of at most 40 characters.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Owns every object that is made for it.
    pub owner: OwnerReference,
    /// Storage nodes.
    pub nodes: u16,
    /// What they run.
    pub image: Image,
    /// Q.
    pub partitions: u32,
    /// N, R and W.
    pub replication: Replication,
    /// Whose answers count.
    pub quorum: Quorum,
    /// What becomes of concurrent writes.
    pub conflicts: Conflicts,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// The volumes.
    pub storage: StorageSpec,
    /// Failure domains.
    pub zones: ZonesSpec,
    /// After what silence a node is called down.
    pub detect_after: String,
    /// How long a node must be down before it counts as lost for good.
    pub permanent_after: Duration,
    /// Whether nodes that are lost for good are replaced.
    pub auto_replace: bool,
    /// The disk whose data a person gave up, as written.
    pub accept_data_loss: Option<String>,
    /// How often replicas are compared, where it is not what a node does by itself.
    pub anti_entropy_interval: Option<String>,
    /// Bytes a second of background repair, where it is not what a node takes by itself.
    pub transfer_bytes_per_second: Option<u64>,
    /// The HTTP port of clients.
    pub http_port: u16,
    /// Where Redis clients are served, if they are.
    pub resp: Option<Resp>,
    /// The Secret with the users, if there are any.
    pub users_secret: Option<String>,
    /// CPU and memory.
    pub resources: ResourcesSpec,
    /// Passed through.
    pub pod: PodSpec,
    /// Change nothing.
    pub paused: bool,
    /// Whose namespace may reach the admin API.
    pub operator_namespace: Option<String>,
}

/// How Redis clients are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resp {
    /// Their port.
    pub port: u16,
    /// What becomes of commands that read and then write.
    pub read_modify_write: ReadModifyWrite,
}

/// A container image, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Whether the KVCluster names it; the operator's default otherwise.
    pub is_named: bool,
    /// As a container's `image`.
    pub reference: String,
    /// Where it is named: what its nodes go back to when the name is taken away.
    pub default: Option<String>,
    /// When the kubelet pulls.
    pub pull_policy: PullPolicy,
    /// Names of Secrets.
    pub pull_secrets: Vec<String>,
}

/// Why a KVCluster is not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Well-formed, but not in this version.
    #[error("{field} is not available in this version of the operator: write {instead}")]
    NotSupportedYet {
        /// What asks for it.
        field: &'static str,
        /// What to write.
        instead: &'static str,
    },
    /// The API server should have refused it: the definition in the cluster is older than the operator.
    #[error(
        "{field} is out of range; install the CustomResourceDefinition of this version, which says what to write"
    )]
    OutOfRange {
        /// What is out of range.
        field: &'static str,
    },
}

/// Makes the builders' input.
pub fn validate(cluster: &KVCluster, settings: &Settings) -> Result<ValidatedCluster, Vec<Refusal>> {
    let refusals = not_supported_yet(cluster);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    build(cluster, settings).map_err(|refusal| vec![refusal])
}

fn not_supported_yet(cluster: &KVCluster) -> Vec<Refusal> {
    let spec = &cluster.spec;
    let wishes = [
        (spec.replication.mode == Mode::Primary, "replication.mode: Primary", "mode: Leaderless"),
        (spec.protocols.udp.enabled, "protocols.udp", "enabled: false, and use HTTP or RESP"),
    ];
    let asked = wishes.into_iter().filter(|(asked, ..)| *asked);
    asked.map(|(_, field, instead)| Refusal::NotSupportedYet { field, instead }).collect()
}

fn build(cluster: &KVCluster, settings: &Settings) -> Result<ValidatedCluster, Refusal> {
    let out_of_range = |field| Refusal::OutOfRange { field };
    let spec = &cluster.spec;
    let replication = Replication {
        factor: spec.replication.factor.try_into().map_err(|_| out_of_range("replication.factor"))?,
        read_quorum: spec
            .replication
            .read_quorum
            .try_into()
            .map_err(|_| out_of_range("replication.readQuorum"))?,
        write_quorum: spec
            .replication
            .write_quorum
            .try_into()
            .map_err(|_| out_of_range("replication.writeQuorum"))?,
    };
    Ok(ValidatedCluster {
        name: cluster.name_any(),
        namespace: cluster.namespace().ok_or(out_of_range("metadata.namespace"))?,
        owner: cluster.controller_owner_ref(&()).ok_or(out_of_range("metadata.uid"))?,
        nodes: spec.nodes.try_into().map_err(|_| out_of_range("nodes"))?,
        image: image(spec.image.as_ref(), settings),
        partitions: spec.ring.partitions.try_into().map_err(|_| out_of_range("ring.partitions"))?,
        replication,
        quorum: spec.replication.quorum,
        conflicts: spec.replication.conflicts,
        durability: spec.durability,
        storage: spec.storage.clone(),
        zones: spec.zones.clone(),
        detect_after: spec.failure.detect_after.clone(),
        permanent_after: duration(&spec.failure.permanent_after)
            .ok_or(out_of_range("failure.permanentAfter"))?,
        auto_replace: spec.failure.auto_replace,
        accept_data_loss: cluster.annotations().get(names::ACCEPT_DATA_LOSS_ANNOTATION).cloned(),
        anti_entropy_interval: Some(spec.sync.anti_entropy_interval.clone())
            .filter(|interval| *interval != SyncSpec::default().anti_entropy_interval),
        transfer_bytes_per_second: transfer_rate(&spec.sync)?,
        http_port: spec.protocols.http.port.try_into().map_err(|_| out_of_range("protocols.http.port"))?,
        resp: resp(&spec.protocols.resp)?,
        users_secret: spec.users.as_ref().map(|users| users.secret_name.clone()),
        resources: spec.resources.clone(),
        pod: spec.pod.clone(),
        paused: spec.paused,
        operator_namespace: settings.operator_namespace.clone(),
    })
}

fn resp(spec: &RespSpec) -> Result<Option<Resp>, Refusal> {
    let port = spec.port.try_into().map_err(|_| Refusal::OutOfRange { field: "protocols.resp.port" })?;
    Ok(spec.enabled.then_some(Resp { port, read_modify_write: spec.read_modify_write }))
}

/// One whole number and one unit, as the definition asks for.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    })
}

/// None for the default, which is the node's own: a cluster that does not ask for another one gets no new template.
fn transfer_rate(sync: &SyncSpec) -> Result<Option<u64>, Refusal> {
    let bytes = |text: &str| quantity::bytes(text).ok_or(Refusal::OutOfRange { field: "sync.transferRate" });
    let (rate, default) = (bytes(&sync.transfer_rate)?, bytes(&SyncSpec::default().transfer_rate)?);
    Ok(Some(rate).filter(|rate| *rate != default))
}

fn image(spec: Option<&ImageSpec>, settings: &Settings) -> Image {
    let Some(spec) = spec else {
        return Image {
            is_named: false,
            reference: settings.node_image.clone(),
            default: None,
            pull_policy: PullPolicy::default(),
            pull_secrets: Vec::new(),
        };
    };
    let tag = spec.tag.iter().map(|tag| format!(":{tag}"));
    let digest = spec.digest.iter().map(|digest| format!("@{digest}"));
    Image {
        is_named: true,
        reference: std::iter::once(spec.repository.clone()).chain(tag).chain(digest).collect(),
        default: None,
        pull_policy: spec.pull_policy,
        pull_secrets: spec.pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{cluster, settings};

    #[test]
    fn the_defaults_can_be_built() {
        let validated = validate(&cluster("demo", |_| {}), &settings()).unwrap();
        assert_eq!(validated.nodes, 3);
        assert_eq!(validated.replication, Replication { factor: 3, read_quorum: 2, write_quorum: 2 });
        assert_eq!(validated.image.reference, "quorate/node:test");
    }

    #[test]
    fn what_is_not_available_yet_is_refused_all_at_once_with_what_to_write_instead() {
        let wishful = cluster("demo", |spec| {
            spec.replication.mode = Mode::Primary;
            spec.protocols.udp.enabled = true;
        });
        let refusals = validate(&wishful, &settings()).unwrap_err();
        assert_eq!(refusals.len(), 2);
        assert!(refusals[0].to_string().ends_with("write mode: Leaderless"), "{}", refusals[0]);
    }

    #[test]
    fn redis_clients_are_served_where_that_is_wished() {
        let resp = |wish: fn(&mut RespSpec)| {
            let cluster = cluster("demo", |spec| wish(&mut spec.protocols.resp));
            validate(&cluster, &settings()).map(|cluster| cluster.resp)
        };
        assert_eq!(resp(|_| {}), Ok(None), "as before there were any");
        let served = Resp { port: 7002, read_modify_write: ReadModifyWrite::Refuse };
        assert_eq!(resp(|spec| spec.enabled = true), Ok(Some(served)));
        let out_of_range = [Refusal::OutOfRange { field: "protocols.resp.port" }];
        assert_eq!(resp(|spec| spec.port = -1).unwrap_err(), out_of_range);
    }

    #[test]
    fn a_duration_is_one_number_and_one_unit() {
        let seconds = |text: &str| duration(text).map(|duration| duration.as_secs_f64());
        let cases =
            [("15m", Some(900.0)), ("500ms", Some(0.5)), ("90s", Some(90.0)), ("168h", Some(604_800.0))];
        assert!(cases.iter().all(|(text, expected)| seconds(text) == *expected), "{cases:?}");
        assert!(["", "15", "m", "1d", "1h2m", "-1s"].iter().all(|text| duration(text).is_none()));
    }

    #[test]
    fn a_transfer_rate_is_told_in_bytes_unless_it_is_the_default() {
        let rate = |text: &str| {
            let cluster = cluster("demo", |spec| spec.sync.transfer_rate = text.to_owned());
            validate(&cluster, &settings()).map(|cluster| cluster.transfer_bytes_per_second)
        };
        assert_eq!(rate("65536Ki"), Ok(None), "64Mi in other words");
        assert_eq!(rate("100M"), Ok(Some(100_000_000)));
        assert_eq!(rate("much").unwrap_err(), [Refusal::OutOfRange { field: "sync.transferRate" }]);
    }

    #[test]
    fn a_digest_stands_behind_the_tag() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let pinned = cluster("demo", |spec| {
            spec.image = Some(ImageSpec {
                repository: "registry.example.com/quorate/node".to_owned(),
                tag: Some("1.2.3".to_owned()),
                digest: Some(digest.clone()),
                pull_policy: PullPolicy::Always,
                pull_secrets: Vec::new(),
            });
        });
        let validated = validate(&pinned, &settings()).unwrap();
        assert_eq!(validated.image.reference, format!("registry.example.com/quorate/node:1.2.3@{digest}"));
    }

    #[test]
    fn numbers_that_the_definition_would_refuse_are_refused_here_too() {
        let wrong = cluster("demo", |spec| spec.nodes = -1);
        assert_eq!(validate(&wrong, &settings()).unwrap_err(), [Refusal::OutOfRange { field: "nodes" }]);
    }
}
