//! Frame dictionary: every return address that was ever seen, once, with what the unwinder knows of it.
//!
//! Called from inside malloc on any thread; insert-only. A node carries the unwind rule of its address and the node of the
//! caller that was seen last, so that a walk is a predicted pointer chase (DESIGN section 4, *link*).
//!
//! An address can mean different code at different times: after dlclose another library may be mapped there. [`retire`]
//! takes a range out of use: its nodes are never found again, and new nodes in it get the next *tag*, which the report uses
//! to name the module that was there then.
//!
//! [`retire`]: Frames::retire
#![allow(unsafe_code)] // follows the link between nodes

use super::chunks::Chunks;
use super::index::Index;
use crate::AddrRange;
use crate::arena::Zeroed;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Set in a key whose address is exact: the instruction that a signal interrupted, not the one after a call.
pub const EXACT: u64 = 1 << 62;
const RETIRED: u64 = 1 << 63;
const RETIRED_RANGES: usize = 1024;

/// What is known of one return address. 32 bytes: two to a cache line.
#[repr(C)]
pub struct Node {
    /// The return address, or the exact address + 1 and [`EXACT`]; with [`RETIRED`] it is never found again.
    key: AtomicU64,
    /// Packed unwind rule, see `unwind::rule`. 0: not known yet.
    pub rule: AtomicU64,
    /// Address of the node that was the caller last time; 0: none.
    next: AtomicUsize,
    id: AtomicU32,
    tag: AtomicU32,
}

// SAFETY: atomics are valid when zero.
unsafe impl Zeroed for Node {}

impl Node {
    /// The key that finds this node.
    #[inline]
    pub fn key(&self) -> u64 {
        self.key.load(Relaxed)
    }
    #[inline]
    pub fn id(&self) -> u32 {
        self.id.load(Relaxed)
    }
    /// What the rule is to be looked up for: an address inside the call instruction, or the exact address.
    pub fn lookup_pc(&self) -> usize {
        ((self.key() & !(EXACT | RETIRED)) as usize).wrapping_sub(1)
    }
    /// The address to report: the return address, or the exact one.
    pub fn address(&self) -> usize {
        self.lookup_pc() + usize::from(!self.is_exact())
    }
    pub fn is_exact(&self) -> bool {
        self.key() & EXACT != 0
    }
    /// How many retired ranges held this address when the node was made.
    pub fn tag(&self) -> u32 {
        self.tag.load(Relaxed)
    }
    /// The frame's share of a stack's hash.
    #[inline]
    pub fn hash(&self) -> u64 {
        let mixed = (self.key() & !RETIRED).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ u64::from(self.id());
        mixed ^ mixed >> 32
    }
    /// The caller that was seen last, if its key is `key`.
    #[inline]
    pub fn predicted(&self, key: u64) -> Option<&'static Node> {
        let next = self.next.load(Relaxed);
        if next == 0 {
            return None;
        }
        // SAFETY: `next` is 0 or the address of a node in `Chunks`, which are never unmapped.
        let node = unsafe { &*(next as *const Node) };
        (node.key() == key).then_some(node)
    }
    /// Whether a caller is remembered.
    pub fn predicts(&self) -> bool {
        self.next.load(Relaxed) != 0
    }
    /// Remembers the caller for next time.
    #[inline]
    pub fn predict(&self, caller: &'static Node) {
        self.next.store(core::ptr::from_ref(caller) as usize, Relaxed);
    }
}

