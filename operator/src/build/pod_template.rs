//! The pod of a node: a pure function of the spec, so that an unchanged spec never changes the template.
//!
//! It passes Pod Security "restricted": not root, no privilege, no capability, a read-only root file system.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapKeySelector, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ObjectMeta;

use super::names;
use crate::crd::{Conflicts, Durability, PullPolicy, Quorum, ReadModifyWrite, ResourcesSpec, Spread};
use crate::validate::{Resp, ValidatedCluster};

const SECRET_VOLUME: &str = "secret";
const DATA_DIR: &str = "/var/lib/quorate";
const SECRET_DIR: &str = "/etc/quorate/secret";
const USERS_DIR: &str = "/etc/quorate/users";
/// The user and group of the image.
const USER: i64 = 65532;
/// Read by owner and group alone.
const SECRET_MODE: i32 = 0o440;
const DRAIN_TIMEOUT: &str = "20s";
/// Longer than the drain, or the kubelet would kill a node that is about to finish.
const TERMINATION_GRACE_SECONDS: i64 = 30;
/// How long a node may take to load its index.
const STARTUP_PROBES_MAX: i32 = 600;

pub(super) fn build(cluster: &ValidatedCluster) -> PodTemplateSpec {
    let mut labels = cluster.pod.labels.clone();
    labels.extend(names::labels(&cluster.name));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(cluster.pod.annotations.clone()).filter(|annotations| !annotations.is_empty()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(cluster)),
    }
}

fn pod(cluster: &ValidatedCluster) -> PodSpec {
    let pod = &cluster.pod;
    PodSpec {
        service_account_name: Some(cluster.name.clone()),
        automount_service_account_token: Some(false),
        // One variable for each Service of the namespace helps nobody and changes with the neighbours.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: non_empty(
            cluster.image.pull_secrets.iter().map(|name| reference(name)).collect(),
        ),
        containers: vec![container(cluster)],
        volumes: Some(volumes(cluster)),
        affinity: Some(pod.affinity.clone().unwrap_or_else(|| apart(cluster))),
        topology_spread_constraints: non_empty(spread(cluster)),
        tolerations: non_empty(pod.tolerations.clone()),
        node_selector: Some(pod.node_selector.clone()).filter(|selector| !selector.is_empty()),
        priority_class_name: pod.priority_class_name.clone(),
        runtime_class_name: pod.runtime_class_name.clone(),
        scheduler_name: pod.scheduler_name.clone(),
        ..PodSpec::default()
    }
}

fn container(cluster: &ValidatedCluster) -> Container {
    let pull_policy = match cluster.image.pull_policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    };
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(cluster.image.reference.clone()),
        image_pull_policy: Some(pull_policy.to_owned()),
        args: Some(vec!["run".to_owned()]),
        env: Some(environment(cluster)),
        ports: Some(ports(cluster)),
        startup_probe: Some(Probe { failure_threshold: Some(STARTUP_PROBES_MAX), ..probe("/healthz", 1, 2) }),
        liveness_probe: Some(Probe { failure_threshold: Some(6), ..probe("/healthz", 10, 5) }),
        readiness_probe: Some(Probe { failure_threshold: Some(2), ..probe("/readyz", 2, 2) }),
        resources: resources(&cluster.resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(cluster)),
        ..Container::default()
    }
}

/// The node's configuration. Order matters: `$(POD_NAME)` is expanded from variables that stand before.
fn environment(cluster: &ValidatedCluster) -> Vec<EnvVar> {
    let peers =
        format!("{}.{}.svc:{}", names::peer_service(&cluster.name), cluster.namespace, names::PEER_PORT);
    let durability = match cluster.durability {
        Durability::Sync => "sync",
        Durability::Interval => "interval",
        Durability::Memory => "memory",
    };
    let conflicts = match cluster.conflicts {
        Conflicts::Siblings => "siblings",
        Conflicts::LastWriteWins => "last-write-wins",
    };
    let mut variables = vec![
        from_field("POD_NAME", "metadata.name"),
        from_ring(cluster, "QUORATE_CLUSTER_ID", names::CLUSTER_ID_KEY),
        value("QUORATE_NAME", "$(POD_NAME)"),
        value("QUORATE_ADVERTISE", &format!("$(POD_NAME).{peers}")),
        value("QUORATE_SEEDS", &peers),
        value("QUORATE_DATA_DIR", DATA_DIR),
        value("QUORATE_SECRET_FILE", &format!("{SECRET_DIR}/{}", names::SECRET_KEY)),
        value("QUORATE_PEER_LISTEN", &format!("0.0.0.0:{}", names::PEER_PORT)),
        value("QUORATE_HTTP_LISTEN", &format!("0.0.0.0:{}", cluster.http_port)),
        value("QUORATE_DURABILITY", durability),
        value("QUORATE_CONFLICTS", conflicts),
        value("QUORATE_DETECT_AFTER", &cluster.detect_after),
        value("QUORATE_DRAIN_TIMEOUT", DRAIN_TIMEOUT),
        value("QUORATE_LOG_FORMAT", "json"),
    ];
    // What is a node's own default is not said: a new variable would be a new template for every cluster there is.
    if cluster.quorum == Quorum::Sloppy {
        variables.push(value("QUORATE_QUORUM", "sloppy"));
    }
    if let Some(Resp { port, read_modify_write }) = cluster.resp {
        variables.push(value("QUORATE_RESP_LISTEN", &format!("0.0.0.0:{port}")));
        if read_modify_write == ReadModifyWrite::BestEffort {
            variables.push(value("QUORATE_RESP_READ_MODIFY_WRITE", "best-effort"));
        }
    }
    if cluster.users_secret.is_some() {
        variables.push(value("QUORATE_USERS_FILE", &format!("{USERS_DIR}/{}", names::USERS_KEY)));
    }
    let interval = cluster.anti_entropy_interval.as_deref();
    variables.extend(interval.map(|interval| value("QUORATE_ANTI_ENTROPY_INTERVAL", interval)));
    let rate = cluster.transfer_bytes_per_second;
    variables.extend(rate.map(|bytes| value("QUORATE_TRANSFER_RATE", &bytes.to_string())));
    variables
}

