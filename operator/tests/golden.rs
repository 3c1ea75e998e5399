//! Every object that is built, as a document a person can review. A changed document is a changed cluster: after
//! reading the difference, write them anew with
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p quorate-operator --test golden
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PodTemplate;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_core::ClusterId;
use quorate_core::ring::{Member, MemberState, Replication, planner};
use quorate_operator::build::{self, Prepared, Spare};
use quorate_operator::crd::KVCluster;
use quorate_operator::validate::{Settings, ValidatedCluster, validate};
use serde::Serialize;

/// The smallest wish, one that uses every field that there was at first, one for Redis clients, and one for users.
const CLUSTERS: [(&str, &str); 4] = [
    ("minimal", include_str!("golden/minimal.in.yaml")),
    ("everything", include_str!("golden/everything.in.yaml")),
    ("redis", include_str!("golden/redis.in.yaml")),
    ("users", include_str!("golden/users.in.yaml")),
];

fn validated(input: &str) -> ValidatedCluster {
    let mut cluster: KVCluster = serde_yaml::from_str(input).unwrap();
    cluster.metadata.uid = Some("11111111-2222-3333-4444-555555555555".to_owned());
    let settings = Settings {
        node_image: "quorate/node:golden".to_owned(),
        operator_namespace: Some("quorate-system".to_owned()),
    };
    validate(&cluster, &settings).unwrap()
}

fn document(text: &mut String, object: &impl Serialize) {
    write!(text, "---\n{}", serde_yaml::to_string(object).unwrap()).unwrap();
}

/// Destructured without `..`: an object that is built is in the documents, or this does not compile.
fn documents(cluster: &ValidatedCluster) -> String {
    let Prepared {
        service_account,
        peer_service,
        client_service,
        disruption_budget,
        network_policy,
        stateful_set,
    } = build::prepare(cluster, Spare::OneNode);
    let mut text = String::new();
    document(&mut text, &service_account);
    document(&mut text, &peer_service);
    document(&mut text, &client_service);
    document(&mut text, &disruption_budget);
    document(&mut text, &network_policy);
    document(&mut text, &stateful_set);
    document(&mut text, &build::secret(cluster, [7; build::SECRET_BYTES]));
    document(&mut text, &build::ring(cluster, ClusterId::from_u128(1), None, None));
    text
}

fn check(name: &str, found: &str) {
    compare(name, found, "UPDATE_GOLDEN", "");
}

fn compare(name: &str, found: &str, update: &str, warning: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os(update).is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let line = wanted.lines().zip(found.lines()).position(|(a, b)| a != b).unwrap_or(wanted.lines().count());
    assert!(
        wanted == found,
        "{name} differs from line {}: {:?}\n{warning}If that is what you want: {update}=1 cargo test -p quorate-operator --test golden",
        line + 1,
        found.lines().nth(line)
    );
}

#[test]
fn every_object_is_as_reviewed() {
    for (name, input) in CLUSTERS {
        check(&format!("{name}.yaml"), &documents(&validated(input)));
    }
}

/// The template alone decides whether pods are restarted.
#[test]
fn an_upgrade_of_the_operator_restarts_no_node() {
    const WARNING: &str = "A changed pod template restarts every node of every cluster, one by one, as soon as the new \
                           operator runs (CloudNativePG #5950). Where a field is only for those who ask for it, leave it \
                           out for the others.\n";
    for (name, input) in CLUSTERS {
        let template = build::prepare(&validated(input), Spare::OneNode).stateful_set.spec.template;
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let found = serde_yaml::to_string(&PodTemplate { metadata, template: Some(template) }).unwrap();
        compare(&format!("{name}.pod-template.yaml"), &found, "RESTART_EVERY_CLUSTER", WARNING);
    }
}

#[test]
fn the_same_wish_gives_the_same_bytes() {
    for (_, input) in CLUSTERS {
        assert_eq!(documents(&validated(input)), documents(&validated(input)));
    }
}

/// The largest ring that the limits allow must fit into one object of the API server.
#[test]
fn the_largest_epoch_fits_into_a_config_map() {
    const CONFIG_MAP_BYTES_MAX: usize = 1 << 20;
    let members = (0..1000).map(|i| Member {
        id: quorate_core::NodeId::from_u128(i),
        name: format!("{}-{i}", "n".repeat(40)),
        address: format!("{0}-{i}.{0}-peers.{1}.svc:5000", "n".repeat(40), "s".repeat(63)),
        zone: Some("z".repeat(63)),
        weight: 100,
        state: MemberState::Active,
    });
    let replication = Replication { factor: 9, read_quorum: 5, write_quorum: 5 };
    let epoch = planner::first_epoch(ClusterId::from_u128(1), 4096, replication, members.collect()).unwrap();
    let ring = build::ring(&validated(CLUSTERS[0].1), ClusterId::from_u128(1), Some((&epoch, None)), None);
    let bytes = serde_json::to_string(&ring).unwrap().len();
    assert!(bytes < CONFIG_MAP_BYTES_MAX, "{bytes}");
}
