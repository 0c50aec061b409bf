//! What a program has done, and what its reports say.

use crate::app::App;
use crate::report::{Leak, Report, Unseen};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;

/// A program that has ended.
#[derive(Clone)]
pub struct Outcome {
    pub app: App,
    pub pid: u32,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// It must have ended with status 0.
    ///
    /// # Panics
    /// If not.
    pub fn ok(&self) -> &Self {
        assert!(self.status.success(), "{}\n{self:?}", self.status);
        self
    }

    /// The paths of all reports in the app's folder, `.old` ones included.
    ///
    /// # Panics
    /// If the folder cannot be read.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.app.folder()).unwrap().map(|entry| entry.unwrap().path());
        let is_report =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"leakscan."));
        let mut files: Vec<_> = entries.filter(is_report).collect();
        files.sort();
        files
    }

    /// All reports in the app's folder.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.files().into_iter().map(|path| Report::read(path, None)).collect()
    }

    /// The report of the program itself.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report_of(self.pid)
    }

    /// What it was at the end of its scan number `scan`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn report_of_scan(&self, scan: u32) -> Report {
        Report::read(self.app.path(&format!("leakscan.{}", self.pid)), Some(scan))
    }

    /// The report of a process that it has started.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn report_of(&self, pid: u32) -> Report {
        let path = self.app.path(&format!("leakscan.{pid}"));
        assert!(path.exists(), "no {}, but {:?}\n{self:?}", path.display(), self.files());
        Report::read(path, None)
    }

    /// A number that the program's last whole scan has measured: a field of the report's `stats` line.
    ///
    /// # Panics
    /// If there is none of that name.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        *self.stats(name).last().unwrap_or_else(|| panic!("no scan"))
    }

    /// The same of each scan.
    ///
    /// # Panics
    /// If a scan has none of that name.
    #[must_use]
    pub fn stats(&self, name: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.app.path(&format!("leakscan.{}", self.pid))).unwrap();
        let number = |line: &str| {
            let value = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {name} in `{line}`"))
        };
        text.lines().filter(|line| line.starts_with("stats ")).map(number).collect()
    }

    /// No leak, confirmed or suspected by any scan of any report in the app's folder, was freed by the program later.
    ///
    /// # Panics
    /// If one was, with all that was reported.
    pub fn expect_none_freed(&self) {
        for path in self.files() {
            let text = fs::read_to_string(&path).unwrap();
            let mut checks = text.lines().filter(|line| line.starts_with("check "));
            if checks.any(|line| line != "check confirmed_freed=0 suspected_freed=0") {
                let last = text.lines().rev().find_map(|line| line.strip_prefix("scan ")?.split(' ').next());
                let last: u32 = last.and_then(|number| number.parse().ok()).unwrap();
                let reports: Vec<_> = (1..=last).map(|scan| Report::read(path.clone(), Some(scan))).collect();
                panic!("blocks were reported and then freed: {reports:?}\n{self:?}");
            }
        }
    }

    /// It has ended with status 0, and there are no leaks in its last scan.
    ///
    /// # Panics
    /// If not.
    pub fn expect_clean(&self) {
        self.ok();
        let report = self.report();
        assert!(report.leaks.is_empty(), "no leak was expected: {report:?}\n{self:?}");
    }

    /// It has ended with status 0, and its last scan has leaks of this many blocks and bytes in all, all of them confirmed.
    ///
    /// # Panics
    /// If not.
    pub fn expect_leaks(&self, blocks: u64, bytes: u64) {
        self.ok();
        let report = self.report();
        let found = total(&report.leaks);
        assert_eq!(found, (blocks, bytes), "(blocks, bytes) of all leaks: {report:?}\n{self:?}");
        let suspected = report.leaks.iter().filter(|leak| leak.status != "confirmed").count();
        assert_eq!(suspected, 0, "leaks that are not confirmed: {report:?}");
    }

    /// The same, but none of them confirmed: the registers of a thread were not all seen, as the report says.
    ///
    /// # Panics
    /// If not.
    pub fn expect_suspected(&self, blocks: u64, bytes: u64) {
        self.ok();
        let report = self.report();
        assert_eq!(total(&report.leaks), (blocks, bytes), "(blocks, bytes) of all leaks: {report:?}\n{self:?}");
        assert_eq!(report.summary.confirmed.blocks, 0, "leaks that are confirmed: {report:?}");
        let why = |unseen: &Unseen| unseen.what == "thread" && unseen.why.ends_with("nothing is confirmed");
        assert!(report.last().unseen.iter().any(why), "{report:?}");
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, pid, status, stdout, stderr } = self;
        write!(f, "\n{:?}\npid {pid}, {status}\nstdout: {stdout}\nstderr: {stderr}", app.command())
    }
}

/// Blocks and bytes in all.
pub(crate) fn total<'a>(leaks: impl IntoIterator<Item = &'a Leak>) -> (u64, u64) {
    leaks.into_iter().fold((0, 0), |(blocks, bytes), leak| (blocks + leak.blocks, bytes + leak.bytes))
}
