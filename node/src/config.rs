//! The node's configuration: flags, then environment, then one YAML file, then defaults; checked as a whole,
//! so that a wrong one is told all its mistakes at once and nothing starts half.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use quorate_core::ClusterId;
use quorate_core::causality::Policy;
use quorate_core::limits::NAME_BYTES_MAX;
use quorate_core::quorum::QuorumKind;
use quorate_storage::Durability;
use serde::Deserialize;

use crate::units::{Size, Span};
use crate::users::{self, Users};

/// The shortest secret that is taken, in bytes.
const SECRET_BYTES_MIN: usize = 16;
/// The most seeds that are taken.
const SEEDS_MAX: usize = 64;
/// How often `interval` durability syncs: what a power cut may take.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Each option is a flag, an environment variable and a key of the file.
#[derive(Args, Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Options {
    /// Where the node keeps its identity, its epoch and its log.
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// The cluster to belong to. A disk of another cluster is refused.
    #[arg(long, env = "QUORATE_CLUSTER_ID", value_name = "UUID")]
    cluster_id: Option<ClusterId>,
    /// For people; the host's name by default.
    #[arg(long, env = "QUORATE_NAME", value_name = "NAME")]
    name: Option<String>,
    /// The failure domain this node stands in.
    #[arg(long, env = "QUORATE_ZONE", value_name = "ZONE")]
    zone: Option<String>,
    /// Where peers reach this node.
    #[arg(long, env = "QUORATE_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where peers and the admin API are listened for [default: 0.0.0.0:5000].
    #[arg(long, env = "QUORATE_PEER_LISTEN", value_name = "ADDRESS:PORT")]
    peer_listen: Option<SocketAddr>,
    /// Where HTTP clients are listened for [default: 0.0.0.0:7001].
    #[arg(long, env = "QUORATE_HTTP_LISTEN", value_name = "ADDRESS:PORT")]
    http_listen: Option<SocketAddr>,
    /// Where Redis clients (RESP) are listened for, such as 0.0.0.0:7002 [default: nowhere].
    #[arg(long, env = "QUORATE_RESP_LISTEN", value_name = "ADDRESS:PORT")]
    resp_listen: Option<SocketAddr>,
    /// What becomes of commands of Redis that read and then write, such as INCR [default: refuse].
    #[arg(long, env = "QUORATE_RESP_READ_MODIFY_WRITE", value_enum)]
    resp_read_modify_write: Option<ReadModifyWrite>,
    /// Nodes to ask for the others, comma-separated; one that is alive is enough.
    #[arg(long, env = "QUORATE_SEEDS", value_name = "HOST:PORT,…", value_delimiter = ',')]
    seeds: Option<Vec<String>>,
    /// A file that holds the cluster's secret, at least 16 bytes.
    #[arg(long, env = "QUORATE_SECRET_FILE", value_name = "PATH")]
    secret_file: Option<PathBuf>,
    /// A file of users and what they may do; without it everybody may do everything.
    #[arg(long, env = "QUORATE_USERS_FILE", value_name = "PATH")]
    users_file: Option<PathBuf>,
    /// What an acknowledgement means [default: sync].
    #[arg(long, env = "QUORATE_DURABILITY", value_enum)]
    durability: Option<DurabilityOption>,
    /// What a write does to values that it has not seen [default: siblings].
    #[arg(long, env = "QUORATE_CONFLICTS", value_enum)]
    conflicts: Option<ConflictsOption>,
    /// Whether a node that keeps a hint for an owner which is away counts in write quorums [default: strict].
    #[arg(long, env = "QUORATE_QUORUM", value_enum)]
    quorum: Option<QuorumOption>,
    /// How often each pair of replicas looks for differences [default: 60s].
    #[arg(long, env = "QUORATE_ANTI_ENTROPY_INTERVAL", value_name = "DURATION")]
    anti_entropy_interval: Option<Span>,
    /// Bytes a second that background repair may move [default: 64Mi].
    #[arg(long, env = "QUORATE_TRANSFER_RATE", value_name = "SIZE")]
    transfer_rate: Option<Size>,
    /// Bytes of hints to keep for one node that is away [default: 256Mi].
    #[arg(long, env = "QUORATE_HINT_BYTES", value_name = "SIZE")]
    hint_bytes: Option<Size>,
    /// How long a request may take [default: 5s].
    #[arg(long, env = "QUORATE_REQUEST_TIMEOUT", value_name = "DURATION")]
    request_timeout: Option<Span>,
    /// How long a stop may wait for requests in progress [default: 20s].
    #[arg(long, env = "QUORATE_DRAIN_TIMEOUT", value_name = "DURATION")]
    drain_timeout: Option<Span>,
    /// How long a stop goes on taking new requests, until clients have heard of it [default: 3s].
    #[arg(long, env = "QUORATE_DRAIN_LINGER", value_name = "DURATION")]
    drain_linger: Option<Span>,
    /// How soon a crashed node is called down [default: 5s].
    #[arg(long, env = "QUORATE_DETECT_AFTER", value_name = "DURATION")]
    detect_after: Option<Span>,
    /// Free bytes to keep on the disk; below, writes are refused [default: 64Mi].
    #[arg(long, env = "QUORATE_FREE_SPACE_RESERVE", value_name = "SIZE")]
    free_space_reserve: Option<Size>,
    /// Bytes of one log segment, allocated ahead [default: 16Mi].
    #[arg(long, env = "QUORATE_SEGMENT_SIZE", value_name = "SIZE")]
    segment_size: Option<Size>,
    /// How logs are written [default: text].
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DurabilityOption {
    /// On disk, by group commit.
    Sync,
    /// On disk within 100 ms.
    Interval,
    /// In memory; the disk follows when it likes.
    Memory,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConflictsOption {
    /// They stay beside it, as siblings.
    Siblings,
    /// The last write, by hybrid clock, wins.
    LastWriteWins,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum QuorumOption {
    /// Only owners count.
    Strict,
    /// Who keeps a hint counts for the owner that is away: writes go on, and reads may miss them for a while.
    Sloppy,
}

/// What becomes of commands of Redis that read a key and write what they make of it.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReadModifyWrite {
    /// They are refused: two clients at the same time could both succeed.
    #[default]
    Refuse,
    /// They are done in two steps, and of two at the same time one may be lost.
    BestEffort,
}

/// How Redis clients are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RespConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) read_modify_write: ReadModifyWrite,
}

