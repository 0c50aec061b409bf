//! The *link* walk: from the caller of an allocation outwards, through the frame dictionary.
#![allow(unsafe_code)] // steps through the live stack, keeps nodes by address

use super::arch::{Registers, Rule, Step, step};
use super::memo::{Nobody, Watch};
use super::{OwnStack, Start, Unwinder};
use crate::record::depot::{MAX_DEPTH, POWERS};
use crate::record::frames::Node;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const CACHED: usize = 1024;

/// Return address -> node, one per thread, lossy: spares the search in the dictionary where the prediction was wrong.
pub struct NodeCache {
    nodes: [AtomicUsize; CACHED],
    wrong: AtomicUsize,
    /// The frame pointer register's value at the state that the memo looks at: a word of memory to be compared, as all others.
    pub(super) fp: AtomicUsize,
}

/// One in so many wrong predictions is corrected. All threads share the nodes: where a function has several callers, or calls
/// itself, each would write the line that the others read (466 ns a call instead of 72, with 4 threads on 2 cores).
const CORRECTED: usize = 32;

impl NodeCache {
    #[inline(always)]
    fn slot(&self, key: u64) -> &AtomicUsize {
        &self.nodes[(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CACHED.trailing_zeros())) as usize]
    }

    /// The node of a key, if it is here.
    #[inline(always)]
    pub(super) fn get(&self, key: u64) -> Option<&'static Node> {
        let cached = self.slot(key).load(Relaxed);
        if cached == 0 {
            return None;
        }
        // SAFETY: a slot holds 0 or the address of a node, and nodes are never unmapped.
        let node = unsafe { &*(cached as *const Node) };
        (node.key() == key).then_some(node)
    }

    fn correct(&self, node: &Node, caller: &'static Node) {
        let wrong = self.wrong.load(Relaxed).wrapping_add(1);
        self.wrong.store(wrong, Relaxed);
        if wrong.is_multiple_of(CORRECTED) || !node.predicts() {
            node.predict(caller);
        }
    }
}

// SAFETY: atomics are valid when zero.
unsafe impl crate::arena::Zeroed for NodeCache {}

/// A walked stack: node ids, caller of the allocation first, and their hash.
pub struct Trace {
    pub ids: [u32; MAX_DEPTH],
    pub len: usize,
    pub hash: u64,
    /// It goes through a signal frame or code without a file, or ends for want of room in the dictionary.
    pub unusual: bool,
}

impl Trace {
    pub const fn new() -> Self {
        Self { ids: [0; MAX_DEPTH], len: 0, hash: 0, unusual: false }
    }
    pub fn frames(&self) -> &[u32] {
        &self.ids[..self.len]
    }
    pub(super) fn clear(&mut self) {
        (self.len, self.hash, self.unusual) = (0, 0, false);
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// How a walk has ended.
pub(super) enum Ended {
    /// With the outermost frame, as the unwind tables say.
    Outermost,
    /// Before the frame of this state.
    Stopped(Start),
    /// Elsewhere.
    Short,
}

impl Ended {
    pub(super) const fn is_outermost(&self) -> bool {
        matches!(self, Ended::Outermost)
    }
}

impl Unwinder {
    /// Walks from `start` until the outermost frame or `depth` frames (1 to [`MAX_DEPTH`]).
    ///
    /// About 3 ns a frame where callers are as predicted, 10 more where not, microseconds for an address seen the first time.
    ///
    /// # Safety
    /// `start` is the state of a live frame of the calling thread; `cache` is not used by another walk meanwhile.
    #[inline]
    pub unsafe fn walk(&self, start: Start, stack: OwnStack, depth: usize, cache: &NodeCache, trace: &mut Trace) {
        trace.clear();
        // SAFETY: by this function's own contract.
        unsafe { self.walk_with(start, stack, depth, cache, trace, &mut Nobody, |_| false) };
    }

    /// The same, watched: adds to a trace whose last frame's caller `start` is, until it has `depth` frames, and stops before a frame
    /// whose state is as `stop` says.
    ///
    /// # Safety
    /// As for [`Unwinder::walk`].
    #[allow(clippy::too_many_arguments)] // those of a walk, who watches it, and where it stops
    #[inline(always)]
    pub(super) unsafe fn walk_with(
        &self,
        start: Start,
        stack: OwnStack,
        depth: usize,
        cache: &NodeCache,
        trace: &mut Trace,
        watch: &mut impl Watch,
        stop: impl Fn(&Start) -> bool,
    ) -> Ended {
        let depth = depth.clamp(1, MAX_DEPTH);
        let mut registers = Registers::new(start.sp, start.fp);
        let (mut limit, _) = stack.limit(start.sp);
        let Some(mut node) = self.node(start.pc as u64, cache) else {
            trace.unusual = true;
            return Ended::Short;
        };
        let before = trace.len;
        trace.ids[before] = node.id();
        // Of this walk.
        let (mut frames, mut hash) = (1, node.hash());
        watch.first(node, hash);
        let ended = 'walk: {
            while before + frames < depth {
                let (rule, callee) = (Rule(node.rule.load(Relaxed)), registers);
                // SAFETY: `registers` belong to the live frame that `node` describes: at first by the caller's promise, then
                // because a rule gives the caller's registers from its callee's.
                let key = match unsafe { step(rule, &mut registers, limit, stack) } {
                    Step::To(key) => key,
                    Step::Signal(key) => {
                        trace.unusual = true;
                        (limit, _) = stack.limit(registers.sp);
                        key
                    }
                    Step::AskObject => {
                        trace.unusual = true;
                        let Some(loaded) = self.ask_again(node) else { break };
                        // Without an object it is JIT code: follow the frame pointer as for code without a table.
                        // SAFETY: as above.
                        match unsafe { step(loaded, &mut registers, limit, stack) } {
                            Step::To(key) => key,
                            _ => break,
                        }
                    }
                    Step::End => break 'walk if rule.is_end() { Ended::Outermost } else { Ended::Short },
                };
                node = match node.predicted(key) {
                    Some(caller) => caller,
                    None => {
                        let Some(caller) = self.node(key, cache) else {
                            trace.unusual = true;
                            break;
                        };
                        cache.correct(node, caller);
                        caller
                    }
                };
                let more = hash.wrapping_add(POWERS[frames % MAX_DEPTH].wrapping_mul(node.hash()));
                watch.step(rule, &callee, &registers, key as usize, node, more);
                let state = Start { pc: key as usize, sp: registers.sp, fp: registers.fp };
                if stop(&state) {
                    break 'walk Ended::Stopped(state);
                }
                trace.ids[before + frames] = node.id();
                (frames, hash) = (frames + 1, more);
            }
            Ended::Short
        };
        trace.len = before + frames;
        trace.hash = trace.hash.wrapping_add(POWERS[before].wrapping_mul(hash));
        ended
    }

    /// The node of a key, with its rule.
    #[inline(never)]
    fn node(&self, key: u64, cache: &NodeCache) -> Option<&'static Node> {
        if let Some(node) = cache.get(key) {
            return Some(node);
        }
        let node = self.frames.intern(key)?;
        if node.rule.load(Relaxed) == 0 {
            node.rule.store(self.compile(node.lookup_pc()).0, Relaxed);
        }
        cache.slot(key).store(core::ptr::from_ref(node) as usize, Relaxed);
        Some(node)
    }

