//! comlog beside its peers: the medians of the same loads, in one table.

use crate::peers;
use crate::report::{Report, number};

/// A load: its name, comlog's case and figure, and the peers' figure.
struct Load {
    name: &'static str,
    case: &'static str,
    figure: &'static str,
    of_peers: &'static str,
}

const fn load(
    name: &'static str,
    case: &'static str,
    figure: &'static str,
    of_peers: &'static str,
) -> Load {
    Load {
        name,
        case,
        figure,
        of_peers,
    }
}

const LOADS: [Load; 10] = [
    load(
        "produce 100 B, rec/s",
        "produce-100",
        "1 connection",
        "100 B produce",
    ),
    load(
        "  server CPU, s/M",
        "produce-100",
        "server CPU",
        "100 B produce, server CPU",
    ),
    load(
        "produce 1 KiB, rec/s",
        "produce-1024",
        "1 connection",
        "1024 B produce",
    ),
    load(
        "  server CPU, s/M",
        "produce-1024",
        "server CPU",
        "1024 B produce, server CPU",
    ),
    load(
        "consume 100 B, rec/s",
        "consume-100",
        "records",
        "100 B consume",
    ),
    load(
        "  server CPU, s/M",
        "consume-100",
        "server CPU",
        "100 B consume, server CPU",
    ),
    load(
        "consume 1 KiB, rec/s",
        "consume-1024",
        "records",
        "1024 B consume",
    ),
    load(
        "  server CPU, s/M",
        "consume-1024",
        "server CPU",
        "1024 B consume, server CPU",
    ),
    load("one 100 B record, p50, us", "latency", "p50", "100 B p50"),
    load("one 100 B record, p99, us", "latency", "p99", "100 B p99"),
];

/// The table, its head first; a dash where a figure was not taken.
pub(crate) fn lines(report: &Report) -> Vec<Vec<String>> {
    let peers = || peers::CASES.iter().map(|peer| peer.name);
    let mut head = vec!["medians".to_owned(), "comlog, synced".to_owned()];
    head.extend(peers().map(str::to_owned));
    let cell = |median: Option<f64>| median.map_or("-".to_owned(), number);
    let mut lines = vec![head];
    for load in &LOADS {
        let mut line = vec![load.name.to_owned()];
        line.push(cell(report.median(load.case, load.figure)));
        line.extend(peers().map(|peer| cell(report.median(peer, load.of_peers))));
        lines.push(line);
    }
    lines
}
