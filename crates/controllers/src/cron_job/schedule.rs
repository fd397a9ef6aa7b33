//! Schedules: five fields (`*/5 0-6 1,15 jan-mar mon`), `@daily` and its like, `@every 90s`; in a time zone.
//!
//! As in cron, when both the day of the month and the day of the week are restricted, either suffices.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that has no time in so many years never has one (30 February).
const YEARS_MAX: i16 = 9;

/// When a CronJob is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Every(SignedDuration),
    Fields(Fields),
}

/// A bit per value that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

impl Schedule {
    /// Reads a schedule; `None` when it is not one, which validation refuses.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(interval) = text.strip_prefix("@every ") {
            return duration(interval.trim()).map(Self::Every);
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            fields => fields,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.try_into().ok()?;
        let is_any = |field: &str| field.split(',').any(|part| part.starts_with(['*', '?']));
        Some(Self::Fields(Fields {
            minutes: bits(minutes, 0, 59, &[])?,
            hours: bits(hours, 0, 23, &[])?,
            days: bits(days, 1, 31, &[])?,
            months: bits(months, 1, 12, &MONTHS)?,
            weekdays: bits(weekdays, 0, 6, &DAYS)?,
            any_day: is_any(days),
            any_weekday: is_any(weekdays),
        }))
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(interval) => {
                Timestamp::from_second(after.as_second()).ok()?.checked_add(*interval).ok()
            }
            Self::Fields(fields) => fields.next(after, zone),
        }
    }

    /// The last time in `(after, until]`. Looks at ever longer spans before `until`, as the last one is usually near.
    pub fn last(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Self::Every(interval) = self {
            let steps = (until.as_second() - after.as_second()) / interval.as_secs().max(1);
            let last = after.as_second() + steps * interval.as_secs();
            return (steps > 0).then(|| Timestamp::from_second(last).ok()).flatten();
        }
        for hours in [1, 25, 24 * 32, 24 * 367] {
            let from = until.checked_sub(SignedDuration::from_hours(hours)).ok()?.max(after);
            if let Some(found) = self.times(from, until, zone).last() {
                return Some(found);
            }
            if from == after {
                return None;
            }
        }
        self.times(after, until, zone).last()
    }

    /// The times in `(after, until]`.
    pub fn times<'a>(
        &'a self,
        after: Timestamp,
        until: Timestamp,
        zone: &'a TimeZone,
    ) -> impl Iterator<Item = Timestamp> + 'a {
        let next = move |at: &Timestamp| self.next(*at, zone).filter(|next| *next <= until);
        std::iter::successors(next(&after), next)
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = after.to_zoned(zone.clone()).datetime();
        // One hour back: where clocks go back, times of the second hour look like past ones.
        let mut at = start_of_minute(local.checked_sub(1.hour()).ok()?)?;
        let last_year = local.year().saturating_add(YEARS_MAX);
        while at.year() <= last_year {
            match self.advance(at) {
                Some(later) => at = later?,
                None => {
                    let due = instants(at, zone).into_iter().flatten().find(|instant| *instant > after);
                    if due.is_some() {
                        return due;
                    }
                    at = at.checked_add(1.minute()).ok()?;
                }
            }
        }
        None
    }

    /// The start of the next unit where the time does not match; `None` where it matches.
    fn advance(&self, at: DateTime) -> Option<Option<DateTime>> {
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        let midnight = |date: jiff::civil::Date| date.to_datetime(jiff::civil::Time::midnight());
        if !has(self.months, at.month()) {
            return Some(at.date().first_of_month().checked_add(1.month()).ok().map(midnight));
        }
        if !self.is_day(at) {
            return Some(at.date().tomorrow().ok().map(midnight));
        }
        if !has(self.hours, at.hour()) {
            let hour = at.with().minute(0).build().ok();
            return Some(hour.and_then(|hour| hour.checked_add(1.hour()).ok()));
        }
        if !has(self.minutes, at.minute()) {
            return Some(at.checked_add(1.minute()).ok());
        }
        None
    }

    fn is_day(&self, at: DateTime) -> bool {
        let day = self.days >> at.day() & 1 == 1;
        let weekday = self.weekdays >> at.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }
}

fn start_of_minute(at: DateTime) -> Option<DateTime> {
    at.with().second(0).subsec_nanosecond(0).build().ok()
}

