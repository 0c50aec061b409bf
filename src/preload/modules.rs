//! Loaded files: where each lies, its bias and its build id, read from its own headers in memory.
//!
//! Also dlclose: what it takes away is kept by name, and its addresses are forgotten, since another file may come there.
#![allow(unsafe_code)] // reads ELF headers where the loader has mapped them

use crate::state::UNWINDER;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List, Zeroed};
use leakscan_engine::lock::{Lock, RawFutex};
use leakscan_engine::scan::maps;
use leakscan_engine::sys::{self, Errno};

const PATH: usize = 232;

/// One file. The path is cut at 232 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Module {
    pub range: AddrRange,
    pub bias: usize,
    /// Where its memory ends, .bss included, on a page border; 0 if its headers cannot be read.
    pub end: usize,
    id: [u8; 32],
    id_len: u16,
    path_len: u16,
    path: [u8; PATH],
}

// SAFETY: integers are valid when zero.
unsafe impl Zeroed for Module {}

impl Module {
    pub fn build_id(&self) -> &[u8] {
        &self.id[..usize::from(self.id_len).min(self.id.len())]
    }
    pub fn path(&self) -> &[u8] {
        &self.path[..usize::from(self.path_len).min(PATH)]
    }
}

impl Module {
    /// As it stands in the report.
    pub fn record(&self, id: u32) -> leakscan_report::Module<'_> {
        let (start, end, bias) = (self.range.start as u64, self.range.end as u64, self.bias as u64);
        leakscan_report::Module { id, start, end, bias, build_id: self.build_id(), path: self.path() }
    }
}

