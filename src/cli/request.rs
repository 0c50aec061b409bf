//! Asks a process for a scan and waits for its answer: the way shared by `leakscan scan` and `leakscan run`.

use crate::logpath;
use crate::process::Process;
use crate::sys;
use leakscan_report::Trigger;
use leakscan_report::read;
use std::io;
use std::os::unix::fs::MetadataExt;
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

/// A report file as it is now.
struct File {
    path: PathBuf,
    /// Of the file, whatever its name.
    identity: (u64, u64),
    length: u64,
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
        let before = self.report().and_then(|file| Some((self.read(&file)?.len(), file)));
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
            if let Some(file) = self.report()
                && (size != Some((file.identity, file.length)) || !alive)
                && let Some(blocks) = self.read(&file)
            {
                size = Some((file.identity, file.length));
                // A program that has become another one has a new file, with its own numbers.
                let old = before.as_ref().filter(|(_, before)| before.identity == file.identity);
                let fresh = blocks.get(old.map_or(0, |(blocks, _)| *blocks)..).unwrap_or_default();
                let answer = |scan: u32| Answer { path: file.path.clone(), scan };
                if let Some((scan, _)) = fresh.iter().rev().find(|(_, trigger)| *trigger == Trigger::Signal) {
                    return Ok(answer(*scan));
                }
                if let Some((scan, _)) = fresh.last() {
                    other.get_or_insert((Instant::now(), answer(*scan)));
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
                if self.process.status().is_ok_and(|status| status.stopped) {
                    return Err(format!(
                        "process {pid} gave no scan within {seconds} s: it is stopped (by SIGSTOP, by its terminal or by a debugger); it will scan when it goes on"
                    ));
                }
                return Err(match self.report() {
                    Some(file) => format!(
                        "process {pid} gave no whole scan within {seconds} s; its report is {}",
                        file.path.display()
                    ),
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

    /// The report file: the newest, where the process has had several names.
    fn report(&self) -> Option<File> {
        let ours = |path: &PathBuf| logpath::header(path).is_some_and(|header| header.pid == self.inner_pid);
        let mut paths = logpath::files(&self.pattern, Some(self.inner_pid));
        if paths.len() > 1 {
            paths.retain(ours);
        }
        let files = paths.into_iter().filter_map(|path| {
            let about = path.metadata().ok()?;
            let identity = (about.dev(), about.ino());
            Some((about.modified().ok(), File { path, identity, length: about.len() }))
        });
        files.max_by_key(|(modified, _)| *modified).map(|(_, file)| file)
    }

    /// Numbers and triggers of its scans.
    fn read(&self, file: &File) -> Option<Vec<(u32, Trigger)>> {
        let bytes = std::fs::read(&file.path).ok()?;
        // A file of an earlier process with that number: ours will take its place.
        let report = read::Report::parse(&bytes).ok().filter(|report| report.process.pid == self.inner_pid)?;
        Some(report.blocks().flatten().map(|block| (block.number, block.trigger)).collect())
    }
}
