//! `/tmp/perf-PID.map`, into which JIT compilers write the names of the functions that they made.

use super::Places;
use std::time::UNIX_EPOCH;

/// Ranges with names; empty where there is no map or it belongs to an earlier process of that number.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// Sorted by start; of two with the same start the later line of the file stands last, and is the one in force.
    rows: Vec<(u64, u64, String)>,
}

impl PerfMap {
    pub fn open(pid: u32, start: u64, places: &Places) -> Self {
        let path = places.local(&format!("/tmp/perf-{pid}.map"));
        let Ok(meta) = std::fs::metadata(&path) else { return Self::default() };
        let changed = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        // A copy under a sysroot may carry any time.
        let older = places.sysroot.is_none() && changed.is_some_and(|time| time.as_secs() < start);
        if older || !meta.is_file() {
            return Self::default();
        }
        std::fs::read(&path).map_or_else(|_| Self::default(), |bytes| Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let row = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            let mut number = || u64::from_str_radix(parts.next()?.trim_start_matches("0x"), 16).ok();
            let (start, size) = (number()?, number()?);
            Some((start, start.checked_add(size)?, parts.next()?.to_owned()))
        };
        let mut rows: Vec<_> = text.lines().filter_map(row).collect();
        rows.sort_by_key(|(start, ..)| *start);
        Self { rows }
    }

    pub fn find(&self, address: u64) -> Option<&str> {
        let after = self.rows.partition_point(|(start, ..)| *start <= address);
        let (_, end, name) = self.rows.get(after.checked_sub(1)?)?;
        (address < *end).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::PerfMap;

    #[test]
    fn addresses_find_the_function_that_covers_them() {
        let map = PerfMap::parse("3000 10 late\nnoise\n1000 20 Lfoo;::bar baz\n0x2000 8 first\n2000 8 second\n");
        assert_eq!(map.find(0x101f), Some("Lfoo;::bar baz"));
        assert_eq!(map.find(0x1020), None);
        assert_eq!(map.find(0x2000), Some("second"));
        assert_eq!(map.find(0xfff), None);
    }
}
