//! Blocks freed the wrong way: by another family of functions, twice, or where no block is. What the real allocator does about it
//! stays as it is; we note both stacks for the report.

use crate::state::{FOREIGN_ALLOCATOR, TRACKER};
use crate::{deepbind, trigger};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use leakscan_engine::StackId;
use leakscan_engine::record::live_map::{Cell, Family, MAX_STACKS};
use leakscan_report::{Misuse, Trigger, Wrong};

/// What is counted together: kind, families and stacks in one word, 0 for an empty place.
///
/// ```text
///   bit 46   45..44      43..42   41..21   20..0
///   wild     freed by    made by  freed    made     (stacks)
/// ```
/// Bit 47 says that the place is taken; of a block that was freed twice, bit 48.
struct Place(AtomicU64, AtomicU32);

static PLACES: [Place; 64] = [const { Place(AtomicU64::new(0), AtomicU32::new(0)) }; 64];
/// Those that found no place.
pub static OTHERS: AtomicU64 = AtomicU64::new(0);
/// A scan has been made because a block was freed twice.
static SCANNED: AtomicBool = AtomicBool::new(false);

const TAKEN: u64 = 1 << 47;
const WILD: u64 = 1 << 46;
const TWICE: u64 = 1 << 48;

/// A block is freed by another family than made it.
#[cold]
#[inline(never)]
pub fn mismatch(cell: Cell, freed_by: Family, freed: Option<StackId>) {
    note(0, cell.family(), cell.stack(), freed_by, freed);
}

/// A block is freed that we do not know. `stack` gives where.
#[cold]
#[inline(never)]
pub fn unknown(addr: usize, freed_by: Family, stack: impl FnOnce() -> Option<StackId>) {
    // A library that allocates past us may have made it, where one of ours was before.
    if FOREIGN_ALLOCATOR.load(Relaxed) || deepbind::LOADED.load(Relaxed) != 0 {
        return;
    }
    match TRACKER.live.ghost(addr) {
        Some(cell) => note(TWICE, cell.family(), cell.stack(), freed_by, stack()),
        None if !addr.is_multiple_of(16) => note(WILD, Family::Malloc, None, freed_by, stack()),
        None => return,
    }
    // libc is about to end the program, most likely.
    if !SCANNED.swap(true, Relaxed) {
        trigger::request(Trigger::Misuse);
    }
}

fn note(kind: u64, made_by: Family, made: Option<StackId>, freed_by: Family, freed: Option<StackId>) {
    let id = |stack: Option<StackId>| u64::from(stack.map_or(0, StackId::get) & MAX_STACKS);
    let key = TAKEN | kind | (freed_by as u64) << 44 | (made_by as u64) << 42 | id(freed) << 21 | id(made);
    for place in &PLACES {
        let known = place.0.compare_exchange(0, key, Relaxed, Relaxed);
        if known.is_ok() || known == Err(key) {
            place.1.fetch_add(1, Relaxed);
            return;
        }
    }
    OTHERS.fetch_add(1, Relaxed);
}

/// All that was noted.
pub fn all() -> impl Iterator<Item = Misuse<'static>> + Clone {
    let taken = PLACES.iter().map(|place| (place.0.load(Relaxed), place.1.load(Relaxed)));
    taken.filter(|(key, _)| *key != 0).map(|(key, blocks)| {
        let family = |shift: u32, words: [&'static str; 4]| words[(key >> shift & 3) as usize].as_bytes();
        let made_by = family(42, ["malloc", "new", "new[]", "aligned new"]);
        Misuse {
            what: match key & (WILD | TWICE) {
                0 => Wrong::Mismatch,
                WILD => Wrong::WildFree,
                _ => Wrong::DoubleFree,
            },
            made_by: if key & WILD == 0 { made_by } else { b"-" },
            freed_by: family(44, ["free", "delete", "delete[]", "aligned delete"]),
            made: key as u32 & MAX_STACKS,
            freed: (key >> 21) as u32 & MAX_STACKS,
            blocks: blocks.into(),
        }
    })
}
