//! What things are called. Every name derives from the KVCluster's, so that a person finds them without a map.

use std::collections::BTreeMap;

/// The port of peers, the admin API, health and metrics.
pub const PEER_PORT: u16 = 5000;
/// The key of the secret's value.
pub const SECRET_KEY: &str = "secret";
/// The key of the users' file, in the Secret that the KVCluster names.
pub const USERS_KEY: &str = "users.yaml";
/// The volume of that Secret.
pub const USERS_VOLUME: &str = "users";
/// The key of the committed epoch.
pub const EPOCH_KEY: &str = "epoch.json";
/// The key of the cluster's identity.
pub const CLUSTER_ID_KEY: &str = "cluster-id";
/// The key of what the committed epoch is for.
pub const CHANGE_KEY: &str = "change";
/// On a volume claim: the ring that the disk on it belongs to.
pub const CLUSTER_ID_ANNOTATION: &str = "quorate.dev/cluster-id";
/// On a volume claim: the disk on it.
pub const NODE_ID_ANNOTATION: &str = "quorate.dev/node-id";
/// On a KVCluster: the one disk whose data is given up.
pub const ACCEPT_DATA_LOSS_ANNOTATION: &str = "quorate.dev/accept-data-loss";
/// The volume of a node's pod, and the template of its claim.
pub const DATA_VOLUME: &str = "data";
/// The container of a node's pod.
pub const CONTAINER: &str = "node";
/// The label that selects the pods of one KVCluster, together with [`NAME_LABEL`].
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// The label of everything that belongs to Quorate.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// The label of everything that this operator made.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`], the field manager and the name of the Lease.
pub const OPERATOR: &str = "quorate-operator";

/// The annotation of the StatefulSet of a KVCluster that names no image: the operator's default of back then.
pub const DEFAULT_IMAGE: &str = "quorate.dev/default-image";
/// What `kubectl rollout restart` writes into the template of pods.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The headless Service through which peers find each other.
pub fn peer_service(cluster: &str) -> String {
    format!("{cluster}-peers")
}

/// The Secret with the cluster's secret.
pub fn secret(cluster: &str) -> String {
    format!("{cluster}-secret")
}

/// The ConfigMap with the committed epoch.
pub fn ring(cluster: &str) -> String {
    format!("{cluster}-ring")
}

/// The pod with a number.
pub fn pod(cluster: &str, ordinal: u16) -> String {
    format!("{cluster}-{ordinal}")
}

/// What the names of the pods' volume claims begin with: the StatefulSet controller makes them so.
pub fn claim_prefix(cluster: &str) -> String {
    format!("{DATA_VOLUME}-{cluster}-")
}

/// The number of a pod of the StatefulSet, by its name.
pub fn ordinal(cluster: &str, pod: &str) -> Option<u16> {
    pod.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
}

/// What selects the pods of a cluster. Never changes: it is part of the StatefulSet's immutable selector.
pub fn selector(cluster: &str) -> BTreeMap<String, String> {
    [(NAME_LABEL, "quorate"), (INSTANCE_LABEL, cluster), ("app.kubernetes.io/component", "node")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The labels of every object of a cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    let mut labels = selector(cluster);
    labels.insert(MANAGED_BY_LABEL.to_owned(), OPERATOR.to_owned());
    labels
}

/// The selector as one string, for lists and the scale subresource.
pub fn selector_text(cluster: &str) -> String {
    let pairs: Vec<String> =
        selector(cluster).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}
