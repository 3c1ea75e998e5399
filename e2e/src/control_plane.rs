//! The control plane as processes of this machine: which flags each component gets.
//!
//! Two users: the cluster of three nodes runs all of them on the bridge's address; tests of the operator
//! run etcd and the API server alone, on loopback.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::certs::{ADMIN_GROUP, Authority, Subject};
use crate::error::{Doing, Error};
use crate::layout::Layout;
use crate::process::{self, Lifetime, Place, Process};
use crate::run::{succeeds, wait_until};

/// Where Services get their addresses from.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// The address of the Service `kubernetes`: the first of the range.
const KUBERNETES_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// Where pods get their addresses from.
pub const POD_RANGE: &str = "10.244.0.0/16";

/// How long the API server may take from its start to its first healthy answer.
const API_READY_SECONDS_MAX: Duration = Duration::from_secs(90);

/// How much of the cluster a control plane serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The API alone: objects are stored and validated, and nothing acts on them.
    ApiOnly,
    /// Everything that a cluster with nodes needs.
    Cluster,
}

/// A control plane and where it listens.
#[derive(Debug)]
pub struct ControlPlane<'a> {
    /// The program that holds all components.
    pub program: &'a Path,
    /// The folder of the cluster.
    pub layout: &'a Layout,
    /// Where the API server listens.
    pub api: SocketAddr,
    /// What runs.
    pub extent: Extent,
    /// What becomes of the processes when the starting thread ends.
    pub lifetime: Lifetime,
}

