//! One Kubernetes node: namespaces of this machine with a kubelet, containerd and kube-proxy inside.
//!
//! Invariant: one process is the node. When it is killed the kernel kills everything in its namespaces, and
//! what was in memory is gone, as in a power cut; its disk and its address stay for the next start.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::certs::{Authority, Subject};
use crate::cgroup;
use crate::control_plane::{ControlPlane, POD_RANGE};
use crate::error::{Doing, Error};
use crate::journal::{Journal, NAMESPACES};
use crate::layout::Layout;
use crate::network;
use crate::process::{self, Lifetime, Place, Process};
use crate::run::{run, wait_until};

/// The image of the process that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "quorate.dev/pause:1";

/// What a node's first process does.
const INIT: &str = include_str!("init.sh");

/// Folders that a node puts its own in place of; they must be there to be covered.
const COVERED: &[&str] = &["/var/log/pods", "/var/log/containers", "/var/lib/kubelet", "/var/lib/cni"];

/// How long containerd may take to answer after the start of its node.
const CONTAINERD_SECONDS_MAX: Duration = Duration::from_secs(60);

/// A node of the cluster. Its number, from 1, decides its name, addresses and zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    number: u8,
    name: &'static str,
    zone: &'static str,
}

/// The nodes of every cluster.
pub const NODES: [Node; 3] = [
    Node { number: 1, name: "kn1", zone: "zone-a" },
    Node { number: 2, name: "kn2", zone: "zone-b" },
    Node { number: 3, name: "kn3", zone: "zone-c" },
];

/// The programs that a node runs.
#[derive(Debug)]
pub struct Programs<'a> {
    /// The folder of containerd and its helpers.
    pub tools: &'a Path,
    /// The program of all Kubernetes components.
    pub kubernetes: &'a Path,
    /// The image archive of [`PAUSE_IMAGE`].
    pub pause: &'a Path,
}

