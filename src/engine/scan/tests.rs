//! Mark and classify on real memory: graphs of 64-byte blocks in one leaked buffer.

use super::blocks::{Blocks, SizeOf};
use super::classify::leaked;
use super::mark::{How, Marker};
use super::resident::Pages;
use crate::AddrRange;
use crate::record::live_map::{Cell, Family, LiveMap};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SIZE: usize = 64;

struct Fixed;
impl SizeOf for Fixed {
    fn usable(&self, _: usize, _: Cell) -> usize {
        SIZE
    }
}

/// `n` blocks whose word `w` of block `b` points `offset` bytes into block `target`, for each edge (b, w, target, offset).
struct Heap {
    live: LiveMap,
    base: usize,
}

impl Heap {
    fn new(n: usize, edges: &[(usize, usize, usize, usize)]) -> Self {
        let memory = vec![[0usize; SIZE / 8]; n + 1].leak();
        let base = memory.as_ptr() as usize;
        let base_aligned = base.next_multiple_of(16);
        assert_eq!(base, base_aligned, "large vectors are 16-aligned");
        let live = LiveMap::new();
        assert!(live.init());
        for b in 0..n {
            assert!(live.set(base + b * SIZE, Cell::new(Family::Malloc, 0, 0, None)));
        }
        for &(b, w, target, offset) in edges {
            memory[b][w] = base + target * SIZE + offset;
        }
        Self { live, base }
    }

    /// Marked and possible blocks from these roots, then (leader, blocks behind) of the rest.
    fn scan(&self, roots: &[usize]) -> (Vec<usize>, Vec<usize>, Vec<(usize, u64)>) {
        let mut blocks = Blocks::build(&self.live, &Fixed, &mut Pages::open().unwrap()).unwrap();
        let mut marker = Marker::new(&mut blocks);
        let range = AddrRange::new(roots.as_ptr() as usize, roots.as_ptr() as usize + size_of_val(roots));
        #[allow(unsafe_code)]
        // SAFETY: the range is the slice.
        unsafe {
            marker.root_range(range, How::default());
        }
        marker.drain();
        let number = |addr: usize| (addr - self.base) / SIZE;
        let marked: Vec<_> = blocks.iter().filter(|b| blocks.is_marked(*b)).map(number).collect();
        let possible: Vec<_> = blocks.iter().filter(|b| blocks.is_extra(*b)).map(number).collect();
        let leaders = leaked(&mut blocks).unwrap().leaders;
        (marked, possible, leaders.iter().map(|leader| (number(leader.block), leader.behind.blocks)).collect())
    }

    fn at(&self, block: usize) -> usize {
        self.base + block * SIZE
    }
}

#[test]
fn a_pointer_anywhere_into_a_block_keeps_it_and_only_one_past_the_start_makes_it_possible() {
    let heap = Heap::new(6, &[(0, 3, 1, 0), (1, 7, 2, 40)]);
    let (marked, possible, leaders) = heap.scan(&[heap.at(0), heap.at(3) + 3, heap.at(4) + SIZE + 1]);
    // One past block 4's end is block 5 + 1: neighbours without a gap, so that is block 5's.
    assert_eq!(marked, [0, 1, 2, 3, 5]);
    assert_eq!(possible, [2, 3, 5]);
    assert_eq!(leaders, [(4, 0)]);
}

#[test]
fn an_exact_pointer_found_late_beats_an_interior_one_found_early() {
    let heap = Heap::new(3, &[(1, 0, 2, 0)]);
    let (marked, possible, _) = heap.scan(&[heap.at(2) + 8, heap.at(1)]);
    assert_eq!((marked, possible), (vec![1, 2], vec![]));
}

#[test]
fn chains_of_300_000_have_one_leader() {
    const N: usize = 300_000;
    let edges: Vec<_> = (0..N - 1).map(|b| (b + 1, 0, b, 0)).collect();
    let (marked, _, leaders) = Heap::new(N, &edges).scan(&[]);
    assert!(marked.is_empty());
    assert_eq!(leaders, [(N - 1, N as u64 - 1)]);
}

