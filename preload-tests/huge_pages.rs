//! Huge pages for a test, which are the machine's: one test at a time has them.

use std::fs::{self, File};

/// The pool of huge pages has so many for as long as this lives.
pub struct HugePages {
    before: String,
    _turn: File,
}

impl HugePages {
    const NUMBER: &str = "/proc/sys/vm/nr_hugepages";

    /// `None`: only root may ask for some, and there may be no room for them.
    ///
    /// # Panics
    /// If there is no file to take turns by.
    #[must_use]
    pub fn get(number: usize) -> Option<Self> {
        let turn = File::create(std::env::temp_dir().join("leakscan-test-huge-pages")).unwrap();
        turn.lock().unwrap();
        let before = fs::read_to_string(Self::NUMBER).ok()?;
        fs::write(Self::NUMBER, number.to_string()).ok()?;
        let pages = Self { before, _turn: turn };
        let now = fs::read_to_string(Self::NUMBER).ok()?;
        (now.trim() == number.to_string()).then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        fs::write(Self::NUMBER, &self.before).unwrap();
    }
}