    /// What to do at an address that was in no loaded file when first seen. If a file is there now, the node is stale: it
    /// goes out of use, and this one stack ends here.
    #[cold]
    fn ask_again(&self, node: &Node) -> Option<Rule> {
        if self.object(node.lookup_pc()).is_some() {
            self.frames.retire_node(node);
            return None;
        }
        Some(Rule::NO_TABLE)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::unwind::Object;

    #[repr(C)]
    #[derive(Default)]
    struct DlFindObject {
        flags: u64,
        map: [usize; 2],
        link_map: usize,
        eh_frame: usize,
        reserved: [u64; 7],
    }
    unsafe extern "C" {
        fn _dl_find_object(pc: usize, result: *mut DlFindObject) -> i32;
    }
    pub fn find(pc: usize) -> Option<Object> {
        let mut found = DlFindObject::default();
        // SAFETY: glibc fills the structure, whose layout is that of <dlfcn.h>.
        let missing = unsafe { _dl_find_object(pc, &mut found) } != 0;
        (!missing).then_some(Object { eh_frame_hdr: found.eh_frame, start: found.map[0], end: found.map[1] })
    }

    pub static UNWINDER: Unwinder = Unwinder::new();

    /// Compares our walk with libgcc's from the same place, return address for return address.
    #[inline(never)]
    fn compare() -> usize {
        UNWINDER.set_find(find);
        let [cache] = crate::arena::zeroed::<NodeCache>(1).unwrap() else { unreachable!() };
        let mut trace = Trace::new();
        let (sp, fp, pc): (usize, usize, usize);
        // SAFETY: reads registers only; `pc` is the address of the next instruction.
        unsafe {
            core::arch::asm!("mov {}, rsp", "mov {}, rbp", "lea {}, [rip + 1]", out(reg) sp, out(reg) fp, out(reg) pc)
        };
        // SAFETY: this frame is live, and these are its registers.
        unsafe {
            UNWINDER.walk(Start { pc, sp, fp }, OwnStack { low: 0, high: (1 << 47) - 4096 }, 64, cache, &mut trace)
        };
        let ours: Vec<usize> = trace.frames().iter().map(|id| UNWINDER.frames.get(*id).unwrap().address()).collect();
        let mut theirs = Vec::new();
        backtrace::trace(|frame| {
            theirs.push(frame.ip() as usize);
            true
        });
        // The frames of `compare` itself differ in their address; all outer ones must not.
        let at = theirs.iter().position(|ip| *ip == ours[1]).expect("the caller is in both stacks");
        let theirs: Vec<usize> = theirs[at..].iter().copied().filter(|ip| *ip != 0).take(63).collect();
        assert_eq!(ours[1..], theirs);
        ours.len()
    }

    #[inline(never)]
    fn deep(n: usize) -> usize {
        if n == 0 { compare() } else { std::hint::black_box(deep(n - 1)) }
    }

    #[test]
    fn a_walk_equals_libgccs() {
        let shallow = compare();
        assert!(shallow > 4);
        assert_eq!(compare(), shallow);
        assert_eq!(deep(20), deep(10) + 10);
        assert_eq!(deep(100), MAX_DEPTH);
        assert_eq!(UNWINDER.unsupported(), 0);
    }
}
