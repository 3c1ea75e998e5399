//! What can go wrong in the harness, each variant with what to do about it.

use std::io;
use std::path::PathBuf;

/// A failure of the harness.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or process operation failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path or program in question.
        doing: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// The exit status, as the operating system words it.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Something did not come true in time.
    #[error("waited {seconds} s for {awaited}; {hint}")]
    Timeout {
        /// How long was waited.
        seconds: u64,
        /// What was waited for.
        awaited: String,
        /// Where to look next.
        hint: String,
    },
    /// A long-running process ended while it was needed.
    #[error("{name} ended by itself; its log is {log}")]
    Ended {
        /// The name of the process.
        name: String,
        /// Its log file.
        log: PathBuf,
    },
    /// This machine cannot do what was asked.
    #[error("{0}")]
    Unsupported(String),
    /// A certificate could not be made.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The Kubernetes API refused or did not answer.
    #[error("the Kubernetes API: {0}")]
    Kubernetes(#[from] Box<kube::Error>),
    /// The store did not answer over HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] reqwest::Error),
    /// What a test expects is not so.
    #[error("{0}")]
    Unexpected(String),
    /// A document could not be read or written as JSON.
    #[error("{doing}: {source}")]
    Json {
        /// What was being read or written.
        doing: String,
        /// What was wrong with it.
        source: serde_json::Error,
    },
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

/// Adds what was being done to an error of the operating system.
pub(crate) trait Doing<T> {
    /// Names the operation, for the sentence a person will read.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing: what(), source })
    }
}

impl<T> Doing<T> for serde_json::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Json { doing: what(), source })
    }
}

/// Fails a test with a sentence when something is not as it must be.
pub(crate) fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Unexpected(sentence())) }
}
