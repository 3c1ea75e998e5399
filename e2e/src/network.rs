//! The cluster's network: a switch and one address space a node, on this machine alone.
//!
//! ```text
//! machine 10.250.0.1 ── switch ──┬── kn1 10.250.0.11, pods 10.244.1.0/24
//!                                ├── kn2 10.250.0.12, pods 10.244.2.0/24
//!                                └── kn3 10.250.0.13, pods 10.244.3.0/24
//! ```
//!
//! The switch is a bridge in a namespace of its own, so that the machine's firewall sees nothing of what
//! nodes say to each other. Invariant: a node has no default route, so that nothing can leave.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::control_plane::SERVICE_RANGE;
use crate::error::Error;
use crate::journal::{Journal, Made, NAMESPACES};
use crate::node::Node;
use crate::run::{call, run};

/// The machine's own address, at which the control plane and the names are served.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 1);

/// The machine's link into the cluster.
const HOST_LINK: &str = "quorate0";

/// The namespace that holds the bridge.
const SWITCH: &str = "quorate-switch";

/// The bridge in it.
const BRIDGE: &str = "br0";

/// The settings of bridges, which are there when the kernel can show bridged packets to iptables.
const BRIDGE_SETTINGS: &str = "/proc/sys/net/bridge";

/// The module that makes it so, where it is not built in.
const BRIDGE_MODULE: &str = "br_netfilter";

/// Makes the switch, and connects the machine to it.
///
/// # Errors
/// When the kernel refuses a step.
pub fn make_switch(journal: &Journal) -> Result<(), Error> {
    if !Path::new(BRIDGE_SETTINGS).exists() {
        call("modprobe", &[BRIDGE_MODULE])?;
    }
    if !Path::new(NAMESPACES).exists() {
        journal.intend(&Made::Namespaces)?;
    }
    make_namespace(journal, SWITCH)?;
    ip(&format!("-n {SWITCH} link add {BRIDGE} type bridge"))?;
    ip(&format!("-n {SWITCH} link set {BRIDGE} up"))?;
    journal.intend(&Made::Link(HOST_LINK.to_owned()))?;
    ip(&format!("link add {HOST_LINK} type veth peer name host netns {SWITCH}"))?;
    plug_in("host")?;
    ip(&format!("address add {HOST}/24 dev {HOST_LINK}"))?;
    ip(&format!("link set {HOST_LINK} up"))
}

/// Makes the namespace of a node and connects it to the switch, the machine and the other nodes.
///
/// # Errors
/// When the kernel refuses a step.
pub fn make_node(journal: &Journal, node: &Node, all: &[Node]) -> Result<(), Error> {
    let name = node.name();
    make_namespace(journal, name)?;
    for setting in [
        "net/ipv4/ip_forward=1",
        "net/ipv4/conf/all/rp_filter=0",
        "net/ipv4/conf/default/rp_filter=0",
        "net/bridge/bridge-nf-call-iptables=1",
    ] {
        set(name, setting)?;
    }
    ip(&format!("link add eth0 netns {name} type veth peer name {name} netns {SWITCH}"))?;
    plug_in(name)?;
    ip(&format!("-n {name} address add {}/24 dev eth0", node.address()))?;
    ip(&format!("-n {name} link set eth0 up"))?;
    // What no rule turns into a pod's address finds nobody on the wire, and does not go round in circles.
    ip(&format!("-n {name} route add {SERVICE_RANGE} dev eth0"))?;
    ip(&format!("-n {name} route add unreachable default"))?;
    for other in all.iter().filter(|other| other.name() != name) {
        ip(&format!("-n {name} route add {} via {}", other.pods(), other.address()))?;
    }
    ip(&format!("route add {} via {}", node.pods(), node.address()))
}

/// Sends what the machine says to Services through this node, whose kube-proxy knows the way.
///
/// # Errors
/// When the kernel refuses.
pub fn reach_services_through(node: &Node) -> Result<(), Error> {
    ip(&format!("route replace {SERVICE_RANGE} via {}", node.address()))
}

/// Pulls a node's plug, as a power cut does, or puts it back.
///
/// # Errors
/// When the kernel refuses.
pub fn set_plugged(node: &Node, plugged: bool) -> Result<(), Error> {
    let state = if plugged { "up" } else { "down" };
    ip(&format!("-n {SWITCH} link set {} {state}", node.name()))
}

fn make_namespace(journal: &Journal, name: &str) -> Result<(), Error> {
    if Path::new(NAMESPACES).join(name).exists() {
        return Err(Error::Unsupported(format!(
            "a network namespace called {name} exists already and is not this cluster's: remove it with `ip netns delete {name}`"
        )));
    }
    journal.intend(&Made::Namespace(name.to_owned()))?;
    ip(&format!("netns add {name}"))?;
    ip(&format!("-n {name} link set lo up"))
}

fn plug_in(port: &str) -> Result<(), Error> {
    ip(&format!("-n {SWITCH} link set {port} master {BRIDGE} up"))
}

/// `ip netns exec` would mount another /sys; the settings belong to the namespace of who opens their files.
fn set(namespace: &str, setting: &str) -> Result<(), Error> {
    let (key, value) = setting.split_once('=').unwrap_or((setting, "1"));
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={NAMESPACES}/{namespace}"));
    run(command.args(["sh", "-c", &format!("echo {value} > /proc/sys/{key}")])).map(drop)
}

/// No word of these commands holds a space.
fn ip(arguments: &str) -> Result<(), Error> {
    call("ip", &arguments.split(' ').collect::<Vec<_>>()).map(drop)
}
