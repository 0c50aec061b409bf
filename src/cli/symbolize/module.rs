//! One module's files, opened once: its DWARF context, wherever that lies, and its symbols.

use super::debugfile::{self, Elf};
use super::symbols::Symbols;
use super::{Places, Symbol, Trouble, demangle};
use crate::model;
use addr2line::{LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{EndianSlice, RunTimeEndian};
use object::{Object, ObjectSection};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Reader = EndianSlice<'static, RunTimeEndian>;
type Context = addr2line::Context<Reader>;

pub struct Module {
    dwarf: Option<Context>,
    symbols: Symbols,
    trouble: Option<Trouble>,
}

impl Module {
    /// Never fails: what could not be had is [`Module::trouble`].
    pub fn open(module: &model::Module, places: &Places) -> Self {
        let path = module.path.strip_suffix(" (deleted)").unwrap_or(&module.path);
        // `[vdso]` and the like are in no file.
        if !path.starts_with('/') {
            return Self { dwarf: None, symbols: Symbols::default(), trouble: None };
        }
        let mut trouble = None;
        let mut own = match debugfile::open(&places.local(path)) {
            Ok(elf) => Some(elf),
            Err(cause) => {
                trouble = Some(Trouble::Unreadable(cause));
                None
            }
        };
        if let (Some(elf), Some(wanted)) = (&own, &module.build_id) {
            let found = debugfile::build_id(elf);
            if found.as_ref() != Some(wanted) {
                trouble = Some(Trouble::Stale { found });
                own = None;
            }
        }
        let separate = (module.build_id.as_deref().and_then(|id| debugfile::by_build_id(id, places)))
            .or_else(|| debugfile::by_link(own.as_ref()?, path, places));
        let mini = own.as_ref().and_then(debugfile::mini);
        let in_own = own.as_ref().filter(|elf| debugfile::has_lines(elf)).map(|elf| (places.local(path), elf));
        let in_separate = separate.as_ref().map(|(path, elf)| (path.clone(), elf));
        let dwarf = in_own.or(in_separate).and_then(|(path, elf)| context(elf, &path, places).ok());
        let files: Vec<&Elf> = own.iter().chain(separate.as_ref().map(|(_, elf)| elf)).chain(mini.as_ref()).collect();
        let symbols = Symbols::read(&files);
        if dwarf.is_some() {
            trouble = None;
        } else if trouble.is_none() {
            trouble = Some(Trouble::NoDebugInfo);
        }
        Self { dwarf, symbols, trouble }
    }

    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Whether it defines C++ operators new or delete that may stand for the runtime's: not those with arguments of their own, as
    /// placement new.
    pub fn has_operators(&self) -> bool {
        self.symbols.names().any(is_replaceable)
    }

    /// Innermost first; one without a name where nothing is known.
    pub fn symbols(&self, address: u64) -> Vec<Symbol> {
        let mut found = self.dwarf.as_ref().map_or_else(Vec::new, |dwarf| frames(dwarf, address));
        if found.is_empty() {
            found.push(Symbol::default());
        }
        if let Some(outermost) = found.last_mut()
            && outermost.function.is_none()
            && !self.symbols.is_empty()
        {
            outermost.function = self.symbols.find(address).map(demangle::demangle);
        }
        found
    }
}

fn is_replaceable(name: &str) -> bool {
    let rest =
        ["_Znwm", "_Znam", "_ZdlPvm", "_ZdaPvm", "_ZdlPv", "_ZdaPv"].iter().find_map(|begin| name.strip_prefix(begin));
    let rest = rest.map(|rest| rest.strip_prefix("St11align_val_t").unwrap_or(rest));
    rest.is_some_and(|rest| rest.strip_prefix("RKSt9nothrow_t").unwrap_or(rest).is_empty())
}

/// What was decoded up to a fault in the DWARF counts; the rest does not.
fn frames(dwarf: &Context, address: u64) -> Vec<Symbol> {
    let mut found: Vec<Symbol> = Vec::new();
    let mut lookup = dwarf.find_frames(address);
    let frames = loop {
        lookup = match lookup {
            LookupResult::Output(frames) => break frames,
            LookupResult::Load { load, continuation } => continuation.resume(split(&load)),
        };
    };
    let Ok(mut frames) = frames else { return found };
    while let Ok(Some(frame)) = frames.next() {
        let name = frame.function.as_ref().and_then(|name| name.raw_name().ok());
        let location = frame.location.as_ref();
        if let Some(inner) = found.last_mut() {
            inner.inlined = true;
        }
        found.push(Symbol {
            function: name.map(|name| demangle::demangle(&name)),
            file: location.and_then(|location| location.file).map(str::to_owned),
            // Line 0 is how compilers say that no line is to blame.
            line: location.and_then(|location| location.line).filter(|&line| line != 0),
            column: location.and_then(|location| location.column).filter(|&column| column != 0),
            inlined: false,
        });
    }
    found
}

/// The `.dwo` file of a unit built with -gsplit-dwarf, where it still lies at its place.
fn split(load: &SplitDwarfLoad<Reader>) -> Option<Arc<gimli::Dwarf<Reader>>> {
    let text = |reader: &Reader| Some(PathBuf::from(std::str::from_utf8(reader.slice()).ok()?));
    let folder = load.comp_dir.as_ref().and_then(text).unwrap_or_default();
    let elf = debugfile::open(&folder.join(load.path.as_ref().and_then(text)?)).ok()?;
    let mut dwarf = gimli::Dwarf::load(|id| section(&elf, id.dwo_name().unwrap_or(""))).ok()?;
    let header = dwarf.units().next().ok()??;
    if dwarf.unit(header).ok()?.dwo_id != Some(load.dwo_id) {
        return None;
    }
    dwarf.make_dwo(&load.parent);
    Some(Arc::new(dwarf))
}

fn context(elf: &Elf, path: &Path, places: &Places) -> Result<Context, gimli::Error> {
    let mut dwarf = gimli::Dwarf::load(|id| section(elf, id.name()))?;
    if let Some(shared) = debugfile::supplementary(elf, path, places) {
        dwarf.load_sup(|id| section(&shared, id.name()))?;
    }
    Context::from_dwarf(dwarf)
}

/// An absent or unreadable section is an empty one: the others may still tell something.
fn section(elf: &Elf, name: &str) -> Result<Reader, gimli::Error> {
    let endian = if elf.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let data = elf.section_by_name(name).and_then(|section| section.uncompressed_data().ok());
    let data: &'static [u8] = match data {
        None => &[],
        Some(Cow::Borrowed(data)) => data,
        Some(Cow::Owned(data)) => data.leak(),
    };
    Ok(EndianSlice::new(data, endian))
}

#[cfg(test)]
mod tests {
    use super::is_replaceable;

    #[test]
    fn placement_new_replaces_nothing() {
        for name in
            ["_Znwm", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZdlPv", "_ZdaPvmSt11align_val_t"]
        {
            assert!(is_replaceable(name), "{name}");
        }
        for name in ["_ZnwmPv", "_ZdlPvS_", "_ZnwmR5Arena", "_Znwm.cold", "_ZN3fooC1Ev", "malloc"] {
            assert!(!is_replaceable(name), "{name}");
        }
    }
}
