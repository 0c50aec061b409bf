//! What the program keeps from its forks (MADV_DONTFORK, MADV_WIPEONFORK) is taken into our snapshot all the same: while every
//! thread stands still, the advice is taken back, the process cloned, and the advice given again.
//!
//! And what must not be in it is kept out, by the same advice: private memory of huge pages from the pool (hugetlb). A copy shares them, and
//! the program's next write would want a second one. If the pool is used up, the kernel takes the page from the copy, or, of memory without a
//! reservation, ends the program (SIGBUS). The copy reads them before the program goes on: see [`crate::unforked`].
//!
//! Not where a device may write to such memory by its physical pages: a copy on the program's next write would part the two.
//! (Linux copies pages that a device has pinned in the fork itself since 5.10; what is not pinned by those rules, it does not.)
#![allow(unsafe_code)] // advice on the program's memory

use crate::helper::spare_descriptors;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, Zeroed};
use leakscan_engine::scan::maps::{self, Flags, Mapping};
use leakscan_engine::sys::{self, Errno, nr};

const MADV_DONTFORK: usize = 10;
const MADV_DOFORK: usize = 11;
const MADV_WIPEONFORK: usize = 18;
const MADV_KEEPONFORK: usize = 19;

/// A range, the advice for the clone, and that to give afterwards. `range` empty: it was not to be had.
#[derive(Clone, Copy)]
struct Advised {
    range: AddrRange,
    now: usize,
    back: usize,
}

impl Advised {
    const fn is_kept_out(&self) -> bool {
        self.now == MADV_DONTFORK
    }
}
// SAFETY: integers are valid when zero.
unsafe impl Zeroed for Advised {}

/// Room for all that is to be known meanwhile, made before anything stands still.
pub struct TakenIn {
    text: &'static mut [u8],
    ranges: &'static mut [Advised],
    // (Atomic, since a helper may be ended at any instruction.)
    used: AtomicUsize,
    /// Somebody is in the midst of it, or was ended there.
    is_begun: AtomicBool,
    /// Somebody was: not to be tried again.
    is_refused: bool,
    /// What is to be kept out of the clone is.
    pub is_safe: bool,
    /// Ranges that could not be given their advice again.
    pub stuck: usize,
}

/// Of a text that is read piece by piece; no line is longer.
const TEXT: usize = 64 << 10;
/// As many mappings as the kernel allows by default.
const RANGES: usize = 65_536;

impl TakenIn {
    /// `None` without memory.
    pub fn new() -> Option<Self> {
        Some(Self {
            text: arena::zeroed(TEXT)?,
            ranges: arena::zeroed(RANGES)?,
            used: AtomicUsize::new(0),
            is_begun: AtomicBool::new(false),
            is_refused: false,
            is_safe: false,
            stuck: 0,
        })
    }

    /// Lets the next clone have everything. Gives whether it will: otherwise the copy has to look what is missing.
    /// [`TakenIn::undo`] is to follow in any case. For a helper process: a filter may end who gives advice.
    ///
    /// # Safety
    /// Nobody else who shares this memory runs until `undo`.
    pub unsafe fn take(&mut self) -> bool {
        self.used.store(0, Relaxed);
        if self.is_refused {
            return false;
        }
        self.is_begun.store(true, SeqCst);
        let all = self.may_advise() && self.advise_all();
        self.is_begun.store(false, SeqCst);
        all
    }

