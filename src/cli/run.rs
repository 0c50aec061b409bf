//! `leakscan run`: starts the program with the library in it, stays out of its way, and shows the reports at the end.

use crate::args::{Format, Run, View, When};
use crate::environment::{self, Environment};
use crate::model::{self, Report};
use crate::paint::Paint;
use crate::preflight;
use crate::process::Process;
use crate::request::Target;
use crate::signals::{ENDING, Event, Events, shares_our_group};
use crate::symbolize::Places;
use crate::{library, logpath, report, sys};
use leakscan_report::read::Cause;
use rustix::process::Pid;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Where leakscan itself failed, as nohup, env and timeout have it.
const OWN_FAILURE: u8 = 125;

pub fn main(args: &Run, color: When) -> u8 {
    match run(args, color) {
        Ok(status) => status,
        Err((reason, status)) => {
            eprintln!("leakscan: {reason}");
            status
        }
    }
}

fn run(args: &Run, color: When) -> Result<u8, (String, u8)> {
    let own = |reason: String| (reason, OWN_FAILURE);
    let library = library::find().map_err(own)?;
    let name = &args.program[0];
    let program = preflight::examine(name, &library).map_err(|refusal| (refusal.reason, refusal.status))?;
    let environment = Environment::new(args, &library).map_err(own)?;
    for warning in program.warnings.iter().chain(&environment.warnings) {
        eprintln!("leakscan: warning: {warning}");
    }
    // Opened first: a mistake in the name should not cost a long run.
    let report_to = args
        .report_to
        .as_ref()
        .map(|path| File::create(path).map_err(|error| own(format!("{}: {}", path.display(), sys::plain(&error)))));
    let report_to = report_to.transpose()?;
    let events = Events::new().map_err(|error| own(format!("signals: {}", sys::plain(&error))))?;
    let mut command = Command::new(&program.path);
    command.arg0(name).args(&args.program[1..]).envs(environment.variables());
    let mut child = command.spawn().map_err(|error| {
        let status =
            if error.kind() == io::ErrorKind::NotFound { preflight::NOT_FOUND } else { preflight::NOT_RUNNABLE };
        (format!("{}: {}", program.path.display(), sys::plain(&error)), status)
    })?;
    let pid = child.id();
    let status = attend(&mut child, &events).map_err(|error| own(format!("waiting for process {pid}: {error}")))?;
    if let Some(signal) = status.signal() {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a real-time signal");
        let core = if status.core_dumped() { ", core dumped" } else { "" };
        eprintln!("leakscan: {} was killed by {name} (signal {signal}{core})", name_of(args));
    }
    let reports = collect(&environment, pid);
    if !environment.quiet || report_to.is_some() {
        let told = show(&reports, args, color, pid, status, &environment, report_to);
        if let Err(error) = told
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(own(format!("the report cannot be written: {}", sys::plain(&error))));
        }
    }
    if args.fail.fail_on_leak && reports.iter().any(Report::has_confirmed_leaks) {
        return Ok(args.fail.exitcode);
    }
    let scanned = reports.iter().any(|report| report.process.pid == pid && !report.scans.is_empty());
    if args.fail.fail_on_leak && !scanned && status.success() {
        let path = environment::report_of(pid, &environment);
        return Err(own(format!(
            "--fail-on-leak: nothing is known of {}: no whole scan stands in {path}",
            name_of(args)
        )));
    }
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, signal) => u8::try_from(128 + signal.unwrap_or(0)).unwrap_or(OWN_FAILURE),
    })
}

fn name_of(args: &Run) -> String {
    args.program[0].to_string_lossy().into_owned()
}

/// Passes signals on until the program has ended.
fn attend(child: &mut Child, events: &Events) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    events.watch(pid);
    let mut asked = false;
    loop {
        match events.next() {
            Event::Ended => return child.wait(),
            Event::Signal { number, by_terminal } => {
                // Only once: who sends a second one is in a hurry.
                if ENDING.contains(&number) && !asked {
                    asked = true;
                    let target = Target::new(Process { pid: child.id() }, None);
                    // Without an answer the program is still to get its signal.
                    target.and_then(|target| target.scan(Duration::from_secs(2), |_| ())).ok();
                }
                // The terminal has sent it to the program as well; a second one would count twice ("press ^C again to quit").
                if !(by_terminal && shares_our_group(pid)) {
                    sys::kill(child.id(), number).ok();
                }
            }
        }
    }
}

/// The reports of this run, the program's own first, then by pid.
fn collect(environment: &Environment, root: u32) -> Vec<Report> {
    let ours = |path: &std::path::PathBuf| logpath::header(path).is_some_and(|header| header.run == environment.token);
    let mut reports = Vec::new();
    // What a process reported before it became another one has been moved aside by that one's report.
    let before = logpath::files(&format!("{}.old", environment.log_path), None);
    for path in before.into_iter().chain(logpath::files(&environment.log_path, None)).filter(ours) {
        match settled(&path) {
            Ok(report) => reports.push(report),
            Err(error) => eprintln!("leakscan: {error}"),
        }
    }
    reports.sort_by_key(|report| (report.process.pid != root, report.process.pid));
    reports
}

/// A scan that was under way when the program ended may still be written, by the snapshot of it.
fn settled(path: &std::path::Path) -> Result<Report, String> {
    let began = Instant::now();
    loop {
        let report = model::load(path)?;
        let cut = report.faults.last().is_some_and(|fault| fault.cause == Cause::BlockCut);
        if !cut || began.elapsed() > Duration::from_secs(2) {
            return Ok(report);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn show(
    reports: &[Report],
    args: &Run,
    color: When,
    root: u32,
    status: ExitStatus,
    environment: &Environment,
    file: Option<File>,
) -> io::Result<()> {
    let terminal = file.is_none() && io::stderr().is_terminal();
    let paint = Paint::new(color, terminal);
    let sink: Box<dyn Write> = match file {
        Some(file) => Box::new(file),
        None => Box::new(io::stderr()),
    };
    let mut out = io::BufWriter::new(sink);
    if !reports.iter().any(|report| report.process.pid == root) {
        for line in environment::why_no_report(root, status, environment) {
            writeln!(out, "leakscan: {line}")?;
        }
    }
    if reports.len() > 1 {
        writeln!(out, "leakscan: {} processes reported:", reports.len())?;
        for report in reports {
            let alive = Process { pid: report.process.pid }.is_alive();
            let note = if alive { "; it still runs" } else { "" };
            let text = crate::paint::printable(report.process.args.trim_end());
            writeln!(out, "  {}  {text}  ({}{note})", report.process.pid, report.path.display())?;
        }
        writeln!(out)?;
    }
    let view = View { format: Format::Text, top: None, min_bytes: 0, kind: Vec::new(), all: false };
    for (at, report) in reports.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        report::write(&mut out, &[report], None, &view, &Places::from(&args.places), paint, false)?;
        let ended = !Process { pid: report.process.pid }.is_alive();
        if ended && report.scans.last().is_some_and(|scan| !scan.trigger.is_last()) && environment.scans_at_exit {
            writeln!(
                out,
                "\nleakscan: process {} ended without a last scan (it was killed, or left by a raw system call)",
                report.process.pid
            )?;
        }
        writeln!(out, "\nreport: {}", report.path.display())?;
    }
    out.flush()
}
