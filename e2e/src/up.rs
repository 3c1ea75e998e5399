//! From a bare machine to a KVCluster that serves: what `up` does, and what it tells afterwards.

use std::fs;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::debian::is_on_path;
use crate::error::{Doing, Error, ensure};
use crate::kind;
use crate::product;
use crate::progress::Progress;
use crate::run::wait_until;
use crate::store::Store;
use crate::target::Target;

/// The quickstart's KVCluster.
const DEMO: (&str, &str) = ("default", "demo");

/// The port at which it serves clients.
pub const HTTP_PORT: u16 = 7001;

/// The port at which it serves Redis clients, where it does.
pub const RESP_PORT: u16 = 7002;

/// The port at which its nodes serve each other, and say how they are.
pub const PEER_PORT: u16 = 5000;

/// How long the store may take to answer once it is called ready.
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(60);

/// The key that shows that it works.
const KEY: &str = "hello";

/// Installs Quorate on a cluster, applies the quickstart and shows that it serves.
///
/// # Errors
/// When a step fails.
pub fn install_and_show(target: &Target, runtime: &Runtime, progress: &Progress) -> Result<String, Error> {
    product::install(target, progress)?;
    let kubectl = target.kubectl();
    let quickstart = product::checkout().join("examples/quickstart.yaml");
    let text = fs::read_to_string(&quickstart).doing(|| format!("reading {}", quickstart.display()))?;
    kubectl.apply(&text)?;
    let (namespace, name) = DEMO;
    product::wait_ready(&kubectl, namespace, name, progress)?;
    let door = target.door(namespace, &format!("service/{name}"), HTTP_PORT)?;
    serve(runtime, &Store::new(door.url())?)?;
    progress.step(&format!("wrote a key through the Service and read it back: {}/v1/kv/{KEY}", door.url()));
    Ok(how_to_go_on(target, Some(door.url())))
}

/// How a person goes on from here; `url` is where the quickstart serves, if it does.
pub fn how_to_go_on(target: &Target, url: Option<&str>) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let mut kubectl = "kubectl".to_owned();
    match target {
        Target::BuiltIn(cluster) => {
            say(&format!("  export KUBECONFIG={}", cluster.layout().kubeconfig().display()));
            if !is_on_path("kubectl") {
                say(&format!("  export PATH=$PATH:{}", cluster.tools().kubernetes.display()));
            }
        }
        Target::Context(name) => kubectl = format!("kubectl --context {name}"),
    }
    let Some(url) = url else {
        say(&format!("  {kubectl} get nodes"));
        return text;
    };
    say(&format!("  {kubectl} get kvclusters"));
    say(&format!("  {kubectl} get pods -o wide"));
    let url = if let Target::Context(_) = target {
        say(&format!("  {kubectl} port-forward service/{} {HTTP_PORT}:{HTTP_PORT} &", DEMO.1));
        format!("http://localhost:{HTTP_PORT}")
    } else {
        url.to_owned()
    };
    say(&format!("  curl -X PUT --data-binary 'good morning' {url}/v1/kv/greeting"));
    say(&format!("  curl {url}/v1/kv/greeting"));
    match target {
        Target::Context(name) if !kind::is_ours(name) => {
            say(&format!("  cargo xtask e2e --context {name}      # the end-to-end tests, on this cluster"));
            say(&format!(
                "  {kubectl} delete kvcluster {}         # removes the store, and its volumes",
                DEMO.1
            ));
        }
        _ => {
            say("  cargo xtask e2e      # the end-to-end tests, on this cluster");
            say("  cargo xtask down     # removes all of it");
        }
    }
    text
}

/// Nodes that have just been started again are called ready by a status from before; only an answer counts.
fn serve(runtime: &Runtime, store: &Store) -> Result<(), Error> {
    let mut last = None;
    let answers = wait_until("the store to answer", ANSWER_SECONDS_MAX, "see the KVCluster", || {
        last = runtime.block_on(write_and_read(store)).err();
        Ok(last.is_none())
    });
    // What the store said explains more than that the time is over.
    answers.map_err(|timeout| last.unwrap_or(timeout))
}

/// The key is there already when this is not the first time; a read finds this value among its siblings all the same.
async fn write_and_read(store: &Store) -> Result<(), Error> {
    let value = "world";
    if store.get(KEY).await?.is_empty() {
        store.put(KEY, value).await?;
    }
    let values = store.get(KEY).await?;
    ensure(values.iter().any(|found| found == value), || {
        format!("wrote {value:?} to {KEY} and read {values:?}")
    })
}
