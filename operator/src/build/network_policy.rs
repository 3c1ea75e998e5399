//! Who may talk to the nodes: clients to the client ports; peers, the operator and namespaces that scrape metrics to the
//! peer port.
//!
//! The peer and admin protocols ask for the secret as well; this is the outer wall. What leaves the pods is not
//! restricted: they need DNS, whose address differs from cluster to cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{names, owned};
use crate::validate::ValidatedCluster;

/// A namespace with this label may scrape `/metrics`.
const SCRAPE_LABEL: (&str, &str) = ("quorate.dev/scrape", "true");

pub(super) fn build(cluster: &ValidatedCluster) -> NetworkPolicy {
    let operator = cluster.operator_namespace.as_deref();
    let operator = operator.map(|namespace| namespace_with("kubernetes.io/metadata.name", namespace));
    let inner: Vec<NetworkPolicyPeer> = [peers(cluster)]
        .into_iter()
        .chain(operator)
        .chain([namespace_with(SCRAPE_LABEL.0, SCRAPE_LABEL.1)])
        .collect();
    NetworkPolicy {
        metadata: owned(cluster, cluster.name.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(names::selector(&cluster.name))),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule { from: None, ports: Some(clients(cluster)) },
                NetworkPolicyIngressRule { from: Some(inner), ports: Some(vec![tcp("peer")]) },
            ]),
            egress: None,
        }),
    }
}

fn clients(cluster: &ValidatedCluster) -> Vec<NetworkPolicyPort> {
    std::iter::once(tcp("http")).chain(cluster.resp.map(|_| tcp("resp"))).collect()
}

fn peers(cluster: &ValidatedCluster) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(selector(names::selector(&cluster.name))),
        ..NetworkPolicyPeer::default()
    }
}

fn namespace_with(label: &str, value: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(selector([(label.to_owned(), value.to_owned())].into())),
        ..NetworkPolicyPeer::default()
    }
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn tcp(port: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::String(port.to_owned())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}
