//! Folds: blocks alike in kind, status and stack, counted together; and what earlier scans have seen.

use super::mark::Count;
use crate::arena::{List, Zeroed};
use crate::record::live_map::LiveMap;

/// What blocks of one fold have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// 0 direct, 1 indirect, 2 possible.
    pub kind: u8,
    pub confirmed: bool,
    /// 0: no stack.
    pub stack: u32,
}

/// One fold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fold {
    pub key: Key,
    pub count: Count,
    pub behind: Count,
    /// Blocks and bytes that the sampled ones stand for; 0 if none was sampled.
    pub estimate: (f64, f64),
    /// Variances of the two.
    pub variance: (f64, f64),
}

impl Fold {
    /// Under sampling: adds a block of `size` bytes that stands for `weight` blocks (Horvitz and Thompson's estimator: for a block
    /// that was chosen with probability p, 1/p, whose variance is estimated by (1-p)/p²).
    pub fn estimate(&mut self, size: usize, weight: f64) {
        let (size, variance) = (size as f64, weight * (weight - 1.0));
        self.estimate.0 += weight;
        self.estimate.1 += weight * size;
        self.variance.0 += variance;
        self.variance.1 += variance * size * size;
    }

    /// Standard errors of the estimates.
    pub fn errors(&self) -> (f64, f64) {
        (libm::sqrt(self.variance.0), libm::sqrt(self.variance.1))
    }
}

#[allow(unsafe_code)]
// SAFETY: integers, booleans and floats are valid when zero.
unsafe impl Zeroed for Fold {}

/// Open addressing over a growing list of slots; a slot with no blocks is empty.
#[derive(Default)]
pub struct Folds {
    slots: List<Fold>,
    used: usize,
}

impl Folds {
    /// The fold of a key, to be added to. `None` without memory.
    pub fn entry(&mut self, key: Key) -> Option<&mut Fold> {
        if self.used * 4 >= self.slots.len() * 3 {
            self.grow()?;
        }
        let at = find(&self.slots, key);
        if self.slots[at].count.blocks == 0 {
            self.used += 1;
            self.slots[at].key = key;
        }
        Some(&mut self.slots[at])
    }

    /// Under sampling: of the blocks without a stack those remain, of each kind and status, that the estimates of the
    /// stacks do not stand for already. To be called last.
    pub fn leave_the_rest(&mut self) {
        for at in 0..self.slots.len() {
            let Fold { key, count, .. } = self.slots[at];
            if count.blocks == 0 || key.stack != 0 {
                continue;
            }
            let (mut blocks, mut bytes) = (count.blocks as f64, count.bytes as f64);
            let mut variance = (0.0, 0.0);
            let alike =
                |fold: &&Fold| fold.count.blocks != 0 && Key { stack: 0, ..fold.key } == key && fold.key.stack != 0;
            for fold in self.slots.iter().filter(alike) {
                blocks -= fold.estimate.0 - fold.count.blocks as f64;
                bytes -= fold.estimate.1 - fold.count.bytes as f64;
                variance = (variance.0 + fold.variance.0, variance.1 + fold.variance.1);
            }
            if blocks < 1.0 {
                self.slots[at].count = Count::default();
            }
            self.slots[at].estimate = (blocks, bytes.max(0.0));
            self.slots[at].variance = variance;
        }
    }

    fn grow(&mut self) -> Option<()> {
        let mut larger: List<Fold> = List::new();
        for _ in 0..(self.slots.len() * 2).max(1024) {
            larger.push(Fold::default()).then_some(())?;
        }
        for fold in self.slots.iter().filter(|fold| fold.count.blocks != 0) {
            let at = find(&larger, fold.key);
            larger[at] = *fold;
        }
        self.slots = larger;
        Some(())
    }

    /// All folds, most bytes first.
    pub fn sorted(mut self) -> List<Fold> {
        let bytes = |fold: &Fold| if fold.estimate.0 > 0.0 { fold.estimate.1 as u64 } else { fold.count.bytes };
        self.slots.sort_unstable_by_key(|fold| (fold.count.blocks == 0, core::cmp::Reverse(bytes(fold)), fold.key));
        while self.slots.last().is_some_and(|fold| fold.count.blocks == 0) {
            self.slots.pop();
        }
        self.slots
    }
}

