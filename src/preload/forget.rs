//! For measuring what the scan misses (`forget=N`): every Nth free of a block is left out, so that the block is lost if nothing of the
//! program's still points to it. The scan counts how many of those it finds, and what keeps the others.

use crate::emit::Unseen;
use crate::state::TRACKER;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use leakscan_engine::arena;
use leakscan_engine::scan::blocks::{Blocks, SizeOf};
use leakscan_engine::scan::mark::Marker;

/// Blocks that can be forgotten.
const ROOM: usize = 1 << 20;
/// Address of ROOM words; 0: nothing is to be forgotten.
static LIST: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);
static FREES: AtomicU64 = AtomicU64::new(0);

/// Makes the list. Without memory nothing is forgotten.
pub fn init() {
    if let Some(list) = arena::zeroed::<AtomicWord>(ROOM) {
        LIST.store(list.as_ptr() as usize, Relaxed);
    }
}

#[repr(transparent)]
struct AtomicWord(AtomicUsize);
#[allow(unsafe_code)]
// SAFETY: an integer is valid when zero.
unsafe impl arena::Zeroed for AtomicWord {}

fn list() -> &'static [AtomicWord] {
    match LIST.load(Acquire) {
        0 => &[],
        #[allow(unsafe_code)]
        // SAFETY: `init` has put ROOM words there, which stay.
        at => unsafe { core::slice::from_raw_parts(at as *const AtomicWord, ROOM) },
    }
}

/// Whether the free of `addr` is to be left out: of every `nth` one of a live block.
#[cold]
#[inline(never)]
pub fn forgets(addr: usize, nth: u64) -> bool {
    if TRACKER.live.get(addr).is_none() || !(FREES.fetch_add(1, Relaxed) + 1).is_multiple_of(nth) {
        return false;
    }
    let place = list().get(USED.fetch_add(1, AcqRel));
    if let Some(place) = place {
        place.0.store(addr, Relaxed);
    }
    place.is_some()
}

/// What keeps forgotten blocks, by the class of roots that reached them first.
#[derive(Default)]
pub struct Audit {
    rows: [Kept; 8],
    used: usize,
    seen: usize,
}

#[derive(Clone, Copy, Default)]
struct Kept {
    by: &'static str,
    direct: usize,
    behind: usize,
}

impl Audit {
    /// Roots of one class have been read.
    pub fn after<S: SizeOf>(&mut self, marker: &mut Marker<'_, '_, S>, by: &'static str) {
        if USED.load(Relaxed) == 0 {
            return;
        }
        let direct = self.fresh(marker);
        marker.drain();
        let behind = self.fresh(marker);
        let row = match self.rows[..self.used].iter().position(|row| row.by == by) {
            Some(row) => row,
            None => {
                self.used = (self.used + 1).min(self.rows.len());
                self.rows[self.used - 1].by = by;
                self.used - 1
            }
        };
        self.rows[row].direct += direct;
        self.rows[row].behind += behind;
    }

    /// Forgotten blocks that have been reached since the last look.
    fn fresh<S: SizeOf>(&mut self, marker: &Marker<'_, '_, S>) -> usize {
        let reached = forgotten().filter(|block| marker.blocks.is_marked(*block)).count();
        reached - core::mem::replace(&mut self.seen, reached)
    }

    pub fn tell<S: SizeOf>(&self, blocks: &Blocks<'_, S>, unseen: &mut Unseen) {
        unseen.add_count("forgotten", forgotten().count(), b"blocks were not freed, for forget=");
        let possible = forgotten().filter(|block| blocks.is_extra(*block)).count();
        unseen.add_count("forgotten-possible", possible, b"of these are called possibly lost");
        for row in &self.rows[..self.used] {
            unseen.add_named(
                "forgotten-kept",
                row.direct,
                row.by.as_bytes(),
                b": of these, what points to their starts directly",
            );
            unseen.add_named(
                "forgotten-behind",
                row.behind,
                row.by.as_bytes(),
                b": of these, reached through other blocks or by pointers into the middle",
            );
        }
    }
}

fn forgotten() -> impl Iterator<Item = usize> {
    let used = USED.load(Relaxed).min(ROOM);
    list()[..used.min(list().len())].iter().map(|word| word.0.load(Relaxed)).filter(|addr| *addr != 0)
}
