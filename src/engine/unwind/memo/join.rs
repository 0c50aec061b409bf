//! How a stack that was put together becomes an entry of its own.
#![allow(unsafe_code)] // reads the live stack

use super::check::{Check, Checks, read};
use super::{Entry, Memo, Parts, Pieced};
use crate::StackId;
use crate::record::depot::POWERS;
use crate::unwind::Unwinder;
use crate::unwind::walk::NodeCache;

/// Of the stacks that were seen before and had to be put together, not straight from entries that lead to each other, one in so many
/// becomes an entry.
const KEPT: u8 = if cfg!(test) { 2 } else { 32 };

impl Unwinder {
    /// Tells the id of the stack that was pieced together last; `again`: it was seen before.
    ///
    /// # Safety
    /// As for [`Unwinder::piece_together`], which was called with the same.
    pub unsafe fn learn(
        &self,
        memo: &mut Memo,
        depth: usize,
        cache: &NodeCache,
        pieced: &Pieced,
        id: StackId,
        again: bool,
    ) {
        if let Some((set, way)) = pieced.entry {
            memo.tables.entries[set][way].id = id.get();
            return;
        }
        if let Some(way) = pieced.recent {
            (memo.recent[way].id, memo.recent[way].stamp) = (id.get(), memo.stamp);
            return;
        }
        if pieced.is_walked {
            memo.crowding.walked(again);
        }
        let repeats = memo.latest == pieced.hash;
        memo.note_repeat(repeats);
        memo.latest = pieced.hash;
        let whole = match pieced.parts {
            Parts::Straight(whole) if again => whole,
            Parts::Crooked(whole) if again => {
                memo.skipped = (memo.skipped + 1) % KEPT;
                if memo.skipped != 0 {
                    return;
                }
                whole
            }
            _ => return,
        };
        // SAFETY: by this function's own contract.
        if let Some(mut entry) = unsafe { self.join(memo, depth, cache) } {
            (entry.pc, entry.sp, entry.whole, entry.id, entry.stamp) =
                (pieced.start.pc, pieced.start.sp, whole, id.get(), memo.stamp);
            // The part that the stack begins with is in it.
            let part = memo.find(&pieced.start).filter(|&(set, way)| memo.tables.entries[set][way].id == 0);
            let (set, way) = part.unwrap_or_else(|| memo.place_for(&pieced.start));
            memo.tables.entries[set][way] = entry;
        }
    }

    /// Makes one entry of the parts that a stack was put together from.
    ///
    /// # Safety
    /// Their slots are those of the live stack.
    #[inline(never)]
    unsafe fn join(&self, memo: &mut Memo, depth: usize, cache: &NodeCache) -> Option<Entry> {
        let register = (&raw const cache.fp).expose_provenance();
        let first = memo.parts[0];
        let mut joined =
            Joined { checks: &mut memo.tables.checks, most: memo.tables.most, from: memo.used, used: memo.used };
        // Of all frames so far; and where the frame pointer was saved before the part's entry.
        let (mut hash, mut fp_from) = (0u64, 0);
        let mut frames = 0;
        for (at, part) in memo.parts[..memo.parted].iter().enumerate() {
            let node_hash = self.frames.get(part.first_id)?.hash();
            hash = hash.wrapping_add(POWERS[usize::from(part.before)].wrapping_mul(node_hash));
            frames = usize::from(part.before) + 1;
            if at > 0 {
                // What leads to it: the return address that was found in the place of the one before.
                let before = memo.parts[at - 1];
                let link = joined.checks.get(before.at as usize + usize::from(before.len));
                // SAFETY: by this function's own contract.
                let value = unsafe { read(link.slot.place) };
                let link = link.with_frame(value, part.first_id).counted(frames, hash);
                let link = joined.push(link, fp_from, register)?;
                if part.index == 0 {
                    fp_from = link.fp_from();
                }
            }
            // The entry's first frame has this place in the stack; the hash up to the part's first frame, there and here.
            let base = usize::from(part.before - part.index);
            let there = match part.index {
                0 => node_hash,
                _ => joined.checks.get(part.at as usize - 1).about.hash,
            };
            let here = hash;
            for check in part.at as usize..part.at as usize + usize::from(part.len) {
                let check = joined.checks.get(check);
                if base + check.about.frames() > depth {
                    break;
                }
                frames = base + check.about.frames();
                hash = here.wrapping_add(POWERS[base].wrapping_mul(check.about.hash.wrapping_sub(there)));
                joined.push(check.counted(frames, hash), fp_from, register)?;
            }
        }
        let (from, used) = (joined.from, joined.used);
        memo.used = used;
        Some(Entry {
            pc: 0,
            sp: 0,
            first_hash: self.frames.get(first.first_id)?.hash(),
            first_id: first.first_id,
            at: from as u32,
            len: (used - from) as u16,
            frames: frames as u8,
            whole: false,
            wrong: 0,
            id: 0,
            stamp: 0,
        })
    }
}

/// An entry in the making.
struct Joined<'m> {
    checks: &'m mut Checks,
    most: usize,
    from: usize,
    used: usize,
}

impl Joined<'_> {
    /// Adds a check of an entry, before whose first frame the frame pointer was saved at `fp_from`, if not 0. `None` without room.
    fn push(&mut self, mut check: Check, fp_from: usize, register: usize) -> Option<Check> {
        if fp_from != 0 && check.about.is_word() && check.slot.place == register {
            check.slot.place = fp_from;
        } else if fp_from != 0 && !check.about.is_word() && check.fp_from() == 0 {
            check = check.with_fp_from(fp_from)?;
        }
        if self.used >= self.most {
            return None;
        }
        // SAFETY: of these places there are `most`.
        unsafe { self.checks.set(self.used, check) };
        self.used += 1;
        Some(check)
    }
}