/// The moments with this local time: none where clocks go forward, two where they go back.
fn instants(at: DateTime, zone: &TimeZone) -> [Option<Timestamp>; 2] {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    match ambiguous.offset() {
        jiff::tz::AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(at).ok(), None],
        jiff::tz::AmbiguousOffset::Gap { .. } => [None, None],
        jiff::tz::AmbiguousOffset::Fold { before, after } => {
            [before.to_timestamp(at).ok(), after.to_timestamp(at).ok()]
        }
    }
}

fn bits(field: &str, low: u32, high: u32, names: &[&str]) -> Option<u64> {
    field.split(',').try_fold(0, |all, part| Some(all | range(part, low, high, names)?))
}

fn range(part: &str, low: u32, high: u32, names: &[&str]) -> Option<u64> {
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
        None => (part, None),
    };
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        named.and_then(|at| u32::try_from(at).ok()).map(|at| at + low).or_else(|| text.parse().ok())
    };
    let (from, to) = match span.split_once('-') {
        _ if matches!(span, "*" | "?") => (low, high),
        Some((from, to)) => (number(from)?, number(to)?),
        // `5/10` means from 5 on.
        None if step.is_some() => (number(span)?, high),
        None => (number(span)?, number(span)?),
    };
    let valid = from >= low && to <= high && from <= to;
    let step = usize::try_from(step.unwrap_or(1)).ok()?;
    valid.then(|| (from..=to).step_by(step).fold(0, |bits, value| bits | 1 << value))
}

/// Go's durations of whole seconds: `1h30m`, `90s`.
fn duration(text: &str) -> Option<SignedDuration> {
    let (mut seconds, mut digits) = (0i64, String::new());
    for letter in text.chars() {
        let unit = match letter {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            digit => {
                digits.push(digit);
                continue;
            }
        };
        seconds = seconds.checked_add(digits.parse::<i64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && seconds > 0).then(|| SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let found = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), &zone);
        found.map_or_else(|| "never".to_owned(), |found| found.to_string())
    }

    #[test]
    fn the_next_time() {
        for (schedule, after, wanted) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"),
            ("*/15 * * * *", "2026-01-01T00:50:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:26:00Z", "2026-01-01T00:45:00Z"),
            ("0 3 * * *", "2026-01-01T04:00:00Z", "2026-01-02T03:00:00Z"),
            ("0 0 31 * *", "2026-02-01T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", "never"),
            ("0 0 * * MON", "2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z"),
            // Either day suffices when both are restricted.
            ("0 0 3 * fri", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 3 * *", "2026-01-01T12:00:00Z", "2026-01-03T00:00:00Z"),
            ("0 0 * jan-feb *", "2026-03-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ] {
            assert_eq!(next(schedule, "UTC", after), wanted, "{schedule} after {after}");
        }
    }

    #[test]
    fn time_zones_and_their_changes() {
        let zone = "America/New_York";
        assert_eq!(next("0 9 * * *", zone, "2026-01-01T00:00:00Z"), "2026-01-01T14:00:00Z");
        assert_eq!(next("0 9 * * *", zone, "2026-07-01T00:00:00Z"), "2026-07-01T13:00:00Z");
        // 2:30 does not exist on 8 March 2026.
        assert_eq!(
            next("30 2 * * *", zone, "2026-03-08T00:00:00Z"),
            "2026-03-08T00:00:00Z".replace("08T00:00", "09T06:30")
        );
        // 1:30 exists twice on 1 November 2026.
        assert_eq!(next("30 1 * * *", zone, "2026-11-01T00:00:00Z"), "2026-11-01T05:30:00Z");
        assert_eq!(next("30 1 * * *", zone, "2026-11-01T05:30:00Z"), "2026-11-01T06:30:00Z");
    }

    #[test]
    fn the_last_time() {
        let utc = TimeZone::UTC;
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        for (schedule, after, until, wanted) in [
            ("* * * * *", "2020-01-01T00:00:00Z", "2026-01-01T00:00:30Z", Some("2026-01-01T00:00:00Z")),
            ("0 0 1 1 *", "2020-06-01T00:00:00Z", "2026-12-01T00:00:00Z", Some("2026-01-01T00:00:00Z")),
            ("0 0 29 2 *", "2020-06-01T00:00:00Z", "2026-12-01T00:00:00Z", Some("2024-02-29T00:00:00Z")),
            ("0 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:59:00Z", None),
            ("@every 10s", "2026-01-01T00:00:00Z", "2026-01-01T00:00:25Z", Some("2026-01-01T00:00:20Z")),
        ] {
            let found = Schedule::parse(schedule).unwrap().last(time(after), time(until), &utc);
            assert_eq!(found, wanted.map(time), "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule() {
        for text in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "@often", "@every x"]
        {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
    }
}
