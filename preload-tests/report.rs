//! A report as `leakscan report --format json` gives it.

use crate::outcome::total;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    pub pid: u32,
    pub exe: String,
    pub cmdline: String,
    pub scans: Vec<Scan>,
    pub leaks: Vec<Leak>,
    pub misuses: Vec<Misuse>,
    pub summary: Summary,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Scan {
    pub scan: u32,
    pub trigger: String,
    pub via: String,
    pub pause_us: u64,
    pub live_blocks: u64,
    pub live_bytes: u64,
    pub threads: u64,
    pub unseen: Vec<Unseen>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Unseen {
    pub what: String,
    pub why: String,
    pub count: u64,
}

#[derive(Clone, Deserialize)]
pub struct Leak {
    pub kind: String,
    pub status: String,
    pub blocks: u64,
    pub bytes: u64,
    pub exact: bool,
    pub error_blocks: u64,
    pub error_bytes: u64,
    pub first_scan: u32,
    pub indirect_blocks: u64,
    pub indirect_bytes: u64,
    pub frames: Vec<Frame>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Misuse {
    pub what: String,
    pub made_by: String,
    pub freed_by: String,
    pub blocks: u64,
    pub made: Vec<Frame>,
    pub freed: Vec<Frame>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    pub module: Option<String>,
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub inlined: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    pub direct: Totals,
    pub indirect: Totals,
    pub possible: Totals,
    pub confirmed: Totals,
    pub suspected: Totals,
    pub confirmed_freed: u64,
    pub suspected_freed: u64,
    pub damaged: Vec<serde_json::Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Totals {
    pub stacks: u64,
    pub blocks: u64,
    pub bytes: u64,
}

impl Report {
    pub(crate) fn read(path: PathBuf, scan: Option<u32>) -> Self {
        let mut command = crate::command(["report", "--format", "json", "--all"]);
        if let Some(scan) = scan {
            command.args(["--scan", &scan.to_string()]);
        }
        Self::from_json(&crate::must(command.arg(path)))
    }

    pub(crate) fn from_json(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Leaks whose stack has a frame of that function.
    pub fn through(&self, function: &str) -> impl Iterator<Item = &Leak> {
        self.leaks.iter().filter(move |leak| leak.frames.iter().any(|frame| frame.is(function)))
    }

    /// Blocks and bytes of the leaks whose stack has a frame of that function.
    #[must_use]
    pub fn total_through(&self, function: &str) -> (u64, u64) {
        total(self.through(function))
    }

    /// Blocks and bytes of all leaks.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        total(&self.leaks)
    }

    /// The last scan.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn last(&self) -> &Scan {
        self.scans.last().expect("a whole scan in the report")
    }

    /// What triggered each scan.
    #[must_use]
    pub fn triggers(&self) -> Vec<&str> {
        self.scans.iter().map(|scan| scan.trigger.as_str()).collect()
    }
}

/// One line a leak, as a failed test shows it.
impl fmt::Debug for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, status, blocks, bytes, exact, indirect_blocks, indirect_bytes, .. } = self;
        let about = if *exact { "" } else { "about " };
        write!(f, "\n  {kind} {status}: {about}{bytes} bytes in {blocks} blocks")?;
        write!(f, ", {indirect_bytes} in {indirect_blocks} behind: {}", self.functions().join(" < "))
    }
}

impl Leak {
    /// Functions from the caller of the allocation outwards.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        self.frames.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
    }
}

impl Frame {
    fn is(&self, function: &str) -> bool {
        self.function.as_deref().is_some_and(|name| name == function)
    }
}