/// The dictionary. Up to 4 M frames (128 MiB).
#[repr(C)] // what is used first lies in the first page
pub struct Frames {
    /// Counts what has gone out of use.
    generation: AtomicU32,
    index: Index,
    retired_used: AtomicUsize,
    nodes: Chunks<Node, 1024>,
    retired: [(AtomicUsize, AtomicUsize); RETIRED_RANGES],
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    pub const fn new() -> Self {
        Self {
            generation: AtomicU32::new(0),
            index: Index::new(),
            retired_used: AtomicUsize::new(0),
            nodes: Chunks::new(),
            retired: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; RETIRED_RANGES],
        }
    }

    /// Another number than before: an address may mean other code now.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    /// The node of `key`, made if there is none. `None` if the dictionary is full.
    pub fn intern(&self, key: u64) -> Option<&'static Node> {
        let hash = mix(key);
        let is = |id: u32| self.nodes.get(id).is_some_and(|node| node.key() == key);
        let id = match self.index.find(hash, is) {
            Some(id) => id,
            None => {
                let (id, node) = self.nodes.add()?;
                node.id.store(id, Relaxed);
                node.tag.store(self.tag((key & !EXACT) as usize), Relaxed);
                node.key.store(key, Release);
                self.index.insert(hash, id, is)?
            }
        };
        self.nodes.get(id)
    }

    pub fn get(&self, id: u32) -> Option<&'static Node> {
        self.nodes.get(id)
    }

    pub fn count(&self) -> u32 {
        self.nodes.end() - 1
    }

    /// How many retired ranges hold `addr`.
    pub fn tag(&self, addr: usize) -> u32 {
        self.retired_ranges().filter(|range| range.contains(addr)).count() as u32
    }

    /// The code of `range` is gone: forgets its addresses. Gives the number of the range, in order; `None` if the list of
    /// ranges is full (nodes are forgotten all the same, but reports may name the wrong module for the old ones).
    pub fn retire(&self, range: AddrRange) -> Option<usize> {
        let slot = self.retired_used.fetch_add(1, Relaxed);
        let listed = self.retired.get(slot);
        if let Some((start, end)) = listed {
            end.store(range.end, Relaxed);
            start.store(range.start, Release);
        }
        for node in (1..self.nodes.end()).filter_map(|id| self.nodes.get(id)) {
            if range.contains(node.lookup_pc()) {
                node.key.fetch_or(RETIRED, Relaxed);
            }
        }
        self.generation.fetch_add(1, Release);
        listed.map(|_| slot)
    }

    /// Takes one node out of use: what its address means has changed.
    pub fn retire_node(&self, node: &Node) {
        node.key.fetch_or(RETIRED, Relaxed);
        self.generation.fetch_add(1, Release);
    }

    /// The retired ranges in the order in which they went.
    pub fn retired_ranges(&self) -> impl Iterator<Item = AddrRange> + '_ {
        let used = self.retired_used.load(Acquire).min(RETIRED_RANGES);
        self.retired[..used].iter().map(|(start, end)| AddrRange::new(start.load(Acquire), end.load(Relaxed)))
    }
}

fn mix(key: u64) -> u64 {
    let mixed = (key ^ key >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_per_address_until_its_range_is_retired() {
        let frames = Frames::new();
        let node = frames.intern(0x1000).unwrap();
        assert_eq!(node.id(), frames.intern(0x1000).unwrap().id());
        assert_eq!((node.tag(), node.address(), node.lookup_pc()), (0, 0x1000, 0xfff));
        let other = frames.intern(0x9000).unwrap();
        other.predict(node);
        assert!(other.predicted(0x1000).is_some() && other.predicted(0x1001).is_none());

        assert_eq!(frames.retire(AddrRange::new(0x800, 0x2000)), Some(0));
        assert!(other.predicted(0x1000).is_none(), "a retired node is no prediction");
        let again = frames.intern(0x1000).unwrap();
        assert_ne!(again.id(), node.id());
        assert_eq!((again.tag(), node.tag(), node.address()), (1, 0, 0x1000));
        assert_eq!(frames.intern(0x9000).unwrap().id(), other.id());
    }

    #[test]
    fn an_exact_address_is_not_the_return_address_behind_it() {
        let frames = Frames::new();
        let call = frames.intern(0x1001).unwrap();
        let exact = frames.intern(0x1001 | EXACT).unwrap();
        assert_ne!(call.id(), exact.id());
        assert_eq!((exact.address(), exact.lookup_pc(), call.address()), (0x1000, 0x1000, 0x1001));
        assert_eq!(size_of::<Node>(), 32);
    }
}