/// The files with code among mappings, by address. Code that a program has mapped, or moved, elsewhere (as node does with its own) is
/// a module of its own. `None` without memory.
pub fn list<'a>(mappings: impl Iterator<Item = maps::Mapping<'a>>) -> Option<List<Module>> {
    let mut modules: List<Module> = List::new();
    let memory = sys::open(c"/proc/self/mem", sys::O_RDONLY, 0).ok();
    let mut beginnings: List<maps::Mapping<'_>> = List::new();
    for mapping in mappings {
        let named = mapping.inode != 0 || mapping.path == b"[vdso]";
        if named && mapping.offset == 0 && mapping.read && !beginnings.push(mapping) {
            return None;
        }
        if !named || !mapping.exec {
            continue;
        }
        let mut module = Module {
            range: mapping.range,
            bias: mapping.range.start.wrapping_sub(mapping.offset as usize),
            end: 0,
            id: [0; 32],
            id_len: 0,
            path_len: mapping.path.len().min(PATH) as u16,
            path: [0; PATH],
        };
        module.path[..usize::from(module.path_len)].copy_from_slice(&mapping.path[..usize::from(module.path_len)]);
        let is_its = |first: &&maps::Mapping<'_>| (first.inode, first.dev) == (mapping.inode, mapping.dev);
        if let Some(first) =
            beginnings.iter().rfind(is_its).filter(|first| first.path == mapping.path && !mapping.shared)
        {
            read_headers(first.range, mapping.offset as usize, memory.as_ref(), &mut module);
        }
        let goes_on = |last: &&mut Module| (last.bias, last.path()) == (module.bias, module.path());
        if let Some(last) = modules.last_mut().filter(goes_on) {
            last.range.end = module.range.end;
        } else if !modules.push(module) {
            return None;
        }
    }
    Some(modules)
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: usize = 1;
const NT_GNU_BUILD_ID: u32 = 3;

/// Bias and build id from the ELF header mapped at `at.start`, for the module that begins at `offset` of the file. `memory`: `/proc/self/mem`, since another thread may have closed the library
/// since the maps were read. (Not process_vm_readv: filters may kill who calls that.)
fn read_headers(at: AddrRange, offset: usize, memory: Option<&sys::Fd>, module: &mut Module) {
    let mut first_page = [0u8; 4096];
    let bytes = match memory.map(|memory| memory.read_at(&mut first_page, at.start)) {
        Some(Ok(len)) => &first_page[..len],
        Some(Err(_)) => return,
        // SAFETY: the mapping is readable as the maps say, and begins with the file's first page.
        None => unsafe { core::slice::from_raw_parts(at.start as *const u8, at.len()) },
    };
    if bytes.get(..5) != Some(b"\x7fELF\x02") {
        return;
    }
    let word = |at: usize, len: usize| {
        let field = bytes.get(at..at + len)?;
        Some(field.iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    let (Some(table), Some(size), Some(count)) = (word(32, 8), word(54, 2), word(56, 2)) else { return };
    let (mut note, mut end, mut bias, begins) = (None, 0, None, offset);
    for header in (0..count).map(|i| table + i * size) {
        let (Some(kind), Some(offset), Some(address), Some(len), Some(size)) =
            (word(header, 4), word(header + 8, 8), word(header + 16, 8), word(header + 32, 8), word(header + 40, 8))
        else {
            return;
        };
        if kind as u32 == PT_LOAD {
            end = end.max(address.saturating_add(size));
            if offset == 0 {
                bias = Some(at.start.wrapping_sub(address & !4095));
            }
            // (Data may begin in the page that code ends in.)
            let is_code = word(header + 4, 4).is_some_and(|flags| flags & PF_X != 0);
            if is_code && (offset & !4095..offset.saturating_add(len)).contains(&begins) {
                module.bias = module.range.start.wrapping_sub(address.wrapping_add(begins.wrapping_sub(offset)));
            }
        }
        // Notes of a file stand in its first mapping, with its headers.
        if kind as u32 == PT_NOTE && note.is_none() {
            note = build_id(bytes, offset, len);
        }
    }
    if bias == Some(module.bias) {
        module.end = module.bias.wrapping_add(end).next_multiple_of(4096);
    }
    if let Some(id) = note {
        let len = id.len().min(module.id.len());
        module.id[..len].copy_from_slice(&id[..len]);
        module.id_len = len as u16;
    }
}

fn build_id(bytes: &[u8], start: usize, len: usize) -> Option<&[u8]> {
    let mut rest = bytes.get(start..start.checked_add(len)?)?;
    while rest.len() >= 12 {
        let field = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let (name, value, kind) = (field(0) as usize, field(4) as usize, field(8));
        let value_at = 12 + name.next_multiple_of(4);
        if kind == NT_GNU_BUILD_ID && rest.get(12..16) == Some(b"GNU\0") {
            return rest.get(value_at..value_at.checked_add(value)?);
        }
        rest = rest.get(value_at.checked_add(value)?.next_multiple_of(4)..)?;
    }
    None
}

/// Buffer for a maps text; grows until the text fits.
#[derive(Default)]
pub struct MapsText {
    buffer: Option<&'static mut [u8]>,
}

impl MapsText {
    pub const fn new() -> Self {
        Self { buffer: None }
    }

    /// Reads the maps of this process.
    ///
    /// # Errors
    /// ENOMEM, or why /proc cannot be read.
    pub fn read(&mut self) -> Result<&[u8], Errno> {
        self.read_file(c"/proc/self/maps")
    }

    /// Reads those of another one.
    pub fn read_of(&mut self, pid: u32) -> Result<&[u8], Errno> {
        let mut path = [0; 40];
        self.read_file(sys::proc_path(&mut path, pid, b"maps"))
    }

    fn read_file(&mut self, path: &core::ffi::CStr) -> Result<&[u8], Errno> {
        loop {
            let buffer = match self.buffer.take() {
                Some(buffer) => buffer,
                None => arena::zeroed(256 << 10).ok_or(Errno::ENOMEM)?,
            };
            let read = sys::read_file(path, buffer).map(<[u8]>::len);
            let room = buffer.len();
            if read == Ok(room) {
                let range = AddrRange::new(buffer.as_ptr() as usize, buffer.as_ptr() as usize + room);
                // SAFETY: the buffer is ours alone and given up here.
                unsafe { arena::unmap(range) };
                self.buffer = Some(arena::zeroed(room * 4).ok_or(Errno::ENOMEM)?);
                continue;
            }
            let buffer = self.buffer.insert(buffer);
            return read.map(|read| &buffer[..read]);
        }
    }
}

const RETIRED: usize = 1024;

/// Files that dlclose has taken away, in the order of `Frames::retired_ranges`.
struct Closed {
    modules: Option<&'static mut [Module]>,
    before: MapsText,
    after: MapsText,
}

static CLOSED: Lock<Closed> = Lock::from_raw(
    <RawFutex as lock_api::RawMutex>::INIT,
    Closed { modules: None, before: MapsText::new(), after: MapsText::new() },
);
/// How many of them are known by name.
static NAMED: AtomicU32 = AtomicU32::new(0);

/// dlclose: the program's; afterwards we forget the addresses of what is gone.
#[unsafe(no_mangle)]
pub extern "C" fn dlclose(handle: usize) -> c_int {
    // The list is made before, while names and build ids can still be read; nothing is locked during the real call, which
    // runs the library's destructors.
    let before = CLOSED.try_lock().and_then(|mut closed| list(maps::parse(closed.before.read().ok()?)));
    let result = crate::real::dlclose(handle);
    if let Some(before) = before {
        let mut closed = CLOSED.lock();
        retire_missing(&before, &mut closed);
    }
    result
}

fn retire_missing(before: &[Module], closed: &mut Closed) {
    let Closed { modules, after, .. } = closed;
    let Ok(text) = after.read() else { return };
    for module in before {
        let still = maps::parse(text).any(|mapping| {
            mapping.exec && mapping.range.overlaps(module.range) && mapping.path.starts_with(module.path())
        });
        if still {
            continue;
        }
        let Some(index) = UNWINDER.frames.retire(module.range) else { continue };
        if modules.is_none() {
            *modules = arena::zeroed(RETIRED);
        }
        if let Some(place) = modules.as_mut().and_then(|modules| modules.get_mut(index)) {
            *place = *module;
            NAMED.fetch_max(index as u32 + 1, Release);
        }
    }
}

/// The file that `dlclose` took away as the `index`-th. For the snapshot child, which takes no lock.
pub fn retired(index: usize) -> Option<&'static Module> {
    if index >= NAMED.load(Acquire) as usize {
        return None;
    }
    // SAFETY: nobody writes in the child; entries below NAMED are complete.
    let closed = unsafe { &*CLOSED.data_ptr() };
    closed.modules.as_deref()?.get(index)
}

/// Over a fork the lock is held, so that the child finds it free.
pub fn before_fork() {
    core::mem::forget(CLOSED.lock());
}

/// # Safety
/// Pairs with [`before_fork`] in the thread that forked.
pub unsafe fn after_fork() {
    // SAFETY: `before_fork` left it locked by this thread.
    unsafe { CLOSED.force_unlock() };
}
