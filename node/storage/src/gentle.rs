//! Long computations in the background, beside a committer that wants a processor now and then, and at once.

use std::thread;

/// After so many items, each of less than a microsecond or a few, the processor is offered.
const ITEMS: usize = 64;

/// The same items; but while they are taken, the processor is offered to whoever waits for it, again and again. Else the
/// committer, woken by the disk, can wait for the end of a time slice: for milliseconds, where a sync takes a tenth of one.
pub(crate) fn gently<T>(items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    items.enumerate().map(|(at, item)| {
        if at % ITEMS == ITEMS - 1 {
            thread::yield_now();
        }
        item
    })
}