/// How logs are written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// A whole, checked configuration.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) name: String,
    pub(crate) zone: Option<String>,
    pub(crate) advertise: String,
    pub(crate) peer_listen: SocketAddr,
    pub(crate) http_listen: SocketAddr,
    pub(crate) resp: Option<RespConfig>,
    pub(crate) seeds: Vec<String>,
    pub(crate) secret: String,
    /// Where the users are, and who they are at the start.
    pub(crate) users: Option<(PathBuf, Users)>,
    pub(crate) durability: Durability,
    pub(crate) conflicts: Policy,
    pub(crate) quorum: QuorumKind,
    pub(crate) anti_entropy_interval: Duration,
    pub(crate) transfer_bytes_per_second: u64,
    pub(crate) hint_bytes_max: u64,
    pub(crate) request_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) drain_linger: Duration,
    pub(crate) detect_after: Duration,
    pub(crate) free_space_reserve_bytes: u64,
    pub(crate) segment_bytes: u64,
}

/// Every mistake of a configuration, one a line.
#[derive(Debug)]
pub(crate) struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

impl Options {
    /// Reads the file of `--config`.
    pub(crate) fn from_file(path: &Path) -> Result<Self, Mistakes> {
        let mistake = |sentence| Mistakes(vec![sentence]);
        let text = std::fs::read_to_string(path)
            .map_err(|error| mistake(format!("cannot read {}: {error}", path.display())))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml::from_str(&text)
            .map_err(|error| mistake(format!("{} is not a configuration: {error}", path.display())))
    }

