//! Frames to functions, files and lines, offline: everything comes from files, found here or under `--sysroot`.
//!
//! One [`Symbolizer`] for one report. It opens each module once, remembers every address, and never guesses: a module whose
//! build id no longer matches gives no names. Broken files give fewer names, not errors; [`Symbolizer::troubles`] says
//! which and why.

mod debugfile;
mod demangle;
mod module;
mod perfmap;
mod symbols;
#[cfg(test)]
mod tests;

use crate::model::{Frame, Report};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use debugfile::open as open_elf;

/// Where to look for files.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Put before every path of the report and of the standard debug directory.
    pub sysroot: Option<PathBuf>,
    /// Looked into before the standard debug directory.
    pub debug_dirs: Vec<PathBuf>,
}

impl Places {
    /// Where a path of the report lies here.
    pub fn local(&self, path: &str) -> PathBuf {
        match &self.sysroot {
            Some(root) => root.join(path.trim_start_matches('/')),
            None => path.into(),
        }
    }

    /// The debug directories, in the order of the search.
    pub fn debug_roots(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.debug_dirs.iter().cloned().chain([self.local("/usr/lib/debug")])
    }
}

/// One source-level frame. Several stand for one address where functions were inlined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Demangled.
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// Its code lies inside that of the next frame outwards.
    pub inlined: bool,
}

/// Why frames of a module have fewer names than they could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The module's file is not there or cannot be read.
    Unreadable(String),
    /// The file there is not the one that the program ran.
    Stale { found: Option<String> },
    /// There are no lines for it, only symbols.
    NoDebugInfo,
}

/// See the module's documentation.
pub struct Symbolizer {
    places: Places,
    modules: HashMap<usize, module::Module>,
    jit: Option<perfmap::PerfMap>,
    pid: u32,
    start: u64,
    known: HashMap<(Option<usize>, u64), Rc<[Symbol]>>,
}

impl Symbolizer {
    pub fn new(report: &Report, places: Places) -> Self {
        let (pid, start) = (report.process.pid, report.process.start);
        Self { places, modules: HashMap::new(), jit: None, pid, start, known: HashMap::new() }
    }

    /// The frames that stand at one return address, innermost first; at least one, perhaps without a name.
    pub fn frame(&mut self, report: &Report, frame: Frame) -> Rc<[Symbol]> {
        // A return address is that of the instruction after the call, which may belong to the next line, the next
        // inlined function, or after a noreturn call even to the next function.
        let address = if frame.exact { frame.offset } else { frame.offset.wrapping_sub(1) };
        if let Some(known) = self.known.get(&(frame.module, address)) {
            return Rc::clone(known);
        }
        let found = match frame.module {
            Some(index) => self.module(report, index).symbols(address),
            None => {
                let (pid, start, places) = (self.pid, self.start, &self.places);
                let map = self.jit.get_or_insert_with(|| perfmap::PerfMap::open(pid, start, places));
                let function = map.find(address).map(demangle::demangle);
                vec![Symbol { function, ..Symbol::default() }]
            }
        };
        let found: Rc<[Symbol]> = found.into();
        self.known.insert((frame.module, address), Rc::clone(&found));
        found
    }

    fn module(&mut self, report: &Report, index: usize) -> &module::Module {
        let places = &self.places;
        self.modules.entry(index).or_insert_with(|| module::Module::open(&report.modules[index], places))
    }

    /// Whether the frame's code lies in a file with C++ operators new and delete of its own, but for the C++ runtime's.
    pub fn has_operators(&mut self, report: &Report, frame: Frame) -> bool {
        frame.module.is_some_and(|index| {
            let name = short_name(&report.modules[index].path);
            !name.starts_with("libstdc++.so")
                && !name.starts_with("libc++")
                && self.module(report, index).has_operators()
        })
    }

    /// What stood in the way, for the modules that were asked for so far, in the order of the report.
    pub fn troubles(&self) -> Vec<(usize, Trouble)> {
        let mut troubles: Vec<_> =
            self.modules.iter().filter_map(|(&index, module)| Some((index, module.trouble()?.clone()))).collect();
        troubles.sort_by_key(|(index, _)| *index);
        troubles
    }

    /// Whether the files are those of this machine, so that its package manager knows them.
    pub fn is_local(&self) -> bool {
        self.places.sysroot.is_none()
    }
}

/// The last part of a module's path, as frames show it.
pub fn short_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Unreadable(cause) => write!(f, "the file cannot be read: {cause}"),
            Trouble::Stale { found: Some(id) } => {
                write!(f, "the file there now is not the one that ran (its build id is {id})")
            }
            Trouble::Stale { found: None } => {
                write!(f, "the file there now is not the one that ran (it has no build id)")
            }
            Trouble::NoDebugInfo => write!(f, "no debug info was found"),
        }
    }
}
