//! What happens at each exported allocation function. The shims come here with the caller's registers.
//!
//! Order, everywhere: the real call first for a new block, the live map first for a dying one. Nothing here locks on the
//! default path; errno is the real function's, since we call nothing else that sets it.
#![allow(unsafe_code)] // reads the return address at the caller's stack pointer

use crate::{bundled, contexts, forget, misuse, real, stack, state, tls, trigger};
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::compiler_fence;
use leakscan_engine::record::live_map::{Cell, Family, SLACK_ELSEWHERE};
use leakscan_engine::record::{Chosen, New, TRAILER};
use leakscan_engine::{AddrRange, StackId};
use state::TRACKER;
use tls::Operator;

/// Caller of an allocation function: where its return address lies, its rbp, and which family of functions it calls.
#[derive(Clone, Copy)]
pub struct Caller {
    pub sp: usize,
    pub fp: usize,
    pub family: Family,
}

impl Caller {
    /// Of malloc's family, if no note of an operator says otherwise.
    pub const fn of_malloc(sp: usize, fp: usize) -> Self {
        Self { sp, fp, family: Family::Malloc }
    }
}

/// The smallest size that another allocator than glibc's is asked for.
pub const SMALLEST: usize = 17;

/// Other allocators than glibc's hand out blocks of 8 or 16 bytes; the live map wants two cells a block.
#[inline(always)]
fn request(size: usize) -> usize {
    if state::FOREIGN_ALLOCATOR.load(Relaxed) { size.max(SMALLEST) } else { size }
}

/// The same where the size is to be a multiple of the alignment.
#[inline(always)]
fn request_aligned(align: usize, size: usize) -> usize {
    let enough = request(size);
    if enough == size || !align.is_power_of_two() { size } else { enough.next_multiple_of(align) }
}

#[inline(always)]
pub fn usable(addr: usize) -> usize {
    if state::FOREIGN_ALLOCATOR.load(Relaxed) {
        return real::usable_size(addr);
    }
    bundled::heap().usable(addr).unwrap_or_else(|| chunk_size(addr))
}

/// Usable bytes of a block that glibc's malloc has just returned.
#[inline(always)]
pub fn chunk_size(addr: usize) -> usize {
    // SAFETY: the word before a block of glibc's is the chunk's size and flags.
    let header = unsafe { *((addr - 8) as *const usize) };
    // An mmapped chunk (flag 2) has its own footer less: 16 bytes of overhead instead of 8.
    (header & !7) - 8 - (header & 2) * 4
}

/// Clears what is new of a block of `size` bytes, as far as that is wanted: from `old` bytes on.
#[inline(always)]
pub fn fresh(addr: usize, old: usize, size: usize) -> usize {
    if addr == 0 || size <= old {
        return addr;
    }
    let clear = state::clear();
    let is_recycled = || TRACKER.live.is_recycled(addr + old, size - old);
    // SAFETY: the block has just been handed out, and nobody else knows its new part yet.
    unsafe {
        if state::ZERO.load(Relaxed) {
            ((addr + old) as *mut u8).write_bytes(0, usable(addr).saturating_sub(old));
        } else if old != 0 {
            clear.grown(addr, old, usable(addr), is_recycled);
        } else if clear.up_to != 0 {
            clear.block(addr, size, usable(addr), is_recycled);
        }
    }
    addr
}

/// Enters a new block. `addr` is 0 where the real call failed.
#[inline(always)]
fn born(addr: usize, size: usize, caller: Caller) -> usize {
    if addr == 0 {
        failed();
    } else if state::on() {
        track(addr, size, caller);
    }
    addr
}

/// What malloc gives when there is no memory.
#[cold]
#[inline(never)]
pub fn failed() -> usize {
    if let Some(thread) = tls::current() {
        thread.operator.refuse();
    }
    0
}

