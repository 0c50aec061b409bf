//! Asks a process for a scan and waits for its answer: the way shared by `leakscan scan` and `leakscan run`.

use crate::logpath;
use crate::process::Process;
use crate::sys;
use leakscan_report::Trigger;
use leakscan_report::read;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A process with leakscan in it, ready to answer.
#[derive(Debug)]
pub struct Target {
    process: Process,
    signal: i32,
    /// `log_path`, reached from here.
    pattern: String,
    /// What the process itself takes for its pid.
    inner_pid: u32,
}

/// A scan that was made because of us, or while we asked.
#[derive(Debug)]
pub struct Answer {
    pub path: PathBuf,
    pub scan: u32,
}

/// How often the report is looked at; a scan takes longer.
const POLL: Duration = Duration::from_millis(5);
/// A scan that ran already when we asked is not the answer, unless none comes behind it for so long.
const PATIENCE: Duration = Duration::from_secs(1);

impl Target {
    /// # Errors
    /// Why the process cannot be asked, in a sentence.
    pub fn new(process: Process, signal: Option<i32>) -> Result<Self, String> {
        let pid = process.pid;
        let status = process.status().map_err(|_| format!("there is no process {pid}"))?;
        if !process.is_alive() {
            return Err(format!("process {pid} ({}) has ended", status.name));
        }
        let denied = |error: &io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied if status.uid != rustix::process::geteuid().as_raw() => {
                format!(
                    "process {pid} ({}) belongs to someone else (uid {}); be that user or root",
                    status.name, status.uid
                )
            }
            io::ErrorKind::PermissionDenied if status.uid == 0 => {
                format!("process {pid} ({}) may not be looked at: leakscan lacks CAP_SYS_PTRACE here", status.name)
            }
            io::ErrorKind::PermissionDenied => {
                format!("process {pid} ({}) is closed to its own user (it is not dumpable); be root", status.name)
            }
            io::ErrorKind::NotFound => format!("process {pid} has ended"),
            _ => format!("process {pid}: {}", sys::plain(error)),
        };
        if !process.has_library().map_err(|error| denied(&error))? {
            return Err(format!(
                "process {pid} ({}) has no leakscan in it; start it with `leakscan run` or LD_PRELOAD=libleakscan.so",
                status.name
            ));
        }
        let (own, pattern) = process.options().map_err(|error| denied(&error))?;
        let signal = signal.unwrap_or(own);
        if !status.catches(signal) {
            return Err(format!(
                "process {pid} ({}) does not listen to signal {signal}; if it was told another one, give --signal N",
                status.name
            ));
        }
        let pattern = process.reach(Path::new(&pattern)).to_string_lossy().into_owned();
        Ok(Self { process, signal, pattern, inner_pid: status.inner_pid.unwrap_or(pid) })
    }

    /// Sends the signal and waits for a new whole block. `waiting` is told how long it has been, at every look.
    ///
    /// # Errors
    /// Why there is no answer, in a sentence.
    pub fn scan(&self, timeout: Duration, mut waiting: impl FnMut(Duration)) -> Result<Answer, String> {
        let pid = self.process.pid;
        let before = self.blocks().map_or(0, |(_, blocks)| blocks.len());
        sys::kill(pid, self.signal).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => format!("process {pid} belongs to someone else; be that user or root"),
            _ => format!("process {pid}: signal {}: {}", self.signal, sys::plain(&error)),
        })?;
        let asked = Instant::now();
        let mut other = None;
        let mut size = None;
        loop {
            // Looked at before the report, so that what a dying process wrote last is still found.
            let alive = self.process.is_alive();
            if let Some((path, length)) = self.report()
                && (size != Some(length) || !alive)
                && let Some((path, blocks)) = self.read(path)
            {
                size = Some(length);
                let fresh = blocks.get(before.min(blocks.len())..).unwrap_or_default();
                if let Some((scan, _)) = fresh.iter().rev().find(|(_, trigger)| *trigger == Trigger::Signal) {
                    return Ok(Answer { path, scan: *scan });
                }
                if let Some((scan, _)) = fresh.last() {
                    other.get_or_insert((Instant::now(), Answer { path, scan: *scan }));
                }
            }
            if let Some((_, answer)) = other.take_if(|(since, _)| !alive || since.elapsed() > PATIENCE) {
                return Ok(answer);
            }
            if !alive {
                return Err(format!("process {pid} ended before it answered"));
            }
            if asked.elapsed() >= timeout {
                let seconds = timeout.as_secs();
                return Err(match self.report() {
                    Some((path, _)) => {
                        format!("process {pid} gave no whole scan within {seconds} s; its report is {}", path.display())
                    }
                    None => format!(
                        "process {pid} gave no report within {seconds} s at {}; its stderr tells if it could not write there",
                        self.pattern.replace("%p", &self.inner_pid.to_string())
                    ),
                });
            }
            waiting(asked.elapsed());
            sleep(POLL);
        }
    }

    /// The report file and its length.
    fn report(&self) -> Option<(PathBuf, u64)> {
        let ours = |path: &PathBuf| logpath::header(path).is_some_and(|header| header.pid == self.inner_pid);
        let path = match logpath::files(&self.pattern, Some(self.inner_pid)) {
            files if files.len() < 2 => files.into_iter().next(),
            files => files.into_iter().rev().find(ours),
        }?;
        let length = path.metadata().ok()?.len();
        Some((path, length))
    }

    fn blocks(&self) -> Option<(PathBuf, Vec<(u32, Trigger)>)> {
        self.read(self.report()?.0)
    }

    fn read(&self, path: PathBuf) -> Option<(PathBuf, Vec<(u32, Trigger)>)> {
        let bytes = std::fs::read(&path).ok()?;
        // A file of an earlier process with that number: ours will take its place.
        let report = read::Report::parse(&bytes).ok().filter(|report| report.process.pid == self.inner_pid)?;
        let blocks = report.blocks().flatten().map(|block| (block.number, block.trigger)).collect();
        Some((path, blocks))
    }
}
