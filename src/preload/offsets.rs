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

    /// Whether a block may hold such: one that was made there, or nobody knows where (samples).
    pub fn may_be_in(self, cell: Cell) -> bool {
        !self.0.is_empty()
            && cell.stack().is_none_or(|stack| {
                let maker = TRACKER.depot.frames(stack).iter().next().and_then(|id| UNWINDER.frames.get(id));
                maker.is_none_or(|maker| self.0.contains(maker.address()))
            })
    }
}
