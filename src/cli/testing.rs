//! For tests: reports made by the library's own writer, and small C programs with what one needs to name their addresses.

use crate::args::{Format, View};
use crate::model::{self, Report};
use crate::paint::Paint;
use crate::symbolize::Places;
use leakscan_report::write::{Sink, Writer};
use leakscan_report::{Frame, Kind, Leak, Module, Process, Stats, Status, Trigger};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

impl Sink for Bytes {
    fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.extend_from_slice(bytes);
        true
    }
}

/// A report file under construction.
pub struct Maker(Records);

/// The writer, which keeps the totals of the scan.
pub struct Records {
    writer: Writer<Bytes>,
    totals: Stats,
}

impl Records {
    pub fn leak(&mut self, leak: &Leak) {
        self.writer.leak(leak);
        let totals = &mut self.totals;
        let (blocks, bytes) = match leak.kind {
            Kind::Direct => (&mut totals.direct_blocks, &mut totals.direct_bytes),
            Kind::Indirect => (&mut totals.indirect_blocks, &mut totals.indirect_bytes),
            Kind::Possible => (&mut totals.possible_blocks, &mut totals.possible_bytes),
        };
        *blocks = blocks.saturating_add(leak.blocks);
        *bytes = bytes.saturating_add(leak.bytes);
        if leak.status == Status::Confirmed && leak.kind != Kind::Possible {
            totals.confirmed_blocks = totals.confirmed_blocks.saturating_add(leak.blocks);
            totals.confirmed_bytes = totals.confirmed_bytes.saturating_add(leak.bytes);
        }
    }
}

impl Deref for Records {
    type Target = Writer<Bytes>;
    fn deref(&self) -> &Writer<Bytes> {
        &self.writer
    }
}

impl DerefMut for Records {
    fn deref_mut(&mut self) -> &mut Writer<Bytes> {
        &mut self.writer
    }
}

impl Maker {
    pub fn new(run: &str) -> Self {
        let mut writer = Writer::new(Bytes::default());
        writer.header(&Process {
            pid: 4242,
            ppid: 1,
            start: 1_795_653_600,
            version: b"0.1.0",
            run: run.as_bytes(),
            exe: b"/usr/bin/server",
            args: b"server --port 80",
            options: b"interval=60",
        });
        Self(Records { writer, totals: Stats::default() })
    }

    /// One scan; `inside` writes its records.
    pub fn scan(mut self, number: u32, trigger: Trigger, inside: impl FnOnce(&mut Records)) -> Self {
        self.0.scan(number, trigger, 1_795_653_600 + u64::from(number) * 60);
        inside(&mut self.0);
        let stats = Stats {
            pause_us: 812,
            scan_ms: 14,
            live_blocks: 81_203,
            live_bytes: 14_889_779,
            threads: 4,
            ..std::mem::take(&mut self.0.totals)
        };
        self.0.stats("ptrace", &stats);
        self.0.end(number);
        self
    }

    pub fn bytes(mut self) -> Vec<u8> {
        assert!(self.0.finish());
        std::mem::take(&mut self.0.sink().0)
    }

    pub fn report(self) -> Report {
        model::parse(Path::new("test.4242"), &self.bytes()).unwrap()
    }
}

pub fn leak(kind: Kind, status: Status, stack: u32, blocks: u64, bytes: u64) -> Leak {
    Leak {
        kind,
        status,
        stack,
        blocks,
        bytes,
        exact: true,
        error_blocks: 0,
        error_bytes: 0,
        indirect_blocks: 0,
        indirect_bytes: 0,
    }
}

pub fn module(path: &str, build_id: &[u8], write: &mut Writer<Bytes>) {
    write.module(&Module { id: 0, start: 0x1000, end: 0x9000, bias: 0x1000, build_id, path: path.as_bytes() });
}

pub fn frame(offset: u64) -> Frame {
    Frame { module: Some(0), offset, exact: false }
}

pub fn view(format: Format) -> View {
    View { format, top: None, min_bytes: 0, kind: Vec::new(), all: false }
}

/// What the command would print.
pub fn shown(report: &Report, number: Option<u32>, view: &View) -> String {
    let mut out = Vec::new();
    // Nothing of this machine may find its way into the output.
    let places = Places { sysroot: Some("/nonexistent".into()), debug_dirs: Vec::new() };
    crate::report::write(&mut out, &[report], number, view, &places, Paint::off(), false).unwrap();
    String::from_utf8(out).unwrap()
}

/// Compiles C; the arguments decide what becomes of its debug info.
pub fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (input, output) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&input, source).unwrap();
    run(Command::new("gcc").args(flags).arg("-o").arg(&output).arg(&input));
    output
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
