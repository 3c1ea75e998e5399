//! Clients that others have written, against a development ring: redis-py, node-redis, ioredis, go-redis, Redis's own redis-cli
//! and redis-benchmark, and schemathesis, which asks for whatever the OpenAPI document of the HTTP API describes.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::shell::Shell;
use crate::step::Outcome;
use crate::steps::cargo::program;
use crate::steps::metrics::{NODES, Ring, address};
use crate::tools::{node, python, redis};

const REDIS_PY: &str = "xtask/scripts/redis_client.py";
const NODE_CLIENTS: &str = "xtask/scripts/node_clients.mjs";
const GO_CLIENT: &str = "xtask/tools/go";
const OPENAPI: &str = "xtask/scripts/openapi_check.py";

pub(super) fn run(shell: &Shell<'_>) -> Outcome {
    check(shell).into()
}

fn check(shell: &Shell<'_>) -> Result<()> {
    let folder = shell.workspace.target.join("xtask/clients");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    // Everything that there is; that the rest is refused otherwise is checked by the tests of the node.
    let ring = Ring::start(shell, &folder, &["--resp-read-modify-write", "best-effort"])?;
    let ports: Vec<String> = (0..NODES).map(|node| (ring.resp + node).to_string()).collect();
    let python = python::interpreter(shell)?;
    shell.run(shell.workspace.command(&python).arg(REDIS_PY).args(&ports))?;
    shell.run(shell.workspace.command("node").arg(NODE_CLIENTS).arg(node::packages(shell)?).args(&ports))?;
    go_redis(shell, &ports)?;
    openapi(shell, &python, &folder, ring.http)?;
    redis::install_missing(shell)?;
    redis_cli(shell, &ports)?;
    redis_benchmark(shell, &ports[0])
}

/// With the Go that Kubernetes is built with.
fn go_redis(shell: &Shell<'_>, ports: &[String]) -> Result<()> {
    let go = shell.capture(program(shell, "quorate-e2e")?.arg("go"))?;
    let mut run = shell.workspace.command(go.trim());
    run.current_dir(shell.workspace.path(GO_CLIENT)).args(["run", "."]).args(ports);
    shell.run(&mut run)
}

fn openapi(shell: &Shell<'_>, python: &Path, folder: &Path, port: u16) -> Result<()> {
    let mut check = shell.workspace.command(python);
    // It leaves notes where it runs.
    check
        .current_dir(folder)
        .arg(shell.workspace.path(OPENAPI))
        .args(["run", &format!("http://{}/openapi.json", address(port))]);
    // Which contexts a key has had, and how many owners, no schema says: what is valid by it may be refused. And what was
    // written with a time to live may be gone when it is asked for.
    let not_checked = "positive_data_acceptance,ensure_resource_availability";
    check.args(["--checks", "all", "--exclude-checks", not_checked]);
    // The same requests each time.
    check.args(["--seed", "1", "--max-examples", "20", "--warnings", "off"]);
    shell.run(&mut check)
}

fn redis_cli(shell: &Shell<'_>, ports: &[String]) -> Result<()> {
    let says = |port: &str, line: &str| -> Result<String> {
        let mut cli = shell.workspace.command("redis-cli");
        cli.args(["-p", port]).args(line.split(' '));
        Ok(shell.capture(&mut cli)?.trim_end().to_owned())
    };
    for (node, line, answer) in [
        (0, "SET cli hello", "OK"),
        (1, "GET cli", "hello"),
        (2, "-3 --json MGET cli nothing", "[\"hello\",null]"),
        (0, "--no-raw INCR cli-count", "(integer) 1"),
        (1, "--no-raw DEL cli cli", "(integer) 1"),
        (
            2,
            "--no-raw LPUSH cli x",
            "(error) ERR unknown command 'lpush': a key holds a string of bytes here, and nothing else",
        ),
    ] {
        let said = says(&ports[node], line)?;
        ensure!(said == answer, "redis-cli {line} says {said:?} instead of {answer:?}");
    }
    Ok(())
}

/// That it runs is the point: it asks for settings, and sends pipelines.
fn redis_benchmark(shell: &Shell<'_>, port: &str) -> Result<()> {
    let mut benchmark = shell.workspace.command("redis-benchmark");
    benchmark.args([
        "-p",
        port,
        "-t",
        "set,get,incr,mset",
        "-n",
        "2000",
        "-c",
        "50",
        "-P",
        "16",
        "-r",
        "100000",
        "-q",
    ]);
    let said = shell.capture(&mut benchmark)?;
    ensure!(!said.contains("ERR") && said.contains("requests per second"), "redis-benchmark says: {said}");
    Ok(())
}