#[inline(always)]
fn track(addr: usize, size: usize, caller: Caller) {
    let usable = usable(addr);
    let Some(thread) = tls::current() else {
        TRACKER.on_alloc(New { addr, size, usable, family: caller.family, stack: None, chosen: Chosen::No });
        return;
    };
    let (caller, size) = match thread.operator.take() {
        // The note of an operator new that has called us: its caller's frame is near above ours. Any other note is stale:
        // an operator new of the program's own that did not allocate.
        Some(operator) if operator.has_called(caller.sp, size) => {
            let Operator { sp, fp, family, .. } = operator;
            let size = if family == Family::NewAligned { operator.asked(size) } else { size };
            (Caller { sp, fp, family }, size)
        }
        _ => (caller, size),
    };
    let family = caller.family;
    let mean = state::SAMPLE.load(Relaxed);
    let wanted = mean != 0 && state::WANTED.wants(size);
    let seed = core::ptr::from_ref(thread) as u64;
    let chosen = match mean {
        0 => Chosen::No,
        _ if wanted => Chosen::Wanted,
        _ if thread.sampler.sample(size, mean, seed) => Chosen::Sampled,
        _ => Chosen::No,
    };
    let stack = if mean == 0 || chosen != Chosen::No { stack::of_caller(thread, caller) } else { None };
    TRACKER.on_alloc(New { addr, size, usable, family, stack, chosen });
    let ticks = thread.ticks.get().wrapping_sub(1);
    thread.ticks.set(ticks);
    if ticks == 0 {
        trigger::tick_of(thread);
    }
}

#[cold]
#[inline(never)]
fn stack_of_a_free(thread: &tls::Thread, caller: Caller) -> Option<StackId> {
    stack::of_caller(thread, caller)
}

#[inline(never)]
pub extern "C" fn on_malloc(size: usize, sp: usize, fp: usize, family: u32) -> usize {
    born(fresh(real::malloc(request(size)), 0, size), size, Caller { sp, fp, family: Family::of(family) })
}

pub extern "C" fn on_calloc(count: usize, size: usize, sp: usize, fp: usize) -> usize {
    let Some(total) = count.checked_mul(size) else {
        return real::calloc(count, size);
    };
    let addr = if total < 17 { real::calloc(1, request(total)) } else { real::calloc(count, size) };
    born(addr, total, Caller::of_malloc(sp, fp))
}

pub extern "C" fn on_realloc(old: usize, size: usize, sp: usize, fp: usize) -> usize {
    if old == 0 {
        return on_malloc(size, sp, fp, Family::Malloc as u32);
    }
    moves(old, size, sp, fp, |size| real::realloc(old, size))
}

/// A block gets another size by `realloc`, and mostly another place.
#[inline(always)]
fn moves(old: usize, size: usize, sp: usize, fp: usize, realloc: impl Fn(usize) -> usize) -> usize {
    if !state::on() {
        return realloc(request(size));
    }
    let Some(cell) = TRACKER.live.get(old) else {
        TRACKER.unknown.fetch_add(1, Relaxed);
        misuse::unknown(old, Family::Malloc, || {
            tls::current().and_then(|thread| stack_of_a_free(thread, Caller::of_malloc(sp, fp)))
        });
        let new = if may_be_given_back(old, None) { realloc(request(size)) } else { real::malloc(size) };
        return born(new, size, Caller::of_malloc(sp, fp));
    };
    // Out of the map before the real call, after which the address may be another thread's; until the new one is in the map a
    // snapshot finds both by `moving`.
    let moving = tls::to_move();
    let before = usable(old);
    if let Some(moving) = moving {
        moving.usable.store(before, Relaxed);
        moving.cell.store(cell.0, Relaxed);
        moving.size.store(size, Relaxed);
        moving.sp.store(sp, Relaxed);
        moving.addr.store(old, Relaxed);
        // A thread is stopped between two instructions: in this order they are to be.
        compiler_fence(SeqCst);
    }
    if contexts::exist() {
        forget_contexts(old);
    }
    let clears = state::ZERO.load(Relaxed) || size <= state::clear().grown_up_to();
    TRACKER.live.take(old);
    let new = realloc(if size == 0 { 0 } else { request(size) });
    if new == 0 && size != 0 {
        TRACKER.live.set(old, cell);
    }
    // An allocator that does not tell sizes: how much of the block is new is not known.
    let new = if before == 0 || !clears { new } else { fresh(new, before, size) };
    born(new, size, Caller::of_malloc(sp, fp));
    if let Some(moving) = moving {
        compiler_fence(SeqCst);
        tls::moved(moving);
    }
    new
}

pub extern "C" fn reallocarray(old: usize, count: usize, size: usize, sp: usize, fp: usize) -> usize {
    match count.checked_mul(size) {
        Some(total) => on_realloc(old, total, sp, fp),
        // More than there is: realloc refuses it and sets errno, as reallocarray would.
        None => real::realloc(old, usize::MAX),
    }
}

/// malloc_usable_size: the program's. Who asks may use all of a block, so that nothing in any is slack.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_usable_size(addr: usize) -> usize {
    if !state::USES_SLACK.load(Relaxed) {
        state::USES_SLACK.store(true, Relaxed);
    }
    let usable = real::usable_size(addr);
    let trailer = TRACKER.spare_is_ours.load(Relaxed)
        && TRACKER.live.get(addr).is_some_and(|cell| cell.slack() == SLACK_ELSEWHERE);
    if trailer { usable.saturating_sub(TRAILER) } else { usable }
}