fn value(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), api_version: Some("v1".to_owned()) };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// The identity is read from the ConfigMap by the kubelet, so that it is no part of the template.
fn from_ring(cluster: &ValidatedCluster, name: &str, key: &str) -> EnvVar {
    let key =
        ConfigMapKeySelector { name: names::ring(&cluster.name), key: key.to_owned(), optional: Some(false) };
    let source = EnvVarSource { config_map_key_ref: Some(key), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// The port of Redis clients is there only where it is asked for: a template without that wish stays as it was.
fn ports(cluster: &ValidatedCluster) -> Vec<ContainerPort> {
    let resp = cluster.resp.map(|resp| port("resp", resp.port));
    let always = [port("http", cluster.http_port), port("peer", names::PEER_PORT)];
    always.into_iter().chain(resp).collect()
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, timeout_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("peer".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(timeout_seconds),
        ..Probe::default()
    }
}

fn resources(spec: &ResourcesSpec) -> Option<ResourceRequirements> {
    let ResourcesSpec { limits, requests } = spec.clone();
    let limits = Some(limits).filter(|limits| !limits.is_empty());
    let requests = Some(requests).filter(|requests| !requests.is_empty());
    let given = limits.is_some() || requests.is_some();
    given.then(|| ResourceRequirements { limits, requests, ..ResourceRequirements::default() })
}

fn mounts(cluster: &ValidatedCluster) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    let users = cluster.users_secret.as_ref().map(|_| mount(names::USERS_VOLUME, USERS_DIR, Some(true)));
    let always = [mount(names::DATA_VOLUME, DATA_DIR, None), mount(SECRET_VOLUME, SECRET_DIR, Some(true))];
    always.into_iter().chain(users).collect()
}

fn volumes(cluster: &ValidatedCluster) -> Vec<Volume> {
    let users = cluster.users_secret.as_deref().map(|secret| secret_volume(names::USERS_VOLUME, secret));
    std::iter::once(secret_volume(SECRET_VOLUME, &names::secret(&cluster.name))).chain(users).collect()
}

fn secret_volume(name: &str, secret: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(SECRET_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Distinct machines where there are enough; never a reason not to run.
fn apart(cluster: &ValidatedCluster) -> Affinity {
    let term = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            topology_key: "kubernetes.io/hostname".to_owned(),
            label_selector: Some(siblings(cluster)),
            ..PodAffinityTerm::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// The zones of `spec.zones`, and what the pod section adds. One key and action may be named only once: the pod
/// section's own word wins.
fn spread(cluster: &ValidatedCluster) -> Vec<TopologySpreadConstraint> {
    let added = &cluster.pod.topology_spread_constraints;
    let zones = zone_spread(cluster).filter(|zones| {
        !added.iter().any(|own| {
            own.topology_key == zones.topology_key && own.when_unsatisfiable == zones.when_unsatisfiable
        })
    });
    zones.into_iter().chain(added.iter().cloned()).collect()
}

fn zone_spread(cluster: &ValidatedCluster) -> Option<TopologySpreadConstraint> {
    let when_unsatisfiable = match cluster.zones.spread {
        Spread::Disabled => return None,
        Spread::Preferred => "ScheduleAnyway",
        Spread::Required => "DoNotSchedule",
    };
    Some(TopologySpreadConstraint {
        max_skew: 1,
        topology_key: cluster.zones.topology_key.clone(),
        when_unsatisfiable: when_unsatisfiable.to_owned(),
        label_selector: Some(siblings(cluster)),
        ..TopologySpreadConstraint::default()
    })
}

fn siblings(cluster: &ValidatedCluster) -> LabelSelector {
    LabelSelector { match_labels: Some(names::selector(&cluster.name)), ..LabelSelector::default() }
}

fn reference(name: &str) -> LocalObjectReference {
    LocalObjectReference { name: name.to_owned() }
}

fn non_empty<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}
