//! `COMMAND`: the table, as clients read it.

use quorate_wire::resp::command::Describe;
use quorate_wire::resp::reply::Reply;
use quorate_wire::resp::table::{COMMANDS, Entry, find};

pub(super) fn tell(asked: &Describe) -> Reply {
    match asked {
        Describe::All => Reply::Array(COMMANDS.iter().map(in_full).collect()),
        Describe::Count => Reply::Integer(COMMANDS.len() as i64),
        Describe::List => Reply::Array(COMMANDS.iter().map(|entry| Reply::text(entry.name)).collect()),
        Describe::Info(names) => {
            let tell = |name| find(name).map_or(Reply::NullArray, in_full);
            Reply::Array(names.iter().map(|name| tell(name)).collect())
        }
        Describe::Docs(names) if names.is_empty() => Reply::Map(COMMANDS.iter().map(for_people).collect()),
        Describe::Docs(names) => {
            Reply::Map(names.iter().filter_map(|name| find(name)).map(for_people).collect())
        }
    }
}

fn in_full(entry: &Entry) -> Reply {
    let words = |words: &[&'static str]| Reply::Set(words.iter().map(|word| Reply::Simple(word)).collect());
    let (first, last, step) = entry.keys;
    Reply::Array(vec![
        Reply::text(entry.name),
        Reply::Integer(entry.arity),
        words(entry.flags),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        words(&[]),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
    ])
}

fn for_people(entry: &'static Entry) -> (Reply, Reply) {
    let told = [("summary", entry.summary), ("since", entry.since), ("group", entry.group)];
    let told = told.map(|(name, value)| (Reply::text(name), Reply::text(value)));
    (Reply::text(entry.name), Reply::Map(told.into()))
}
