//! What came out, as a page of the book.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

use super::contestant::{Contestant, Name};
use super::load::{Figures, Pace, Work};
use super::{Measured, Row, Task};

const INTRODUCTION: &str = "# Benchmarks

Written by `cargo xtask bench`: Quorate beside Redis and etcd on one machine, with one load generator, in turns. **The ratios
count**, because the machine cancels out of them; the rest is for orientation.

- Quorate: three nodes, N=3, R=W=2, durability `Sync`, asked over the protocol of Redis. A write is on the disks of two nodes when
  it is answered.
- Redis: one process. *2 replicas*: a primary and two, each with `appendfsync always`; a client sends `WAIT 1` behind its writes
  (one behind all 16 of a pipeline), so two processes have what is answered.
- etcd: three members, over gRPC; reads are linearizable.

All servers and the load generator share the processors. *Server* is the processor time that all processes of a contestant take for
one request, *client* that of the load generator. Lines without a number of requests a second are closed loops: a client asks again when it is
answered. In the others requests are due at fixed times, and one that had to wait counts from when it was due.
";

/// The page.
pub(super) fn report(
    rows: &[Row],
    results: &[Measured],
    contestants: &[Contestant],
    task: &Task,
) -> Result<String> {
    let mut page = INTRODUCTION.to_owned();
    let cores = std::thread::available_parallelism()?;
    write!(
        page,
        "\n{} keys, values of 100 bytes unless something else is said, {cores} processors; medians of {} rounds of {} s; \
         in parentheses the least and the most of the rounds.\n\n## Ratios\n\n\
         | what | against | ratio | at least | aim |\n| --- | --- | --- | --- | --- |\n",
        task.keys, task.rounds, task.seconds
    )?;
    let mut bars = Vec::new();
    for row in rows {
        let ratio = ratio(row, results)?;
        let (least, aim) = row
            .target
            .map_or((String::new(), String::new()), |target| (times(target.least), times(target.aim)));
        let [low, middle, high] = ratio;
        writeln!(
            page,
            "| {} | {} | {} ({low:.2}–{high:.2}) | {least} | {aim} |",
            row.what,
            row.against,
            times(middle)
        )?;
        if !compares_times(row.work) {
            bars.push((format!("{} / {}", row.what, row.against), middle));
        }
    }
    page.push_str(
        "\nRatios are of requests a second, ours over theirs: more is better. Where a line says p50, or has a fixed rate, they are \
         of median times, and less is better.\n\n",
    );
    page.push_str(&chart(&bars)?);
    page.push_str(
        "\n## Figures\n\n| what | who | requests a second | p50 | 99 % | 99.9 % | server | client |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut told = Vec::new();
    for row in rows {
        for name in [Name::Quorate, row.against] {
            if told.contains(&(name, row.work)) {
                continue;
            }
            told.push((name, row.work));
            let all = &measured(results, name, row.work)?.rounds;
            let time = |of: fn(&Figures) -> Duration| {
                micros(median(all.iter().map(|figures| of(figures).as_secs_f64() * 1e6)))
            };
            let per_second = median(all.iter().map(|figures| figures.per_second));
            writeln!(
                page,
                "| {} | {name} | {per_second:.0} | {} | {} | {} | {} | {} |",
                row.what,
                time(|figures| figures.p50),
                time(|figures| figures.p99),
                time(|figures| figures.p999),
                time(|figures| figures.server),
                time(|figures| figures.client),
            )?;
        }
    }
    page.push_str("\n## Memory\n\n| who | all its processes, at the end |\n| --- | --- |\n");
    for contestant in contestants {
        writeln!(page, "| {} | {} MiB |", contestant.name, contestant.resident_bytes()? >> 20)?;
    }
    Ok(page)
}

/// Less is better where times are compared.
fn compares_times(work: Work) -> bool {
    work.clients == 1 || work.pace != Pace::Closed
}

/// Ours over theirs, round by round: the least, the median and the most.
fn ratio(row: &Row, results: &[Measured]) -> Result<[f64; 3]> {
    let of = |figures: &Figures| {
        if compares_times(row.work) { figures.p50.as_secs_f64() } else { figures.per_second }
    };
    let ours = &measured(results, Name::Quorate, row.work)?.rounds;
    let theirs = &measured(results, row.against, row.work)?.rounds;
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (ratios.first(), ratios.last()) else {
        anyhow::bail!("nothing was measured")
    };
    Ok([*low, median(ratios.iter().copied()), *high])
}

fn measured(results: &[Measured], name: Name, work: Work) -> Result<&Measured> {
    let found = results.iter().find(|result| result.name == name && result.work == work);
    found.with_context(|| format!("{name} was not measured with {work:?}"))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

fn micros(micros: f64) -> String {
    if micros < 1000.0 { format!("{micros:.0} µs") } else { format!("{:.2} ms", micros / 1e3) }
}

/// Bars of text, which every reader shows.
fn chart(bars: &[(String, f64)]) -> Result<String> {
    const WIDTH: f64 = 40.0;
    let longest = bars.iter().map(|(_, ratio)| *ratio).fold(1.0, f64::max);
    let name_width = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let mut text = "```text\n".to_owned();
    for (name, ratio) in bars {
        let bar = "█".repeat((ratio / longest * WIDTH).round() as usize);
        writeln!(text, "{name:<name_width$} {bar} {}", times(*ratio))?;
    }
    text.push_str("```\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
    }

    #[test]
    fn a_chart_is_as_wide_as_its_longest_bar() {
        let text = chart(&[("a".to_owned(), 2.0), ("bb".to_owned(), 1.0)]).unwrap();
        assert!(text.contains(&format!("a  {} 2.00x", "█".repeat(40))), "{text}");
        assert!(text.contains(&format!("bb {} 1.00x", "█".repeat(20))), "{text}");
    }
}