    /// These options, and `other`'s where these say nothing.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            cluster_id: self.cluster_id.or(other.cluster_id),
            name: self.name.or(other.name),
            zone: self.zone.or(other.zone),
            advertise: self.advertise.or(other.advertise),
            peer_listen: self.peer_listen.or(other.peer_listen),
            http_listen: self.http_listen.or(other.http_listen),
            resp_listen: self.resp_listen.or(other.resp_listen),
            resp_read_modify_write: self.resp_read_modify_write.or(other.resp_read_modify_write),
            seeds: self.seeds.or(other.seeds),
            secret_file: self.secret_file.or(other.secret_file),
            users_file: self.users_file.or(other.users_file),
            durability: self.durability.or(other.durability),
            conflicts: self.conflicts.or(other.conflicts),
            quorum: self.quorum.or(other.quorum),
            anti_entropy_interval: self.anti_entropy_interval.or(other.anti_entropy_interval),
            transfer_rate: self.transfer_rate.or(other.transfer_rate),
            hint_bytes: self.hint_bytes.or(other.hint_bytes),
            request_timeout: self.request_timeout.or(other.request_timeout),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            drain_linger: self.drain_linger.or(other.drain_linger),
            detect_after: self.detect_after.or(other.detect_after),
            free_space_reserve: self.free_space_reserve.or(other.free_space_reserve),
            segment_size: self.segment_size.or(other.segment_size),
            log_format: self.log_format.or(other.log_format),
        }
    }

    pub(crate) fn log_format(&self) -> LogFormat {
        self.log_format.unwrap_or_default()
    }

    /// The configuration that these options make, or all that is wrong with them.
    pub(crate) fn resolve(self) -> Result<Config, Mistakes> {
        let mut check = Checks::default();
        let name =
            self.name.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
        check.text("name", &name);
        let zone = self.zone.filter(|zone| !zone.is_empty());
        zone.iter().for_each(|zone| check.text("zone", zone));
        let advertise =
            check.required("advertise", "where peers reach this node, as host:port", self.advertise);
        check.host_port("advertise", &advertise);
        let seeds: Vec<_> =
            self.seeds.unwrap_or_default().into_iter().filter(|seed| !seed.is_empty()).collect();
        seeds.iter().for_each(|seed| check.host_port("seeds", seed));
        check.that(seeds.len() <= SEEDS_MAX, || {
            format!("seeds: {} are too many, at most {SEEDS_MAX}", seeds.len())
        });
        let secret_file = check.required("secret-file", "a file with the cluster's secret", self.secret_file);
        let config = Config {
            data_dir: check.required("data-dir", "the directory for this node's data", self.data_dir),
            cluster: self.cluster_id.unwrap_or_else(|| {
                check.mistake("cluster-id is missing: the UUID that all nodes of one cluster share".into());
                ClusterId::from_u128(0)
            }),
            name,
            zone,
            advertise,
            peer_listen: self.peer_listen.unwrap_or_else(|| ([0, 0, 0, 0], 5000).into()),
            http_listen: self.http_listen.unwrap_or_else(|| ([0, 0, 0, 0], 7001).into()),
            resp: self.resp_listen.map(|listen| RespConfig {
                listen,
                read_modify_write: self.resp_read_modify_write.unwrap_or_default(),
            }),
            seeds,
            secret: check.secret(&secret_file),
            users: self.users_file.and_then(|path| check.users(path)),
            durability: match self.durability.unwrap_or(DurabilityOption::Sync) {
                DurabilityOption::Sync => Durability::Sync,
                DurabilityOption::Interval => Durability::Interval(SYNC_INTERVAL),
                DurabilityOption::Memory => Durability::Memory,
            },
            conflicts: match self.conflicts.unwrap_or(ConflictsOption::Siblings) {
                ConflictsOption::Siblings => Policy::Siblings,
                ConflictsOption::LastWriteWins => Policy::LastWriteWins,
            },
            quorum: match self.quorum.unwrap_or(QuorumOption::Strict) {
                QuorumOption::Strict => QuorumKind::Strict,
                QuorumOption::Sloppy => QuorumKind::Sloppy,
            },
            anti_entropy_interval: check.span(
                "anti-entropy-interval",
                self.anti_entropy_interval,
                60_000,
                1_000..=86_400_000,
            ),
            transfer_bytes_per_second: check.size("transfer-rate", self.transfer_rate, 64 << 20, 64 << 10),
            hint_bytes_max: check.size("hint-bytes", self.hint_bytes, 256 << 20, 1 << 20),
            request_timeout: check.span("request-timeout", self.request_timeout, 5_000, 10..=600_000),
            drain_timeout: check.span("drain-timeout", self.drain_timeout, 20_000, 0..=3_600_000),
            drain_linger: check.span("drain-linger", self.drain_linger, 3_000, 0..=600_000),
            detect_after: check.span("detect-after", self.detect_after, 5_000, 500..=600_000),
            free_space_reserve_bytes: self.free_space_reserve.map_or(64 << 20, |size| size.0),
            segment_bytes: self.segment_size.map_or(16 << 20, |size| size.0),
        };
        check.that((1 << 20..=256 << 20).contains(&config.segment_bytes), || {
            format!("segment-size: {} bytes is out of bounds, write 1Mi to 256Mi", config.segment_bytes)
        });
        let resp = config.resp.map(|resp| ("resp-listen", resp.listen));
        let http = ("http-listen", config.http_listen);
        check.apart(("peer-listen", config.peer_listen), http);
        resp.into_iter().for_each(|resp| check.apart(("peer-listen", config.peer_listen), resp));
        resp.into_iter().for_each(|resp| check.apart(http, resp));
        check.finish(config)
    }
}

/// Collects mistakes.
#[derive(Default)]
struct Checks {
    mistakes: Vec<String>,
}

impl Checks {
    fn mistake(&mut self, sentence: String) {
        self.mistakes.push(sentence);
    }

