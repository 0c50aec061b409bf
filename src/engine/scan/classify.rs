//! Unreachable blocks: which are leaked directly, and which only lie behind others.
//!
//! The unreachable blocks form a graph. A depth-first search gives their order of finishing; walked backwards, the first
//! block that nobody has claimed lies in a strongly connected component that no other one points to (Kosaraju's
//! observation), so it is a leader: a direct leak. It claims everything behind it, which is leaked indirectly. Cycles get
//! one leader, whatever their shape; nothing recurses, so a list of any length is fine.
#![allow(unsafe_code)] // reads blocks

use super::blocks::{Blocks, SizeOf};
use super::mark::Count;
use crate::arena::{List, Zeroed};

/// A direct leak and what only it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    pub block: usize,
    pub behind: Count,
}

// SAFETY: integers are valid when zero.
unsafe impl Zeroed for Leader {}

/// The unmarked blocks, and which of them are leaders; both sorted by address. The others are indirect.
pub struct Leaked {
    pub unreachable: List<usize>,
    pub leaders: List<Leader>,
}

/// Classifies the unmarked blocks. Uses the marks: afterwards all blocks are marked. `None` without memory.
pub fn leaked<S: SizeOf>(blocks: &mut Blocks<'_, S>) -> Option<Leaked> {
    let mut unreachable: List<usize> = List::new();
    for block in blocks.unmarked() {
        if !unreachable.push(block) {
            return None;
        }
    }
    let order = finishing_order(blocks, &unreachable)?;
    let mut leaders: List<Leader> = List::new();
    let mut frontier: List<usize> = List::new();
    for &block in order.iter().rev() {
        // The extra mark is the claim; unreachable blocks have none yet.
        if !blocks.mark_extra(block) {
            continue;
        }
        let mut behind = Count::default();
        let mut from = Some(block);
        while let Some(at) = from {
            let mut cursor = at;
            while let Some(target) = next_edge(blocks, &unreachable, at, &mut cursor) {
                if blocks.mark_extra(target) {
                    behind.add(blocks.requested(target));
                    if !frontier.push(target) {
                        return None;
                    }
                }
            }
            from = frontier.pop();
        }
        if !leaders.push(Leader { block, behind }) {
            return None;
        }
    }
    leaders.sort_unstable_by_key(|leader| leader.block);
    Some(Leaked { unreachable, leaders })
}

/// Depth-first search with a stack of its own: (block, how far its words have been followed).
fn finishing_order<S: SizeOf>(blocks: &mut Blocks<'_, S>, unreachable: &[usize]) -> Option<List<usize>> {
    let (mut order, mut stack): (List<usize>, List<(usize, usize)>) = (List::new(), List::new());
    for &start in unreachable {
        if !blocks.mark(start) {
            continue;
        }
        if !stack.push((start, start)) {
            return None;
        }
        while let Some(&(block, mut cursor)) = stack.last() {
            let next = loop {
                match next_edge(blocks, unreachable, block, &mut cursor) {
                    Some(target) if blocks.mark(target) => break Some(target),
                    Some(_) => {}
                    None => break None,
                }
            };
            if let Some(top) = stack.last_mut() {
                top.1 = cursor;
            }
            let done = match next {
                Some(target) => stack.push((target, target)),
                None => {
                    stack.pop();
                    order.push(block)
                }
            };
            if !done {
                return None;
            }
        }
    }
    Some(order)
}

/// The next unreachable block, other than itself, that `block` points to at or after `cursor`.
fn next_edge<S: SizeOf>(
    blocks: &Blocks<'_, S>,
    unreachable: &[usize],
    block: usize,
    cursor: &mut usize,
) -> Option<usize> {
    let end = block + blocks.extent(block);
    while *cursor + 8 <= end {
        // SAFETY: the live map says that the program owns the block, and the allocator how long it is.
        let word = unsafe { (*cursor as *const usize).read() };
        *cursor += 8;
        if blocks.near(word)
            && let Some((target, _)) = blocks.find(word)
            && target != block
            && unreachable.binary_search(&target).is_ok()
        {
            return Some(target);
        }
    }
    None
}