/// Takes a block out of the map before its real free. False if it is not to be freed.
#[inline(always)]
fn dies(addr: usize, caller: Caller) -> bool {
    // Also of no block: the note of an operator delete must not wait for the next free from there.
    let by = freed_by(caller);
    if addr == 0 || !state::on() {
        return true;
    }
    let nth = state::FORGET.load(Relaxed);
    if nth != 0 && forget::forgets(addr, nth) {
        return false;
    }
    if contexts::exist() && TRACKER.live.get(addr).is_some() {
        forget_contexts(addr);
    }
    let cell = TRACKER.live.take(addr);
    look_at_free(addr, by, cell, caller);
    may_be_given_back(addr, cell)
}

/// The bundled heap would give a block that it gets back twice to two owners: where glibc's allocator ends the program, it leaves alone
/// what the map does not know. (Were there no memory for the map, its blocks would stay, too.)
fn may_be_given_back(addr: usize, cell: Option<Cell>) -> bool {
    cell.is_some() || !bundled::heap().contains(addr)
}

/// The block at `addr` is about to be another one.
#[cold]
#[inline(never)]
fn forget_contexts(addr: usize) {
    match usable(addr) {
        // The allocator does not say.
        0 => contexts::forget(AddrRange::new(0, usize::MAX)),
        usable if contexts::may_lie_in(usable) => contexts::forget(AddrRange::new(addr, addr + usable)),
        _ => {}
    }
}

/// The family whose function frees; `None`: an operator delete that calls free from a frame of its own says nothing of it.
#[inline(always)]
fn freed_by(caller: Caller) -> Option<Family> {
    match tls::current().and_then(|thread| thread.operator.take()) {
        Some(operator) if operator.deletes => (operator.sp == caller.sp).then_some(operator.family),
        _ => Some(caller.family),
    }
}

/// Whether a free is as it should be, of a block with this cell, which has been taken out of the map, by this family.
fn look_at_free(addr: usize, by: Option<Family>, cell: Option<Cell>, caller: Caller) {
    let here = || tls::current().and_then(|thread| stack_of_a_free(thread, caller));
    match cell {
        None => {
            TRACKER.unknown.fetch_add(1, Relaxed);
            misuse::unknown(addr, by.unwrap_or(Family::Malloc), here);
        }
        Some(cell) => {
            if let Some(by) = by.filter(|by| *by != cell.family()) {
                misuse::mismatch(cell, by, here());
            }
        }
    }
}

/// The free of a block that the map does not know, or whose family may be another one, or of none.
#[cold]
#[inline(never)]
pub fn free_oddly(addr: usize, sp: usize, fp: usize, cell: Option<Cell>, family: Family) {
    let caller = Caller { sp, fp, family };
    let by = freed_by(caller);
    if addr != 0 {
        look_at_free(addr, by, cell, caller);
    }
    if may_be_given_back(addr, cell) {
        real::free(addr);
    }
}

#[inline(never)]
pub extern "C" fn on_free(addr: usize, sp: usize, fp: usize) {
    if dies(addr, Caller::of_malloc(sp, fp)) {
        real::free(addr);
    }
}

/// An operator delete that does no more than to free.
pub extern "C" fn delete(addr: usize, sp: usize, fp: usize, family: u32) {
    if dies(addr, Caller { sp, fp, family: Family::of(family) }) {
        real::free(addr);
    }
}

/// jemalloc's further functions: redis has its Lua's memory from them. Without jemalloc they do the same by its plain ones.
pub extern "C" fn mallocx(size: usize, flags: c_int, sp: usize, fp: usize) -> usize {
    born(fresh(real::mallocx(request(size), flags), 0, size), size, Caller::of_malloc(sp, fp))
}

pub extern "C" fn rallocx(old: usize, size: usize, flags: c_int, sp: usize, fp: usize) -> usize {
    moves(old, size, sp, fp, |size| real::rallocx(old, size, flags))
}

/// Where it lies. How much was asked for is not known any more: all of it counts.
#[unsafe(no_mangle)]
pub extern "C" fn xallocx(addr: usize, size: usize, extra: usize, flags: c_int) -> usize {
    if let Some(cell) = TRACKER.live.get(addr) {
        TRACKER.live.set(addr, cell.without_slack());
    }
    real::xallocx(addr, request(size), extra, flags)
}