impl ControlPlane<'_> {
    /// Makes the authority and the certificates of every component that is no node.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn make_certificates(&self) -> Result<Authority, Error> {
        let authority = Authority::create(&self.layout.pki())?;
        authority.service_account_key()?;
        authority.issue(&Subject {
            file: "apiserver",
            user: "kube-apiserver",
            dns: &["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"],
            addresses: &[self.api.ip(), KUBERNETES_SERVICE, IpAddr::V4(Ipv4Addr::LOCALHOST)],
            ..Subject::default()
        })?;
        let admin = |file| Subject { file, user: file, group: Some(ADMIN_GROUP), ..Subject::default() };
        authority.issue(&admin("kubelet-client"))?;
        authority.issue(&Subject { file: "front-proxy", user: "front-proxy", ..Subject::default() })?;
        self.kubeconfig(&authority, &admin("admin"))?;
        self.kubeconfig(&authority, &admin("coredns"))?;
        for (file, user) in [
            ("controller-manager", "system:kube-controller-manager"),
            ("scheduler", "system:kube-scheduler"),
            ("proxy", "system:kube-proxy"),
        ] {
            self.kubeconfig(&authority, &Subject { file, user, ..Subject::default() })?;
        }
        Ok(authority)
    }

    /// Writes the kubeconfig of one user, named like the subject's file.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn kubeconfig(&self, authority: &Authority, subject: &Subject<'_>) -> Result<(), Error> {
        let path = self.layout.kubeconfig_of(subject.file);
        authority.kubeconfig(&path, &format!("https://{}", self.api), subject)
    }

    /// Starts etcd and the API server and waits until the latter is ready. Returns etcd's port for it.
    ///
    /// # Errors
    /// When one ends, or is not ready in time.
    pub fn start_api(&self) -> Result<u16, Error> {
        self.make_etcd_folder()?;
        let (clients, peers) = (free_port()?, free_port()?);
        let etcd = self.start("etcd", self.etcd(clients, peers))?;
        self.start_api_server(clients, || self.still_runs("etcd", etcd))?;
        Ok(clients)
    }

    /// Starts the API server on an etcd that runs, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time, and whatever `check` fails with meanwhile.
    pub fn start_api_server(&self, etcd: u16, check: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        let api_server = self.start("apiserver", self.api_server(etcd))?;
        let hint = format!("see {}", self.layout.log("apiserver").display());
        wait_until("the API server to be ready", API_READY_SECONDS_MAX, &hint, || {
            check()?;
            self.still_runs("apiserver", api_server)?;
            Ok(is_ready(self.program, &self.layout.kubeconfig()))
        })
    }

    /// Starts what acts on the objects: controllers, scheduler and names.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_controllers(&self, dns: IpAddr) -> Result<(), Error> {
        self.start("controller-manager", self.controller_manager())?;
        self.start("scheduler", self.scheduler())?;
        let corefile = self.layout.root().join("Corefile");
        fs::write(&corefile, self.corefile(dns)).doing(|| format!("writing {}", corefile.display()))?;
        self.start("coredns", vec![format!("-conf={}", corefile.display())]).map(drop)
    }

    fn start(&self, component: &str, flags: Vec<String>) -> Result<Process, Error> {
        let place = Place { pid_file: &self.layout.pid(component), log: &self.layout.log(component) };
        let arguments: Vec<String> = std::iter::once(component.to_owned()).chain(flags).collect();
        process::start(&place, self.lifetime, self.program, &arguments)
    }

    fn still_runs(&self, name: &str, process: Process) -> Result<(), Error> {
        if process.is_alive() {
            return Ok(());
        }
        Err(Error::Ended { name: name.to_owned(), log: self.layout.log(name) })
    }

    /// The data holds secrets.
    fn make_etcd_folder(&self) -> Result<(), Error> {
        let folder = self.layout.etcd();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder).doing(|| format!("making {}", folder.display()))
    }

    /// Nothing that etcd keeps here outlives the cluster: it need not compete with the store under test for the disk.
    fn etcd(&self, clients: u16, peers: u16) -> Vec<String> {
        let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
        flags(&[
            ("name", "quorate"),
            ("data-dir", &text(&self.layout.etcd())),
            ("unsafe-no-fsync", "true"),
            ("listen-client-urls", &clients),
            ("advertise-client-urls", &clients),
            ("listen-peer-urls", &peers),
            ("initial-advertise-peer-urls", &peers),
            ("initial-cluster", &format!("quorate={peers}")),
            ("log-level", "warn"),
        ])
    }

    fn api_server(&self, etcd: u16) -> Vec<String> {
        let mut all = flags(&[
            ("etcd-servers", &format!("http://127.0.0.1:{etcd}")),
            ("bind-address", &self.api.ip().to_string()),
            ("advertise-address", &self.api.ip().to_string()),
            ("secure-port", &self.api.port().to_string()),
            ("tls-cert-file", &self.pki("apiserver.crt")),
            ("tls-private-key-file", &self.pki("apiserver.key")),
            ("client-ca-file", &self.pki("ca.crt")),
            ("authorization-mode", "Node,RBAC"),
            ("allow-privileged", "true"),
            ("profiling", "false"),
            ("service-cluster-ip-range", SERVICE_RANGE),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", &self.pki("service-account.pub")),
            ("service-account-signing-key-file", &self.pki("service-account.key")),
        ]);
        all.extend(match self.extent {
            // No controller makes the service accounts' objects, and loopback is no address for an endpoint.
            Extent::ApiOnly => flags(&[
                ("disable-admission-plugins", "ServiceAccount"),
                ("endpoint-reconciler-type", "none"),
            ]),
            Extent::Cluster => flags(&[
                ("enable-admission-plugins", "NodeRestriction"),
                ("kubelet-certificate-authority", &self.pki("ca.crt")),
                ("kubelet-client-certificate", &self.pki("kubelet-client.crt")),
                ("kubelet-client-key", &self.pki("kubelet-client.key")),
                ("kubelet-preferred-address-types", "InternalIP"),
                ("requestheader-client-ca-file", &self.pki("ca.crt")),
                ("requestheader-allowed-names", "front-proxy"),
                ("requestheader-username-headers", "X-Remote-User"),
                ("requestheader-group-headers", "X-Remote-Group"),
                ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
                ("proxy-client-cert-file", &self.pki("front-proxy.crt")),
                ("proxy-client-key-file", &self.pki("front-proxy.key")),
            ]),
        });
        all
    }

    fn controller_manager(&self) -> Vec<String> {
        let kubeconfig = text(&self.layout.kubeconfig_of("controller-manager"));
        flags(&[
            ("kubeconfig", &kubeconfig),
            ("use-service-account-credentials", "true"),
            ("service-account-private-key-file", &self.pki("service-account.key")),
            ("root-ca-file", &self.pki("ca.crt")),
            ("cluster-signing-cert-file", &self.pki("ca.crt")),
            ("cluster-signing-key-file", &self.pki("ca.key")),
            ("allocate-node-cidrs", "false"),
            ("node-monitor-grace-period", "20s"),
            (
                "controllers",
                "*,-cloud-node-lifecycle-controller,-node-route-controller,-service-lb-controller",
            ),
            ("leader-elect", "false"),
            ("secure-port", "0"),
        ])
    }

    fn scheduler(&self) -> Vec<String> {
        let kubeconfig = text(&self.layout.kubeconfig_of("scheduler"));
        flags(&[("kubeconfig", &kubeconfig), ("leader-elect", "false"), ("secure-port", "0")])
    }

    fn corefile(&self, dns: IpAddr) -> String {
        format!(
            ".:53 {{\n  bind {dns}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    \
             ttl 5\n  }}\n  cache 5\n}}\n",
            self.layout.kubeconfig_of("coredns").display()
        )
    }

    fn pki(&self, file: &str) -> String {
        text(&self.layout.pki().join(file))
    }
}

/// Whether the API server behind a kubeconfig answers that it is ready.
pub fn is_ready(program: &Path, kubeconfig: &Path) -> bool {
    let mut command = Command::new(program);
    command.args(["kubectl", "--request-timeout=5s", "--kubeconfig"]).arg(kubeconfig);
    succeeds(command.args(["get", "--raw", "/readyz"]))
}

/// A port of loopback that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16, Error> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "looking for a free port".to_owned())?;
    Ok(listener.local_addr().doing(|| "looking for a free port".to_owned())?.port())
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
