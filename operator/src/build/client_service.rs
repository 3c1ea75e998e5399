//! The Service of clients: any ready node answers for any key.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{names, owned};
use crate::validate::ValidatedCluster;

pub(super) fn build(cluster: &ValidatedCluster) -> Service {
    Service {
        metadata: owned(cluster, cluster.name.clone()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(names::selector(&cluster.name)),
            ports: Some(ports(cluster)),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn ports(cluster: &ValidatedCluster) -> Vec<ServicePort> {
    let http = port("http", cluster.http_port, "http");
    let resp = cluster.resp.map(|resp| port("resp", resp.port, "redis"));
    std::iter::once(http).chain(resp).collect()
}

fn port(name: &str, number: u16, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}