pub extern "C" fn dallocx(addr: usize, flags: c_int, sp: usize, fp: usize) {
    if dies(addr, Caller::of_malloc(sp, fp)) {
        real::dallocx(addr, flags);
    }
}

pub extern "C" fn sdallocx(addr: usize, size: usize, flags: c_int, sp: usize, fp: usize) {
    if dies(addr, Caller::of_malloc(sp, fp)) {
        real::sdallocx(addr, request(size), flags);
    }
}

pub extern "C" fn free_sized(addr: usize, size: usize, sp: usize, fp: usize) {
    if dies(addr, Caller::of_malloc(sp, fp)) {
        real::free_sized(addr, request(size));
    }
}

pub extern "C" fn free_aligned_sized(addr: usize, align: usize, size: usize, sp: usize, fp: usize) {
    if dies(addr, Caller::of_malloc(sp, fp)) {
        real::free_aligned_sized(addr, align, request_aligned(align, size));
    }
}

/// # Safety
/// `out` is what the program gave to posix_memalign.
pub unsafe extern "C" fn posix_memalign(out: *mut usize, align: usize, size: usize, sp: usize, fp: usize) -> c_int {
    let result = real::posix_memalign(out, align, request(size));
    if result == 0 {
        // SAFETY: posix_memalign has just written the block's address there.
        born(fresh(unsafe { *out }, 0, size), size, Caller::of_malloc(sp, fp));
    } else {
        failed();
    }
    result
}

pub extern "C" fn aligned_alloc(align: usize, size: usize, sp: usize, fp: usize) -> usize {
    born(fresh(real::aligned_alloc(align, request_aligned(align, size)), 0, size), size, Caller::of_malloc(sp, fp))
}

pub extern "C" fn memalign(align: usize, size: usize, sp: usize, fp: usize) -> usize {
    born(fresh(real::memalign(align, request(size)), 0, size), size, Caller::of_malloc(sp, fp))
}

pub extern "C" fn valloc(size: usize, sp: usize, fp: usize) -> usize {
    born(fresh(real::valloc(request(size)), 0, size), size, Caller::of_malloc(sp, fp))
}

pub extern "C" fn pvalloc(size: usize, sp: usize, fp: usize) -> usize {
    born(fresh(real::pvalloc(request(size)), 0, size), size, Caller::of_malloc(sp, fp))
}

/// strdup over an allocator that has one of its own, or before that is known.
///
/// # Safety
/// `text` is what the program gave to strdup.
pub unsafe extern "C" fn strdup(text: *const c_char, sp: usize, fp: usize) -> usize {
    // SAFETY: by this function's own contract, it ends with a zero.
    real::strdup(text as usize).unwrap_or_else(|| copy(unsafe { CStr::from_ptr(text) }.to_bytes(), sp, fp))
}

/// The same for strndup.
///
/// # Safety
/// `text` and `most` are what the program gave to strndup.
pub unsafe extern "C" fn strndup(text: *const c_char, most: usize, sp: usize, fp: usize) -> usize {
    real::strndup(text as usize, most).unwrap_or_else(|| {
        // SAFETY: by this function's own contract, there are bytes up to a zero, or so many.
        let len = (0..most).find(|&at| unsafe { *text.add(at) } == 0).unwrap_or(most);
        // SAFETY: as above.
        copy(unsafe { core::slice::from_raw_parts(text.cast(), len) }, sp, fp)
    })
}

fn copy(text: &[u8], sp: usize, fp: usize) -> usize {
    let addr = on_malloc(text.len() + 1, sp, fp, Family::Malloc as u32);
    if addr != 0 {
        // SAFETY: the new block has room for the text and a zero.
        unsafe {
            (addr as *mut u8).copy_from_nonoverlapping(text.as_ptr(), text.len());
            ((addr + text.len()) as *mut u8).write(0);
        }
    }
    addr
}

/// An operator new or delete (`what` as in [`tls::Note`]) has been called; the real one is entered next, at the same stack
/// pointer. On x86-64 its entry does this itself, but for a thread's first call.
pub extern "C" fn note_operator(what: u32, sp: usize, fp: usize) {
    real::ready();
    let Some(thread) = tls::current() else { return };
    let deletes = what & tls::DELETES != 0;
    if let Some(outer) = thread.operator.get()
        && outer.deletes == deletes
        && outer.sp >= sp
        && outer.sp - sp < 256
    {
        // The array and nothrow forms call the plain ones: the outer call is the program's.
        return;
    }
    thread.operator.set(what, sp, fp);
}
