//! Small objects for the unit tests of several modules.

use crate::crd::{KVCluster, KVClusterSpec};
use crate::validate::{Settings, ValidatedCluster, validate};

pub(crate) fn cluster(name: &str, change: impl FnOnce(&mut KVClusterSpec)) -> KVCluster {
    let mut spec = KVClusterSpec::default();
    change(&mut spec);
    let mut cluster = KVCluster::new(name, spec);
    cluster.metadata.namespace = Some("shop".to_owned());
    cluster.metadata.uid = Some("11111111-2222-3333-4444-555555555555".to_owned());
    cluster.metadata.generation = Some(1);
    cluster
}

pub(crate) fn settings() -> Settings {
    Settings {
        node_image: "quorate/node:test".to_owned(),
        operator_namespace: Some("quorate-system".to_owned()),
    }
}

pub(crate) fn validated(name: &str, change: impl FnOnce(&mut KVClusterSpec)) -> ValidatedCluster {
    validate(&cluster(name, change), &settings()).expect("fixtures ask for what this version can do")
}