#[test]
fn cycles_self_loops_and_lists_into_cycles_have_one_leader_each() {
    // 0 -> 0; 1 -> 2 -> 3 -> 1; 4 -> 5 -> 6 -> 5; 7 -> 8, 9 -> 8.
    let edges = [
        (0, 0, 0, 0),
        (1, 0, 2, 0),
        (2, 0, 3, 0),
        (3, 0, 1, 0),
        (4, 0, 5, 0),
        (5, 0, 6, 0),
        (6, 0, 5, 8),
        (7, 0, 8, 0),
        (9, 0, 8, 0),
    ];
    let (_, _, leaders) = Heap::new(10, &edges).scan(&[]);
    let [(0, 0), (cycle, 2), (4, 2), (7, a), (9, b)] = leaders[..] else { panic!("{leaders:?}") };
    assert!((1..=3).contains(&cycle) && a + b == 1);
}

#[test]
fn disguised_pointers_are_followed_through_blocks_that_only_disguised_ones_reach() {
    const KEY: usize = 0x1234_5678_9abc_def0;
    let heap = Heap::new(9, &[]);
    let put = |block: usize, byte: usize, word: usize| {
        #[allow(unsafe_code)]
        // SAFETY: inside the block, which nobody else refers to.
        unsafe {
            ((heap.at(block) + byte) as *mut usize).write_unaligned(word);
        }
    };
    put(0, 3, heap.at(1)); // packed
    put(1, 56, heap.at(2) ^ KEY); // mangled, in the last word
    put(2, 49, heap.at(3)); // packed, at the last place but seven
    put(3, 8, heap.at(4) + 16); // plain, and to the inside
    put(4, 8, heap.at(5) | 0xfff8 << 48); // tagged
    put(5, 16, heap.at(6) << 3); // integers of virtual machines
    put(6, 24, heap.at(7) << 1 | 1);
    put(7, 0, heap.at(8) << 2 | 2);
    put(8, 4, heap.at(0) << 3); // at no word's place
    let roots = [0usize, heap.at(0) | 0xfffc << 48];
    let mut blocks = Blocks::build(&heap.live, &Fixed, &mut Pages::open().unwrap()).unwrap();
    let mut marker = Marker::new(&mut blocks);
    let range = AddrRange::new(roots.as_ptr() as usize, roots.as_ptr() as usize + size_of_val(&roots));
    #[allow(unsafe_code)]
    // SAFETY: the range is the array.
    let found = unsafe {
        marker.root_range(range, How::default());
        marker.drain();
        assert_eq!(marker.reached.blocks, 0);
        marker.disguised(|word| word ^ KEY, |_| super::disguise::Offsets::None)
    };
    assert_eq!((found.blocks, found.bytes), (9, 9 * SIZE as u64));
}

proptest! {
    #[test]
    fn leaders_are_the_source_components(n in 1usize..40, raw in prop::collection::vec((0usize..40, 0usize..8, 0usize..40), 0..80), root in 0usize..40) {
        let edges: Vec<_> = raw.into_iter().map(|(b, w, t)| (b % n, w, t % n, 0)).collect();
        let heap = Heap::new(n, &edges);
        let (marked, _, leaders) = heap.scan(&[heap.at(root % n)]);
        // What a word holds last is its edge.
        let edge = |b: usize| {
            (0..8).filter_map(|w| edges.iter().rev().find(|e| e.0 == b && e.1 == w).map(|e| e.2)).collect::<Vec<_>>()
        };
        let reach = |from: usize| {
            let (mut seen, mut todo) = (BTreeSet::from([from]), vec![from]);
            while let Some(b) = todo.pop() {
                todo.extend(edge(b).into_iter().filter(|t| seen.insert(*t)));
            }
            seen
        };
        prop_assert_eq!(&marked, &reach(root % n).into_iter().collect::<Vec<_>>());
        let rest: Vec<usize> = (0..n).filter(|b| !marked.contains(b)).collect();
        let sources: BTreeSet<BTreeSet<usize>> = rest
            .iter()
            .filter(|b| rest.iter().all(|other| !reach(*other).contains(b) || reach(**b).contains(other)))
            .map(|b| rest.iter().copied().filter(|other| reach(*b).contains(other) && reach(*other).contains(b)).collect())
            .collect();
        prop_assert_eq!(leaders.len(), sources.len());
        for source in sources {
            prop_assert_eq!(leaders.iter().filter(|leader| source.contains(&leader.0)).count(), 1);
        }
        let behind: u64 = leaders.iter().map(|leader| leader.1).sum();
        prop_assert_eq!(behind as usize + leaders.len(), rest.len());
    }
}
