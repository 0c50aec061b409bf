//! Which leaks of a scan to show, and in which order. Shared by every format.

use crate::args::{Format, View};
use crate::model::{Leak, Scan};
use leakscan_report::{Kind, Status};

/// What to show, and how much of it was left out.
pub struct Selection<'a> {
    /// Confirmed ones first, then by what freeing them would bring back.
    pub shown: Vec<&'a Leak>,
    /// Leaks of the wanted kinds that the limit or `--min-bytes` left out.
    pub left_out: usize,
    /// Leaks of kinds that were not asked for, as kind and number of stacks, blocks and bytes.
    pub other_kinds: Vec<(Kind, usize, u64, u64)>,
}

const KINDS: [Kind; 3] = [Kind::Direct, Kind::Indirect, Kind::Possible];

pub fn select<'a>(scan: &'a Scan, view: &View) -> Selection<'a> {
    let asked = view.kinds();
    let text = view.format == Format::Text;
    let wanted = |kind: Kind| match asked.as_slice() {
        [] => view.all || !text || kind == Kind::Direct,
        asked => asked.contains(&kind),
    };
    let limit = match (view.top, text && !view.all) {
        (Some(top), _) => top,
        (None, true) => 10,
        (None, false) => usize::MAX,
    };
    let mut shown: Vec<&Leak> = scan.leaks.iter().filter(|leak| wanted(leak.kind)).collect();
    let of_kind = shown.len();
    shown.retain(|leak| leak.weight() >= view.min_bytes);
    shown.sort_by_key(|leak| (leak.status != Status::Confirmed, std::cmp::Reverse(leak.weight()), leak.kind));
    shown.truncate(limit);
    let left_out = of_kind - shown.len();
    let other_kinds = KINDS.into_iter().filter(|kind| !wanted(*kind)).filter_map(|kind| {
        let leaks = || scan.leaks.iter().filter(|leak| leak.kind == kind);
        let (blocks, bytes) = (leaks().map(|leak| leak.blocks), leaks().map(|leak| leak.bytes));
        (leaks().count() > 0).then(|| (kind, leaks().count(), sum(blocks), sum(bytes)))
    });
    Selection { shown, left_out, other_kinds: other_kinds.collect() }
}

/// A sum that a made-up report cannot overflow.
pub fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}