fn find(slots: &[Fold], key: Key) -> usize {
    let mixed = (u64::from(key.stack) << 3 | u64::from(key.kind) << 1 | u64::from(key.confirmed))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut at = (mixed >> 32) as usize & (slots.len() - 1);
    while slots[at].count.blocks != 0 && slots[at].key != key {
        at = (at + 1) & (slots.len() - 1);
    }
    at
}

/// A block that a scan found unreachable: kept for the next one, in the order of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    pub addr: usize,
    pub cell: u32,
    /// 1: it was reported as confirmed.
    pub confirmed: u32,
}

#[allow(unsafe_code)]
// SAFETY: integers are valid when zero.
unsafe impl Zeroed for Seen {}

/// Whether the scan before has seen this block, in this life of it.
pub fn seen_before(earlier: &[Seen], addr: usize, cell: u32) -> bool {
    earlier.binary_search_by_key(&addr, |seen| seen.addr).is_ok_and(|at| earlier[at].cell == cell)
}

/// The permanent self-check: of the blocks reported last time, how many (confirmed, suspected) the program has freed since,
/// so that they were no leaks.
pub fn freed_since(earlier: &[Seen], live: &LiveMap) -> (u64, u64) {
    let freed = earlier.iter().filter(|seen| live.get(seen.addr).is_none_or(|cell| cell.0 != seen.cell));
    freed.fold((0, 0), |(sure, maybe), seen| if seen.confirmed != 0 { (sure + 1, maybe) } else { (sure, maybe + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StackId;
    use crate::record::live_map::{Cell, Family};

    #[test]
    fn folds_count_each_key_and_come_most_bytes_first() {
        let mut folds = Folds::default();
        for i in 0..30_000u32 {
            let key = Key { kind: (i % 2) as u8, confirmed: true, stack: i % 3000 };
            folds.entry(key).unwrap().count.add(i as usize % 3000);
        }
        let sorted = folds.sorted();
        assert_eq!(sorted.len(), 3000);
        assert!(
            sorted.iter().all(|fold| fold.count.blocks == 10 && fold.count.bytes == 10 * u64::from(fold.key.stack))
        );
        assert_eq!((sorted[0].key.stack, sorted[2999].key.stack), (2999, 0));
    }

    #[test]
    fn what_estimates_stand_for_is_not_counted_twice() {
        let mut folds = Folds::default();
        // 10 of 100 blocks were sampled, and stand for 60 or for 120 of them.
        let mut add = |kind, stack, blocks, estimate: (f64, f64)| {
            let fold = folds.entry(Key { kind, confirmed: true, stack }).unwrap();
            (0..blocks).for_each(|_| fold.count.add(8));
            fold.estimate = estimate;
        };
        add(0, 7, 10, (60.0, 480.0));
        add(0, 0, 90, (0.0, 0.0));
        add(1, 7, 10, (120.0, 960.0));
        add(1, 0, 90, (0.0, 0.0));
        folds.leave_the_rest();
        let rows: Vec<_> = folds.sorted().iter().map(|fold| (fold.key.kind, fold.key.stack, fold.estimate)).collect();
        assert_eq!(rows, [(1, 7, (120.0, 960.0)), (0, 7, (60.0, 480.0)), (0, 0, (40.0, 320.0))]);
    }

    #[test]
    fn a_reported_block_that_is_freed_or_reborn_is_counted() {
        let live = LiveMap::new();
        assert!(live.init());
        let cell = |epoch| Cell::new(Family::Malloc, epoch, 0, StackId::new(3));
        for addr in [0x1000, 0x2000, 0x3000] {
            assert!(live.set(addr, cell(1)));
        }
        let seen = |addr, confirmed| Seen { addr, cell: cell(1).0, confirmed };
        let earlier = [seen(0x1000, 1), seen(0x2000, 1), seen(0x3000, 0)];
        assert_eq!(freed_since(&earlier, &live), (0, 0));
        assert!(seen_before(&earlier, 0x2000, cell(1).0) && !seen_before(&earlier, 0x2000, cell(2).0));
        live.take(0x1000);
        assert!(live.set(0x3000, cell(2)));
        assert_eq!(freed_since(&earlier, &live), (1, 1));
    }
}