    fn advise_all(&mut self) -> bool {
        let (ranges, mut used) = (&mut *self.ranges, 0);
        let mut is_to_be_left = has_pinned_pages();
        let mut each = |mapping: &Mapping<'_>, flags: Flags| {
            let mut add = |now, back| {
                if let Some(place) = ranges.get_mut(used) {
                    *place = Advised { range: mapping.range, now, back };
                }
                used += 1;
            };
            if flags.is_of_pool {
                if !mapping.shared {
                    add(MADV_DONTFORK, if flags.left_out { MADV_DONTFORK } else { MADV_DOFORK });
                }
                return;
            }
            // (What is sealed would not be given its advice again.)
            let knows_pages = mapping.is_devices(Some(flags)) || mapping.is_ring();
            is_to_be_left |= knows_pages || flags.is_sealed && (flags.left_out || flags.wiped);
            if flags.left_out && !flags.is_special {
                add(MADV_DOFORK, MADV_DONTFORK);
            }
            if flags.wiped && !flags.is_special {
                add(MADV_KEEPONFORK, MADV_WIPEONFORK);
            }
        };
        let mut read = each_mapping(OWN, self.text, &mut each);
        if read == Err(Errno::EMFILE) {
            spare_descriptors();
            read = each_mapping(OWN, self.text, &mut each);
        }
        if read.is_err() || used > self.ranges.len() {
            return false;
        }
        self.used.store(used, SeqCst);
        let (mut whole, mut safe) = (!is_to_be_left, true);
        for advised in &mut self.ranges[..used] {
            let is_left = is_to_be_left && !advised.is_kept_out();
            if is_left || advise(advised.range, advised.now).is_err() {
                *(if advised.is_kept_out() { &mut safe } else { &mut whole }) = false;
                advised.range = AddrRange::default();
            }
        }
        self.is_safe = safe;
        whole
    }

    /// What the clone has not, to be asked in the clone.
    pub fn kept_out(&self) -> impl Iterator<Item = AddrRange> {
        let taken = &self.ranges[..self.used.load(Relaxed)];
        taken.iter().filter(|advised| advised.is_kept_out() && !advised.range.is_empty()).map(|advised| advised.range)
    }

    /// Tries all kinds of advice on a page of ours: a filter may allow only some, and end who gives others.
    fn may_advise(&self) -> bool {
        let start = self.text.as_ptr() as usize;
        let page = AddrRange::new(start, start + 4096);
        let both = [(MADV_DOFORK, MADV_DONTFORK), (MADV_KEEPONFORK, MADV_WIPEONFORK)];
        both.into_iter().all(|(have, keep)| [have, keep, have].iter().all(|advice| advise(page, *advice).is_ok()))
    }

    /// Gives the advice again that was there before.
    pub fn undo(&mut self) {
        self.is_begun.store(true, SeqCst);
        let taken = &self.ranges[..self.used.load(Relaxed)];
        for advised in taken.iter().filter(|advised| !advised.range.is_empty()) {
            self.stuck += usize::from(advise(advised.range, advised.back).is_err());
        }
        self.used.store(0, SeqCst);
        self.is_begun.store(false, SeqCst);
    }

    /// Whether who was at it has been ended there. Then it is not tried again.
    pub fn was_broken_off(&mut self) -> bool {
        let begun = self.is_begun.swap(false, SeqCst);
        self.is_refused |= begun;
        begun
    }
}

fn advise(range: AddrRange, advice: usize) -> Result<usize, Errno> {
    // SAFETY: these kinds of advice change nothing but what the next fork has.
    unsafe { sys::call(nr::MADVISE, [range.start, range.len(), advice, 0, 0, 0]) }
}

/// The mappings of this process.
pub const OWN: &CStr = c"/proc/self/smaps";

/// Gives each mapping with its flags, as far as `text` holds at a time.
///
/// # Errors
/// Why the file cannot be read; ENOMEM for a line that is longer than `text`.
pub fn each_mapping(smaps: &CStr, text: &mut [u8], mut each: impl FnMut(&Mapping<'_>, Flags)) -> Result<(), Errno> {
    let file = sys::open(smaps, sys::O_RDONLY, 0)?;
    let mut filled = 0;
    loop {
        let read = file.read(&mut text[filled..])?;
        if read == 0 {
            return if filled < text.len() { Ok(()) } else { Err(Errno::ENOMEM) };
        }
        filled += read;
        let mut of: Option<Mapping<'_>> = None;
        // (A mapping whose flags are not there yet is looked at again with them.)
        let (mut done, mut at) = (0, 0);
        while let Some(len) = text[at..filled].iter().position(|&byte| byte == b'\n') {
            let line = &text[at..at + len];
            at += len + 1;
            if let Some(flags) = maps::flags(line) {
                if let Some(mapping) = of.take() {
                    each(&mapping, flags);
                }
                done = at;
            } else if let Some(mapping) = maps::line(line) {
                of = Some(mapping);
            }
        }
        text.copy_within(done..filled, 0);
        filled -= done;
    }
}

/// Pages of address space that are mapped; 0 if the kernel does not say.
pub fn mapped_pages() -> usize {
    let mut text = [0; 128];
    let Ok(text) = sys::read_file(c"/proc/self/statm", &mut text) else { return 0 };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// Whether a device has pinned memory of this process, or nobody can tell.
fn has_pinned_pages() -> bool {
    has_some(b"VmPin:").ok().flatten().unwrap_or(true)
}

/// Whether this process has huge pages from the pool. (A kernel without such does not name them.)
///
/// # Errors
/// Why nobody can tell.
pub fn has_pages_of_pool() -> Result<bool, Errno> {
    has_some(b"HugetlbPages:").map(|some| some == Some(true))
}

/// Whether the size that the kernel gives under this name is not zero.
fn has_some(name: &[u8]) -> Result<Option<bool>, Errno> {
    let mut found = None;
    sys::each_line(c"/proc/self/status", &mut [0; 2048], |line| {
        if let Some(size) = line.strip_prefix(name) {
            found = Some(size.iter().any(|byte| (b'1'..=b'9').contains(byte)));
        }
    })?;
    Ok(found)
}
