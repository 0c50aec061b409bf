//! The stack of who calls an allocation function, by its thread's memo.
#![allow(unsafe_code)] // reads the return address at the caller's stack pointer

use crate::interpose::Caller;
use crate::state::{self, TRACKER, UNWINDER};
use crate::tls;
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::StackId;
use leakscan_engine::unwind::Start;
use leakscan_engine::unwind::memo::Memo;
use leakscan_engine::unwind::walk::Trace;

#[inline(always)]
pub fn of_caller(thread: &tls::Thread, caller: Caller) -> Option<StackId> {
    if thread.walking.replace(true) {
        return None;
    }
    // SAFETY: `caller.sp` is the stack pointer at our entry, where the call instruction has put the return address.
    let pc = unsafe { *(caller.sp as *const usize) };
    let start = Start { pc, sp: caller.sp + 8, fp: caller.fp };
    // SAFETY: we are the thread, and hold `walking`; `start` is the state of our caller, whose frame is live until we return.
    let id = unsafe {
        let depth = state::DEPTH.load(Relaxed) as usize;
        let known =
            thread.memo_so_far().and_then(|mut memo| UNWINDER.recall(memo.as_mut(), &thread.nodes, start, depth));
        if known.is_some() && state::UNWIND_CHECK.load(Relaxed) == 0 { known } else { unknown(thread, start, known) }
    };
    thread.walking.set(false);
    id
}

/// A stack that the memo does not know, or of which what it says (`known`) is to be checked.
///
/// # Safety
/// As for [`leakscan_engine::unwind::Unwinder::walk`], of the thread, which is the caller's and holds `walking`.
#[inline(never)]
unsafe fn unknown(thread: &tls::Thread, start: Start, known: Option<StackId>) -> Option<StackId> {
    let (own, depth) = (thread.stack.get(), state::DEPTH.load(Relaxed) as usize);
    // SAFETY: `walking` keeps every other user of this thread's buffer away.
    let trace: &mut Trace = unsafe { &mut *thread.trace.as_ptr() };
    let checked = state::UNWIND_CHECK.load(Relaxed) != 0;
    // SAFETY: by this function's own contract.
    let id = unsafe {
        match thread.memo() {
            None => {
                UNWINDER.walk(start, own, depth, &thread.nodes, trace);
                thread.ids.get(trace.hash).or_else(|| {
                    let id = TRACKER.depot.intern(trace.hash, trace.frames())?;
                    thread.ids.set(trace.hash, id);
                    Some(id)
                })
            }
            Some(mut memo) => {
                let id = known.or_else(|| pieced(thread, memo.as_mut(), start, depth, trace));
                if checked {
                    UNWINDER.walk(start, own, depth, &thread.nodes, trace);
                    crate::check::recalled(id, trace);
                }
                id
            }
        }
    };
    if checked {
        crate::check::compare(start.pc, start.sp, trace);
    }
    id
}

/// The id of a stack that the memo does not have as it is.
///
/// # Safety
/// As for [`leakscan_engine::unwind::Unwinder::walk`]; `memo` and `trace` are the thread's, which is the caller.
#[inline(never)]
unsafe fn pieced(
    thread: &tls::Thread,
    memo: &mut Memo,
    start: Start,
    depth: usize,
    trace: &mut Trace,
) -> Option<StackId> {
    let own = thread.stack.get();
    // SAFETY: by this function's own contract.
    let pieced = unsafe { UNWINDER.piece_together(memo, start, own, depth, &thread.nodes, trace) };
    let known = memo
        .ids
        .get(pieced.hash)
        .or_else(|| TRACKER.depot.known(pieced.hash).inspect(|id| memo.ids.set(pieced.hash, *id)));
    let id = match known {
        Some(id) => id,
        None => {
            memo.complete(trace);
            intern(trace).inspect(|id| memo.ids.set(pieced.hash, *id))?
        }
    };
    // SAFETY: as above, with the same.
    unsafe { UNWINDER.learn(memo, depth, &thread.nodes, &pieced, id, known.is_some()) };
    if memo.wants_more() {
        memo.grow();
    }
    Some(id)
}

#[cold]
#[inline(never)]
fn intern(trace: &Trace) -> Option<StackId> {
    TRACKER.depot.intern_new(trace.hash, trace.frames())
}