impl Node {
    /// The node of that name.
    ///
    /// # Errors
    /// When there is none, with the names that there are.
    pub fn named(name: &str) -> Result<Self, Error> {
        let names = || NODES.map(|node| node.name).join(", ");
        NODES
            .into_iter()
            .find(|node| node.name == name)
            .ok_or_else(|| Error::Unsupported(format!("no node is called {name}: there are {}", names())))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 250, 0, 10 + self.number)
    }

    /// The range of its pods' addresses.
    pub fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// Makes what a node needs before it starts for the first time.
    ///
    /// # Errors
    /// When a step fails.
    pub fn prepare(
        &self,
        control_plane: &ControlPlane<'_>,
        authority: &Authority,
        journal: &Journal,
        programs: &Programs<'_>,
    ) -> Result<(), Error> {
        let folder = control_plane.layout.node(self.name);
        fs::create_dir_all(folder.join("cni")).doing(|| format!("making {}", folder.display()))?;
        cgroup::make(journal, self.name)?;
        COVERED.iter().try_for_each(|covered| journal.make_folder(Path::new(covered)))?;
        self.make_certificates(control_plane, authority)?;
        for (file, text) in [
            ("init.sh", INIT.to_owned()),
            ("resolv.conf", String::new()),
            ("containerd.toml", containerd(&folder, programs.tools)),
            ("cni/10-quorate.conflist", self.cni().to_string()),
            ("kubelet.json", self.kubelet(&folder, control_plane.layout).to_string()),
            ("proxy.json", self.proxy(control_plane.layout).to_string()),
        ] {
            fs::write(folder.join(file), text).doing(|| format!("writing {file} of {}", self.name))?;
        }
        Ok(())
    }

    fn make_certificates(
        &self,
        control_plane: &ControlPlane<'_>,
        authority: &Authority,
    ) -> Result<(), Error> {
        let user = format!("system:node:{}", self.name);
        let subject = Subject {
            file: self.name,
            user: &user,
            group: Some("system:nodes"),
            dns: &[self.name],
            addresses: &[self.address().into()],
        };
        control_plane.kubeconfig(authority, &subject)
    }

    /// Starts the node and waits until its containerd answers.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub fn start(&self, layout: &Layout, programs: &Programs<'_>) -> Result<(), Error> {
        if self.process(layout)?.is_some_and(Process::is_alive) {
            return Ok(());
        }
        network::set_plugged(self, true)?;
        let folder = layout.node(self.name);
        let setting = |name: &str, value: &str| format!("{name}={value}");
        let path = |path: &Path| path.display().to_string();
        let labels = format!("topology.kubernetes.io/zone={},topology.kubernetes.io/region=r1", self.zone);
        let mut arguments: Vec<String> = [format!("--net={NAMESPACES}/{}", self.name)].into();
        arguments.extend(
            "unshare -m -p -u -f --mount-proc --propagation private --kill-child=KILL env"
                .split(' ')
                .map(str::to_owned),
        );
        arguments.extend([
            setting("NODE", self.name),
            setting("FOLDER", &path(&folder)),
            setting("TOOLS", &path(programs.tools)),
            setting("KUBERNETES", &path(programs.kubernetes)),
            setting("PAUSE", &path(programs.pause)),
            setting("CREDENTIALS", &path(&layout.kubeconfig_of(self.name))),
            setting("ADDRESS", &self.address().to_string()),
            setting("LABELS", &labels),
            "sh".to_owned(),
            path(&folder.join("init.sh")),
        ]);
        let place = Place { pid_file: &layout.pid(self.name), log: &layout.log(self.name) };
        process::start(&place, Lifetime::Detached, Path::new("nsenter"), &arguments)?;
        let hint = format!("see {}", folder.join("logs").display());
        wait_until(&format!("containerd of {}", self.name), CONTAINERD_SECONDS_MAX, &hint, || {
            Ok(self.containerd(layout, programs.tools, &["version"]).is_ok())
        })
    }

    /// Kills the node, as a power cut does.
    ///
    /// # Errors
    /// When it outlives the kill.
    pub fn kill(&self, layout: &Layout) -> Result<(), Error> {
        network::set_plugged(self, false)?;
        self.process(layout)?.map_or(Ok(()), Process::kill)
    }

    /// The one process that is the node, running or not.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn process(&self, layout: &Layout) -> Result<Option<Process>, Error> {
        Process::recorded(&layout.pid(self.name))
    }

    /// Imports an image archive into the node.
    ///
    /// # Errors
    /// When the node does not run or containerd refuses it.
    pub fn import(&self, layout: &Layout, tools: &Path, archive: &Path) -> Result<(), Error> {
        self.containerd(layout, tools, &["images", "import", &archive.display().to_string()]).map(drop)
    }

    /// Runs `ctr` inside the node's mounts, where containerd's socket is.
    fn containerd(&self, layout: &Layout, tools: &Path, arguments: &[&str]) -> Result<String, Error> {
        let inside = self.process(layout)?.and_then(|process| process.children().first().copied());
        let inside =
            inside.ok_or_else(|| Error::Ended { name: self.name.to_owned(), log: layout.log(self.name) })?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &inside.id().to_string(), "--mount"]).arg(tools.join("usr/bin/ctr"));
        run(command
            .args(["--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io"])
            .args(arguments))
    }

    fn kubelet(&self, folder: &Path, layout: &Layout) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address().to_string(),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": layout.pki().join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": layout.pki().join(format!("{}.crt", self.name)),
            "tlsPrivateKeyFile": layout.pki().join(format!("{}.key", self.name)),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup::of_node(self.name),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": ["pods"],
            "failSwapOn": false,
            "failCgroupV1": false,
            "oomScoreAdj": 0,
            "clusterDNS": [network::HOST.to_string()],
            "clusterDomain": "cluster.local",
            "resolvConf": folder.join("resolv.conf"),
            "volumePluginDir": folder.join("plugins"),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "4s",
            "serializeImagePulls": false,
            "healthzPort": 0,
        })
    }

    /// It cannot write the machine's connection tracking settings from a namespace, so it must not try.
    fn proxy(&self, layout: &Layout) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": layout.kubeconfig_of("proxy")},
            "clusterCIDR": POD_RANGE,
            "hostnameOverride": self.name,
            "oomScoreAdj": 0,
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        })
    }

    fn cni(&self) -> Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "quorate",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    "ipMasq": false,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        // In memory: after a power cut no pod is left that an address would belong to.
                        "dataDir": "/run/cni",
                        "ranges": [[{"subnet": self.pods()}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }
}

/// `restrict_oom_score_adj`: where the machine lacks CAP_SYS_RESOURCE, runc dies without it.
fn containerd(folder: &Path, tools: &Path) -> String {
    let (folder, tools) = (folder.display(), tools.display());
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[debug]
level = "warn"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{tools}/usr/lib/cni"
conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "{tools}/usr/sbin/runc"
"#
    )
}
