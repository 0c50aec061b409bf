//! The loaded files, by the loader's own list: whether any of them defines a name, by its hash table, and where its data lies.
//!
//! dlsym of a name that nobody defines leaves an error behind, whose text is made by asprintf and gettext: twenty such names, and the
//! start of a process was a third longer for it.
#![allow(unsafe_code)] // reads the loader's list and the files' dynamic sections

use crate::own;
use core::ffi::{CStr, c_char, c_int, c_ulong};
use leakscan_engine::AddrRange;
use leakscan_engine::sys::{self, nr};

/// `struct r_debug` and `struct link_map` of <link.h>, as far as they are public.
#[repr(C)]
struct Debug {
    version: c_int,
    first: *const Map,
}
#[repr(C)]
struct Map {
    base: usize,
    name: *const c_char,
    dynamic: *const Entry,
    next: *const Map,
    previous: *const Map,
}
/// `Elf64_Dyn`.
#[repr(C)]
struct Entry {
    tag: usize,
    value: usize,
}

unsafe extern "C" {
    static _r_debug: Debug;
    fn getauxval(kind: c_ulong) -> c_ulong;
}

/// A loaded file.
#[derive(Clone, Copy)]
pub struct File(&'static Map);

/// All of them, the program itself first.
pub fn files() -> impl Iterator<Item = File> {
    // SAFETY: ld.so's list of what is loaded, kept for debuggers; entries come and go by dlopen and dlclose only.
    let first = unsafe { _r_debug.first.as_ref() };
    // SAFETY: as above.
    core::iter::successors(first, |map| unsafe { map.next.as_ref() }).map(File)
}

const AT_PHDR: c_ulong = 3;

/// An address in the program's own file.
pub fn program() -> usize {
    // SAFETY: reads what the kernel has left on the stack.
    unsafe { getauxval(AT_PHDR) as usize }
}

/// The program headers of a file (`Elf64_Phdr`, as words).
pub struct Segments {
    bias: usize,
    headers: [[usize; 7]; 24],
    count: usize,
}

impl File {
    /// Where its dynamic section lies.
    pub fn dynamic(&self) -> usize {
        self.0.dynamic as usize
    }

    /// `None` if its headers cannot be read, or are more than the usual.
    pub fn segments(&self) -> Option<Segments> {
        const AT_PHNUM: c_ulong = 5;
        let (table, count) = if self.0.previous.is_null() {
            // A program at a fixed address has base 0.
            // SAFETY: reads what the kernel has left on the stack.
            (program(), unsafe { getauxval(AT_PHNUM) } as usize)
        } else {
            let header: [usize; 8] = sys::peek(self.0.base)?;
            let is_elf = header[0].to_le_bytes().starts_with(b"\x7fELF\x02");
            (self.0.base + header[4], if is_elf { header[7] & 0xffff } else { 0 })
        };
        let mut segments = Segments { bias: self.0.base, headers: [[0; 7]; 24], count };
        let bytes = segments.headers.as_flattened_mut().get_mut(..count.checked_mul(7)?)?;
        (count != 0 && sys::peek_into(table, bytes)).then_some(segments)
    }
}

impl Segments {
    fn of_kind(&self, kind: usize) -> impl Iterator<Item = &[usize; 7]> {
        self.headers[..self.count].iter().filter(move |header| header[0] & 0xffff_ffff == kind)
    }

    /// Where it is loaded, and with which rights (`p_flags`).
    fn loaded(&self) -> impl Iterator<Item = (AddrRange, usize)> {
        const PT_LOAD: usize = 1;
        self.of_kind(PT_LOAD).map(|header| {
            let start = self.bias.wrapping_add(header[2]);
            (AddrRange::new(start, start.wrapping_add(header[5])), header[0] >> 32)
        })
    }

    /// Where its writable data lies, .bss included.
    pub fn writable(&self) -> impl Iterator<Item = AddrRange> {
        const PF_W: usize = 2;
        self.loaded().filter(|(_, flags)| flags & PF_W != 0).map(|(range, _)| range)
    }

    /// Whether an address lies in it. (There may be holes between its segments.)
    pub fn contains(&self, addr: usize) -> bool {
        self.loaded().any(|(range, _)| range.contains(addr))
    }

    /// What ld.so makes read-only when it has written its addresses there.
    fn relro(&self) -> AddrRange {
        const PT_GNU_RELRO: usize = 0x6474_e552;
        self.of_kind(PT_GNU_RELRO).next().map_or(AddrRange::default(), |header| {
            let (start, page) = (self.bias.wrapping_add(header[2]), sys::PAGE - 1);
            AddrRange::new(start & !page, start.wrapping_add(header[5]) & !page)
        })
    }

    /// How many bytes of thread-local storage it takes.
    pub fn thread_local(&self) -> usize {
        const PT_TLS: usize = 7;
        self.of_kind(PT_TLS).map(|header| header[5].next_multiple_of(header[6].clamp(1, 4096))).sum()
    }
}

/// Where files' symbols stand, to look for many names: a search looks at each file's dynamic section once.
pub struct Search {
    tables: [Table; CACHED],
    count: usize,
}

/// As many as most programs load.
const CACHED: usize = 48;

/// What the dynamic section names: hash table, the one of old (`DT_HASH`), symbols and strings. 0: it names none.
#[derive(Clone, Copy, Default)]
struct Table {
    bias: usize,
    hash: usize,
    old_hash: usize,
    symbols: usize,
    strings: usize,
}

impl Search {
    pub fn new() -> Self {
        Self::among(tables())
    }

    /// Among the files whose definitions the program finds before ours.
    pub fn before_us() -> Self {
        let ours = own::data();
        Self::among(files().take_while(|file| !ours.contains(file.dynamic())).map(|file| Table::of(file.0)))
    }

    /// Among the files that dlsym looks at with RTLD_NEXT: of a name that only another one defines it leaves an error behind, for which an
    /// allocator is asked that may have called us.
    pub fn behind_us() -> Self {
        let ours = own::data();
        let behind = files().skip_while(|file| !ours.contains(file.dynamic())).skip(1);
        Self::among(behind.map(|file| Table::of(file.0)))
    }

    fn among(tables: impl Iterator<Item = Table>) -> Self {
        let mut search = Self { tables: [Table::default(); CACHED], count: 0 };
        for (place, table) in search.tables.iter_mut().zip(tables) {
            *place = table;
            search.count += 1;
        }
        search
    }

    /// Whether dlsym with RTLD_NEXT may find the name: a file other than ours defines it, or has no table that would tell.
    pub fn may_exist(&self, name: &CStr) -> bool {
        self.first(name).is_some()
    }

    /// Where the first file that defines the name has it.
    pub fn address(&self, name: &CStr) -> Option<usize> {
        match self.first(name)? {
            Definition::At(address) => Some(address),
            Definition::Unknown => None,
        }
    }

    fn first(&self, name: &CStr) -> Option<Definition> {
        let hash = hash(name);
        // SAFETY: the tables of loaded files.
        let find = |table: &Table| unsafe { table.find(name, hash) };
        let more = || if self.count == CACHED { tables().skip(CACHED).find_map(|table| find(&table)) } else { None };
        self.tables[..self.count].iter().find_map(find).or_else(more)
    }
}

/// Whether a file other than ours and the one at `but` refers to a name of another one's that is as wanted.
pub fn any_refers(but: AddrRange, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let ours = own::data();
    let mut others = files().filter(|file| !ours.contains(file.dynamic()) && !but.contains(file.dynamic()));
    // SAFETY: the files are loaded.
    others.any(|file| unsafe {
        let relocations = Relocations::of(file.0);
        let is_wanted = |symbol: &Symbol| symbol.section == 0 && wanted(relocations.table.name(symbol).to_bytes());
        relocations.all().any(|(_, symbol)| is_wanted(symbol))
    })
}

/// Takes back the addresses that ld.so has given to others for names of ours which are missing else, and which they only ask for (weak
/// ones): their being there would tell the program of a library that is not.
///
/// To be called before the program runs.
pub fn take_back(names: &[&CStr], is_missing: impl Fn(&CStr) -> bool) {
    let ours = own::data();
    for file in files().filter(|file| !ours.contains(file.dynamic())) {
        let relocations = Relocations::of(file.0);
        let is_meant = |symbol: &Symbol| names.iter().any(|name| relocations.table.is_named(symbol, name));
        // SAFETY: the file is loaded.
        if unsafe { relocations.all() }.any(|(_, symbol)| symbol.is_wish() && is_meant(symbol)) {
            take_back_from(&file, &relocations, |symbol| {
                names.iter().any(|name| relocations.table.is_named(symbol, name) && is_missing(name))
            });
        }
    }
}

fn take_back_from(file: &File, relocations: &Relocations, is_missing: impl Fn(&Symbol) -> bool) {
    let Some(segments) = file.segments() else { return };
    // SAFETY: the file is loaded.
    for (place, _) in unsafe { relocations.all() }.filter(|(_, symbol)| symbol.is_wish() && is_missing(symbol)) {
        let place = place.wrapping_add(file.0.base);
        if !segments.writable().any(|range| range.contains(place)) {
            continue;
        }
        let protect = |protection| {
            let page = place & !(sys::PAGE - 1);
            // SAFETY: a page of that file's data, which ld.so has closed, or closes after the constructors: there is one thread.
            !segments.relro().contains(place)
                || unsafe { sys::call(nr::MPROTECT, [page, sys::PAGE, protection, 0, 0, 0]) }.is_ok()
        };
        if protect(sys::PROT_READ | sys::PROT_WRITE) {
            // SAFETY: a word that ld.so has written an address to. A call that it has left for later leads elsewhere, and is never made.
            unsafe {
                let place = place as *mut usize;
                if own::holds(place.read_unaligned()) {
                    place.write_unaligned(0);
                }
            }
            protect(sys::PROT_READ);
        }
    }
}

/// What a file's dynamic section says of the places that ld.so has written addresses to.
#[derive(Default)]
struct Relocations {
    table: Table,
    /// Start and size of the two tables (`Elf64_Rela`): the one for calls, and that for all else.
    places: [(usize, usize); 2],
}

/// The size of an `Elf64_Rela`.
const PLACE: usize = 24;

impl Relocations {
    fn of(file: &Map) -> Self {
        const CALLS_SIZE: usize = 2;
        const OTHERS: usize = 7;
        const OTHERS_SIZE: usize = 8;
        const CALLS: usize = 23;
        const WITHOUT_SYMBOL: usize = 0x6fff_fff9;
        let (mut found, mut without) = (Self { table: Table::of(file), ..Self::default() }, 0);
        each_entry(file, |tag, value, address| match tag {
            CALLS => found.places[0].0 = address,
            CALLS_SIZE => found.places[0].1 = value,
            OTHERS => found.places[1].0 = address,
            OTHERS_SIZE => found.places[1].1 = value,
            WITHOUT_SYMBOL => without = value * PLACE,
            _ => {}
        });
        // They stand first, and may be most.
        let [_, others] = &mut found.places;
        *others = (others.0 + without.min(others.1), others.1 - without.min(others.1));
        found
    }

    /// Each place, as the file's linker has numbered it, with its symbol.
    ///
    /// # Safety
    /// The file is loaded.
    unsafe fn all(&self) -> impl Iterator<Item = (usize, &'static Symbol)> {
        let Table { symbols, strings, .. } = self.table;
        let tables =
            self.places.iter().filter(move |(start, size)| *start != 0 && *size != 0 && symbols != 0 && strings != 0);
        tables.flat_map(|(start, size)| (*start..*start + *size).step_by(PLACE)).filter_map(move |at| {
            // SAFETY: its linker has laid out the tables: place, then the symbol's number in the upper half of a word; 0 is none.
            unsafe {
                let number = *((at + 8) as *const usize) >> 32;
                (number != 0).then(|| (*(at as *const usize), &*(symbols as *const Symbol).add(number)))
            }
        })
    }
}

/// Gives tag and value of each entry of a file's dynamic section, and the value as an address.
fn each_entry(file: &Map, mut each: impl FnMut(usize, usize, usize)) {
    let mut entry = file.dynamic;
    // SAFETY: a dynamic section ends with a tag of 0.
    while let Some(Entry { tag: tag @ 1.., value }) = unsafe { entry.as_ref() } {
        // ld.so has made addresses of them, but not in the kernel's own file.
        each(*tag, *value, if *value < file.base { *value + file.base } else { *value });
        // SAFETY: this was not the last.
        entry = unsafe { entry.add(1) };
    }
}

/// `Elf64_Sym`.
#[repr(C)]
pub struct Symbol {
    name: u32,
    kind: u8,
    visibility: u8,
    /// 0: another file is to have it.
    pub section: u16,
    value: usize,
    size: usize,
}

impl Symbol {
    /// Another file's, which may be missing (a weak reference).
    fn is_wish(&self) -> bool {
        const STB_WEAK: u8 = 2;
        self.section == 0 && self.kind >> 4 == STB_WEAK
    }
}

enum Definition {
    At(usize),
    /// The file has no table that would tell.
    Unknown,
}

/// The one that `DT_GNU_HASH` is made of.
fn hash(name: &CStr) -> u32 {
    name.to_bytes().iter().fold(5381, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

/// The one that `DT_HASH` is made of (the System V ABI).
fn old_hash(name: &CStr) -> u32 {
    name.to_bytes().iter().fold(0, |hash, byte| {
        let hash = (hash << 4) + u32::from(*byte);
        (hash ^ (hash >> 28 << 4)) & 0xfff_ffff
    })
}

/// Of all files but ours.
fn tables() -> impl Iterator<Item = Table> {
    let ours = own::data();
    files().filter(move |file| !ours.contains(file.dynamic())).map(|file| Table::of(file.0))
}

impl Table {
    fn of(file: &Map) -> Self {
        const STRINGS: usize = 5;
        const HASH: usize = 4;
        const SYMBOLS: usize = 6;
        const GNU_HASH: usize = 0x6fff_fef5;
        let mut table = Self { bias: file.base, ..Self::default() };
        each_entry(file, |tag, _, address| match tag {
            GNU_HASH => table.hash = address,
            HASH => table.old_hash = address,
            SYMBOLS => table.symbols = address,
            STRINGS => table.strings = address,
            _ => {}
        });
        table
    }

    fn name(&self, symbol: &Symbol) -> &'static CStr {
        // SAFETY: a loaded file's strings, each of which ends with a zero byte.
        unsafe { CStr::from_ptr((self.strings + symbol.name as usize) as *const c_char) }
    }

    fn is_named(&self, symbol: &Symbol, name: &CStr) -> bool {
        let text = (self.strings + symbol.name as usize) as *const u8;
        // SAFETY: as in `name`: it is read up to its end at most.
        name.to_bytes_with_nul().iter().enumerate().all(|(at, byte)| unsafe { *text.add(at) } == *byte)
    }

    /// By the table that `DT_GNU_HASH` names: a Bloom filter, buckets, and chains of hashes whose last has bit 0 set.
    ///
    /// # Safety
    /// The file is loaded.
    unsafe fn find(&self, name: &CStr, hash: u32) -> Option<Definition> {
        let Self { hash: table, symbols, strings, .. } = *self;
        if symbols == 0 || strings == 0 {
            return Some(Definition::Unknown);
        }
        if table == 0 {
            // SAFETY: by this function's own contract.
            return unsafe { self.find_by_old_hash(name) };
        }
        // SAFETY: all that follows lies in the file's tables, as its linker has laid them out.
        unsafe {
            let word = |at: usize| *((table + at * 4) as *const u32);
            let (buckets, first, filters, shift) = (word(0), word(1), word(2), word(3));
            if buckets == 0 || filters == 0 {
                return Some(Definition::Unknown);
            }
            let filter = *((table + 16 + (hash / 64 % filters) as usize * 8) as *const u64);
            if filter >> (hash % 64) & filter >> ((hash >> (shift % 32)) % 64) & 1 == 0 {
                return None;
            }
            let chains = 4 + filters as usize * 2;
            let mut at = word(chains + (hash % buckets) as usize);
            if at < first {
                return None;
            }
            loop {
                let link = word(chains + buckets as usize + (at - first) as usize);
                if (link ^ hash) >> 1 == 0 {
                    let definition = self.definition(at, name);
                    if definition.is_some() {
                        return definition;
                    }
                }
                if link & 1 == 1 {
                    return None;
                }
                at += 1;
            }
        }
    }

    /// By the table that `DT_HASH` names: so many buckets, so many symbols, the first symbol of each bucket, the next one of each symbol.
    ///
    /// # Safety
    /// As for [`Self::find`]; there are symbols and strings.
    unsafe fn find_by_old_hash(&self, name: &CStr) -> Option<Definition> {
        // SAFETY: as in `find`.
        unsafe {
            let word = |at: usize| *((self.old_hash + at * 4) as *const u32) as usize;
            if self.old_hash == 0 || word(0) == 0 {
                return Some(Definition::Unknown);
            }
            let (buckets, links) = (word(0), word(1));
            let mut at = word(2 + old_hash(name) as usize % buckets);
            // (A damaged one may lead round.)
            for _ in 0..links {
                if at == 0 || at >= links {
                    return None;
                }
                let definition = self.definition(at as u32, name);
                if definition.is_some() {
                    return definition;
                }
                at = word(2 + buckets + at);
            }
        }
        None
    }

    /// Whether the symbol of this number defines the name.
    ///
    /// # Safety
    /// There is one.
    unsafe fn definition(&self, number: u32, name: &CStr) -> Option<Definition> {
        // SAFETY: by this function's own contract.
        let symbol = unsafe { &*(self.symbols as *const Symbol).add(number as usize) };
        (symbol.section != 0 && self.is_named(symbol, name)).then(|| Definition::At(self.bias + symbol.value))
    }
}
