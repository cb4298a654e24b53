//! What many rounds say: medians, ranges, ratios, and whether a goal is reached.

use serde::Serialize;
use serde_json::json;

use crate::baseline::Baselines;
use crate::measure::Samples;
use crate::versus;

/// What a figure should be.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Goal {
    /// The figure itself.
    AtLeast(f64),
    AtMost(f64),
    /// Its ratio to what stands beside it.
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

/// One figure of one round.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    /// What it is compared with, in the same unit and round.
    pub(crate) beside: Option<(&'static str, f64)>,
    pub(crate) goal: Option<Goal>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
        Figure {
            name: name.into(),
            unit,
            value,
            beside: None,
            goal: None,
        }
    }

    pub(crate) fn beside(mut self, name: &'static str, value: f64) -> Figure {
        self.beside = Some((name, value));
        self
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Figure {
        self.goal = Some(goal);
        self
    }
}

#[derive(Debug, Serialize)]
struct Row {
    case: String,
    name: String,
    unit: &'static str,
    beside: Option<&'static str>,
    goal: Option<Goal>,
    values: Samples,
    ratios: Samples,
}

impl Row {
    fn reached(&self) -> Option<bool> {
        Some(match self.goal? {
            Goal::AtLeast(goal) => self.values.median() >= goal,
            Goal::AtMost(goal) => self.values.median() <= goal,
            Goal::RatioAtLeast(goal) => self.ratios.median() >= goal,
            Goal::RatioAtMost(goal) => self.ratios.median() <= goal,
        })
    }

    fn cells(&self) -> [String; 7] {
        let (low, high) = self.values.range();
        let range = format!("{} to {}", number(low), number(high));
        let ratio = self.beside.map_or(String::new(), |beside| {
            format!("{:.2} x {beside}", self.ratios.median())
        });
        let goal = self.goal.map_or(String::new(), |goal| match goal {
            Goal::AtLeast(goal) => format!(">= {}", number(goal)),
            Goal::AtMost(goal) => format!("<= {}", number(goal)),
            Goal::RatioAtLeast(goal) => format!(">= {goal} x"),
            Goal::RatioAtMost(goal) => format!("<= {goal} x"),
        });
        let reached = match self.reached() {
            None => "",
            Some(true) => "yes",
            Some(false) => "NO",
        };
        let median = format!("{} {}", number(self.values.median()), self.unit);
        [
            self.case.clone(),
            self.name.clone(),
            median,
            range,
            ratio,
            goal,
            reached.to_owned(),
        ]
    }
}

const HEAD: [&str; 7] = [
    "case", "figure", "median", "range", "ratio", "goal", "reached",
];

/// Everything measured so far.
#[derive(Debug)]
pub(crate) struct Report {
    rounds: usize,
    /// The peers' programs and their versions.
    peers: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(rounds: usize, peers: Vec<String>) -> Report {
        Report {
            rounds,
            peers,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add_baselines(&mut self, baselines: &Baselines) {
        let figures = baselines.figures();
        let figures = figures.map(|(name, unit, value)| Figure::new(name, unit, value));
        self.add("baseline", figures.into());
    }

    pub(crate) fn add(&mut self, case: &str, figures: Vec<Figure>) {
        for figure in figures {
            let row = self.row(case, &figure);
            row.values.push(figure.value);
            if let Some((_, beside)) = figure.beside {
                row.ratios.push(figure.value / beside);
            }
        }
    }

    fn row(&mut self, case: &str, figure: &Figure) -> &mut Row {
        let same = |row: &Row| row.case == case && row.name == figure.name;
        let index = self.rows.iter().position(same).unwrap_or_else(|| {
            self.rows.push(Row {
                case: case.to_owned(),
                name: figure.name.clone(),
                unit: figure.unit,
                beside: figure.beside.map(|(name, _)| name),
                goal: figure.goal,
                values: Samples::default(),
                ratios: Samples::default(),
            });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// The median of a figure, if it was taken.
    pub(crate) fn median(&self, case: &str, figure: &str) -> Option<f64> {
        let same = |row: &&Row| row.case == case && row.name == figure;
        self.rows.iter().find(same).map(|row| row.values.median())
    }

    pub(crate) fn to_table(&self) -> String {
        self.print(columns)
    }

    pub(crate) fn to_markdown(&self) -> String {
        self.print(markdown)
    }

    /// Everything, with each table laid out by `lay_out`.
    fn print(&self, lay_out: fn(&[Vec<String>]) -> String) -> String {
        let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
        lines.extend(self.rows.iter().map(|row| row.cells().to_vec()));
        let mut out = lay_out(&lines);
        if !self.peers.is_empty() {
            let versus = lay_out(&versus::lines(self));
            let peers = self.peers.join(", ");
            out.push_str(&format!("\n{versus}\nPeers: {peers}\n"));
        }
        format!("{out}\n{}", self.closing())
    }

    pub(crate) fn to_json(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let ratio = row.beside.map(|_| row.ratios.median());
                json!({
                    "case": row.case, "figure": row.name, "unit": row.unit,
                    "median": row.values.median(), "values": row.values, "beside": row.beside,
                    "ratio": ratio, "goal": row.goal, "reached": row.reached(),
                })
            })
            .collect();
        json!({ "rounds": self.rounds, "peers": self.peers, "rows": rows }).to_string()
    }

    fn closing(&self) -> String {
        let judged: Vec<bool> = self.rows.iter().filter_map(Row::reached).collect();
        let reached = judged.iter().filter(|&&reached| reached).count();
        format!(
            "{reached} of {} goals reached; medians of {} rounds\n",
            judged.len(),
            self.rounds
        )
    }
}

/// Columns of equal width.
fn columns(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A table of Markdown; the first line is its head.
fn markdown(lines: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        out.push_str(&format!("| {} |\n", line.join(" | ")));
        if index == 0 {
            out.push_str(&format!("|{}\n", "---|".repeat(line.len())));
        }
    }
    out
}

/// Three significant digits, with M for millions.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1e6 => format!("{:.2} M", value / 1e6),
        large if large >= 1e3 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