    fn that(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.mistake(sentence());
        }
    }

    fn required<T: Default>(&mut self, option: &str, what: &str, value: Option<T>) -> T {
        self.that(value.is_some(), || format!("{option} is missing: {what}"));
        value.unwrap_or_default()
    }

    fn text(&mut self, option: &str, text: &str) {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        self.that(fits, || format!("{option}: must be 1 to {NAME_BYTES_MAX} bytes"));
    }

    fn host_port(&mut self, option: &str, text: &str) {
        let port =
            |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
        let fits = text.len() <= NAME_BYTES_MAX && text.rsplit_once(':').is_some_and(port);
        // An absent required option has its own sentence.
        self.that(fits || text.is_empty(), || {
            format!("{option}: {text:?} is not host:port, such as node-1:5000")
        });
    }

    fn apart(&mut self, (one, here): (&str, SocketAddr), (other, there): (&str, SocketAddr)) {
        self.that(here != there || here.port() == 0, || {
            format!("{one} and {other} are both {here}: give each its own port")
        });
    }

    fn span(
        &mut self,
        option: &str,
        given: Option<Span>,
        default_ms: u64,
        ms: std::ops::RangeInclusive<u64>,
    ) -> Duration {
        let span = given.map_or(Duration::from_millis(default_ms), |span| span.0);
        let within = u64::try_from(span.as_millis()).is_ok_and(|value| ms.contains(&value));
        self.that(within, || {
            format!(
                "{option}: {} ms is out of bounds, write {}ms to {}ms",
                span.as_millis(),
                ms.start(),
                ms.end()
            )
        });
        span
    }

    fn size(&mut self, option: &str, given: Option<Size>, default_bytes: u64, bytes_min: u64) -> u64 {
        let bytes = given.map_or(default_bytes, |size| size.0);
        self.that(bytes >= bytes_min, || {
            format!("{option}: {bytes} bytes is too little, write {}Ki or more", bytes_min >> 10)
        });
        bytes
    }

    fn secret(&mut self, path: &Path) -> String {
        if path.as_os_str().is_empty() {
            return String::new();
        }
        match std::fs::read_to_string(path) {
            Err(error) => {
                self.mistake(format!("secret-file: cannot read {}: {error}", path.display()));
                String::new()
            }
            Ok(text) => {
                let secret = text.trim_end_matches(['\r', '\n']).to_owned();
                let sound = secret.len() >= SECRET_BYTES_MIN && secret.chars().all(|c| c.is_ascii_graphic());
                self.that(sound, || {
                    format!(
                        "secret-file: {} must hold at least {SECRET_BYTES_MIN} printable ASCII characters \
                         without spaces, such as `openssl rand -hex 32` prints",
                        path.display()
                    )
                });
                secret
            }
        }
    }

    fn users(&mut self, path: PathBuf) -> Option<(PathBuf, Users)> {
        match users::read(&path) {
            Ok((_, users)) => Some((path, users)),
            Err(error) => {
                self.mistake(format!("users-file: {error}"));
                None
            }
        }
    }

    fn finish(self, config: Config) -> Result<Config, Mistakes> {
        if self.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(self.mistakes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let short = file("short\n");
        let options = Options {
            secret_file: Some(short.path().to_owned()),
            advertise: Some("nowhere".into()),
            seeds: Some(vec!["a:0".into()]),
            detect_after: Some("1ms".parse().unwrap()),
            transfer_rate: Some("1Ki".parse().unwrap()),
            resp_listen: Some(([0, 0, 0, 0], 5000).into()),
            ..Options::default()
        };
        let mistakes = options.resolve().err().unwrap().to_string();
        for part in [
            "data-dir is missing",
            "cluster-id is missing",
            "\"nowhere\" is not host:port",
            "\"a:0\"",
            "at least 16",
            "detect-after: 1 ms is out of bounds",
            "transfer-rate: 1024 bytes is too little, write 64Ki or more",
            "peer-listen and resp-listen are both 0.0.0.0:5000",
        ] {
            assert!(mistakes.contains(part), "{part:?} is not in {mistakes}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let yaml = file("name: from-file\nzone: from-file\nrequestTimeout: 7s\n");
        let flags = Options { name: Some("from-flag".into()), ..Options::default() };
        let both = flags.or(Options::from_file(yaml.path()).unwrap());
        assert_eq!(both.name.as_deref(), Some("from-flag"));
        assert_eq!(both.zone.as_deref(), Some("from-file"));
        assert_eq!(both.request_timeout.unwrap().0, Duration::from_secs(7));
    }

    #[test]
    fn a_wrong_key_of_the_file_is_named() {
        let error = Options::from_file(file("dataDirectory: /x\n").path()).unwrap_err().to_string();
        assert!(error.contains("dataDirectory") && error.contains("dataDir"), "{error}");
        assert!(Options::from_file(file("requestTimeout: 5\n").path()).is_err());
    }
}
