//! A program that runs: its lines, the lines to it, its end.

use crate::app::App;
use crate::outcome::Outcome;
use crate::report::Report;
use crate::snapshot::Snapshot;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// See the module. Killed, with all its process group, when it is dropped before its end.
pub struct Running {
    app: App,
    pid: u32,
    begun: Instant,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    status: Receiver<ExitStatus>,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    done: bool,
}

impl Running {
    pub(crate) fn new(app: &App) -> Self {
        use std::os::unix::process::CommandExt;
        let mut command = app.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (pid, stdin) = (child.id(), child.stdin.take());
        let (line, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stdout = spawn(move || read_lines(stdout, |text| drop(line.send(text.trim_end().to_owned()))));
        let mut error = child.stderr.take().expect("it is piped");
        let stderr = spawn(move || {
            let mut bytes = Vec::new();
            let _ = error.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (ended, status) = channel();
        spawn(move || child.wait().map(|status| ended.send(status)));
        let (stdout, stderr) = (Some(stdout), Some(stderr));
        Self { app: app.clone(), pid, begun: Instant::now(), stdin, lines, status, stdout, stderr, done: false }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line that it writes.
    ///
    /// # Panics
    /// If it ends, or its deadline passes, before that.
    #[must_use]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(self.left()) {
            Ok(line) => line,
            Err(error) => self.fail(&format!("wanted a line: {error}")),
        }
    }

    /// Writes a line to its stdin.
    ///
    /// # Panics
    /// If it does not listen any more.
    pub fn say(&mut self, line: &str) {
        let said = self.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}"));
        if !matches!(said, Some(Ok(()))) {
            self.fail(&format!("it does not listen: {said:?}"));
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn kill(&self, signal: Signal) {
        kill_process(pid(self.pid), signal).unwrap();
    }

    /// `leakscan scan`, which waits until the scan is whole.
    ///
    /// # Panics
    /// If it gives no report.
    #[must_use]
    pub fn scan(&self) -> Report {
        let pid = self.pid.to_string();
        let args = ["scan", &pid, "--format", "json", "--all", "--timeout", "10"];
        Report::from_json(&crate::must(&mut crate::command(args)))
    }

    /// Whole scans in its report.
    #[must_use]
    pub fn scans(&self) -> usize {
        let path = self.app.path(&format!("leakscan.{}", self.pid));
        let whole = |text: String| text.lines().filter(|line| line.starts_with("end ")).count();
        std::fs::read_to_string(path).map_or(0, whole)
    }

    /// Waits until its report has that many whole scans.
    ///
    /// # Panics
    /// If its deadline passes before that.
    pub fn wait_for_scans(&mut self, number: usize) {
        while self.scans() < number {
            if self.left().is_zero() {
                self.fail(&format!("wanted {number} scans"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends its stdin.
    pub fn close(&mut self) {
        drop(self.stdin.take());
    }

    /// Asks for a scan by the signal, and stops the snapshot child in its midst.
    ///
    /// # Panics
    /// If there is none within the deadline.
    pub fn hold_snapshot(&mut self) -> Snapshot {
        let ask = format!("kill -58 {}", self.pid);
        let _ = crate::must(std::process::Command::new("sh").args(["-c", &ask]));
        loop {
            if let Some(snapshot) = Snapshot::find(self.pid) {
                return snapshot;
            }
            if self.left().is_zero() {
                self.fail("wanted a snapshot at work");
            }
        }
    }

    /// Waits for its end, with nothing more on its stdin.
    ///
    /// # Panics
    /// If its deadline passes before that, or before everybody has let go of its stdout and stderr.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        drop(self.stdin.take());
        let status = match self.status.recv_timeout(self.left()) {
            Ok(status) => status,
            Err(error) => self.fail(&format!("it does not end: {error}")),
        };
        self.done = true;
        let (Some(stdout), Some(stderr)) = (self.stdout.take(), self.stderr.take()) else { unreachable!() };
        while !(stdout.is_finished() && stderr.is_finished()) {
            if self.left().is_zero() {
                self.fail("it has ended, but another process keeps its stdout or stderr open");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        Outcome { app: self.app.clone(), pid: self.pid, status, stdout, stderr }
    }

    fn left(&self) -> Duration {
        self.app.deadline.saturating_sub(self.begun.elapsed())
    }

    fn fail(&mut self, what: &str) -> ! {
        let threads = threads(self.pid);
        let _ = kill_process_group(pid(self.pid), Signal::KILL);
        self.done = true;
        let text = |from: Option<JoinHandle<String>>| from.and_then(|text| text.join().ok()).unwrap_or_default();
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        panic!("{:?}: {what}\nstdout: {stdout}\nstderr: {stderr}\nthreads:{threads}", self.app.command());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            let _ = kill_process_group(pid(self.pid), Signal::KILL);
        }
    }
}

fn pid(number: u32) -> Pid {
    number.try_into().ok().and_then(Pid::from_raw).expect("the pid of a child is positive")
}

fn read_lines(mut from: impl BufRead, mut each: impl FnMut(&str)) -> String {
    let mut all = String::new();
    loop {
        let mut bytes = Vec::new();
        if !matches!(from.read_until(b'\n', &mut bytes), Ok(1..)) {
            return all;
        }
        let line = String::from_utf8_lossy(&bytes);
        each(&line);
        all.push_str(&line);
    }
}

/// What a hanging program's threads are at: state, system call, where in the kernel.
fn threads(pid: u32) -> String {
    let mut text = String::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let file = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let state = file("status").lines().find(|line| line.starts_with("State:")).unwrap_or("").to_owned();
        let _ = write!(text, "\n  {:?} {state} {} {}", task.file_name(), file("wchan").trim(), file("syscall").trim());
    }
    text
}
