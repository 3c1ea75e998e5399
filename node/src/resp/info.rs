//! `INFO` and `CONFIG GET`: what is true here of what clients of Redis ask for.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_core::limits::VALUE_BYTES_MAX;
use quorate_storage::Durability;
use quorate_wire::resp::reply::Reply;

use super::RespServer;
use super::session::REDIS_VERSION;
use crate::listen::CONNECTIONS_MAX;

/// Sections that are told when none is named.
const SECTIONS: [&str; 7] = ["server", "clients", "memory", "persistence", "stats", "replication", "cluster"];

/// `INFO`.
pub(super) async fn sections(server: &RespServer, asked: &[Bytes]) -> Reply {
    let is_all = |asked: &Bytes| {
        ["all", "everything", "default"].iter().any(|all| asked.eq_ignore_ascii_case(all.as_bytes()))
    };
    let all = asked.is_empty() || asked.iter().any(is_all);
    let wanted =
        |section: &&str| all || asked.iter().any(|asked| asked.eq_ignore_ascii_case(section.as_bytes()));
    let mut text = String::new();
    for section in SECTIONS.into_iter().filter(wanted) {
        if !text.is_empty() {
            text += "\r\n";
        }
        let (first, rest) = section.split_at(1);
        let _ = write!(text, "# {}{rest}\r\n", first.to_ascii_uppercase());
        for (name, value) in section_of(server, section).await {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }
    Reply::Verbatim(text)
}

async fn section_of(server: &RespServer, section: &str) -> Vec<(&'static str, String)> {
    let number = |number: u64| number.to_string();
    let uptime = server.began.elapsed().as_secs();
    match section {
        "server" => vec![
            ("redis_version", REDIS_VERSION.to_owned()),
            ("redis_mode", "cluster".to_owned()),
            ("quorate_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("quorate_node_id", server.node.identity.actor.node.to_string()),
            ("os", std::env::consts::OS.to_owned()),
            ("arch_bits", usize::BITS.to_string()),
            ("process_id", std::process::id().to_string()),
            ("run_id", server.node.identity.actor.node.to_string().replace('-', "")),
            ("tcp_port", server.listen.port().to_string()),
            ("uptime_in_seconds", number(uptime)),
            ("uptime_in_days", number(uptime / 86_400)),
        ],
        "clients" => vec![
            ("connected_clients", server.clients.count().to_string()),
            ("maxclients", CONNECTIONS_MAX.to_string()),
        ],
        "memory" => {
            let bytes = resident_bytes();
            vec![("used_memory", number(bytes)), ("used_memory_rss", number(bytes)), ("maxmemory", number(0))]
        }
        "persistence" => vec![("loading", u8::from(is_loading(server).await).to_string())],
        "stats" => vec![
            ("total_connections_received", number(server.connections.load(Ordering::Relaxed))),
            ("total_commands_processed", number(server.commands.load(Ordering::Relaxed))),
        ],
        // Every node takes every write: to a client of one Redis it is what a master without replicas is.
        "replication" => vec![("role", "master".to_owned()), ("connected_slaves", number(0))],
        _ => vec![("cluster_enabled", number(1))],
    }
}

/// Whether the ring does not serve through this node. Clients wait for as long as they are told so.
async fn is_loading(server: &RespServer) -> bool {
    match server.node.status().await {
        Ok(status) => !server.node.health(&status).ready && !server.node.stopping.load(Ordering::Relaxed),
        Err(_) => false,
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// `CONFIG GET`: the settings that these patterns match.
pub(super) fn settings(server: &RespServer, patterns: &[Bytes]) -> Reply {
    let fsync = match server.node.durability {
        Durability::Sync => "always",
        Durability::Interval(_) => "everysec",
        Durability::Memory => "no",
    };
    let (clients, port) = (CONNECTIONS_MAX.to_string(), server.listen.port().to_string());
    let bulk = VALUE_BYTES_MAX.to_string();
    let all = [
        ("appendfsync", fsync),
        ("appendonly", "yes"),
        ("cluster-enabled", "yes"),
        ("databases", "1"),
        ("maxclients", &clients),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("port", &port),
        ("proto-max-bulk-len", &bulk),
        ("save", ""),
        ("timeout", "0"),
    ];
    let wanted =
        |name: &str| patterns.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
    let told = all.into_iter().filter(|(name, _)| wanted(name));
    Reply::Map(told.map(|(name, value)| (Reply::text(name), Reply::text(value))).collect())
}

/// Whether a pattern with `*` and `?` matches a name. As slow as both are long at most: the last star alone is tried again.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(&letter) if letter == b'?' || letter == name[seen] => (at, seen) = (at + 1, seen + 1),
            _ => match star {
                Some((before, from)) => {
                    star = Some((before, from + 1));
                    (at, seen) = (before + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&letter| letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = ["*", "save", "s?ve", "s*", "*e", "*a*", "sa**ve", "save*"];
        assert!(yes.iter().all(|pattern| matches(pattern.as_bytes(), b"save")));
        let no = ["", "sav", "saves", "*x*", "??", "s?"];
        assert!(no.iter().all(|pattern| !matches(pattern.as_bytes(), b"save")));
    }
}
