//! `leakscan report`: files in, one of the formats out.

use crate::args::{Format, ReportCommand, View, When};
use crate::export::{folded, json};
use crate::model::{self, Report};
use crate::paint::Paint;
use crate::symbolize::{Places, Symbolizer};
use crate::{TROUBLE, view};
use std::io::{self, IsTerminal, Write};

pub fn main(args: &ReportCommand, color: When) -> Result<u8, String> {
    if args.files.is_empty() {
        return Err("report: no FILE given; reports lie where log_path says, by default in /tmp: \
            leakscan report /tmp/leakscan.PID"
            .into());
    }
    let mut reports = Vec::new();
    let mut failed = false;
    for path in &args.files {
        match model::load(path).and_then(|report| with_scan(report, args.scan)) {
            Ok(report) => reports.push(report),
            Err(error) => {
                eprintln!("leakscan: {error}");
                failed = true;
            }
        }
    }
    if args.view.format != Format::Text {
        for report in &reports {
            for fault in &report.faults {
                eprintln!("leakscan: {}: {fault} (ignored)", report.path.display());
            }
        }
    }
    let many = args.files.len() > 1;
    let refs: Vec<_> = reports.iter().collect();
    print(&refs, args.scan, &args.view, &Places::from(&args.places), color, many)?;
    if args.fail.fail_on_leak {
        for report in reports.iter().filter(|report| report.scans.is_empty()) {
            eprintln!("leakscan: {}: --fail-on-leak: no whole scan stands in it", report.path.display());
            failed = true;
        }
    }
    let leaks = reports.iter().any(|report| report.scan(args.scan).is_some_and(model::Scan::has_confirmed_leaks));
    Ok(if failed {
        TROUBLE
    } else if leaks && args.fail.fail_on_leak {
        args.fail.exitcode
    } else {
        0
    })
}

/// A scan that is asked for must be there; a report without any whole scan is one to tell about, not to show.
fn with_scan(report: Report, number: Option<u32>) -> Result<Report, String> {
    let name = report.path.display();
    match number {
        Some(number) if report.scan(Some(number)).is_none() => {
            let there: Vec<_> = report.scans.iter().map(|scan| scan.number.to_string()).collect();
            let there = if there.is_empty() { "none".into() } else { there.join(", ") };
            Err(format!("{name}: there is no whole scan {number}; there are: {there}"))
        }
        _ => Ok(report),
    }
}

/// Prints to stdout. A reader that has gone is no error.
pub fn print(
    reports: &[&Report],
    number: Option<u32>,
    view: &View,
    places: &Places,
    color: When,
    many: bool,
) -> Result<(), String> {
    let stdout = io::stdout();
    let paint = Paint::new(color, stdout.is_terminal());
    let mut out = io::BufWriter::new(stdout.lock());
    let done = write(&mut out, reports, number, view, places, paint, many).and_then(|()| out.flush());
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|error| format!("standard output: {}", crate::sys::plain(&error))),
    }
}

/// Writes reports in the view's format; JSON is an array where there may be `many`.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    reports: &[&Report],
    number: Option<u32>,
    view: &View,
    places: &Places,
    paint: Paint,
    many: bool,
) -> io::Result<()> {
    let mut files = Vec::new();
    for (at, report) in reports.iter().enumerate() {
        let mut symbolizer = Symbolizer::new(report, places.clone());
        match view.format {
            Format::Text => {
                if at > 0 {
                    writeln!(out)?;
                }
                view::write(out, report, number, view, &mut symbolizer, paint)?;
            }
            Format::Folded => folded::write(out, report, number, view, &mut symbolizer)?,
            Format::Json => files.push(json::file(report, number, view, &mut symbolizer)),
        }
    }
    if view.format == Format::Json {
        match files.as_slice() {
            [file] if !many => serde_json::to_writer_pretty(&mut *out, file)?,
            [] if !many => return Ok(()),
            files => serde_json::to_writer_pretty(&mut *out, files)?,
        }
        writeln!(out)?;
    }
    Ok(())
}
