//! The headless Service: a name for each pod, and one for all of them as seeds.
//!
//! It publishes pods that are not ready: a node becomes ready only once it has met its peers.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{names, owned};
use crate::validate::ValidatedCluster;

pub(super) fn build(cluster: &ValidatedCluster) -> Service {
    Service {
        metadata: owned(cluster, names::peer_service(&cluster.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(&cluster.name)),
            ports: Some(vec![ServicePort {
                name: Some("peer".to_owned()),
                port: i32::from(names::PEER_PORT),
                target_port: Some(IntOrString::String("peer".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
