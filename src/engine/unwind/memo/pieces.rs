//! Stacks that the memo does not have as a whole: put together from parts, and from what is walked.
#![allow(unsafe_code)] // reads the live stack

use super::*;

impl Unwinder {
    /// The hash of the stack from `start`, put together from what the memo knows and what it does not, which is walked.
    /// [`Memo::complete`] gives its frames.
    ///
    /// # Safety
    /// As for [`Unwinder::walk`]; `memo` is the calling thread's, and nobody else uses it meanwhile.
    #[inline(never)]
    pub unsafe fn piece_together(
        &self,
        memo: &mut Memo,
        start: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
    ) -> Pieced {
        let generation = self.frames.generation();
        // No part may go while it is needed.
        let is_full = memo.used + 2 * MOST > memo.tables.most;
        if memo.generation != generation || memo.stamp == 0 || is_full {
            if is_full {
                memo.crowding.is_full();
            }
            memo.empty(generation);
        }
        memo.parted = 0;
        trace.clear();
        if memo.keeps_recent() {
            // SAFETY: by this function's own contract.
            return unsafe { self.walk_to_recent(memo, start, stack, depth, cache, trace) };
        }
        let mut state = start;
        let (mut straight, mut lacking, mut is_walked) = (true, false, false);
        let ended = 'pieces: loop {
            let Some(at) = memo.find(&state) else {
                straight = false;
                // SAFETY: `state` is that of a live frame: at first by the caller's promise, then because all slots up to it were
                // verified, or walked along.
                let (end, kept) = unsafe { self.fill(memo, state, stack, depth, cache, trace) };
                (lacking, is_walked) = (lacking || !kept, true);
                match end {
                    Ended::Stopped(next) => state = next,
                    end => break Some((end.is_outermost(), None)),
                }
                continue;
            };
            cache.fp.store(state.fp, Relaxed);
            let entry = &mut memo.tables.entries[at.0][at.1];
            let checks = memo.tables.checks.of(entry.at, entry.len);
            let before = trace.len;
            let mut part = Part { first_id: entry.first_id, at: entry.at, len: 0, before: before as u8, index: 0 };
            // What is to be added to the hashes of the entry's frames, for those that are others.
            let mut others = 0u64;
            let mut from = 0;
            // How many of the checks stand, and what leads on from there.
            let (stands, next) = loop {
                // SAFETY: those before were verified.
                let Some(until) = (unsafe { verify(&checks.slots[from..]) }) else {
                    if entry.whole || before + usize::from(entry.frames) >= depth {
                        break (checks.len(), None);
                    }
                    match checks.len().checked_sub(1).and_then(|last| Some((last, checks.get(last)?))) {
                        Some((last, check)) => break (last, Some((check.slot.value, check))),
                        None => break 'pieces None,
                    }
                };
                let until = from + until;
                let Some(check) = checks.get(until).filter(|check| !check.about.is_word()) else {
                    // A frame pointer: nothing is said of what follows.
                    entry.was_wrong(WRONG);
                    break 'pieces None;
                };
                straight = false;
                // SAFETY: the slot was read by `verify`.
                let pc = unsafe { read(check.slot.place) };
                let (frames, hash) = entry.up_to(&checks.abouts[..until]);
                let found = sibling(cache, pc, &check, checks.get(until + 1)).filter(|_| before + frames < depth);
                let Some(other) = found else {
                    entry.was_wrong(WRONG);
                    break (until, Some((pc, check)));
                };
                entry.was_wrong(SIBLING);
                others = others
                    .wrapping_add(POWERS[frames].wrapping_mul(other.hash()))
                    .wrapping_sub(check.about.hash.wrapping_sub(hash));
                part.len = (until - from) as u16;
                memo.parts[memo.parted] = part;
                memo.parted += 1;
                from = until + 1;
                part.first_id = other.id();
                part.at = entry.at + from as u32;
                (part.before, part.index) = ((before + frames) as u8, frames as u8);
            };
            let stand = &checks.abouts[..stands];
            let (mut frames, mut hash) = entry.up_to(stand);
            if before + frames > depth {
                let within = stand.iter().rposition(|check| before + check.frames() <= depth).map_or(0, |at| at + 1);
                (frames, hash) = entry.up_to(&stand[..within]);
            }
            part.len = (stands - from) as u16;
            memo.parts[memo.parted] = part;
            memo.parted += 1;
            trace.hash = trace.hash.wrapping_add(POWERS[before].wrapping_mul(hash.wrapping_add(others)));
            trace.len += frames;
            let Some((pc, check)) = next.filter(|_| trace.len < depth) else {
                let alone = straight && before == 0 && entry.is_stack(depth);
                break Some((next.is_none() && entry.whole, alone.then_some(at)));
            };
            if pc < 4096 {
                break None;
            }
            let fp = match check.fp_from() {
                0 => state.fp,
                // SAFETY: the word lies in a frame that was verified.
                place => unsafe { read(place) },
            };
            state = Start { pc, sp: check.slot.place + 8, fp };
        };
        let Some((whole, entry)) = ended else {
            // Unusual: the end of the stack is not where the tables say, or a frame lies elsewhere than before.
            memo.parted = 0;
            // SAFETY: as for this function.
            unsafe { self.walk(start, stack, depth, cache, trace) };
            return Pieced { hash: trace.hash, start, entry: None, recent: None, parts: Parts::Lacking, is_walked };
        };
        let parts = match straight {
            _ if entry.is_some() || lacking || !whole && trace.len < depth => Parts::Lacking,
            true => Parts::Straight(whole),
            false => Parts::Crooked(whole),
        };
        Pieced { hash: trace.hash, start, entry, recent: None, parts, is_walked }
    }

    /// Walks to the end, and keeps the stack among the recent ones.
    ///
    /// # Safety
    /// As for [`Self::piece_together`].
    unsafe fn walk_to_recent(
        &self,
        memo: &mut Memo,
        start: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
    ) -> Pieced {
        let way = usize::from(memo.turn) % RECENT;
        memo.turn = memo.turn.wrapping_add(1);
        let paid = core::mem::take(&mut memo.paid[way]);
        memo.note_repeat(paid);
        // SAFETY: by this function's own contract.
        let (_, entry) =
            unsafe { self.record(memo, memo.tables.most + way * MOST, start, stack, depth, cache, trace, |_| false) };
        // Not to be found before its id is known.
        memo.recent[way] = Entry { stamp: 0, ..entry.unwrap_or(memo.recent[way]) };
        let recent = entry.map(|_| way);
        Pieced { hash: trace.hash, start, entry: None, recent, parts: Parts::Lacking, is_walked: false }
    }

    /// Walks from a state to the next border or the end, and keeps what it finds: then a part more of the stack is known, and true given.
    #[allow(clippy::too_many_arguments)] // those of a walk, and where to keep it
    #[inline(never)]
    unsafe fn fill(
        &self,
        memo: &mut Memo,
        state: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
    ) -> (Ended, bool) {
        if memo.used + MOST > memo.tables.most {
            // SAFETY: by this function's own contract.
            return (unsafe { self.walk_with(state, stack, depth, cache, trace, &mut Nobody, is_border) }, false);
        }
        let (before, used) = (trace.len, memo.used);
        // SAFETY: by this function's own contract.
        let (end, entry) = unsafe { self.record(memo, used, state, stack, depth, cache, trace, is_border) };
        let Some(entry) = entry else { return (end, false) };
        memo.used += usize::from(entry.len);
        let (set, way) = memo.place_for(&state);
        memo.tables.entries[set][way] = entry;
        // The last check leads to the next part.
        let len = entry.len - u16::from(matches!(end, Ended::Stopped(_)));
        memo.parts[memo.parted] = Part { first_id: entry.first_id, at: entry.at, len, before: before as u8, index: 0 };
        memo.parted += 1;
        (end, true)
    }

    /// Walks from a state to a border or the end, and makes an entry of what it finds, with its checks at this place, where there is room for
    /// [`MOST`]. `None`: it cannot be kept.
    ///
    /// # Safety
    /// As for [`Self::piece_together`].
    #[allow(clippy::too_many_arguments)] // as above
    #[inline(always)]
    unsafe fn record(
        &self,
        memo: &mut Memo,
        at: usize,
        state: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
        is_border: impl Fn(&Start) -> bool,
    ) -> (Ended, Option<Entry>) {
        let mut recorder = Recorder {
            checks: &mut memo.tables.checks,
            at,
            room: MOST,
            register: (&raw const cache.fp).expose_provenance(),
            used: 0,
            frames: 0,
            hash: 0,
            first: (0, 0),
            lost: false,
        };
        let unusual = core::mem::take(&mut trace.unusual);
        // SAFETY: by this function's own contract.
        let end = unsafe { self.walk_with(state, stack, depth, cache, trace, &mut recorder, is_border) };
        let Recorder { used, first, frames, lost, .. } = recorder;
        let whole = end.is_outermost();
        if lost || trace.unusual || used == 0 && !whole {
            trace.unusual |= unusual;
            return (end, None);
        }
        trace.unusual = unusual;
        let entry = Entry {
            pc: state.pc,
            sp: state.sp,
            first_hash: first.0,
            first_id: first.1,
            at: at as u32,
            len: used as u16,
            frames: frames as u8,
            whole,
            wrong: 0,
            id: 0,
            stamp: memo.stamp,
        };
        (end, Some(entry))
    }
}
