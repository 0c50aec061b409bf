//! Numbers as people read them.

/// `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 block`, `2 blocks`.
pub fn counted(value: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(value), if value == 1 { "" } else { "s" })
}

/// `512 bytes`, `15.6 KiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return counted(value, "byte");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024.0 is 1.0 of the next unit.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// `+3`, `-1,000`.
pub fn signed(value: i64) -> String {
    format!("{}{}", if value < 0 { '-' } else { '+' }, count(value.unsigned_abs()))
}

/// Microseconds as `90 µs`, `0.8 ms`, `1.2 s`.
pub fn micros(value: u64) -> String {
    match value {
        0..100 => format!("{value} µs"),
        100..1_000_000 => format!("{:.1} ms", value as f64 / 1e3),
        _ => format!("{:.1} s", value as f64 / 1e6),
    }
}

/// Seconds since 1970 as `2026-11-26 00:41:17 UTC`.
pub fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's days-to-civil: years begin in March, so that the leap day is the last of its year.
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (count(0), count(999), count(1_000), count(1_234_567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!((bytes(1), bytes(1023), bytes(1024)), ("1 byte".into(), "1,023 bytes".into(), "1.0 KiB".into()));
        assert_eq!((bytes(1024 * 1024 - 1), bytes(u64::MAX)), ("1.0 MiB".into(), "16.0 EiB".into()));
        assert_eq!((signed(-1_000), signed(0)), ("-1,000".into(), "+0".into()));
        assert_eq!((micros(90), micros(812), micros(2_500_000)), ("90 µs".into(), "0.8 ms".into(), "2.5 s".into()));
    }

    #[test]
    fn dates_are_those_of_date_u() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(date(1_795_653_677), "2026-11-26 00:41:17 UTC");
        date(u64::MAX);
    }
}
