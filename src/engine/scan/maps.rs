//! `/proc/PID/maps` and `smaps`, line by line. Total: a line that is not one is left out.

use crate::AddrRange;
use crate::arena::List;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    pub range: AddrRange,
    pub read: bool,
    pub write: bool,
    pub exec: bool,
    pub shared: bool,
    pub offset: u64,
    pub dev: (u32, u32),
    pub inode: u64,
    pub path: &'a [u8],
}

impl Mapping<'_> {
    /// Memory without a file behind it; names in brackets (`[heap]`, `[anon:...]`) are the kernel's.
    pub fn is_anonymous(&self) -> bool {
        self.inode == 0 && (self.path.is_empty() || self.path.starts_with(b"["))
    }
    /// The kernel's own pages, which hold no pointer of the program's (vvar, vsyscall, vdso).
    pub fn is_kernels(&self) -> bool {
        self.path.starts_with(b"[v")
    }
    /// A ring that the program shares with the kernel (io_uring), which may know other memory of it by physical pages.
    pub fn is_ring(&self) -> bool {
        self.path.starts_with(b"anon_inode:[io_uring]")
    }
    /// A device's memory: to read it may have an effect, and the device may know other memory by physical pages.
    ///
    /// By where its file is, and by its flags, since among devices there may be plain files, and whole file systems of them. Without
    /// flags (`None`) those are taken for devices', too.
    pub fn is_devices(&self, flags: Option<Flags>) -> bool {
        let begins_with = |names: &[&[u8]]| names.iter().any(|name| self.path.starts_with(name));
        let is_among_devices =
            begins_with(&[b"/dev/", b"/sys/", b"/proc/"]) && !begins_with(&[b"/dev/shm/", b"/dev/zero"]);
        is_among_devices && flags.is_none_or(|flags| flags.is_special || flags.is_mixed)
            || begins_with(&[b"anon_inode:"]) && !self.is_ring()
    }
}

/// The mappings of a text in the order of addresses.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Mapping<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(line)
}

/// The same as a list. `None` without memory.
pub fn list(text: &[u8]) -> Option<List<Mapping<'_>>> {
    let mut mappings = List::new();
    parse(text).all(|mapping| mappings.push(mapping)).then_some(mappings)
}

/// What `smaps` says of the mapping above it about forks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A fork leaves it out (MADV_DONTFORK).
    pub left_out: bool,
    /// A fork has zeroes there (MADV_WIPEONFORK).
    pub wiped: bool,
    /// No pages of the kernel's, so that there is nothing to be copied (a device's; the kernel's own).
    pub is_special: bool,
    /// Pages that a driver has put there itself.
    pub is_mixed: bool,
    /// Some kinds of advice are refused (mseal).
    pub is_sealed: bool,
    /// Its pages are from the pool of huge ones (hugetlb), which may be used up.
    pub is_of_pool: bool,
}

/// Takes a line of `smaps` for one with flags.
pub fn flags(line: &[u8]) -> Option<Flags> {
    let words = line.strip_prefix(b"VmFlags:")?;
    let mut flags = Flags::default();
    for word in words.split(|&byte| byte == b' ') {
        match word {
            b"dc" => flags.left_out = true,
            b"wf" => flags.wiped = true,
            b"io" | b"pf" => flags.is_special = true,
            b"mm" => flags.is_mixed = true,
            b"sl" => flags.is_sealed = true,
            b"ht" => flags.is_of_pool = true,
            _ => {}
        }
    }
    Some(flags)
}

/// Takes a line for one of `maps`, which are those that begin a mapping's lines in `smaps`.
pub fn line(line: &[u8]) -> Option<Mapping<'_>> {
    let mut rest = line;
    let mut field = |end: u8| {
        let at = rest.iter().position(|&byte| byte == end)?;
        let field = &rest[..at];
        rest = &rest[at + 1..];
        Some(field)
    };
    let (start, end, access) = (hex(field(b'-')?)?, hex(field(b' ')?)?, field(b' ')?);
    let (offset, major, minor) = (hex(field(b' ')?)?, hex(field(b':')?)?, hex(field(b' ')?)?);
    let digits = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
    let inode = number::<10>(&rest[..digits])?;
    let &[r, w, x, s] = access else { return None };
    Some(Mapping {
        range: AddrRange::new(start as usize, end as usize),
        read: r == b'r',
        write: w == b'w',
        exec: x == b'x',
        shared: s == b's',
        offset,
        dev: (major as u32, minor as u32),
        inode,
        path: rest[digits..].trim_ascii_start(),
    })
}

