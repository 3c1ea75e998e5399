//! From a request to a command.

use std::vec::IntoIter;

use bytes::Bytes;

use super::change::Change;
use super::command::{Command, Data};
use super::error::CommandError;
use super::number::integer;
use super::table::{self, Entry};

/// A request, as far as it is understood.
#[derive(Debug)]
pub struct Parsed {
    /// What the table knows of its name.
    pub entry: Option<&'static Entry>,
    /// What is to be done.
    pub command: Result<Command, CommandError>,
}

/// Understands a request: a name and arguments.
pub fn parse(arguments: Vec<Bytes>) -> Parsed {
    let count = arguments.len();
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    let Some(entry) = table::find(&name) else {
        let unknown = || CommandError::Unknown { name: name.clone(), arguments: arguments.collect() };
        return Parsed { entry: None, command: Err(table::absent(&name).unwrap_or_else(unknown)) };
    };
    let given = i64::try_from(count).unwrap_or(i64::MAX);
    let fits = if entry.arity < 0 { given >= -entry.arity } else { given == entry.arity };
    let command =
        if fits { (entry.read)(Arguments(arguments)) } else { Err(CommandError::Arity(entry.name)) };
    Parsed { entry: Some(entry), command }
}

/// What follows a name, taken from the front.
#[derive(Debug)]
pub(super) struct Arguments(IntoIter<Bytes>);

impl Arguments {
    /// The next one; the arity in the table says that it is there.
    pub(super) fn take(&mut self) -> Bytes {
        self.0.next().unwrap_or_default()
    }

    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.0.next()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn integer(&mut self) -> Result<i64, CommandError> {
        integer(&self.take()).ok_or(CommandError::NotInteger)
    }

    pub(super) fn rest(self) -> Vec<Bytes> {
        self.0.collect()
    }

    /// A change of the key that comes first.
    pub(super) fn change(
        mut self,
        read: fn(&mut Self) -> Result<Change, CommandError>,
    ) -> Result<Command, CommandError> {
        let key = self.take();
        let change = read(&mut self)?;
        Ok(Command::Data(Data::Change { key, change }))
    }
}
