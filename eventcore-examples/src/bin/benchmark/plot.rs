//! Small pictures of the figures as SVG: throughput and latency over the number of callers, and over the size of the store.

use crate::Failure;
use crate::outcome::{Case, Limit, Outcome, median};
use crate::report::write;
use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 200.0;
const COLUMNS: usize = 3;
const MARGIN: f64 = 46.0;
const COLOURS: [&str; 4] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"];

/// Draws what can be drawn of the outcomes; each picture needs two points at least.
pub(crate) fn draw(store: &str, outcomes: &[Outcome], path: &Path) -> Result<(), Failure> {
    let panels = panels(outcomes);
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT.mul_add(rows as f64, 30.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">EventCore on {store}</text>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        let (x, y) = (WIDTH * column as f64, HEIGHT.mul_add(row as f64, 30.0));
        write!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>\n", panel.svg())?;
    }
    svg.push_str("</svg>\n");
    write(path, &svg)
}

/// One picture; both axes are logarithmic, since callers, sizes, rates and times grow by factors.
struct Panel {
    title: String,
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

fn panels(outcomes: &[Outcome]) -> Vec<Panel> {
    let mut cases: Vec<&Case> = Vec::new();
    for outcome in outcomes {
        if !cases.contains(&&outcome.case) {
            cases.push(&outcome.case);
        }
    }
    let medians: Vec<&Outcome> = cases
        .iter()
        .filter_map(|case| median(&outcomes.iter().filter(|outcome| &outcome.case == *case).collect::<Vec<_>>()))
        .collect();
    let mut series: Vec<(String, Vec<&Outcome>)> = Vec::new();
    for outcome in medians {
        let name = match outcome.case.events {
            // Over the size of the store a line is a number of callers.
            Some(_) => format!("{} {}, {} callers", outcome.case.workload, outcome.case.what, outcome.case.concurrency),
            None => format!("{} {}", outcome.case.workload, outcome.case.what),
        };
        match series.iter_mut().find(|(known, _)| *known == name) {
            Some((_, series)) => series.push(outcome),
            None => series.push((name, vec![outcome])),
        }
    }
    series.iter().filter(|(_, series)| series.len() > 1).flat_map(|(name, series)| over(name, series)).collect()
}

fn over(name: &str, series: &[&Outcome]) -> Vec<Panel> {
    let by_size = series.iter().all(|outcome| outcome.case.events.is_some());
    let x = |outcome: &Outcome| outcome.case.events.map_or(outcome.case.concurrency as f64, f64::from);
    let axis = if by_size { "events in the store" } else { "callers" };
    let line = |name, y: &dyn Fn(&Outcome) -> Option<f64>| Line {
        name,
        points: series.iter().filter_map(|outcome| Some((x(outcome), y(outcome)?))).collect(),
    };
    let mut rates = vec![line("EventCore", &|outcome| Some(outcome.per_second))];
    if !by_size {
        rates.push(line("limit", &|outcome| match outcome.limit {
            Some(Limit::Throughput(limit)) => Some(limit.per_second),
            _ => None,
        }));
    }
    let times = vec![
        line("p50", &|outcome| outcome.latency.map(|latency| latency.p50)),
        line("p99", &|outcome| outcome.latency.map(|latency| latency.p99)),
        line("p99.9", &|outcome| outcome.latency.map(|latency| latency.p999)),
    ];
    let panels = [
        Panel { title: format!("{name}: per second over {axis}"), lines: rates },
        Panel { title: format!("{name}: microseconds over {axis}"), lines: times },
    ];
    panels.into_iter().filter(|panel| panel.lines.iter().any(|line| line.points.len() > 1)).collect()
}

impl Panel {
    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) = bounds(points().map(|point| point.0));
        let (low, high) = bounds(points().map(|point| point.1));
        let x = |value: f64| MARGIN + (WIDTH - MARGIN - 60.0) * fraction(value, left, right);
        let y = |value: f64| HEIGHT - 30.0 - (HEIGHT - 60.0) * fraction(value, low, high);
        let mut svg = format!("<text x=\"10\" y=\"14\">{}</text>\n", self.title);
        let grid = |svg: &mut String, x1: f64, y1: f64, x2: f64, y2: f64| {
            svg.push_str(&format!(
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>\n"
            ));
        };
        let mut xs: Vec<f64> = points().map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        for at in xs {
            grid(&mut svg, x(at), y(low), x(at), y(high));
            svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                x(at),
                HEIGHT - 16.0,
                short(at)
            ));
        }
        for at in [low, (low * high).sqrt(), high] {
            grid(&mut svg, x(left), y(at), x(right), y(at));
            svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                MARGIN - 4.0,
                y(at) + 3.0,
                short(at)
            ));
        }
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let path: Vec<String> =
                line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            svg.push_str(&format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>\n", path.join(" ")));
            if let Some(&(last_x, last_y)) = line.points.last() {
                svg.push_str(&format!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>\n",
                    x(last_x) + 4.0,
                    y(last_y) + 3.0,
                    line.name
                ));
            }
        }
        svg
    }
}

/// The least and the greatest, apart from each other so that one can be told from the other.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, greatest) = values.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let least = least.min(greatest).max(1e-3);
    (least, greatest.max(least * 1.01))
}

fn fraction(value: f64, low: f64, high: f64) -> f64 {
    (value.max(1e-3) / low).ln() / (high / low).ln()
}

fn short(value: f64) -> String {
    match value {
        millions if millions >= 1e6 => format!("{:.1}M", millions / 1e6),
        thousands if thousands >= 1e4 => format!("{:.0}k", thousands / 1e3),
        thousands if thousands >= 1e3 => format!("{:.1}k", thousands / 1e3),
        small if small < 10.0 => format!("{small:.1}").trim_end_matches(".0").to_owned(),
        other => format!("{other:.0}"),
    }
}