fn hex(digits: &[u8]) -> Option<u64> {
    number::<16>(digits)
}

fn number<const BASE: u32>(digits: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for &digit in digits {
        let digit = char::from(digit).to_digit(BASE)?;
        value = value.checked_mul(BASE.into())?.checked_add(digit.into())?;
    }
    (!digits.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &[u8] = b"\
00400000-00420000 r-xp 00000000 fe:01 1234                               /usr/bin/a name with spaces (deleted)
01000000-01021000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 
nonsense
7f1000000000-7f1000001000 rw-s 00001000 00:01 77                         /memfd:x (deleted)
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn lines_are_taken_apart_and_nonsense_is_left_out() {
        let maps: Vec<_> = parse(SAMPLE).collect();
        assert_eq!(maps.len(), 5);
        assert_eq!(maps[0].path, b"/usr/bin/a name with spaces (deleted)");
        assert_eq!((maps[0].inode, maps[0].dev, maps[0].exec, maps[0].write), (1234, (0xfe, 1), true, false));
        assert!(maps[1].is_anonymous() && maps[2].is_anonymous() && !maps[3].is_anonymous() && maps[4].is_kernels());
        assert_eq!(maps[2].range, AddrRange::new(0x7f00_0000_0000, 0x7f00_0002_1000));
        assert!(maps[3].shared && maps[3].offset == 0x1000);
    }

    #[test]
    fn what_forks_leave_out_and_what_devices_share_is_told() {
        let of = |left_out, wiped, is_special, is_sealed| {
            Some(Flags { left_out, wiped, is_special, is_sealed, ..Flags::default() })
        };
        assert_eq!(flags(b"VmFlags: rd wr mr mw me ac sd "), of(false, false, false, false));
        assert_eq!(flags(b"VmFlags: rd wr mr mw me dc ac"), of(true, false, false, false));
        assert_eq!(flags(b"VmFlags: rd wr wf dc "), of(true, true, false, false));
        assert_eq!(flags(b"VmFlags: rd io pf dc de"), of(true, false, true, false));
        assert_eq!(flags(b"VmFlags: rd mr dc sl"), of(true, false, false, true));
        assert_eq!(flags(b"VmFlags: rd wr de ht "), Some(Flags { is_of_pool: true, ..Flags::default() }));
        assert_eq!(flags(b"Rss:                   4 kB"), None);
        assert_eq!(flags(b"VmFlags: rd mm de"), Some(Flags { is_mixed: true, ..Flags::default() }));
    }

    #[test]
    fn a_devices_memory_is_told_from_plain_files_by_its_flags() {
        let (plain, io, mixed) =
            ("rd wr sh mr mw me ms sd ht", "rd wr sh mr mw me ms io pf dc de dd", "rd wr sh ms mm");
        let is_devices = |path: &str| {
            let text = format!("7f0000000000-7f0000001000 rw-s 00000000 00:0f 7    {path}");
            let by = [Some(plain), Some(io), Some(mixed), None];
            by.map(|by| {
                let flags = by.map(|words| flags(format!("VmFlags: {words} ").as_bytes()).unwrap());
                line(text.as_bytes()).unwrap().is_devices(flags)
            })
        };
        for path in
            ["/dev/nvidia0", "/dev/mem", "/dev/x (deleted)", "/dev/hugepages/x", "/sys/bus/pci/devices/0/resource0"]
        {
            assert_eq!(is_devices(path), [false, true, true, true], "{path}");
        }
        assert_eq!(is_devices("anon_inode:[vfio-device]"), [true; 4]);
        let others = [
            "",
            "/dev/zero (deleted)",
            "/dev/shm/x",
            "/usr/dev/x",
            "/mnt/dax",
            "[heap]",
            "[vvar]",
            "anon_inode:[io_uring]",
        ];
        assert!(others.into_iter().all(|path| is_devices(path) == [false; 4]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(text: Vec<u8>) {
            parse(&text).count();
            flags(&text);
        }
    }
}
