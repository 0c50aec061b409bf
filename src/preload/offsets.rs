//! Libraries whose blocks know others by how far behind them these begin. fontconfig does: so its patterns and sets may lie in a mapped file
//! as well as in blocks.

use crate::real;
use crate::state::{SAMPLE, TRACKER, UNWINDER};
use crate::symbols::Search;
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::AddrRange;
use leakscan_engine::record::live_map::Cell;
use leakscan_engine::scan::disguise::Offsets;

/// Which blocks hold such: those that were made there. (In others small numbers would be distances to the blocks behind.)
#[derive(Clone, Copy)]
pub struct Holders {
    /// Where such a library is loaded; empty: nowhere.
    library: AddrRange,
    /// Of a block that has no stack.
    unknown: Offsets,
}

impl Holders {
    pub fn find() -> Self {
        let library = Search::new().address(c"FcPatternCreate").and_then(real::mapped_file).unwrap_or_default();
        let may_be_its = SAMPLE.load(Relaxed) != 0 && !library.is_empty();
        Self { library, unknown: if may_be_its { Offsets::Perhaps } else { Offsets::None } }
    }

    pub fn of(self, cell: Cell) -> Offsets {
        let Some(stack) = cell.stack() else { return self.unknown };
        let maker = TRACKER.depot.frames(stack).iter().next().and_then(|frame| UNWINDER.frames.get(frame));
        let is_its = maker.is_some_and(|maker| self.library.contains(maker.address()));
        if is_its { Offsets::Everywhere } else { Offsets::None }
    }
}
