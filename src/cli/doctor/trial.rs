//! The proof of the pudding: a small program under the library, and a look at its report.

use super::{Finding, fail, ok, warn};
use crate::{library, model, sys, units};
use leakscan_report::Trigger;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

pub fn examine() -> Vec<Finding> {
    let Ok(library) = library::find() else { return Vec::new() };
    let place = std::env::temp_dir().join(format!("leakscan-doctor.{}", std::process::id()));
    if let Err(error) = fs::create_dir(&place) {
        return vec![warn("trial", format!("not made: {}: {}", place.display(), sys::plain(&error)))];
    }
    let findings = trial(&library, &place);
    fs::remove_dir_all(&place).ok();
    findings
}

fn trial(library: &Path, place: &Path) -> Vec<Finding> {
    // Every stack is also taken by libgcc's unwinder, and the differences counted.
    let options = format!("interval=0:unwind_check=1:log_path={}/report.%p", place.display());
    let started = Command::new("ls")
        .arg("/")
        .env("LD_PRELOAD", library)
        .env("LEAKSCAN_OPTIONS", options)
        .env_remove("LEAKSCAN_RUN")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return vec![warn("trial", format!("`ls` cannot be started: {}", sys::plain(&error)))],
    };
    let pid = child.id();
    let Some(status) = wait(&mut child) else {
        return vec![fail(
            "trial",
            format!("`ls` under {} did not end within {} s", library.display(), LIMIT.as_secs()),
        )];
    };
    if !status.success() {
        return vec![fail("trial", format!("`ls` under {} ended with {status}", library.display()))];
    }
    let path: PathBuf = place.join(format!("report.{pid}"));
    match model::load(&path) {
        Err(error) => vec![fail("trial", format!("`ls` ran, but left no report: {error}"))],
        Ok(report) => match report.scans.last() {
            Some(scan) if scan.trigger == Trigger::Exit => {
                let stats = &scan.stats;
                let text = format!(
                    "`ls` ran and was scanned at its end: {}, pause {}, threads stopped by {}",
                    units::counted(stats.live_blocks, "live block"),
                    units::micros(stats.pause_us),
                    if scan.via.is_empty() { "nothing" } else { &scan.via }
                );
                let differing = scan.unseen.iter().filter(|row| row.what.contains("unwind"));
                let unwind = match differing.map(|row| format!("{} ({})", row.why, row.count)).collect::<Vec<_>>() {
                    rows if rows.is_empty() => ok("unwind", "its stacks are those of libgcc's unwinder"),
                    rows => warn("unwind", rows.join("; ")),
                };
                vec![ok("trial", text), unwind]
            }
            _ => vec![fail("trial", "`ls` ran, but was not scanned at its end".to_owned())],
        },
    }
}

/// `None` where it had to be killed.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().ok();
    child.wait().ok();
    None
}
