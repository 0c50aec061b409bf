//! Libraries whose blocks know others by how far behind them these begin. fontconfig does: so its patterns and sets may lie in a mapped file
//! as well as in blocks.

use crate::real;
use crate::state::{TRACKER, UNWINDER};
use crate::symbols::Search;
use leakscan_engine::AddrRange;
use leakscan_engine::record::live_map::Cell;

/// Where such a library is loaded; empty: nowhere.
#[derive(Clone, Copy)]
pub struct Offsets(AddrRange);

impl Offsets {
    pub fn find() -> Self {
        let known = Search::new().address(c"FcPatternCreate");
        Self(known.and_then(real::mapped_file).unwrap_or_default())
    }

    /// Whether a block holds such: one that was made there. (Of a block without a stack nobody knows; in others small numbers would be distances to
    /// the blocks behind.)
    pub fn are_in(self, cell: Cell) -> bool {
        let stack = cell.stack().filter(|_| !self.0.is_empty());
        let maker = stack.and_then(|stack| UNWINDER.frames.get(TRACKER.depot.frames(stack).iter().next()?));
        maker.is_some_and(|maker| self.0.contains(maker.address()))
    }
}
